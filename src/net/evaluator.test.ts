import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { forward, greedy, lead } from "../../test/reference/decoder.ts";
import { griffinScores } from "../../test/reference/griffin.ts";
import { scoreInstruction } from "../../test/reference/predictor.ts";
import { difference, integers, normal, quiet } from "../../test/support/graphs.ts";
import { fixtures, goldenModel, goldenValues, randomModel } from "../../test/support/models.ts";
import { size } from "../graph/graph.ts";
import { type DenseMask, maskFromScores, toDenseMask } from "../mask/mask.ts";
import { headShapes, type PredictorConfig } from "../model/predictorConfig.ts";
import { type EvaluatedModel, Evaluator, type LabelledSequence } from "./evaluator.ts";

const golden = goldenModel("llama");
const llm = { ...golden, config: { ...golden.config, contextLength: 40 } };
const { numLayers: L, ffnWidth: F, vocabSize: V } = llm.config;
const backbone = goldenModel("qwen3");
const predictor: PredictorConfig = {
  backbone: backbone.config,
  rank: 6,
  numLayers: L,
  ffnWidth: F,
  pooling: "last",
  importance: false,
  head: "linear",
  block: 1,
};
const softTopK = { tFfn: 16, epsilon: 0.5 };
const Dp = backbone.config.width;
const head: Record<string, Float32Array> = {
  ...Object.fromEntries([...headShapes(predictor)].map(([name, shape]) => [name, normal(name, size(shape))])),
  "feature.mean": normal("mean", Dp),
  "feature.std": normal("std", Dp).map((x) => 0.5 + Math.abs(x)),
};
const model: EvaluatedModel = {
  llm: llm.config,
  predictor,
  softTopK,
  parameters: Object.fromEntries([
    ...[...llm.weights].map(([name, { data }]) => [`llm.${name}`, data]),
    ...[...backbone.weights].map(([name, { data }]) => [`backbone.${name}`, data]),
    ...Object.entries(head).map(([name, data]) => [`head.${name}`, data]),
  ]),
};
const evaluator = new Evaluator(model, quiet);
afterAll(() => evaluator.release());

/** More than a batch, of lengths on both sides of where the padded length changes. */
const lengths = Array.from({ length: 35 }, (_, i) => 1 + ((i * 7) % 18));
const prompts = lengths.map((length, i) => integers(`prompt ${i}`, length, V));
const masks = prompts.map((_, i): DenseMask => {
  return normal(`mask ${i}`, L * F).map((x) => (x > 0 ? Math.min(1, x) : 0));
});
const perLayer = (mask: DenseMask) => Array.from({ length: L }, (_, l) => mask.subarray(l * F, (l + 1) * F));

