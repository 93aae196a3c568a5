import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Random } from "../../src/random.ts";
import { itemsInterval, mcNemarTest, signFlipTest, tInterval, tQuantile, wilson } from "./statistics.ts";

test("Wilson's interval: a worked example, and what it does at the ends", () => {
  // 81 of 263: Newcombe, Statistics in Medicine 17 (1998), table I
  expect(wilson(81, 263).map((end) => +end.toFixed(4))).toEqual([0.2553, 0.3662]);
  expect(wilson(0, 20).map((end) => +end.toFixed(4))).toEqual([0, 0.1611]);
  expect(wilson(60, 60)).toEqual([expect.closeTo(0.9398, 4), expect.closeTo(1, 12)]);
});

test("Student's quantile: the printed table, for odd and even degrees of freedom", () => {
  const table = { 1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 10: 2.228, 29: 2.045, 120: 1.98 };
  for (const [df, t] of Object.entries(table)) expect(tQuantile(Number(df))).toBeCloseTo(t, 3);
});

test("an interval over seeds is wide for two, and there is none for one", () => {
  const [low, high] = tInterval([0.1, 0.3])!;
  expect((low + high) / 2).toBeCloseTo(0.2, 12);
  expect(high - low).toBeCloseTo(2 * 12.7062 * 0.1, 4); // sd / sqrt(2) = 0.1
  expect(tInterval([0.1])).toBeUndefined();
});

describe("interval over items", () => {
  test("of one task it is near Wilson's", () => {
    const items = Array.from({ length: 200 }, (_, i) => (i < 140 ? 1 : 0));
    const [low, high] = itemsInterval([items]);
    expect(low).toBeCloseTo(wilson(140, 200)[0], 2);
    expect(high).toBeCloseTo(wilson(140, 200)[1], 2);
  });

  test("tasks weigh alike, however many items they have; what is always right has no spread", () => {
    const sure = new Array<number>(1000).fill(1);
    expect(itemsInterval([sure, sure])).toEqual([1, 1]);
    expect(itemsInterval([sure, [0, 0, 0, 0]])).toEqual([0.5, 0.5]);
  });

  test("holds the truth in about 95 of 100 samples, seed 1", () => {
    const random = new Random(1);
    let hits = 0;
    for (let sample = 0; sample < 1000; sample++) {
      const tasks = [0.2, 0.5, 0.8].map((share) => Array.from({ length: 40 }, () => (random.float() < share ? 1 : 0)));
      const [low, high] = itemsInterval(tasks);
      if (low <= 0.5 && 0.5 <= high) hits++;
    }
    expect(hits).toBeGreaterThan(925); // four standard deviations of a count around 950 are 28
  });
});

describe("sign flips", () => {
  test("all of one sign: two of 2^n ways are as far", () => {
    expect(signFlipTest([1, 2, 3, 4, 5])).toBe(2 / 32);
    expect(signFlipTest([0.1])).toBe(1);
  });

  test("equals trying every way, seed 2", () => {
    const values = fc.array(fc.integer({ min: -5, max: 5 }), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(values, (differences) => {
        const total = Math.abs(differences.reduce((a, b) => a + b));
        let count = 0;
        for (let ways = 0; ways < 2 ** differences.length; ways++) {
          const sum = differences.reduce((a, b, i) => a + ((ways >> i) & 1 ? -b : b), 0);
          if (Math.abs(sum) >= total) count++;
        }
        expect(signFlipTest(differences)).toBe(count / 2 ** differences.length);
      }),
      { seed: 2, numRuns: 200 },
    );
  });
});

test("McNemar: the exact binomial tail", () => {
  expect(mcNemarTest(0, 5)).toBeCloseTo(2 / 32, 12);
  expect(mcNemarTest(2, 8)).toBeCloseTo((2 * (1 + 10 + 45)) / 1024, 12);
  expect(mcNemarTest(4, 4)).toBe(1);
  expect(mcNemarTest(0, 0)).toBe(1);
  expect(mcNemarTest(600, 900)).toBeLessThan(1e-10); // no overflow where 2^n has none
});
