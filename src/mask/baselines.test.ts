import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { OptionError, ShapeError } from "../errors.ts";
import type { ModelConfig, Weights } from "../model/config.ts";
import { meanRanks, randomMask, shuffledScores, weightNorms } from "./baselines.ts";
import { checkMask, maskFromScores } from "./mask.ts";

describe("shuffled scores", () => {
  const scores = Float32Array.from({ length: 60 }, (_, i) => i);
  const shuffledBy = (seed: number, label: string, block?: number) =>
    shuffledScores(scores, 20, { seed, label, ...(block && { block }) });

  test("are each layer's own in another order, the same for the same seed and label", () => {
    const shuffled = shuffledBy(1, "a");
    expect(shuffledBy(1, "a")).toEqual(shuffled);
    for (const other of [scores, shuffledBy(2, "a"), shuffledBy(1, "b")]) expect(shuffled).not.toEqual(other);
    for (const start of [0, 20, 40])
      expect(shuffled.slice(start, start + 20).sort()).toEqual(scores.slice(start, start + 20));
  });

  test("of blocks stay together", () => {
    const shuffled = shuffledBy(1, "a", 4);
    expect(shuffled).not.toEqual(scores);
    expect(shuffled.toSorted()).toEqual(scores);
    for (let start = 0; start < 60; start += 4) {
      expect(shuffled[start]! % 4).toBe(0);
      expect([...shuffled.subarray(start, start + 4)]).toEqual([0, 1, 2, 3].map((i) => shuffled[start]! + i));
      expect(Math.floor(shuffled[start]! / 20)).toBe(Math.floor(start / 20)); // of the same layer
    }
  });
});

describe("mean ranks", () => {
  test("are of each layer; channels of equal score share theirs", () => {
    const first = Float32Array.of(5, 1, 3, 3, 0, 0, 0, 9);
    expect([...meanRanks([first], 4)]).toEqual([3, 0, 1.5, 1.5, 1, 1, 1, 3]);
    const second = Float32Array.of(1, 2, 3, 4, 4, 3, 2, 1);
    expect([...meanRanks([first, second], 4)]).toEqual([1.5, 0.5, 1.75, 2.25, 2, 1.5, 1, 1.5]);
  });

  test("of scores that are no numbers end", () => {
    expect(meanRanks([Float32Array.of(NaN, 1, NaN, 2)], 4)).toHaveLength(4);
  });

  const [L, F] = [2, 9];
  const view = fc
    .array(fc.integer({ min: 0, max: 12 }), { minLength: L * F, maxLength: L * F })
    .map((values) => Float32Array.from(values));

  test("depend on order alone, count all views alike, and rank no channel below one that it beats in every view", () => {
    fc.assert(
      fc.property(view, view, (a, b) => {
        const ranks = meanRanks([a, b], F);
        expect(meanRanks([b, a], F)).toEqual(ranks);
        expect(meanRanks([a.map((value) => Math.exp(value)), b.map((value) => 7 * value - 3)], F)).toEqual(ranks);
        for (let start = 0; start < L * F; start += F) {
          const layer = ranks.slice(start, start + F);
          expect(layer.reduce((sum, rank) => sum + rank, 0)).toBe((F * (F - 1)) / 2);
          for (let i = start; i < start + F; i++)
            for (let j = start; j < start + F; j++)
              if (a[i]! > a[j]! && b[i]! >= b[j]!) expect(ranks[i]!).toBeGreaterThan(ranks[j]!);
        }
        const shape = { dFfn: F, tFfn: 4 };
        expect(maskFromScores(meanRanks([a, a], F), shape)).toEqual(maskFromScores(a, shape));
      }),
      { seed: 17, numRuns: 50 },
    );
  });
});

describe("randomMask", () => {
  const shape = { numLayers: 3, dFfn: 100, tFfn: 30 };

  test("depends on seed and label alone, and differs between layers", () => {
    const mask = randomMask(shape, 7, "plural");
    checkMask(mask, "test", { numLayers: 3, ffnWidth: 100 });
    expect(randomMask(shape, 7, "plural")).toEqual(mask);
    expect(randomMask(shape, 7, "rhymes")).not.toEqual(mask);
    expect(randomMask(shape, 8, "plural")).not.toEqual(mask);
    expect(mask.layers[0]).not.toEqual(mask.layers[1]);
  });

  test("draws every channel equally often", () => {
    const counts = new Float64Array(100);
    for (let label = 0; label < 400; label++) {
      for (const layer of randomMask(shape, 1, `${label}`).layers) for (const channel of layer) counts[channel]!++;
    }
    // 1,200 draws at chance 0.3: mean 360, standard deviation 16
    for (const count of counts) expect(Math.abs(count - 360)).toBeLessThan(80);
  });

  test("refuses t_ffn > d_ffn", () => {
    expect(() => randomMask({ ...shape, tFfn: 101 }, 1, "")).toThrow(OptionError);
  });
});

describe("weightNorms", () => {
  const config = { numLayers: 1, width: 2, ffnWidth: 3 } as ModelConfig;
  const weights = (gate: number[], up: number[], down: number[]): Weights =>
    new Map([
      ["model.layers.0.mlp.gate_proj.weight", { shape: [3, 2], data: Float32Array.from(gate) }],
      ["model.layers.0.mlp.up_proj.weight", { shape: [3, 2], data: Float32Array.from(up) }],
      ["model.layers.0.mlp.down_proj.weight", { shape: [2, 3], data: Float32Array.from(down) }],
    ]);

  test("multiplies the norms of gate row, up row and down column", () => {
    // norms: gate 5, 1, 2 · up 1, 1, 2 · down 1, 10, 1 → 5, 10, 4
    const all = weights([3, 4, 1, 0, 0, 2], [1, 0, 0, 1, 2, 0], [1, 6, 0, 0, 8, 1]);
    expect([...weightNorms((name) => all.get(name), config)]).toEqual([5, 10, 4]);
  });

  test("refuses weights that are missing or of another size", () => {
    expect(() => weightNorms(() => undefined, config)).toThrow(ShapeError);
    expect(() => weightNorms((name) => weights([1], [1], [1]).get(name), config)).toThrow(
      /gate_proj.weight: wanted 6 weights, got \[1\]/,
    );
  });
});