describe("score", () => {
  const sequences = prompts.map((ids, i): LabelledSequence => {
    return { ids, labels: integers(`labels ${i}`, ids.length, V).map((label, t) => (t % 3 === 1 ? -100 : label)) };
  });
  const plainScore = ({ ids, labels }: LabelledSequence, mask?: DenseMask) => {
    const score = { nll: 0, tokens: 0, correctTokens: 0 };
    for (const [t, row] of forward(llm, ids, mask && perLayer(mask)).logits.entries()) {
      const label = labels[t]!;
      if (label < 0) continue;
      score.nll += Math.log(row.reduce((sum, y) => sum + Math.exp(y - row[label]!), 0));
      score.tokens++;
      if (row.indexOf(Math.max(...row)) === label) score.correctTokens++;
    }
    return score;
  };
  /** Labels that the model itself would choose, so that some are correct; none where float32 may well choose another. */
  const echoed = sequences.map(({ ids, labels }, i): LabelledSequence => {
    const [own, dense] = [perLayer(masks[i]!), undefined].map((mask) => forward(llm, ids, mask).logits);
    const best = own!.map((row) => row.indexOf(Math.max(...row)));
    const isClear = (row: Float64Array) => lead(row, row.indexOf(Math.max(...row))) > 1e-3;
    const echo = (label: number, t: number) => (t % 2 === 0 ? best[t]! : label);
    return {
      ids,
      labels: labels.map((label, t) => (label < 0 || ![own![t]!, dense![t]!].every(isClear) ? -100 : echo(label, t))),
    };
  });

  test.each([
    { name: "under each sequence's own mask", own: masks },
    { name: "of the dense model", own: undefined },
  ])("$name equals the float64 reference", async ({ own }) => {
    const scores = await evaluator.score(echoed, own);
    let correct = 0;
    for (const [i, score] of scores.entries()) {
      const wanted = plainScore(echoed[i]!, own?.[i]);
      expect(difference([score.nll], [wanted.nll])).toBeLessThan(1e-5);
      expect([score.tokens, score.correctTokens]).toEqual([wanted.tokens, wanted.correctTokens]);
      correct += score.correctTokens;
    }
    expect(correct).toBeGreaterThan(0);
  });

  test("of a sequence is the same alone as in a batch, and follows the order asked for", async () => {
    const together = await evaluator.score(sequences, masks);
    const reversed = await evaluator.score(sequences.toReversed(), masks.toReversed());
    expect(reversed.toReversed()).toEqual(together);
    for (const i of [0, 4, 34]) expect(await evaluator.score([sequences[i]!], [masks[i]!])).toEqual([together[i]]);
  });

  test("under a mask of ones is the dense model's", async () => {
    const ones = new Float32Array(L * F).fill(1);
    const dense = await evaluator.score(sequences);
    for (const [i, { nll }] of (
      await evaluator.score(
        sequences,
        sequences.map(() => ones),
      )
    ).entries()) {
      expect(difference([nll], [dense[i]!.nll])).toBeLessThan(1e-6);
    }
  });

  test("of nothing is nothing", async () => {
    expect(await evaluator.score([])).toEqual([]);
  });
});

describe("generate", () => {
  const some = [0, 3, 17, 34];
  const noEos = V; // no token

  test("takes the most likely token of a full forward pass, again and again, under each prompt's mask", async () => {
    const answers = await evaluator.generate(
      some.map((i) => prompts[i]!),
      {
        masks: some.map((i) => masks[i]!),
        maxTokens: 6,
        endIds: [noEos],
      },
    );
    const wanted = some.map((i) => greedy(llm, [...prompts[i]!], 6, perLayer(masks[i]!)));
    expect(answers.map((ids) => [...ids])).toEqual(wanted);
    const dense = await evaluator.generate([prompts[3]!], { maxTokens: 6, endIds: [noEos] });
    expect([...dense[0]!]).toEqual(greedy(llm, [...prompts[3]!], 6));
    expect([...dense[0]!]).not.toEqual(wanted[1]); // else the masks would not have been seen
  });

  test("stops before the end token, others go on", async () => {
    const free = await evaluator.generate(
      some.map((i) => prompts[i]!),
      { maxTokens: 6, endIds: [noEos] },
    );
    expect(free.map((ids) => [...ids])).toEqual(some.map((i) => greedy(llm, [...prompts[i]!], 6)));
    const eosId = free[1]![2]!;
    const stopped = await evaluator.generate(
      some.map((i) => prompts[i]!),
      { maxTokens: 6, endIds: [eosId] },
    );
    for (const [i, ids] of stopped.entries()) {
      const end = free[i]!.indexOf(eosId);
      expect([...ids]).toEqual([...free[i]!.slice(0, end < 0 ? undefined : end)]);
    }
    expect(stopped[1]!.length).toBeLessThan(6);
    expect(stopped.some((ids) => ids.length === 6)).toBe(true);
  });

  test("drafts change nothing but the work: right, wrong from some token on, too long, or of the end token alone", async () => {
    const wanted = prompts.map((ids, i) => greedy(llm, [...ids], 5, perLayer(masks[i]!)));
    const eosId = wanted[3]![2]!; // so that some answers end
    const until = (ids: number[]) => ids.slice(0, ids.includes(eosId) ? ids.indexOf(eosId) : undefined);
    const drafts = wanted.map((ids, i) => {
      const right = [...until(ids), eosId];
      return Int32Array.from([right, right.with(i % right.length, 7), [...right, 1, 2, 3], [eosId]][i % 4]!);
    });
    const maxTokens = prompts.map((_, i) => 1 + (i % 5));
    const answers = await evaluator.generate(prompts, { masks, drafts, maxTokens, endIds: [eosId] });
    expect(answers.map((ids) => [...ids])).toEqual(wanted.map((ids, i) => until(ids.slice(0, maxTokens[i]))));
    expect(await evaluator.generate(prompts, { masks, maxTokens, endIds: [eosId] })).toEqual(answers);
  });

  test("ends where the context is full", async () => {
    const prompt = integers("long", 37, V);
    const [answer] = await evaluator.generate([prompt], { maxTokens: 20, endIds: [noEos] });
    expect([...answer!]).toEqual(greedy(llm, [...prompt], 3));
  });
});

