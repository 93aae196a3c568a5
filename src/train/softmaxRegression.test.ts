import { describe, expect, test } from "vitest";
import { Random } from "../random.ts";
import { mostLikely, softmaxRegression } from "./softmaxRegression.ts";

/** Standard normal features in D dimensions, of the class whose centre was added; centres `apart` from each other, on axes. */
function points(seed: string, { R, D, N, apart }: Record<"R" | "D" | "N" | "apart", number>) {
  const random = new Random(seed);
  const classOf = Array.from({ length: N }, (_, i) => i % R);
  const features = classOf.map((r) =>
    Float32Array.from({ length: D }, (_, d) => random.normal() + (d === r ? apart : 0)),
  );
  return { features, classOf };
}

/** Mean of −ln softmax(W x)[class] and half the penalty on squared weights, and its gradient, in plain float64. */
function objective(weights: Float64Array, features: readonly Float32Array[], classOf: readonly number[], R: number) {
  const D = features[0]!.length;
  const gradient = weights.map((w) => 1e-3 * w);
  let loss = 0.5e-3 * weights.reduce((sum, w) => sum + w * w, 0);
  for (const [i, feature] of features.entries()) {
    const y = Array.from({ length: R }, (_, r) => feature.reduce((dot, x, d) => dot + x * weights[r * D + d]!, 0));
    const logSum = Math.log(y.reduce((sum, value) => sum + Math.exp(value), 0));
    loss += (logSum - y[classOf[i]!]!) / features.length;
    for (const [r, value] of y.entries())
      for (const [d, x] of feature.entries())
        gradient[r * D + d]! += ((Math.exp(value - logSum) - (r === classOf[i] ? 1 : 0)) * x) / features.length;
  }
  return { loss, gradient };
}

describe("softmax regression", () => {
  test.each(["1", "2"])("comes within a fifth of the least loss that there is, seed %s", (seed) => {
    const R = 3;
    const { features, classOf } = points(seed, { R, D: 5, N: 60, apart: 2 });
    let best = new Float64Array(R * 5);
    for (let step = 0; step < 1000; step++) {
      const { gradient } = objective(best, features, classOf, R);
      best = best.map((w, j) => w - gradient[j]!); // convex and smooth: a rate of 1 descends
    }
    const least = objective(best, features, classOf, R);
    expect(Math.hypot(...least.gradient)).toBeLessThan(0.01);
    const found = objective(Float64Array.from(softmaxRegression(features, classOf, R)), features, classOf, R);
    expect(found.loss).toBeLessThan(1.2 * least.loss);
    expect(found.loss).toBeGreaterThan(0.999 * least.loss);
  });

  test("tells classes apart that lie apart, in points that it has not seen, and is the same each time", () => {
    const shape = { R: 4, D: 8, apart: 6 };
    const known = points("known", { ...shape, N: 80 });
    const weights = softmaxRegression(known.features, known.classOf, 4);
    expect(softmaxRegression(known.features, known.classOf, 4)).toEqual(weights);
    const unknown = points("unknown", { ...shape, N: 200 });
    const right = unknown.features.filter((feature, i) => mostLikely(weights, feature, 4) === unknown.classOf[i]);
    expect(right.length).toBeGreaterThan(190);
  });

  test("stays finite on features far from unit scale, and with one class or one point", () => {
    const far = [Float32Array.of(1e4, -1e4), Float32Array.of(-1e4, 1e4)];
    expect(softmaxRegression(far, [0, 1], 2).every(Number.isFinite)).toBe(true);
    expect([...softmaxRegression([Float32Array.of(1, 2)], [0], 1)]).toEqual([0, 0]);
  });
});

test("of equal classes the first is most likely", () => {
  expect(mostLikely(Float32Array.of(1, 0, 1, 0, 0, 1), Float32Array.of(1, 1), 3)).toBe(0);
  expect(mostLikely(Float32Array.of(0, 0, 1, 0, 1, 0), Float32Array.of(1, 0), 3)).toBe(1);
});
