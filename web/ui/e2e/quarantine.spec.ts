import type { DeviceDetail, DeviceSummary } from "../src/api/types";
import { expect, read, settled, test } from "./fixture";

test("a device is isolated, the proof is shown, and it comes back when released", async ({ page }) => {
  const { items } = await read<{ items: DeviceSummary[] }>(page, "/devices?status=reporting&limit=500");
  let device = "";
  for (const d of items.filter((x) => !x.quarantine && !x.open_incident && x.cohort !== "host").slice(0, 20)) {
    const detail = await read<DeviceDetail>(page, `/devices/${d.id}`);
    if (detail.connections.length > 0) {
      device = d.id;
      break;
    }
  }
  expect(device, "a connected device").not.toBe("");

  await page.goto(`/devices/${device}`);
  await settled(page);
  const dry = page.getByTestId("dry-run");
  await expect(dry).toContainText("Nothing is sent yet");
  await dry.getByRole("button", { name: "Isolate", exact: true }).click();
  await expect(dry).toContainText("live connection");
  await dry.getByRole("button", { name: /^Isolate for/ }).click();
  await expect(dry).toContainText("Say why");
  await dry.getByRole("textbox", { name: "Reason" }).fill("Browser test.");
  await dry.getByRole("button", { name: /^Isolate for/ }).click();

  const proof = page.getByTestId("proof");
  await expect(proof).toHaveAttribute("data-state", "confirmed", { timeout: 15_000 });
  await expect(proof).toContainText("Isolated and confirmed");
  await expect(proof).toContainText("from decision to proof");
  await expect(proof).toContainText("no live connection");

  await page.goto(`/quarantine?open=${device}`);
  await settled(page);
  await expect(page.getByRole("row").filter({ hasText: device })).toContainText("Confirmed");
  await expect(page.getByTestId("proof")).toContainText("Browser test.");

  await page.goto(`/devices/${device}`);
  await settled(page);
  await proof.getByRole("button", { name: "Release…" }).click();
  await proof.getByRole("textbox", { name: "Reason" }).fill("Test over.");
  await proof.getByRole("button", { name: "Release now" }).click();
  await expect(page.getByTestId("dry-run")).toBeVisible();
  await expect(page.getByText(/Released by/)).toBeVisible();
  await expect
    .poll(async () => (await read<DeviceDetail>(page, `/devices/${device}`)).connections.length, { timeout: 45_000 })
    .toBeGreaterThan(0);

  await page.goto(`/devices/${device}?tab=quarantine`);
  await expect(page.getByRole("cell", { name: "Browser test." }).first()).toBeVisible({ timeout: 20_000 });
});
