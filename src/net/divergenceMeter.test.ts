import { afterAll, describe, expect, test } from "vitest";
import { channelWeights, forward, lead } from "../../test/reference/decoder.ts";
import { integers, quiet } from "../../test/support/graphs.ts";
import { randomMask, randomModel } from "../../test/support/models.ts";
import type { Mask } from "../mask/mask.ts";
import { DivergenceMeter, type TaughtSequence } from "./divergenceMeter.ts";
import { parameterArrays } from "./parameters.ts";

const model = randomModel({ family: "llama" }, 1);
const { vocabSize: V, numLayers: L, ffnWidth: F } = model.config;
/** Of another width and family, with capped logits. */
const teacher = randomModel({ family: "gemma2", width: 32, headWidth: 8 }, 2);
const { width: Dt, logitSoftCap } = teacher.config;
const table = teacher.weights.get("model.embed_tokens.weight")!.data; // tied

/** More than a batch, the last of them longer than what lengths are rounded up to. */
const texts = [5, 1, 9, 3, 2, 70].map((length, i) => integers(`text ${i}`, length, V));
const sequences = texts.map(
  (ids): TaughtSequence => ({
    ids,
    counts: Array.from(ids, (_, t) => t % 3 !== 1),
    states: Float32Array.from(
      forward({ ...teacher, config: { ...teacher.config, contextLength: 128 } }, ids).hidden.flatMap((row) => [...row]),
    ),
  }),
);
const masks = texts.map((_, i) => randomMask(L, F, 40, i % 2 === 0 ? "soft" : "hard", i));

const config = { ...model.config, contextLength: 128 };
const parameters = parameterArrays({ llm: model.weights });
const meter = new DivergenceMeter(config, parameters, { width: Dt, vocabSize: V, logitSoftCap, weight: table }, quiet);
afterAll(() => meter.release());

const logSoftmax = (y: ArrayLike<number>): number[] => {
  const all = Array.from(y);
  const max = Math.max(...all);
  const logSum = max + Math.log(all.reduce((sum, value) => sum + Math.exp(value - max), 0));
  return all.map((value) => value - logSum);
};
const bestOf = (y: readonly number[]) => y.indexOf(Math.max(...y));

/** What the meter is to find, in float64 and plain loops; `doubtful`: positions at which float32 may find another token most likely. */
function plain({ ids, counts, states }: TaughtSequence, mask?: Mask) {
  const sums = { kl: 0, agreed: 0, positions: 0, doubtful: 0 };
  for (const [t, own] of forward({ ...model, config }, ids, mask && channelWeights(mask)).logits.entries()) {
    if (!counts[t]) continue;
    const taught = Array.from({ length: V }, (_, v) => {
      let y = 0;
      for (let d = 0; d < Dt; d++) y += states[t * Dt + d]! * table[v * Dt + d]!;
      return logitSoftCap! * Math.tanh(y / logitSoftCap!);
    });
    const [p, q] = [logSoftmax(taught), logSoftmax(own)];
    sums.kl += p.reduce((sum, logP, v) => sum + Math.exp(logP) * (logP - q[v]!), 0);
    sums.agreed += bestOf(p) === bestOf(q) ? 1 : 0;
    sums.positions++;
    if ([p, q].some((y) => lead(Float64Array.from(y), bestOf(y)) < 1e-3)) sums.doubtful++;
  }
  return sums;
}

describe.each<[string, readonly Mask[] | undefined]>([
  ["the dense model", undefined],
  ["a mask of each text", masks],
])("under %s", (_, own) => {
  test("divergence and agreement are those of the definition, of each text alone", async () => {
    const found = await meter.measure(sequences, own);
    const expected = sequences.map((sequence, i) => plain(sequence, own?.[i]));
    expect(expected.some(({ kl }) => kl > 1)).toBe(true);
    for (const [i, { kl, agreed, positions, doubtful }] of expected.entries()) {
      expect(found[i]!.positions).toBe(positions);
      expect(Math.abs(found[i]!.kl - kl)).toBeLessThan(1e-4 * Math.max(1, kl)); // float32, sums of up to 47 positions
      expect(Math.abs(found[i]!.agreed - agreed)).toBeLessThanOrEqual(doubtful);
    }
    expect(await meter.measure([sequences[4]!], own && [own[4]!])).toEqual([
      { ...found[4]!, kl: expect.closeTo(found[4]!.kl, 5) },
    ]);
  });
});

test("a model that is its own teacher diverges nowhere and agrees everywhere", async () => {
  const itself = {
    width: config.width,
    vocabSize: V,
    logitSoftCap: undefined,
    weight: model.weights.get("lm_head.weight")!.data,
  };
  const own = new DivergenceMeter(config, parameters, itself, quiet);
  const taught = sequences.map(({ ids, counts }) => {
    const states = Float32Array.from(forward({ ...model, config }, ids).hidden.flatMap((row) => [...row]));
    return { ids, counts, states };
  });
  for (const { kl, agreed, positions } of await own.measure(taught)) {
    expect(Math.abs(kl)).toBeLessThan(1e-4);
    expect(agreed).toBe(positions);
  }
  await own.release();
});
