/**
 * Draws the pictures of docs/figures: each view of the page at two widths, light and dark, as the models really answer: the small one of the package, and one that was imported.
 *
 *     npx tsx test/web/figures.ts my-model
 *
 * Or whole pages of all states, or of some, over a fake service, to look at: `npx tsx test/web/figures.ts --fake FOLDER [STATE…]`.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { TINY_MODEL } from "../../src/bundle/pulledModels.ts";
import { openLocalService } from "../../src/serve/localService.ts";
import type { InferenceService } from "../../src/serve/service.ts";
import { openBrowser, servePage } from "./browser.ts";
import { fakeJobs } from "./fakeJobs.ts";
import type { FakeService } from "./fakeService.ts";
import { withPalette } from "./palettePng.ts";
import { smolService, states } from "./states.ts";

const root = new URL("../../", import.meta.url).pathname;
const { values, positionals } = parseArgs({ options: { fake: { type: "string" } }, allowPositionals: true });
const { fake } = values;
const [imported] = positionals;
if (fake === undefined && imported === undefined)
  throw new Error("figures.ts: wanted the folder of a model that was imported, got none. See the head of the file.");
const figures = fake ?? join(root, "docs/figures");
mkdirSync(figures, { recursive: true });

/** With no more in its cache and no more tasks than a state makes. */
async function* openService(): AsyncGenerator<InferenceService, void, void> {
  if (fake !== undefined) return yield smolService();
  const folder = mkdtempSync(join(tmpdir(), "ifprune-figures-"));
  const paths = [TINY_MODEL, resolve(imported!)];
  const models = paths.map((path) => ({ id: basename(path), path }));
  await using service = await openLocalService(models, {
    cache: { root: join(folder, "cache") },
    tasksRoot: join(folder, "tasks"),
  });
  yield service;
  rmSync(folder, { recursive: true });
}

await using built = await openBrowser();
for (const state of states) {
  const { name, view, isFigure, allowModels, allowSpecialize } = state;
  if (fake === undefined ? !isFigure : positionals.length > 0 && !positionals.includes(name)) continue;
  for (const [device, viewport] of Object.entries({
    desktop: { width: 1280, height: 800 },
    phone: { width: 390, height: 844 },
  })) {
    for await (const service of openService()) {
      await using jobs = fakeJobs();
      const options = { allowModels, ...(allowSpecialize && { jobs }) };
      await using server = await servePage(service, built.files, options);
      const isPhone = device === "phone";
      const context = await built.browser.newContext({ viewport, isMobile: isPhone, hasTouch: isPhone });
      const page = await context.newPage();
      page.setDefaultTimeout(120_000);
      await page.goto(`${server.url}/#/${view}`);
      if (state.isFigure) await state.show(page, service);
      else await state.show(page, service as FakeService, jobs); // only these are drawn over a fake one
      if (fake === undefined) await page.getByText("Ready", { exact: true }).waitFor();
      if (view !== "chat") await page.evaluate("scrollTo(0, 0)");
      for (const colorScheme of ["light", "dark"] as const) {
        await page.emulateMedia({ colorScheme });
        const parts = ["page", name, isPhone && "phone", colorScheme === "dark" && "dark"].filter(Boolean);
        const png = await page.screenshot({ fullPage: fake !== undefined });
        writeFileSync(join(figures, `${parts.join("-")}.png`), withPalette(png));
      }
      await context.close();
    }
  }
}
