/**
 * Draws the pictures of the page, each view at two widths, light and dark, over a fake model of the size of SmolLM2: `npx tsx test/web/figures.ts`. Those
 * of docs/figures, or whole pages of all states, or of some, into a folder: `… FOLDER [STATE…]`.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openBrowser, servePage } from "./browser.ts";
import { withPalette } from "./palettePng.ts";
import { smolService, states } from "./states.ts";

const [folder, ...wanted] = process.argv.slice(2);
const figures = folder ?? new URL("../../docs/figures/", import.meta.url).pathname;
mkdirSync(figures, { recursive: true });

await using built = await openBrowser();
for (const { name, view, show, isFigure, allowModels } of states) {
  if (folder === undefined ? !isFigure : wanted.length > 0 && !wanted.includes(name)) continue;
  for (const [device, viewport] of Object.entries({
    desktop: { width: 1280, height: 800 },
    phone: { width: 390, height: 844 },
  })) {
    const service = smolService();
    await using server = await servePage(service, built.files, { allowModels });
    const isPhone = device === "phone";
    const context = await built.browser.newContext({ viewport, isMobile: isPhone, hasTouch: isPhone });
    const page = await context.newPage();
    page.setDefaultTimeout(120_000);
    await page.goto(`${server.url}/#/${view}`);
    await show(page, service);
    await page.getByText("Ready", { exact: true }).waitFor();
    if (view !== "chat") await page.evaluate("scrollTo(0, 0)");
    for (const colorScheme of ["light", "dark"] as const) {
      await page.emulateMedia({ colorScheme });
      const parts = ["page", name, isPhone && "phone", colorScheme === "dark" && "dark"].filter(Boolean);
      const png = await page.screenshot({ fullPage: folder !== undefined });
      writeFileSync(join(figures, `${parts.join("-")}.png`), withPalette(png));
    }
    await context.close();
  }
}
