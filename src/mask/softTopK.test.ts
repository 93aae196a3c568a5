import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { golden } from "../../test/support/softTopK.ts";
import { OptionError, ShapeError } from "../errors.ts";
import { softTopK, softTopKGradient, topK } from "./softTopK.ts";

const sum = (values: ArrayLike<number>): number => Array.from(values).reduce((a, b) => a + b, 0);
const largestDifference = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Array.from(a).reduce((worst, x, i) => Math.max(worst, Math.abs(x - b[i]!)), 0);

/** λ by bisection on ln c: slow, independent of the sorted solution. */
function bisect(scores: readonly number[], k: number, epsilon: number): number[] {
  const at = (logScale: number) => scores.map((s) => Math.min(1, Math.exp(s / epsilon + logScale)));
  let low = -Math.max(...scores) / epsilon + Math.log(k / scores.length) - 1;
  let high = -Math.min(...scores) / epsilon;
  for (let i = 0; i < 200; i++) {
    const middle = (low + high) / 2;
    if (sum(at(middle)) < k) low = middle;
    else high = middle;
  }
  return at(high);
}

/** Scores over several orders of magnitude, with ties; k; ε. */
const cases = fc
  .tuple(fc.integer({ min: 1, max: 60 }), fc.constantFrom(0.01, 0.1, 0.3, 1, 4), fc.constantFrom(0.01, 1, 30, 1e6))
  .chain(([n, epsilon, spread]) =>
    fc.record({
      scores: fc.array(
        fc.integer({ min: -50, max: 50 }).map((x) => (x / 17) * spread),
        { minLength: n, maxLength: n },
      ),
      k: fc.integer({ min: 1, max: n }),
      epsilon: fc.constant(epsilon),
    }),
  );
const runs = { seed: 1, numRuns: 500 };

describe("softTopK", () => {
  for (const { n, k, eps, scores, weights, lambda, kept, grad } of golden) {
    test(`equals the golden values, n ${n}, k ${k}, ε ${eps}`, () => {
      const result = softTopK(scores, k, eps);
      expect(largestDifference(result.lambda, lambda)).toBeLessThan(1e-12);
      expect([...result.kept]).toEqual(kept);
      if (weights && grad) {
        expect(largestDifference(softTopKGradient(scores, k, eps, weights), grad)).toBeLessThan(1e-12);
      }
    });
  }

  test("keeps exactly k channels; λ sums to k, lies in [0, 1] and is bounded from below on kept ones, seed 1", () => {
    fc.assert(
      fc.property(cases, ({ scores, k, epsilon }) => {
        const { lambda, kept } = softTopK(scores, k, epsilon);
        expect(new Set(kept).size).toBe(k);
        expect([...kept]).toEqual([...kept].sort((a, b) => a - b));
        expect(Math.abs(sum(lambda) - k)).toBeLessThan(1e-12 * scores.length);
        for (const x of lambda) expect(x >= 0 && x <= 1).toBe(true);
        for (const i of kept) expect(lambda[i]).toBeGreaterThan(0.999 / (scores.length - k + 1));
      }),
      runs,
    );
  });

  test("λ grows with the score; kept are the highest scores, ties to the lower index, seed 1", () => {
    fc.assert(
      fc.property(cases, ({ scores, k, epsilon }) => {
        const { lambda, kept } = softTopK(scores, k, epsilon);
        const ranked = scores.map((_, i) => i).sort((a, b) => scores[b]! - scores[a]! || a - b);
        expect(new Set(kept)).toEqual(new Set(ranked.slice(0, k)));
        for (let r = 1; r < ranked.length; r++) {
          const [above, below] = [ranked[r - 1]!, ranked[r]!];
          expect(lambda[below]).toBeLessThanOrEqual(lambda[above]!);
          if (scores[above] === scores[below]) expect(lambda[above]).toBe(lambda[below]);
        }
      }),
      runs,
    );
  });

  test("agrees with bisection, seed 1", () => {
    fc.assert(
      fc.property(cases, ({ scores, k, epsilon }) => {
        // s/ε itself is rounded: at 1e8 to 1e-8, and bisection, unlike the sorted solution, works on it
        const tolerance = 1e-12 + (Math.max(...scores.map(Math.abs)) / epsilon) * 1e-14;
        expect(largestDifference(softTopK(scores, k, epsilon).lambda, bisect(scores, k, epsilon))).toBeLessThan(
          tolerance,
        );
      }),
      runs,
    );
  });

  test("a common shift of the scores changes nothing; a permutation permutes λ, seed 1", () => {
    fc.assert(
      fc.property(cases, fc.integer({ min: -1000, max: 1000 }), fc.nat(), ({ scores, k, epsilon }, shift, turn) => {
        const { lambda } = softTopK(scores, k, epsilon);
        const tolerance = 1e-10 + ((Math.max(...scores.map(Math.abs)) + Math.abs(shift)) / epsilon) * 1e-14;
        expect(
          largestDifference(
            softTopK(
              scores.map((s) => s + shift),
              k,
              epsilon,
            ).lambda,
            lambda,
          ),
        ).toBeLessThan(tolerance);
        const order = scores.map((_, i) => (i + turn) % scores.length);
        const turned = softTopK(
          order.map((i) => scores[i]!),
          k,
          epsilon,
        ).lambda;
        expect(
          largestDifference(
            turned,
            order.map((i) => lambda[i]!),
          ),
        ).toBeLessThan(1e-12);
      }),
      runs,
    );
  });

  test("limits: ε → 0 gives the hard mask, large ε gives k/n", () => {
    const scores = [3, -1, 2, 0.5];
    expect([...softTopK(scores, 2, 1e-6).lambda]).toEqual([1, 0, 1, 0]);
    expect(largestDifference(softTopK(scores, 2, 1e12).lambda, [0.5, 0.5, 0.5, 0.5])).toBeLessThan(1e-9);
  });

  test("survives the largest finite scores", () => {
    const { lambda, kept } = softTopK([Number.MAX_VALUE, -Number.MAX_VALUE, 0, -0, Number.MAX_VALUE], 3, 1e-300);
    expect([...kept]).toEqual([0, 2, 4]);
    expect([...lambda]).toEqual([1, 0, 0.5, 0.5, 1]);
  });

  test("refuses k outside 1..n, ε that is not positive and scores that are not finite", () => {
    for (const k of [0, -1, 4, 1.5, Number.NaN]) expect(() => softTopK([1, 2, 3], k, 1)).toThrow(OptionError);
    for (const epsilon of [0, -1, Number.NaN, Infinity])
      expect(() => softTopK([1, 2], 1, epsilon)).toThrow(OptionError);
    for (const score of [Number.NaN, Infinity, -Infinity]) {
      expect(() => softTopK([1, score], 1, 1)).toThrow(/finite.*channel 1/);
    }
    expect(() => softTopK([], 1, 1)).toThrow(OptionError);
    expect(() => softTopKGradient([1, 2], 1, 1, [1])).toThrow(ShapeError);
  });
});

