/** A reporter for vitest: where there is no Chromium, the last line of a run says that the page was not tested. */
import type { Reporter, TestModule } from "vitest/node";
import { chromiumPath, isChromiumMissing } from "./chromium.ts";

export default class SkippedPage implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    if (!isChromiumMissing) return;
    const page = modules.find(({ moduleId }) => moduleId.endsWith("/test/web/page.test.ts"));
    const skipped = [...(page?.children.allTests("skipped") ?? [])].length;
    if (skipped > 0)
      console.log(
        `${skipped} tests of the page were skipped: no Chromium at ${chromiumPath}. Install it, or set CHROMIUM.`,
      );
  }
}
