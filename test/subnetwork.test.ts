/**
 * The compact sub-network in llama.cpp against the masked full model in the float64 reference: whole path, from checkpoint
 * through bundle and gather to logits.
 */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { answer } from "../src/answer/answer.ts";
import { openBundlePredictor } from "../src/answer/bundlePredictor.ts";
import { chooseMask, openMaskSource } from "../src/answer/maskSource.ts";
import type { PromptedModel } from "../src/answer/promptedModel.ts";
import { Bundle } from "../src/bundle/bundle.ts";
import { packBundle } from "../src/bundle/packBundle.ts";
import { openSubnetwork } from "../src/bundle/subnetworkCache.ts";
import { llamaCpp } from "../src/engine/llamaCpp.ts";
import { readModelFolder } from "../src/formats/huggingface.ts";
import type { WeightType } from "../src/formats/quantize.ts";
import { fullMask, type Mask, maskFromScores } from "../src/mask/mask.ts";
import { firstLayers, firstLayersConfig } from "../src/model/backbone.ts";
import type { Weights } from "../src/model/config.ts";
import { PromptFormat } from "../src/text/prompt.ts";
import type { Tokenizer } from "../src/text/tokenizer.ts";
import { loadTokenizer } from "../src/text/tokenizer.ts";
import { channelWeights, forward, greedy, lead, matVec } from "./reference/decoder.ts";
import { scoreInstruction } from "./reference/predictor.ts";
import {
  anyPredictor,
  families,
  goldenModel,
  goldenValues,
  randomMask,
  storiesCheckpoint,
  storiesReference,
  storyLeads,
  temporaryFolder,
  writeCheckpoint,
} from "./support/models.ts";

const exact = { contextLength: 512, threads: 1, kvType: "F32" } as const;

async function pack(checkpoint: string, type: WeightType): Promise<Bundle> {
  const folder = join(temporaryFolder(), "bundle");
  await packBundle(checkpoint, folder, { type });
  return new Bundle(folder);
}

async function engineOf(bundle: Bundle, mask: Mask) {
  const { path } = await openSubnetwork(bundle, mask, { root: temporaryFolder() });
  return llamaCpp.open(path, exact);
}

/** Largest difference, over all positions and tokens. */
function worst(got: readonly ArrayLike<number>[], wanted: readonly ArrayLike<number>[]): number {
  return Math.max(...wanted.flatMap((row, t) => Array.from(row, (value, i) => Math.abs(value - got[t]![i]!))));
}

/** Scores of a feature, written out in float64. */
function referenceScores(head: Weights, feature: Float64Array, numLayers: number): Float64Array {
  const data = (name: string) => head.get(name)!.data;
  const centred = feature.map((value, i) => (value - data("feature.mean")[i]!) / data("feature.std")[i]!);
  const z = matVec(data("w2.weight"), matVec(data("w1.weight"), centred));
  const F = z.length / numLayers;
  return z.map((value, i) => {
    const layer = z.subarray(Math.floor(i / F) * F, (Math.floor(i / F) + 1) * F);
    const mean = layer.reduce((a, b) => a + b) / F;
    const variance = layer.reduce((a, b) => a + (b - mean) ** 2, 0) / F;
    return (value - mean) / Math.sqrt(variance + 1e-6);
  });
}

async function take(tokens: AsyncIterable<number>): Promise<number[]> {
  const taken: number[] = [];
  for await (const token of tokens) taken.push(token);
  return taken;
}

describe("the reference itself", () => {
  test.each(families)("reproduces the golden logits of %s under its masks to 1e-12", (family) => {
    const model = goldenModel(family);
    const { ids, mask, logits } = goldenValues(family);
    for (const [b, row] of ids.entries())
      expect(worst(forward(model, row, mask[b]).logits, logits[b]!)).toBeLessThan(1e-12);
  });

  test("tells the story of stories260K, and how sure each of its tokens is", async () => {
    const model = readModelFolder(join(await storiesCheckpoint(temporaryFolder()), "llm"));
    const ids = storiesReference().greedy_ids;
    const leads = forward(model, ids.slice(0, -1)).logits.map((row, t) => lead(row, ids[t + 1]!));
    expect(Math.min(...leads)).toBeGreaterThan(storyLeads.lead);
    expect(Math.min(...leads.slice(0, storyLeads.sure))).toBeGreaterThan(storyLeads.surely);
  });
});

describe("stories260K", () => {
  // F16 rounds weights and inputs, which moves logits by up to 0.02.
  test.each([
    ["F32", 200],
    ["F16", storyLeads.sure],
  ] as const)("imported and packed as %s, tells %i tokens of the reference's story when dense", async (type, count) => {
    using bundle = await pack(await storiesCheckpoint(temporaryFolder()), type);
    await using engine = await engineOf(bundle, fullMask(bundle.numLayers, bundle.ffnWidth));
    const reference = storiesReference();
    const tokens = [1, ...(await take(engine.generate(Int32Array.of(1), { maxTokens: count })))];
    expect(tokens).toEqual(reference.greedy_ids.slice(0, 1 + count));
    const text = loadTokenizer(bundle.tokenizerPath).decode(tokens);
    expect(text).toBe(reference.greedy_text.slice(0, text.length));
  });

  test.each(["soft", "hard"] as const)("F32, %s mask: sub-network equals masked model", async (kind) => {
    const checkpoint = await storiesCheckpoint(temporaryFolder());
    const model = readModelFolder(join(checkpoint, "llm"));
    using bundle = await pack(checkpoint, "F32");
    const mask = randomMask(5, 172, 100, kind, 7);
    await using engine = await engineOf(bundle, mask);
    const ids = [1, 403, 407, 261, 378];
    const weights = channelWeights(mask);
    expect(worst(await engine.logits(Int32Array.from(ids)), forward(model, ids, weights).logits)).toBeLessThan(1e-4);
    const tokens = await take(engine.generate(Int32Array.from(ids), { maxTokens: 12 }));
    expect(tokens).toEqual(greedy(model, ids, 12, weights));
  });
});

