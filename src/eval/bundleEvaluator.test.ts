import { expect, test, vi } from "vitest";
import { blockBundle, blockMask } from "../../test/support/blocks.ts";
import { randomModel, temporaryFolder } from "../../test/support/models.ts";
import { DEFAULT_ENGINES } from "../answer/defaultEngines.ts";
import { BundleEvaluator } from "./bundleEvaluator.ts";

test("questions under one mask are scored and answered by one engine, in whatever order they come", async () => {
  const model = randomModel({ family: "llama", ffnWidth: 128, vocabSize: 64 }, 5);
  using bundle = await blockBundle(model, 16, "F32");
  vi.stubEnv("XDG_CACHE_HOME", temporaryFolder());
  let numOpened = 0;
  const open: typeof DEFAULT_ENGINES.open = (...args) => {
    numOpened++;
    return DEFAULT_ENGINES.open(...args);
  };
  const evaluator = new BundleEvaluator({ ...DEFAULT_ENGINES, open }, bundle, { threads: 1 });
  const masks = [1, 2, 1, 2].map((seed) => blockMask(model.config, 16, 3, seed));
  const prompt = Int32Array.of(1, 9, 8);
  const sequence = { ids: Int32Array.of(...prompt, 7), labels: Int32Array.of(-100, -100, 7, 2) };
  const questions = masks.map(() => ({ prompt, sequence, maxTokens: 6 }));
  const answers = await evaluator.answer(questions, { masks, endIds: [2] });
  expect(numOpened).toBe(2);
  expect(answers.slice(2)).toEqual(answers.slice(0, 2));
  expect(answers[0]!.score.nll).not.toBe(answers[1]!.score.nll);
  expect(answers.map(({ score }) => score)).toEqual(
    await evaluator.score(
      questions.map((question) => question.sequence),
      masks,
    ),
  );
});
