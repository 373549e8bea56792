import { defineConfig } from "@playwright/test";

// Against a running Cordon: CORDON_URL, CORDON_USER, CORDON_PASSWORD_FILE.
const baseURL = process.env.CORDON_URL ?? "http://localhost:8080";

export default defineConfig({
  testDir: "e2e",
  outputDir: "test-results",
  fullyParallel: false,
  workers: 1,
  retries: 0,
  timeout: 60_000,
  expect: { timeout: 10_000 },
  reporter: [["list"]],
  use: {
    baseURL,
    ignoreHTTPSErrors: true,
    viewport: { width: 1440, height: 900 },
    reducedMotion: "reduce",
    locale: "en-GB",
    timezoneId: "Europe/Paris",
    screenshot: "only-on-failure",
    launchOptions: {
      executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
      args: [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
      ],
    },
  },
  projects: [
    { name: "door", testMatch: "door.spec.ts" },
    {
      name: "dashboard",
      testIgnore: "door.spec.ts",
      dependencies: ["door"],
      use: { storageState: "test-results/signed-in.json" },
    },
  ],
});
