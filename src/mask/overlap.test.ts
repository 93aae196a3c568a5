import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ShapeError } from "../errors.ts";
import { randomMask } from "./baselines.ts";
import { type Mask, maskFromScores } from "./mask.ts";
import { maskDiagnostics, overlap } from "./overlap.ts";

const average = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
/** As `toBeCloseTo`, for numbers that are NaN where there is no pair to average over. */
function expectClose(actual: number, expected: number): void {
  if (Number.isNaN(expected)) expect(actual).toBeNaN();
  else expect(actual).toBeCloseTo(expected, 12);
}
const masksOf = (...layersPerMask: number[][][]): Mask[] =>
  layersPerMask.map((layers) => ({ tFfn: 2, dFfn: 4, layers: layers.map((kept) => Int32Array.from(kept)) }));

test("overlap and Jaccard count common channels per layer", () => {
  const [a, b] = masksOf(
    [
      [0, 1],
      [0, 1],
      [0, 1],
    ],
    [
      [0, 1],
      [1, 2],
      [2, 3],
    ],
  ) as [Mask, Mask];
  expect(overlap(a, b)).toEqual([1, 0.5, 0]);
  expect(() => overlap(a, { ...b, dFfn: 8 })).toThrow(ShapeError);
});

test("random masks overlap at the chance level K/F", () => {
  const shape = { numLayers: 4, dFfn: 2000, tFfn: 500 };
  // 4 × 500 draws at chance 0.25: the standard deviation of the mean is 0.007
  expect(average(overlap(randomMask(shape, 1, "a"), randomMask(shape, 1, "b")))).toBeCloseTo(0.25, 1);
  expect(overlap(randomMask(shape, 1, "a"), randomMask(shape, 1, "a"))).toEqual([1, 1, 1, 1]);
});

describe("maskDiagnostics", () => {
  test("equals the mean over pairs of prompts, pair by pair, seed 5", () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom("code", "history", "maths"), { minLength: 1, maxLength: 12 }),
        fc.nat(1000),
        (labels, seed) => {
          const masks = labels.map((_, n) => randomMask({ numLayers: 2, dFfn: 10, tFfn: 4 }, seed, `${n}`));
          const result = maskDiagnostics(masks, labels, undefined, { byLayer: true });
          const pairs = (a: string, b: string) =>
            labels.flatMap((x, i) =>
              labels.flatMap((y, j) => (i !== j && x === a && y === b ? [overlap(masks[i]!, masks[j]!)] : [])),
            );
          const within = result.domains.map((domain) => pairs(domain, domain)).filter((list) => list.length > 0);
          const across = result.domains.flatMap((a) => result.domains.filter((b) => b !== a).map((b) => pairs(a, b)));
          for (const layer of [0, 1]) {
            const expected = (groups: number[][][]) =>
              average(groups.map((group) => average(group.map((shares) => shares[layer]!))));
            expectClose(result.overlapWithin[layer]!, expected(within));
            expectClose(result.overlapAcross[layer]!, expected(across));
          }
          result.matrix.forEach((row, a) => {
            row.forEach((share, b) => {
              const shares = pairs(result.domains[a]!, result.domains[b]!);
              expectClose(share, average(shares.map(average)));
              for (const layer of [0, 1]) {
                expectClose(result.matrices![layer]![a]![b]!, average(shares.map((ofPair) => ofPair[layer]!)));
              }
            });
          });
        },
      ),
      { seed: 5, numRuns: 60 },
    );
  });

  test("shows collapse: one mask for all prompts", () => {
    const result = maskDiagnostics(
      masksOf([[0, 1]], [[0, 1]], [[0, 1]], [[0, 1]]),
      ["a", "a", "b", "b"],
      [
        [9, 8, 1, 0],
        [9, 8, 1, 0],
        [9, 8, 1, 0],
        [9, 8, 1, 0],
      ],
    );
    expect(result).toEqual({
      domains: ["a", "b"],
      chance: 0.5,
      overlapWithin: [1],
      overlapAcross: [1],
      matrix: [
        [1, 1],
        [1, 1],
      ],
      everUsed: [0.5],
      meanLambda: [1],
      scoreStd: [0],
    });
  });

  test("shows what works: the same within a domain, apart across", () => {
    const result = maskDiagnostics(
      masksOf([[0, 1]], [[0, 1]], [[2, 3]], [[2, 3]]),
      ["a", "a", "b", "b"],
      [
        [1, 1, -1, -1],
        [1, 1, -1, -1],
        [-1, -1, 1, 1],
        [-1, -1, 1, 1],
      ],
    );
    expect(result.overlapWithin).toEqual([1]);
    expect(result.overlapAcross).toEqual([0]);
    expect(result.everUsed).toEqual([1]);
    expect(result.scoreStd).toEqual([1]);
  });

  test("averages λ of kept channels; a domain of one prompt has no overlap with itself", () => {
    const mask = maskFromScores([2, 1, 0, -1], { dFfn: 4, tFfn: 2, epsilon: 1e9 }); // λ = 1/2
    const result = maskDiagnostics([mask], ["only"]);
    expect(result.meanLambda[0]).toBeCloseTo(0.5, 6);
    expect(JSON.stringify(result.matrix)).toBe("[[null]]");
    expect(JSON.stringify(result.overlapAcross)).toBe("[null]");
  });

  test("refuses what does not fit together", () => {
    const [mask] = masksOf([[0, 1]]) as [Mask];
    expect(() => maskDiagnostics([], [])).toThrow(ShapeError);
    expect(() => maskDiagnostics([mask], [])).toThrow(/labels \[1\]/);
    expect(() => maskDiagnostics([mask], ["a"], [])).toThrow(/scores \[1\]/);
    expect(() => maskDiagnostics([mask], ["a"], [[1, 2]])).toThrow(/scores of a prompt \[4\]/);
    expect(() => maskDiagnostics([mask, { ...mask, layers: [...mask.layers, ...mask.layers] }], ["a", "a"])).toThrow(
      ShapeError,
    );
  });
});
