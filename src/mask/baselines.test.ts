import { describe, expect, test } from "vitest";
import { OptionError, ShapeError } from "../errors.ts";
import type { ModelConfig, Weights } from "../model/config.ts";
import { randomMask, shuffledScores, weightNorms } from "./baselines.ts";
import { checkMask } from "./mask.ts";

test("shuffled scores are each layer's own in another order, the same for the same seed and label", () => {
  const scores = Float32Array.from({ length: 60 }, (_, i) => i);
  const shuffled = shuffledScores(scores, 20, 1, "a");
  expect(shuffledScores(scores, 20, 1, "a")).toEqual(shuffled);
  for (const other of [scores, shuffledScores(scores, 20, 2, "a"), shuffledScores(scores, 20, 1, "b")])
    expect(shuffled).not.toEqual(other);
  for (const start of [0, 20, 40])
    expect(shuffled.slice(start, start + 20).sort()).toEqual(scores.slice(start, start + 20));
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
