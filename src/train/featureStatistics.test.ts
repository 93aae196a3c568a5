import { expect, test } from "vitest";
import { FEATURE_MEAN, FEATURE_STD } from "../net/parameters.ts";
import { followFeature } from "./featureStatistics.ts";

const newHead = () => ({ [FEATURE_MEAN]: new Float32Array(2), [FEATURE_STD]: new Float32Array(2).fill(1) });
/** Two rows; of variance 0.02 and 0.08 by what there is of them. */
const batch = Float32Array.of(1.1, 2.2, 0.9, 1.8);

test("statistics move by a hundredth towards those of a batch", () => {
  const head = newHead();
  followFeature(head, batch);
  expect([...head[FEATURE_MEAN]!]).toEqual([0.01, 0.02].map(Math.fround));
  expect(head[FEATURE_STD]![0]).toBeCloseTo(Math.sqrt(0.99 + 0.01 * 1.01), 6); // about the mean before
  expect(head[FEATURE_STD]![1]).toBeCloseTo(Math.sqrt(0.99 + 0.01 * 4.04), 6);
});

test("of a feature that does not change, a new head begins with those of its first batch", () => {
  const head = newHead();
  followFeature(head, Float32Array.of(1, 2), { isSettled: true }); // one row has no deviation
  expect(head[FEATURE_STD]![0]).toBeGreaterThan(0.99);
  const other = newHead();
  followFeature(other, batch, { isSettled: true });
  expect([...other[FEATURE_MEAN]!]).toEqual([1, 2]);
  for (const std of other[FEATURE_STD]!) expect(std).toBeCloseTo(Math.sqrt(0.05), 6);
  followFeature(other, batch, { isSettled: true }); // from then on as any
  expect(other[FEATURE_STD]![0]).toBeCloseTo(Math.sqrt(0.99 * 0.05 + 0.01 * 0.01), 6);
});
