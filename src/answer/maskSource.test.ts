import { readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { beforeEach, describe, expect, test } from "vitest";
import { forward } from "../../test/reference/decoder.ts";
import { griffinScores as griffinReference } from "../../test/reference/griffin.ts";
import { difference, integers } from "../../test/support/graphs.ts";
import { goldenModel, temporaryFolder, writeCheckpoint } from "../../test/support/models.ts";
import type { Budget } from "../bundle/budget.ts";
import { Bundle } from "../bundle/bundle.ts";
import { packBundle } from "../bundle/packBundle.ts";
import { InputError, OptionError } from "../errors.ts";
import type { Quality } from "../manifest.ts";
import { meanRanks, randomMask, weightNorms } from "../mask/baselines.ts";
import { maskFromScores } from "../mask/mask.ts";
import { PromptFormat } from "../text/prompt.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { chooseMask, modelTFfn, openMaskSource, type SourceChoice } from "./maskSource.ts";
import type { PromptedModel } from "./promptedModel.ts";
import type { SourceName } from "./sourceNames.ts";

const model = goldenModel("llama");
const { numLayers: L, ffnWidth: F, width: D, vocabSize: V } = model.config;
const BOS = 1;
/** A character is a token. */
const tokenizer = {
  bosId: BOS,
  encode: (text: string) => Int32Array.from(text, (character) => character.charCodeAt(0) % V),
} as unknown as Tokenizer;
const prompt = { text: "any", ids: integers("prompt", 12, V) };

let bundle: Bundle;
let root: string;
beforeEach(async () => {
  root = temporaryFolder();
  const folder = join(temporaryFolder(), "bundle");
  await packBundle(await writeCheckpoint(temporaryFolder(), model), folder, { type: "F32" });
  bundle = new Bundle(folder);
  return () => bundle[Symbol.dispose]();
});

const prompted = (weights: Bundle): PromptedModel => ({
  weights,
  hash: weights.hash,
  manifest: weights.manifest,
  format: new PromptFormat(tokenizer, "{prompt}"),
  hasPredictor: false,
  block: 1,
  verify: () => weights.verify(),
  openPredictor: () => expect.unreachable(),
});
const open = (choice: SourceChoice, maxBytes?: number) =>
  openMaskSource(prompted(bundle), choice, { threads: 1, cache: { root, maxBytes } });

async function scoresOf(choice: SourceChoice, ids = prompt.ids) {
  await using source = await open(choice);
  return await source.scores({ text: "any", ids });
}

describe("scores of a bundle", () => {
  test("griffin: of the prompt, from float64 activations", async () => {
    const wanted = forward(model, prompt.ids).activations.flatMap((tokens) => [...griffinReference(tokens, F)]);
    expect(difference((await scoresOf({ source: "griffin" })).scores, wanted)).toBeLessThan(1e-5);
  });

  test("griffin: of the user's text alone where a prompt says where it is, after all that is before it", async () => {
    const activations = forward(model, prompt.ids).activations.map((tokens) => tokens.slice(3, 9));
    const wanted = activations.flatMap((tokens) => [...griffinReference(tokens, F)]);
    await using source = await open({ source: "griffin" });
    const { scores } = await source.scores({ ...prompt, user: [3, 9] });
    expect(difference(scores, wanted)).toBeLessThan(1e-5);
    const longer = integers("longer", 3 * bundle.contextLength, V); // in windows, of which the user's text is in the second
    const [from, end] = [bundle.contextLength + 2, bundle.contextLength + 7];
    const second = longer.subarray(bundle.contextLength, end);
    const [inWhole, alone] = await Promise.all([
      source.scores({ text: "any", ids: longer, user: [from, end] }),
      source.scores({ text: "any", ids: second, user: [2, 7] }),
    ]);
    expect(inWhole.scores).toEqual(alone.scores);
  });

  test("text: of a text and not of the prompt, in windows that BOS opens, up to a limit", async () => {
    const text = "The quick brown fox jumps over the lazy dog. ".repeat(4);
    const ids = tokenizer.encode(text).subarray(0, 150);
    const length = bundle.contextLength - 1; // of a window without BOS
    expect(ids.length).toBeGreaterThan(length);
    const sums = new Float64Array(L * F);
    for (let start = 0; start < ids.length; start += length) {
      const { activations } = forward(model, [BOS, ...ids.subarray(start, start + length)]);
      for (const [layer, tokens] of activations.entries()) {
        for (const token of tokens.slice(1)) {
          for (let channel = 0; channel < F; channel++) sums[layer * F + channel]! += Math.abs(token[channel]!);
        }
      }
    }
    const wanted = sums.map((sum, i) => {
      const [layer, channel] = [Math.floor(i / F), i % F];
      const down = model.weights.get(`model.layers.${layer}.mlp.down_proj.weight`)!.data; // [D, F]
      return (sum / ids.length) * Math.hypot(...Array.from({ length: D }, (_, row) => down[row * F + channel]!));
    });
    const choice = { source: "text", text, maxTokens: 150 } as const;
    const { scores } = await scoresOf(choice);
    expect(difference(scores, wanted)).toBeLessThan(1e-5);
    expect(await scoresOf(choice, integers("another", 5, V))).toEqual({ scores, cached: true });
    expect(await scoresOf({ ...choice, maxTokens: 149 })).toMatchObject({ cached: false });
    await expect(open({ source: "text", text: "" })).rejects.toThrow(InputError);
  });

  test("glass: the mean of ranks on the prompt and on a text, of one pass for each", async () => {
    const text = "The quick brown fox jumps over the lazy dog.";
    const ofPrompt = forward(model, prompt.ids).activations.flatMap((tokens) => [...griffinReference(tokens, F)]);
    const { activations } = forward(model, [BOS, ...tokenizer.encode(text)]);
    const ofText = activations.flatMap((tokens) => [...griffinReference(tokens.slice(1), F)]);
    const wanted = meanRanks([Float32Array.from(ofPrompt), Float32Array.from(ofText)], F);
    const { scores, cached } = await scoresOf({ source: "glass", text });
    expect({ scores, cached }).toEqual({ scores: wanted, cached: false });
    expect((await scoresOf({ source: "griffin" })).cached).toBe(true);
    expect(await scoresOf({ source: "glass", text })).toEqual({ scores, cached: true });
    expect(await scoresOf({ source: "glass", text: "Another." })).toMatchObject({ cached: false });
    await expect(open({ source: "glass", text: "" })).rejects.toThrow(InputError);
  });

  test("weights and random: by the norms of the weights, and as the control of that name", async () => {
    const weights = weightNorms((name) => model.weights.get(name), model.config);
    expect((await scoresOf({ source: "weights" })).scores).toEqual(weights);
    await using source = await open({ source: "random", seed: 5 });
    const { mask } = await chooseMask(source, prompt, { tFfn: 20, ffnWidth: F });
    expect(mask).toEqual(randomMask({ numLayers: L, dFfn: F, tFfn: 20 }, 5, "random"));
    expect(await scoresOf({ source: "random", seed: 5 })).toEqual(await scoresOf({ source: "random", seed: 5 }));
    expect(await scoresOf({ source: "random", seed: 5 })).not.toEqual(await scoresOf({ source: "random" }));
  });

  test("predictor: a bundle without one is refused", async () => {
    await expect(open({ source: "predictor" })).rejects.toThrow(/wanted a model with a predictor, got one without/);
  });
});

describe("masks", () => {
  test("of growing budgets are nested, hard, and of the scores of one pass", async () => {
    await using source = await open({ source: "griffin" });
    const { scores, cached } = await source.scores(prompt);
    expect(cached).toBe(false);
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: F - 1 }), fc.integer({ min: 1, max: F }), async (a, b) => {
        const [few, many] = [Math.min(a, b), Math.max(a, b)];
        const [small, large] = await Promise.all(
          [few, many].map((tFfn) => chooseMask(source, prompt, { tFfn, ffnWidth: F })),
        );
        expect([small!.cached, large!.cached, small!.mask.lambda]).toEqual([true, true, undefined]);
        expect(small!.mask).toEqual(maskFromScores(scores, { dFfn: F, tFfn: few }));
        for (const [layer, kept] of small!.mask.layers.entries()) {
          expect(kept.length).toBe(few);
          expect(kept.every((channel) => large!.mask.layers[layer]!.includes(channel))).toBe(true);
        }
      }),
      { seed: 6, numRuns: 20 },
    );
  });

  test.each([0, 49, 1.5, Number.NaN])("of t_ffn = %s are refused before anything is computed", async (tFfn) => {
    const source = {
      name: "griffin",
      scores: () => expect.unreachable(),
      [Symbol.asyncDispose]: async () => {},
    } as const;
    await expect(chooseMask(source, prompt, { tFfn, ffnWidth: 48 })).rejects.toThrow(OptionError);
  });

  test("keep half of the channels unless told, in whole blocks of 32 where there are some", () => {
    const of = (ffnWidth: number, tFfn?: number) =>
      modelTFfn({ weights: { config: { ffnWidth } }, manifest: { tFfn } } as PromptedModel);
    expect([1, 48, 64, 172, 11008].map((width) => of(width))).toEqual([1, 24, 32, 96, 5504]);
    expect(of(512, 48)).toBe(48);
  });

  test.each<[number, number, [keep: number, tFfn: number][]]>([
    [
      1536,
      1,
      [
        [0.75, 1152],
        [0.7, 1088],
        [0.001, 32],
        [0.999, 1536],
        [1, 1536],
      ],
    ],
    [
      1536,
      64,
      [
        [0.7, 1088],
        [0.68, 1024],
      ],
    ], // of a predictor whose blocks are larger
    [
      1536,
      48,
      [
        [0.5, 768],
        [0.45, 672],
      ],
    ], // blocks of both: of 96
    [
      172,
      1,
      [
        [0.5, 96],
        [0.99, 160],
        [1, 172],
      ],
    ],
    [
      48,
      24,
      [
        [0.3, 24],
        [0.8, 48],
      ],
    ], // no room for a block of both
    [
      20,
      1,
      [
        [0.5, 10],
        [0.01, 1],
      ],
    ],
  ])("keep of %i channels in blocks of %i the nearest whole blocks", (ffnWidth, block, cases) => {
    const model = { weights: { config: { ffnWidth } }, manifest: {}, block } as PromptedModel;
    expect(cases.map(([keep]) => modelTFfn(model, { keep }))).toEqual(cases.map(([, tFfn]) => tFfn));
  });

  test("keep, where that is left to measurements, the fewest channels that lost no more than they may", () => {
    const rows = [
      { source: "griffin", tFfn: 96, loss: 0.03, agreement: 0.98 },
      { source: "griffin", tFfn: 64, loss: 0.2, agreement: 0.9 },
      { source: "weights", tFfn: 32, loss: 0.01, agreement: 0.99 },
    ];
    const quality = { prompts: 6, tokens: 100, rows };
    const of = (quality: Quality | undefined, budget: Budget, source?: SourceName) =>
      modelTFfn(
        {
          weights: { config: { ffnWidth: 128 } },
          manifest: { quality },
          block: 1,
          hasPredictor: false,
        } as PromptedModel,
        budget,
        source,
      );
    expect(of(quality, { keep: "auto" })).toBe(96); // 0.1 nats unless told
    expect(of(quality, { keep: "auto", maxLoss: 0.2 })).toBe(64);
    expect(of(quality, { keep: "auto", maxLoss: 0.02 })).toBe(128); // none of griffin
    expect(of(quality, { keep: "auto", maxLoss: 0.02 }, "weights")).toBe(32);
    expect(() => of(quality, { keep: "auto" }, "text")).toThrow(
      /was measured under text for keep = "auto", got one that was not/,
    );
    expect(() => of(undefined, { keep: "auto" })).toThrow(OptionError);
    expect(() => of(quality, { keep: 0.5, maxLoss: 0.2 })).toThrow(/wanted a largest loss beside keep = "auto" only/);
  });

  test.each([
    [{ keep: 0 }, /"keep" must be a number above 0, at most 1, got 0/],
    [{ keep: 1.5 }, /got 1\.5/],
    [{ keep: Number.NaN }, /got NaN/],
    [{ keep: 0.5, tFfn: 32 }, /wanted keep or t_ffn, got both/],
  ])("of the budget %o are refused", (budget, message) => {
    const of = () =>
      modelTFfn({ weights: { config: { ffnWidth: 64 } }, manifest: {}, block: 1 } as PromptedModel, budget);
    expect(of).toThrow(OptionError);
    expect(of).toThrow(message);
  });
});