describe("topK", () => {
  test("is what SoftTopK keeps, ties and signs of zero included", () => {
    fc.assert(
      fc.property(cases, ({ scores, k, epsilon }) => {
        expect(topK(scores, k)).toEqual(softTopK(scores, k, epsilon).kept);
      }),
      runs,
    );
    expect(topK([0, -0, -1, 0], 2)).toEqual(Int32Array.of(0, 1));
  });

  test("refuses what SoftTopK does", () => {
    for (const [scores, k] of [
      [[1, 2], 0],
      [[1, 2], 3],
      [[1, 2], 1.5],
      [[1, Number.NaN], 1],
    ] as const)
      expect(() => topK(scores, k)).toThrow(OptionError);
  });
});

describe("softTopKGradient", () => {
  test("equals central differences away from ties and kinks, seed 2", () => {
    // The kinks are where ranks k and k + 1 meet and where λ reaches 1: cases that come within h of one are skipped.
    const h = 1e-5;
    let checked = 0;
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: -3, max: 3, noNaN: true }), { minLength: 2, maxLength: 20 }),
        fc.nat(),
        fc.constantFrom(0.3, 1, 3),
        (scores, pick, epsilon) => {
          const n = scores.length;
          const k = 1 + (pick % (n - 1));
          const weights = scores.map((_, i) => Math.cos(7 * i + pick));
          const loss = (s: readonly number[]): number => {
            const { lambda, kept } = softTopK(s, k, epsilon);
            return sum(Array.from(kept, (i) => lambda[i]! * weights[i]!));
          };
          const moved = (i: number, delta: number) => scores.map((s, j) => (j === i ? s + delta : s));
          const regime = (s: readonly number[]): string => {
            const { lambda, kept } = softTopK(s, k, epsilon);
            return `${kept} ${Array.from(lambda, (x) => x === 1)}`;
          };
          const gradient = softTopKGradient(scores, k, epsilon, weights);
          for (let i = 0; i < n; i++) {
            fc.pre(regime(moved(i, h)) === regime(moved(i, -h)));
            const numeric = (loss(moved(i, h)) - loss(moved(i, -h))) / (2 * h);
            expect(Math.abs(gradient[i]! - numeric)).toBeLessThan(1e-7);
            checked++;
          }
        },
      ),
      { seed: 2, numRuns: 200, maxSkipsPerRun: 100 },
    );
    expect(checked).toBeGreaterThan(1000);
  });

  test("sums to zero, since a common shift changes nothing; it reaches dropped channels, not saturated ones", () => {
    const gradient = softTopKGradient([9, 1, 0.5, 0, -1], 3, 1, [1, 2, 3, 0, 0]);
    expect(Math.abs(sum(gradient))).toBeLessThan(1e-15);
    expect(gradient[0]).toBe(0);
    expect(gradient[4]).not.toBe(0);
  });

  test("is zero where all channels are kept", () => {
    expect([...softTopKGradient([1, 1, 1], 3, 1, [1, 2, 3])]).toEqual([0, 0, 0]);
  });
});
