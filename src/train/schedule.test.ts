import fc from "fast-check";
import { expect, test } from "vitest";
import { learningRate } from "./schedule.ts";

test("the rate climbs in equal steps to the peak, halves half-way down, and ends at its share of the peak", () => {
  const schedule = { peak: 1, warmupSteps: 4, totalSteps: 104, minShare: 0.1 };
  expect([1, 2, 3, 4].map((step) => learningRate(step, schedule))).toEqual([0.25, 0.5, 0.75, 1]);
  expect(learningRate(54, schedule)).toBeCloseTo(0.55, 12); // cos = 0: mean of peak and minimum
  expect(learningRate(104, schedule)).toBeCloseTo(0.1, 12);
  expect(learningRate(1000, schedule)).toBeCloseTo(0.1, 12);
});

test("a stage that is all warm-up, or one step long, has a rate", () => {
  expect(learningRate(5, { peak: 2, warmupSteps: 5, totalSteps: 5, minShare: 0 })).toBe(2);
  expect(learningRate(1, { peak: 2, warmupSteps: 0, totalSteps: 1, minShare: 0.5 })).toBe(1);
});

test("rates lie in (0, peak], rise through the warm-up and never rise after it, seed 2", () => {
  const cases = fc.record({
    peak: fc.double({ min: 1e-6, max: 1, noNaN: true }),
    warmupSteps: fc.nat(50),
    rest: fc.integer({ min: 1, max: 200 }),
    minShare: fc.double({ min: 0.01, max: 1, noNaN: true }),
  });
  fc.assert(
    fc.property(cases, ({ peak, warmupSteps, rest, minShare }) => {
      const totalSteps = warmupSteps + rest;
      const rates = Array.from({ length: totalSteps }, (_, i) =>
        learningRate(i + 1, { peak, warmupSteps, totalSteps, minShare }),
      );
      for (const [i, rate] of rates.entries()) {
        expect(rate).toBeGreaterThan(0);
        expect(rate).toBeLessThanOrEqual(peak * (1 + 1e-12));
        if (i === 0) continue;
        if (i < warmupSteps) expect(rate).toBeGreaterThan(rates[i - 1]!);
        else if (i > warmupSteps) expect(rate).toBeLessThanOrEqual(rates[i - 1]!);
      }
    }),
    { seed: 2 },
  );
});
