import { readFileSync } from "node:fs";
import { test as base, expect, type Page } from "@playwright/test";

/** Set when the tests have visited this Cordon before: the password is theirs already. */
export const revisited = process.env.CORDON_OWN_PASSWORD !== undefined;

/** The password that the tests choose instead of the one-time one. */
export const ownPassword = process.env.CORDON_OWN_PASSWORD ?? "tidal-ledger-9-heron-lamp";
export const user = process.env.CORDON_USER ?? "admin";

export function oneTimePassword(): string {
  const file = process.env.CORDON_PASSWORD_FILE;
  if (!file) throw new Error("CORDON_PASSWORD_FILE names no file");
  return readFileSync(file, "utf8").trim();
}

interface Watch {
  /** Console messages that a test expects. */
  allow: (pattern: RegExp) => void;
}

/** Every test fails on a console error and on a request to another host. */
export const test = base.extend<{ watch: Watch }>({
  watch: [
    async ({ page, baseURL }, use) => {
      const own = new URL(baseURL ?? "").host;
      const faults: string[] = [];
      const allowed: RegExp[] = [];
      page.on("console", (m) => {
        if (m.type() === "error") faults.push(`console: ${m.text()}`);
      });
      page.on("pageerror", (e) => faults.push(`page: ${e.message}`));
      page.on("request", (r) => {
        const url = new URL(r.url());
        if (url.protocol !== "data:" && url.protocol !== "blob:" && url.host !== own)
          faults.push(`foreign request: ${r.url()}`);
      });
      await use({ allow: (pattern) => allowed.push(pattern) });
      expect(faults.filter((f) => !allowed.some((a) => a.test(f)))).toEqual([]);
    },
    { auto: true },
  ],
});

export { expect };

/** Waits until nothing on the page says that it is still loading. */
export async function settled(page: Page) {
  await expect(page.locator("h1").first()).toBeVisible();
  await expect(page.locator('[aria-busy="true"]')).toHaveCount(0, { timeout: 20_000 });
}

/** Reads the API with the session of the page. */
export async function read<T>(page: Page, path: string): Promise<T> {
  const answer = await page.request.get(`/api/v1${path}`);
  expect(answer.ok(), `${path} answered ${answer.status()}`).toBe(true);
  return (await answer.json()) as T;
}