describe.each(families)("%s under a soft mask", (family) => {
  const model = goldenModel(family);
  const { numLayers, ffnWidth } = model.config;
  const ids = goldenValues(family).ids[0]!;
  const mask = randomMask(numLayers, ffnWidth, 32, "soft", 3);
  const wanted = forward(model, ids, channelWeights(mask)).logits;

  // Logits are about 1 in size. F32: rounding only. Below, the weights' own rounding comes on top of llama.cpp's, which rounds the
  // inputs of a matrix product to the weights' type; the weights in use are compared bit for bit in src/bundle/gather.test.ts.
  test.each([
    ["F32", 1e-5],
    ["F16", 0.01],
    ["Q8_0", 0.15],
  ] as const)("%s: sub-network within %d of the masked model", async (type, bound) => {
    const checkpoint = await writeCheckpoint(temporaryFolder(), model, anyPredictor(model, "soft"));
    using bundle = await pack(checkpoint, type);
    await using engine = await engineOf(bundle, mask);
    expect(worst(await engine.logits(Int32Array.from(ids)), wanted)).toBeLessThan(bound);
  });
});

describe("predictor", () => {
  const model = goldenModel("llama");

  test.each(families)(
    "%s backbone: llama.cpp's feature is the hidden state of the last token to 1e-5",
    async (family) => {
      const backbone = goldenModel(family);
      const checkpoint = await writeCheckpoint(temporaryFolder(), model, { ...anyPredictor(model, "soft"), backbone });
      using bundle = await pack(checkpoint, "F32");
      await using engine = await llamaCpp.openFeature(bundle.predictor!.backbone!, { ...exact, contextLength: 128 });
      for (const ids of goldenValues(family).ids) {
        expect(
          worst([await engine.feature(Int32Array.from(ids))], [forward(backbone, ids).hidden.at(-1)!]),
        ).toBeLessThan(1e-5);
      }
    },
  );

  const own = (numLayers: number) => {
    const config = firstLayersConfig(model.config, numLayers);
    return { config, weights: firstLayers(config, model.weights) };
  };
  test.each([
    ["an LM of its own", goldenModel("qwen3")],
    ["the LLM's first layer", own(1)],
    ["the LLM's embedding", own(0)],
  ])("%s, however pooled: a bundle's scores are those of the definition to 1e-4", async (_, backbone) => {
    for (const pooling of ["last", "mean", "both"] as const) {
      const predictor = anyPredictor(model, "soft", { backbone, pooling });
      using bundle = await pack(await writeCheckpoint(temporaryFolder(), model, predictor), "F32");
      await using open = await openBundlePredictor(llamaCpp, bundle, { threads: 1, kvType: "F32" });
      const head = Object.fromEntries([...predictor.head].map(([name, { data }]) => [name, data]));
      for (const ids of [[1, 9, 8, 7], [1, 20, 21, 22, 23, 24, 25], [9, 8], [1]].map((some) => Int32Array.from(some))) {
        const { scores } = scoreInstruction(backbone, head, model.config.numLayers, ids, 1, undefined, pooling);
        expect(worst([await open.scores(ids)], [scores]), pooling).toBeLessThan(1e-4);
      }
    }
  });

  test.each(["soft", "hard"] as const)(
    "answer: %s mask from the instruction, greedy tokens of the masked model",
    async (lambda) => {
      const predictor = anyPredictor(model, lambda);
      using bundle = await pack(await writeCheckpoint(temporaryFolder(), model, predictor), "F32");
      const instruction = Int32Array.of(1, 9, 8, 7);
      const prompt = [1, 9, 8, 7, 20];
      const tokenizer = { bosId: 1, encode: () => instruction.subarray(1) } as unknown as Tokenizer;
      const engine = { kvType: "F32", threads: 1 } as const;
      const prompted: PromptedModel = {
        weights: bundle,
        hash: bundle.hash,
        manifest: bundle.manifest,
        format: new PromptFormat(tokenizer, "{prompt}"),
        hasPredictor: true,
        block: 1,
        verify: () => bundle.verify(),
        openPredictor: (options) => openBundlePredictor(llamaCpp, bundle, options),
      };
      await using source = await openMaskSource(prompted, { source: "predictor" }, engine);
      const read = { text: "any", ids: Int32Array.from(prompt) };
      const choose = async () => (await chooseMask(source, read, { tFfn: 32, ffnWidth: bundle.ffnWidth })).mask;
      const options = { ...engine, maxTokens: 10, cache: { root: temporaryFolder() } };
      await using run = await answer(llamaCpp, bundle, read.ids, choose, options);
      const tokens = await take(run.tokens);

      const { numLayers, ffnWidth } = model.config;
      const scores = referenceScores(
        predictor.head,
        forward(predictor.backbone, instruction).hidden.at(-1)!,
        numLayers,
      );
      const wanted = maskFromScores(scores, { dFfn: ffnWidth, tFfn: 32, epsilon: lambda === "soft" ? 0.3 : undefined });
      expect(run.mask.layers).toEqual(wanted.layers);
      expect(run.mask.lambda === undefined).toBe(lambda === "hard");
      if (wanted.lambda) expect(worst(run.mask.lambda!, wanted.lambda)).toBeLessThan(1e-5);
      const untilEos = greedy(model, prompt, 10, channelWeights(wanted)).slice(0, tokens.length);
      expect(tokens).toEqual(untilEos);
      expect(Object.values(run.ms).every((ms) => ms > 0)).toBe(true);
    },
  );
});
