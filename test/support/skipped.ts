/** A reporter for vitest: where a program is missing that tests need, the last lines of a run say what was not tested. */
import type { Reporter, TestModule } from "vitest/node";
import { isLmEvalMissing, lmEvalPath } from "../serve/lmEvalProgram.ts";
import { isPythonMissing, pythonPath } from "../templates/python.ts";
import { chromiumPath, isChromiumMissing } from "../web/chromium.ts";

const programs = [
  {
    file: "/test/web/page.test.ts",
    what: "the page",
    isMissing: isChromiumMissing,
    why: `no Chromium at ${chromiumPath}. Install it, or set CHROMIUM.`,
  },
  {
    file: "/test/serve/lmEval.test.ts",
    what: "lm-eval",
    isMissing: isLmEvalMissing,
    why: `no lm_eval at ${lmEvalPath}. Install it as .ci/run does, or set LM_EVAL.`,
  },
  {
    file: "/test/templates/templates.test.ts",
    what: "chat templates",
    isMissing: isPythonMissing,
    why: `no Python with transformers at ${pythonPath}. Install it as .ci/run does, or set TRANSFORMERS_PYTHON.`,
  },
];

export default class Skipped implements Reporter {
  onTestRunEnd(modules: readonly TestModule[]): void {
    for (const { file, what, isMissing, why } of programs) {
      if (!isMissing) continue;
      const module = modules.find(({ moduleId }) => moduleId.endsWith(file));
      const skipped = [...(module?.children.allTests("skipped") ?? [])].length;
      if (skipped > 0) console.log(`${skipped} tests of ${what} were skipped: ${why}`);
    }
  }
}
