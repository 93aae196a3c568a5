/** With a real engine, on a model of stories: what agreement means is checked against the engine's own greedy choices. */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { FakeEngines } from "../../test/support/fakeEngines.ts";
import { stories, temporaryFolder } from "../../test/support/models.ts";
import { importModel } from "../bundle/importModel.ts";
import { openSubnetwork } from "../bundle/subnetworkCache.ts";
import { OptionError } from "../errors.ts";
import { fullMask } from "../mask/mask.ts";
import { compareAnswers } from "./compareAnswers.ts";
import { InstructionModel } from "./instructionModel.ts";

const prompt = "Once upon a time";

async function storiesModel(): Promise<{
  model: InstructionModel;
  options: { cache: { root: string }; threads: number };
}> {
  const folder = temporaryFolder();
  await importModel(join(stories, "stories260K.bin"), join(folder, "bundle"), {
    tokenizer: join(stories, "tok512.bin"),
    type: "F32",
  });
  return {
    model: new InstructionModel(join(folder, "bundle")),
    options: { cache: { root: join(folder, "cache") }, threads: 1 },
  };
}

describe("two answers", () => {
  test("of a pruned model part where a token first differs; agreement is that of next tokens after the dense answer", async () => {
    const opened = await storiesModel();
    using model = opened.model;
    const options = { ...opened.options, maxTokens: 12 };
    const how = { source: "random", seed: 3, tFfn: 128 } as const;
    const { dense, subnetwork, agreement, firstDifference, chosen, promptTokens } = await compareAnswers(
      model,
      prompt,
      {
        ...options,
        ...how,
      },
    );
    expect(chosen).toEqual({ source: "random", cached: false });
    expect([dense.keptShare, subnetwork.keptShare]).toEqual([1, 128 / 172]);

    const { mask } = await model.mask(prompt, how);
    for (const [answer, given] of [
      [dense, "dense"],
      [subnetwork, mask],
    ] as const) {
      await using alone = await model.ask(prompt, { ...options, mask: given });
      expect(answer.text).toBe(await alone.text());
      expect(answer.tokens).toHaveLength(alone.answerTokens);
      const { predict, gather, load, prefill } = answer.ms;
      expect(answer.firstTokenMs).toBe(predict + gather + load + prefill);
      expect(answer.tokensPerSecond).toBe((1000 * (answer.tokens.length - 1)) / answer.ms.decode);
    }

    const at = firstDifference!;
    expect(dense.tokens.slice(0, at)).toEqual(subnetwork.tokens.slice(0, at));
    expect(dense.tokens[at]).not.toBe(subnetwork.tokens[at]);
    expect(dense.text.slice(0, dense.differsAt)).toBe(subnetwork.text.slice(0, subnetwork.differsAt));
    expect(model.tokenizer.decode(dense.tokens.slice(at))).toBe(dense.text.slice(dense.differsAt));

    // Token by token: what does the sub-network write after so much of the dense answer?
    const ids = model.promptIds(prompt);
    expect(promptTokens).toBe(ids.length);
    const { path } = await openSubnetwork(model.bundle, mask, options.cache);
    await using engine = await model.engines.open(path, { threads: 1, contextLength: 64 });
    let equal = 0;
    for (const [i, id] of dense.tokens.entries()) {
      const before = Int32Array.from([...ids, ...dense.tokens.slice(0, i)]);
      for await (const next of engine.generate(before, { maxTokens: 1 })) if (next === id) equal++;
    }
    expect(equal).toBeGreaterThan(0); // else nothing would be told from chance
    expect(equal).toBeLessThan(dense.tokens.length);
    expect(agreement).toBeCloseTo(equal / dense.tokens.length, 12);
  });

  test("under the mask that keeps all are the same, also where they fill the context", async () => {
    const opened = await storiesModel();
    using model = opened.model;
    const mask = fullMask(model.bundle.numLayers, model.bundle.ffnWidth);
    const long = `${prompt} `.repeat(60);
    const result = await compareAnswers(model, long, { ...opened.options, mask, maxTokens: 512 });
    expect(result.promptTokens + result.dense.tokens.length).toBe(model.bundle.contextLength);
    expect(result).toMatchObject({ agreement: 1, firstDifference: undefined, chosen: undefined });
    expect([result.dense.differsAt, result.subnetwork.text]).toEqual([undefined, result.dense.text]);
  });

  test("that are empty agree about nothing", async () => {
    const {
      model: { bundle },
      options,
    } = await storiesModel();
    using model = new InstructionModel(bundle.path, { engines: new FakeEngines([]) });
    expect(await compareAnswers(model, prompt, { ...options, source: "weights" })).toMatchObject({
      agreement: undefined,
      firstDifference: undefined,
      dense: { text: "", tokens: [], tokensPerSecond: undefined },
    });
    bundle[Symbol.dispose]();
  });
});

test("a mask and a way to make one are refused together, before anything is asked", async () => {
  const opened = await storiesModel();
  using model = opened.model;
  const mask = fullMask(model.bundle.numLayers, model.bundle.ffnWidth);
  await expect(compareAnswers(model, prompt, { mask, source: "weights" })).rejects.toThrow(OptionError);
});