describe("the cache of scores", () => {
  const files = () =>
    readdirSync(join(root, bundle.hash.slice(0, 32))).map((name) => join(root, bundle.hash.slice(0, 32), name));

  test("knows prompts and sources apart", async () => {
    expect((await scoresOf({ source: "griffin" })).cached).toBe(false);
    expect((await scoresOf({ source: "griffin" })).cached).toBe(true);
    expect((await scoresOf({ source: "griffin" }, prompt.ids.subarray(1))).cached).toBe(false);
    expect((await scoresOf({ source: "weights" })).cached).toBe(false);
    expect(files()).toHaveLength(3);
  });

  test("makes damaged files again", async () => {
    const { scores } = await scoresOf({ source: "weights" });
    const [path] = files();
    const whole = readFileSync(path!);
    const notFinite = Buffer.from(whole);
    notFinite.fill(0xff, whole.length - 4);
    for (const bytes of [whole.subarray(0, whole.length >> 1), Buffer.alloc(0), notFinite]) {
      writeFileSync(path!, bytes);
      expect(await scoresOf({ source: "weights" })).toEqual({ scores, cached: false });
      expect(readFileSync(path!)).toEqual(whole);
    }
  });

  test("keeps within its limit, and leaves out what was unused for longest", async () => {
    for (const [seconds, ids] of [prompt.ids, prompt.ids.subarray(1), prompt.ids.subarray(2)].entries()) {
      const before = new Set(seconds === 0 ? [] : files());
      await scoresOf({ source: "griffin" }, ids);
      const path = files().find((name) => !before.has(name))!;
      utimesSync(path, 1000 + seconds, 1000 + seconds);
    }
    const [size] = files().map((path) => statSync(path).size);
    expect((await scoresOf({ source: "griffin" })).cached).toBe(true); // the oldest, now used last
    await using source = await open({ source: "weights" }, 2 * size!);
    await source.scores(prompt);
    expect(files()).toHaveLength(2);
    expect((await scoresOf({ source: "weights" })).cached).toBe(true);
    expect((await scoresOf({ source: "griffin" })).cached).toBe(true);
    expect(files().filter((path) => path.endsWith(".partial"))).toEqual([]);
  });
});
