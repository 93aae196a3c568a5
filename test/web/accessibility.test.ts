/**
 * Every state of every view, on a desktop and on a phone, light and dark: no violation that axe finds, one main heading, nothing wider than the screen,
 * and on the phone nothing to touch that is smaller than a finger. Colours that axe cannot see, those of the mask strip, are computed.
 */
import { readFileSync } from "node:fs";
import axe from "axe-core";
import type { BrowserContext, CDPSession, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { type BuiltPage, openBrowser, servePage } from "./browser.ts";
import { isChromiumMissing } from "./chromium.ts";
import { fakeJobs } from "./fakeJobs.ts";
import { smolService, states } from "./states.ts";

const devices = {
  desktop: { viewport: { width: 1280, height: 800 } },
  phone: { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true },
} as const;

/** What else may break where a page is dark. */
const ofColors = ["color-contrast", "link-in-text-block"];

/** Rules that are broken, of all or of some, each with the elements that break it. */
const violations = (page: Page, rules?: string[]): Promise<string[]> =>
  page.evaluate(async (runOnly) => {
    const options = { resultTypes: ["violations"] as "violations"[], ...(runOnly && { runOnly }) };
    const { violations } = await (window as unknown as { axe: typeof axe }).axe.run(options);
    return violations.map(
      ({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`)}`,
    );
  }, rules);

/** Controls in sight that are smaller than a finger; links within text may be, and a radio button is as large as its label. */
const smallTargets = (page: Page): Promise<string[]> =>
  page.evaluate(() =>
    [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [role=slider]")]
      .filter((element) => !element.closest(".markdown, .skip") && element.checkVisibility())
      .map((element) => element.closest("label:has(input[type=radio])") ?? element)
      .filter((element) => {
        const { width, height } = element.getBoundingClientRect();
        return width < 44 || height < 44;
      })
      .map((element) => {
        const { width, height } = element.getBoundingClientRect();
        return `${element.outerHTML.slice(0, 120)} is ${width.toFixed(1)} × ${height.toFixed(1)}`;
      }),
  );

describe.skipIf(isChromiumMissing)("the page is for everybody", () => {
  let built: BuiltPage;
  beforeAll(async () => {
    built = await openBrowser();
  });
  afterAll(() => built?.[Symbol.asyncDispose]());

  describe.each(["desktop", "phone"] as const)("on a %s", (device) => {
    let context: BrowserContext;
    let page: Page;
    let storage: CDPSession;
    beforeAll(async () => {
      context = await built.browser.newContext({ ...devices[device], reducedMotion: "reduce" });
      page = await context.newPage();
      page.setDefaultTimeout(90_000);
      storage = await context.newCDPSession(page);
    });
    afterAll(() => context?.close());
    afterEach(() => page.goto("about:blank")); // before the server goes that it may be asking

    test.each(states)("$name", async ({ view, show, allowModels, allowSpecialize }) => {
      const service = smolService();
      service.tokenMs = 1;
      service.loadMs = 10;
      const jobs = fakeJobs();
      onTestFinished(() => jobs[Symbol.asyncDispose]());
      const server = await servePage(service, built.files, { allowModels, ...(allowSpecialize && { jobs }) });
      onTestFinished(() => server[Symbol.asyncDispose]());
      // Another port is another page's storage, but ports come again.
      await storage.send("Storage.clearDataForOrigin", { origin: server.url, storageTypes: "all" });
      await page.emulateMedia({ colorScheme: "light" });
      await page.goto(`${server.url}/#/${view}`);
      await show(page, service, jobs);
      await page.evaluate(axe.source);
      expect(await violations(page), "light").toEqual([]);
      await page.emulateMedia({ colorScheme: "dark" });
      expect(await violations(page, ofColors), "dark").toEqual([]);
      expect(await page.locator("h1").count()).toBe(1);
      const width = await page.evaluate(() => document.documentElement.scrollWidth); // a phone's own grows with it
      expect(width).toBeLessThanOrEqual(devices[device].viewport.width);
      if (device === "phone") expect(await smallTargets(page)).toEqual([]);
    });
  });
});

test.each([0, 1])("colours of the mask strip stand out, scheme %i", (scheme) => {
  const css = readFileSync(new URL("../../web/src/style.css", import.meta.url), "utf8");
  const luminance = (name: string) => {
    const color = new RegExp(`--${name}: light-dark\\((#\\w{6}), (#\\w{6})\\)`).exec(css)![scheme + 1]!;
    const [r, g, b] = [1, 3, 5].map((at) => {
      const value = Number.parseInt(color.slice(at, at + 2), 16) / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r! + 0.7152 * g! + 0.0722 * b!;
  };
  /** WCAG 2's, of graphics at least 3. */
  const contrast = (a: string, b: string) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high! + 0.05) / (low! + 0.05);
  };
  expect(contrast("strip-low", "strip-track")).toBeGreaterThan(3); // kept from dropped
  expect(contrast("strip-low", "strip-high")).toBeGreaterThan(3); // shared from specific, without seeing hues
  expect(contrast("ink", "strip-track")).toBeGreaterThan(4.5); // the frame around what is pointed at
});
