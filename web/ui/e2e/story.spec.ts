import type { Finding, Incident } from "../src/api/types";
import { expect, read, settled, test } from "./fixture";

// The demo's attacks come over its first minutes; this file runs last, when most have come.
test.setTimeout(420_000);

test("an incident is found, looked at, acknowledged and resolved by keyboard", async ({ page }) => {
  await page.goto("/incidents");
  await settled(page);

  let id = "";
  await expect
    .poll(
      async () => {
        const { items } = await read<{ items: Incident[] }>(page, "/incidents?state=open&sort=-severity&limit=50");
        for (const incident of items) {
          const found = await read<{ items: Finding[] }>(page, `/incidents/${incident.id}/findings?limit=20`);
          if (found.items.some((f) => f.explanation.metric)) {
            id = incident.id;
            return id;
          }
        }
        return "";
      },
      { timeout: 360_000, intervals: [1_000] },
    )
    .not.toBe("");

  await page.keyboard.press("/");
  await page.keyboard.type(id);
  const row = page.getByRole("row").filter({ has: page.getByRole("link", { name: id, exact: true }) });
  await expect(row).toBeVisible();
  await expect(page).toHaveURL(new RegExp(`q=${id}`));
  await page.keyboard.press("Escape");
  await page.goto(`/incidents?q=${id}`);
  await expect(row).toBeVisible();

  // Space shows the panel beside the list; Enter opens the page.
  await page.keyboard.press("Space");
  await expect(page.getByRole("complementary", { name: `Incident ${id}` })).toBeVisible();
  await page.keyboard.press("Enter");
  await expect(page).toHaveURL(new RegExp(`/incidents/${id}$`));
  await settled(page);

  const chart = page.getByTestId("evidence").locator("canvas");
  await expect(chart).toBeVisible();
  await expect(page.getByTestId("evidence").getByRole("img")).toHaveAccessibleName(/Seen .+/);
  await expect(page.getByText("Why it was raised:")).toBeVisible();

  await page.keyboard.press("a");
  await expect(page.getByText(/^Acknowledged by/)).toBeVisible();
  await expect(page.getByRole("button", { name: /Acknowledge/ })).toHaveCount(0);

  await page.keyboard.press("c");
  await page.keyboard.type("Looks like the nightly backup.");
  await page.keyboard.press("Control+Enter");
  await expect(page.getByText("“Looks like the nightly backup.”")).toBeVisible();
  await page.keyboard.press("Escape");

  await page.keyboard.press("r");
  const dialog = page.getByRole("dialog", { name: `Resolve ${id}` });
  await expect(dialog).toBeVisible();
  await page.keyboard.press("2");
  await expect(dialog.getByRole("radio", { name: /Benign/ })).toBeChecked();
  await dialog.getByRole("textbox", { name: "Reason" }).fill("Planned work.");
  await page.keyboard.press("Control+Enter");
  await expect(dialog).toBeHidden();
  await expect(page.getByText(/^Resolved by/)).toBeVisible();
  await expect(page.getByText("Benign: “Planned work.”")).toBeVisible();

  await page.goto(`/incidents?view=resolved&q=${id}`);
  await expect(row).toBeVisible();
});

test("zooming a chart is kept in the address", async ({ page }) => {
  await page.goto("/incidents?view=all");
  await settled(page);
  const { items } = await read<{ items: Incident[] }>(page, "/incidents?state=all&limit=100");
  let id = "";
  for (const incident of items) {
    const found = await read<{ items: Finding[] }>(page, `/incidents/${incident.id}/findings?limit=5`);
    if (found.items[0]?.explanation.metric) {
      id = incident.id;
      break;
    }
  }
  test.skip(id === "", "no incident about a metric yet");
  await page.goto(`/incidents/${id}`);
  await settled(page);
  const start = page.getByRole("slider", { name: "Start of the zoomed part" });
  await start.focus();
  await page.keyboard.press("Shift+ArrowRight");
  await expect(page).toHaveURL(/from=\d+&to=\d+/);
  await expect(page.getByTestId("evidence").locator("canvas")).toBeVisible();
  await page.getByRole("button", { name: "Reset zoom" }).click();
  await expect(page).not.toHaveURL(/from=/);
});
