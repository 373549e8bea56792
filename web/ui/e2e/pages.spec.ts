import AxeBuilder from "@axe-core/playwright";
import type { DeviceSummary, Incident } from "../src/api/types";
import { expect, read, settled, test } from "./fixture";

test.setTimeout(240_000);

const fixed = [
  "/",
  "/incidents",
  "/devices",
  "/quarantine",
  "/quarantine?tab=history",
  "/rules",
  "/alerts",
  "/operators",
  "/system",
];

test("axe finds nothing on any page in either theme", async ({ page }) => {
  const incidents = await read<{ items: Incident[] }>(page, "/incidents?state=all&sort=-severity&limit=1");
  const devices = await read<{ items: DeviceSummary[] }>(page, "/devices?limit=1");
  const rules = await read<{ items: { id: string }[] }>(page, "/rules");
  const pages = [...fixed];
  const incident = incidents.items[0]?.id;
  if (incident)
    pages.push(`/incidents?open=${incident}&view=all`, `/incidents/${incident}`, `/incidents/${incident}?tab=audit`);
  const device = devices.items[0]?.id;
  if (device) pages.push(...["", "?tab=audit", "?tab=rules", "?tab=life"].map((t) => `/devices/${device}${t}`));
  if (rules.items[0]) pages.push(`/rules?open=${rules.items[0].id}`);
  pages.push("/devices?enroll=true", "/devices?q=nothing-has-this-name");
  for (const path of pages) {
    await page.goto(path);
    await settled(page);
    for (const colorScheme of ["dark", "light"] as const) {
      await page.emulateMedia({ colorScheme });
      await expect(page.locator("html")).toHaveAttribute("data-mantine-color-scheme", colorScheme);
      const { violations } = await new AxeBuilder({ page }).analyze();
      expect(
        violations.map(
          (v) => `${path}, ${colorScheme}: ${v.id}: ${v.nodes.map((n) => n.target.join(" ")).join(" | ")}`,
        ),
      ).toEqual([]);
    }
  }
});

test("axe finds nothing in the help sheet and the palette", async ({ page }) => {
  await page.goto("/incidents");
  await settled(page);
  await page.keyboard.press("?");
  await expect(page.getByRole("dialog", { name: "Keys" })).toBeVisible();
  expect((await new AxeBuilder({ page }).analyze()).violations.map((v) => v.id)).toEqual([]);
  await page.keyboard.press("Escape");
  await page.keyboard.press("Control+k");
  await page.getByRole("combobox", { name: /^Search/ }).fill("quar");
  await expect(page.getByRole("option", { name: /Quarantine/ })).toBeVisible();
  expect((await new AxeBuilder({ page }).analyze()).violations.map((v) => v.id)).toEqual([]);
  await page.keyboard.press("Enter");
  await expect(page).toHaveURL(/\/quarantine/);
});

for (const width of [390, 1280]) {
  test(`nothing is wider than the page at ${width} px`, async ({ page }) => {
    await page.setViewportSize({ width, height: 844 });
    const incidents = await read<{ items: Incident[] }>(page, "/incidents?state=all&limit=1");
    const devices = await read<{ items: DeviceSummary[] }>(page, "/devices?limit=1");
    const pages = [...fixed];
    if (incidents.items[0]) pages.push(`/incidents/${incidents.items[0].id}`);
    if (devices.items[0]) pages.push(`/devices/${devices.items[0].id}`);
    for (const path of pages) {
      await page.goto(path);
      await settled(page);
      const wider = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      expect(wider, path).toBeLessThanOrEqual(0);
    }
  });
}

test("enrolling shows the one command to run", async ({ page }) => {
  await page.goto("/devices");
  await settled(page);
  await page.keyboard.press("n");
  const dialog = page.getByRole("dialog");
  const id = `browser-test-${Date.now() % 1_000_000}`;
  await dialog.getByRole("textbox", { name: "Device id" }).fill(id);
  await dialog.getByRole("textbox", { name: "Cohort" }).fill("browser");
  await dialog.getByRole("button", { name: "Enrol" }).click();
  await expect(dialog.locator("code").first()).toContainText("cordon");
  await expect(dialog.getByRole("status")).toContainText("Waiting for the device");
  await dialog.getByRole("button", { name: "Done" }).click();
  await page.goto(`/devices/${id}`);
  await settled(page);
  await expect(page.getByText("never seen", { exact: true })).toBeVisible();
});

test("a lost connection is said and mends itself", async ({ page, context, watch }) => {
  watch.allow(/Failed to load resource|ERR_INTERNET_DISCONNECTED/);
  await page.goto("/incidents");
  await settled(page);
  await expect(page.getByText("Live", { exact: true })).toBeVisible();
  await context.setOffline(true);
  await expect(page.getByText(/^Not live since/)).toBeVisible({ timeout: 30_000 });
  await context.setOffline(false);
  await expect(page.getByText("Live", { exact: true })).toBeVisible();
  await expect(page.getByText(/^Not live since/)).toBeHidden();
});
