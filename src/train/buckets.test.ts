import fc from "fast-check";
import { expect, test } from "vitest";
import { planBuckets } from "./buckets.ts";

/** Positions needed when every length goes into the next bucket. */
function positions(weightOf: ReadonlyMap<number, number>, buckets: readonly number[]): number {
  let sum = 0;
  for (const [length, weight] of weightOf) sum += weight * buckets.find((bucket) => length <= bucket)!;
  return sum;
}

/** Every way to choose at most `k` of the lengths that contains the longest. */
function choices(lengths: readonly number[], k: number): number[][] {
  const [first, ...rest] = lengths;
  if (first === undefined) return [[]];
  const withFirst = k > 0 ? choices(rest, k - 1).map((chosen) => [first, ...chosen]) : [];
  return rest.length === 0 ? withFirst : [...withFirst, ...choices(rest, k)];
}

test("no choice of buckets wastes less (seed 1, brute force over all choices)", () => {
  const histogram = fc.uniqueArray(fc.tuple(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 1, max: 9 })), {
    minLength: 1,
    maxLength: 9,
    selector: ([length]) => length,
  });
  fc.assert(
    fc.property(histogram, fc.integer({ min: 1, max: 5 }), (entries, maxBuckets) => {
      const weightOf = new Map(entries);
      const plan = planBuckets(weightOf, maxBuckets);
      const sorted = [...weightOf.keys()].sort((a, b) => a - b);
      const best = Math.min(...choices(sorted, maxBuckets).map((buckets) => positions(weightOf, buckets)));
      expect(plan.lengths.length).toBeLessThanOrEqual(maxBuckets);
      expect(plan.lengths).toEqual([...plan.lengths].sort((a, b) => a - b));
      expect(positions(weightOf, plan.lengths)).toBe(best);
      const tokens = entries.reduce((sum, [length, weight]) => sum + length * weight, 0);
      expect(plan.waste).toBeCloseTo(1 - tokens / best, 12);
    }),
    { seed: 1, numRuns: 300 },
  );
});

test("one length needs one bucket and wastes nothing", () => {
  expect(planBuckets(new Map([[17, 0.3]]), 6)).toEqual({ lengths: [17], waste: 0 });
});