describe("statistics", () => {
  const sequences = prompts.map((ids, i): LabelledSequence => {
    const numUnlabelled = i % 3; // as if the prompt ended there: the first label belongs to its last token
    return { ids, labels: ids.map((_, t) => (t < numUnlabelled || (t > 4 && t % 2 === 1) ? -100 : 1)) };
  });
  test("over the answer are GRIFFIN's, from float64 activations", async () => {
    const results = await evaluator.statistics(sequences);
    for (const i of [0, 1, 2, 3, 17, 34]) {
      const { activations } = forward(llm, prompts[i]!);
      const wanted = activations.flatMap((tokens) => [
        ...griffinScores(
          tokens.filter((_, t) => sequences[i]!.labels[t]! >= 0),
          F,
        ),
      ]);
      expect(difference(results[i]!, wanted)).toBeLessThan(1e-5);
    }
    expect((await evaluator.statistics([sequences[17]!]))[0]).toEqual(results[17]);
  });
});

test("statistics of Gemma are of its own activation", async () => {
  const gemma = randomModel({ family: "gemma2" }, 1);
  const parameters = Object.fromEntries([...gemma.weights].map(([name, { data }]) => [`llm.${name}`, data]));
  const ids = integers("gemma", 12, gemma.config.vocabSize);
  const other = new Evaluator({ llm: gemma.config, parameters }, quiet);
  const [statistics] = await other.statistics([{ ids, labels: ids }]);
  await other.release();
  const wanted = forward(gemma, ids).activations.flatMap((tokens) => [...griffinScores(tokens, gemma.config.ffnWidth)]);
  expect(difference(statistics!, wanted)).toBeLessThan(1e-5);
});

test("statistics over all tokens equal the golden scores", async () => {
  const { score }: { score: number[][] } = JSON.parse(readFileSync(join(fixtures, "golden/griffin.json"), "utf8"));
  const ids = Int32Array.from(goldenValues("llama").ids[0]!);
  const [statistics] = await evaluator.statistics([{ ids, labels: ids }]);
  expect(difference(statistics!, score.flat())).toBeLessThan(1e-5);
});

describe("predict", () => {
  test("gives feature, scores and mask of the definition in float64, the same alone as in a batch", async () => {
    const results = await evaluator.predict(prompts);
    for (const [i, { mask, scores, feature }] of results.entries()) {
      const wanted = scoreInstruction(backbone, head, L, prompts[i]!);
      expect(difference(feature, wanted.feature)).toBeLessThan(1e-5);
      expect(difference(scores, wanted.scores)).toBeLessThan(1e-5);
      const wantedMask = toDenseMask(maskFromScores(scores, { dFfn: F, ...softTopK }));
      expect(difference(mask, wantedMask)).toBeLessThan(2e-6);
      expect(mask.map((m) => Number(m !== 0))).toEqual(wantedMask.map((m) => Number(m !== 0)));
    }
    for (const i of [0, 34]) expect(await evaluator.predict([prompts[i]!])).toEqual([results[i]]);
  });

  test("needs a predictor", async () => {
    const { predictor: _, ...without } = model;
    await expect(new Evaluator(without, quiet).predict([prompts[0]!])).rejects.toThrow(/no sparsity predictor/);
  });
});
