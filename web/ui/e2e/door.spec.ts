import AxeBuilder from "@axe-core/playwright";
import { expect, oneTimePassword, ownPassword, revisited, settled, test, user } from "./fixture";

test("a one-time password gets in once and must be changed", async ({ page, watch }) => {
  // Being signed out and being refused are answers, which the browser logs as errors.
  watch.allow(/status of (401|403|422|429)/);

  await page.goto("/incidents?severity=high");
  await expect(page).toHaveURL(/\/sign-in\?next=/);
  await expect(page.getByRole("heading", { name: "Sign in" })).toBeVisible();
  for (const colorScheme of ["dark", "light"] as const) {
    await page.emulateMedia({ colorScheme });
    expect((await new AxeBuilder({ page }).analyze()).violations).toEqual([]);
  }

  const password = page.getByRole("textbox", { name: "Password" });
  const submit = page.getByRole("button", { name: "Sign in" });
  const inside = (url: URL) => !url.pathname.startsWith("/sign-in");
  await page.getByLabel("User name").fill(user);
  if (revisited) {
    await password.fill(ownPassword);
    await submit.click();
    await page.waitForURL(inside);
  } else {
    await password.fill("not-the-password");
    await submit.click();
    await expect(page.getByRole("alert")).toContainText("do not go together");
    // A wrong try slows the next ones down.
    await expect(async () => {
      await password.fill(oneTimePassword());
      await submit.click();
      await page.waitForURL(inside, { timeout: 2_000 });
    }).toPass({ timeout: 30_000, intervals: [1_500, 3_000] });
    await expect(page).toHaveURL(/\/password/);
  }

  if (!revisited) {
    await expect(page.getByRole("heading", { name: "Choose your own password" })).toBeVisible();
    expect((await new AxeBuilder({ page }).analyze()).violations).toEqual([]);

    // Nothing else is to be seen before.
    await page.goto("/devices");
    await expect(page).toHaveURL(/\/password/);

    await page.getByRole("textbox", { name: "One-time password" }).fill(oneTimePassword());
    await page.getByRole("textbox", { name: "New password" }).fill("cordon1");
    await page.getByRole("textbox", { name: "Repeat it" }).fill("cordon1");
    await page.getByRole("button", { name: "Save and continue" }).click();
    await expect(page.getByRole("alert")).toContainText("three conditions");

    await page.getByRole("textbox", { name: "New password" }).fill(ownPassword);
    await page.getByRole("textbox", { name: "Repeat it" }).fill(ownPassword);
    await page.getByRole("button", { name: "Save and continue" }).click();
    await expect(page).not.toHaveURL(/\/password/);
  }
  await page.goto("/");
  await settled(page);
  await expect(page.getByTestId("lede")).toBeVisible();
  await page.context().storageState({ path: "test-results/signed-in.json" });
});
