import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FileError, OptionError, ShapeError } from "../errors.ts";
import { checkMask, fromDenseMask, fullMask, type Mask, maskFromScores, toDenseMask } from "./mask.ts";
import { maskFromJson, maskToJson } from "./maskFile.ts";
import { softTopK } from "./softTopK.ts";

const good: Mask = { tFfn: 2, dFfn: 4, layers: [Int32Array.of(0, 3), Int32Array.of(1, 2)] };
const soft: Mask = { ...good, lambda: [Float32Array.of(1, 0.5), Float32Array.of(0.25, 1)] };

const malformed: [string, object, RegExp][] = [
  ["t_ffn > d_ffn", { tFfn: 5 }, /t_ffn in 1\.\.4 \(d_ffn\), got 5/],
  ["t_ffn not an integer", { tFfn: 1.5 }, /got 1\.5/],
  ["d_ffn of 0", { dFfn: 0 }, /d_ffn, got 0/],
  ["no layers", { layers: [] }, /at least one layer/],
  ["too few channels in a layer", { layers: [[0, 3], [1]] }, /2 kept channels in layer 1, got 1/],
  ["a channel out of range", { layers: [[0, 4]] }, /0\.\.3 in layer 0, got 4 at position 1/],
  ["a negative channel", { layers: [[-1, 2]] }, /got -1 at position 0/],
  ["a channel twice", { layers: [[2, 2]] }, /ascending/],
  ["channels out of order", { layers: [[3, 0]] }, /ascending/],
  ["λ for another number of layers", { lambda: [[1, 1]] }, /λ for 2 layers, got 1/],
  [
    "too many λ in a layer",
    {
      lambda: [
        [1, 1],
        [1, 1, 1],
      ],
    },
    /2 values of λ in layer 1, got 3/,
  ],
  [
    "λ of 0",
    {
      lambda: [
        [1, 0],
        [1, 1],
      ],
    },
    /λ in \(0, 1\] in layer 0, got 0/,
  ],
  [
    "λ above 1",
    {
      lambda: [
        [1, 1],
        [1, 1.1],
      ],
    },
    /layer 1, got 1\.1 at position 1/,
  ],
];

describe("a malformed mask is refused with what was wanted and what came", () => {
  for (const [name, change, message] of malformed) {
    test(name, () => {
      expect(() => checkMask({ ...good, ...change } as unknown as Mask, "test")).toThrow(OptionError);
      expect(() => checkMask({ ...good, ...change } as unknown as Mask, "test")).toThrow(message);
      const json = { ...maskToJson(good), ...change };
      expect(() => maskFromJson(json, "mask.json")).toThrow(FileError);
      expect(() => maskFromJson(json, "mask.json")).toThrow(message);
    });
  }

  test("NaN as λ", () => {
    const lambda = [Float32Array.of(1, Number.NaN), Float32Array.of(1, 1)];
    expect(() => checkMask({ ...good, lambda }, "test")).toThrow(/got NaN/);
  });

  test("a mask of another model", () => {
    expect(() => checkMask(good, "test", { numLayers: 2, ffnWidth: 4 })).not.toThrow();
    expect(() => checkMask(good, "test", { numLayers: 2, ffnWidth: 8 })).toThrow(ShapeError);
    expect(() => checkMask(good, "test", { numLayers: 3, ffnWidth: 4 })).toThrow(/another model/);
  });

  test("JSON that is no mask at all, seed 3", () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(() => maskFromJson(value, "mask.json")).toThrow(FileError);
      }),
      { seed: 3, numRuns: 300 },
    );
    expect(() => maskFromJson({ ...maskToJson(good), extra: 1 }, "mask.json")).toThrow(/extra/);
    expect(() => maskFromJson({ ...maskToJson(good), tFfn: "2" }, "mask.json")).toThrow(/tFfn/);
  });
});

test("JSON gives the mask back, hard or soft", () => {
  for (const mask of [good, soft]) {
    expect(maskFromJson(JSON.parse(JSON.stringify(maskToJson(mask))), "mask.json")).toEqual(mask);
  }
});

test("the dense form gives the mask back; a full mask is dense", () => {
  for (const mask of [good, soft, fullMask(3, 5)]) expect(fromDenseMask(toDenseMask(mask), mask.dFfn)).toEqual(mask);
  expect([...toDenseMask(soft)]).toEqual([1, 0, 0, 0.5, 0, 0.25, 1, 0]);
  expect([...toDenseMask(fullMask(2, 3))]).toEqual([1, 1, 1, 1, 1, 1]);
  expect(() => fromDenseMask(Float32Array.of(1, 0, 1, 1), 2)).toThrow(OptionError);
  expect(() => fromDenseMask(new Float32Array(4), 2)).toThrow(OptionError);
});

describe("maskFromScores", () => {
  test("applies SoftTopK to each layer by itself and always makes a valid mask, seed 4", () => {
    fc.assert(
      fc.property(
        fc.array(fc.float({ min: -10, max: 10, noNaN: true }), { minLength: 12, maxLength: 12 }),
        fc.integer({ min: 1, max: 4 }),
        (values, tFfn) => {
          const scores = Float32Array.from(values);
          const mask = maskFromScores(scores, { dFfn: 4, tFfn, epsilon: 0.3 });
          checkMask(mask, "test", { numLayers: 3, ffnWidth: 4 });
          const hard = maskFromScores(scores, { dFfn: 4, tFfn });
          expect(hard).toEqual({ tFfn, dFfn: 4, layers: mask.layers });
          for (let layer = 0; layer < 3; layer++) {
            const { kept, lambda } = softTopK(scores.subarray(4 * layer, 4 * layer + 4), tFfn, 0.3);
            expect(mask.layers[layer]).toEqual(kept);
            expect(mask.lambda![layer]).toEqual(Float32Array.from(kept, (channel) => lambda[channel]!));
          }
        },
      ),
      { seed: 4, numRuns: 100 },
    );
  });

  test("refuses scores that do not fill whole layers, and K > F", () => {
    expect(() => maskFromScores(new Float32Array(7), { dFfn: 4, tFfn: 2 })).toThrow(ShapeError);
    expect(() => maskFromScores([], { dFfn: 4, tFfn: 2 })).toThrow(ShapeError);
    expect(() => maskFromScores(new Float32Array(8), { dFfn: 4, tFfn: 5 })).toThrow(OptionError);
  });
});
