import fc from "fast-check";
import { expect, test } from "vitest";
import { difference, normal } from "../../test/support/graphs.ts";
import { choleskySolve } from "./cholesky.ts";

/** A Bᵀ of [n, k] and [m, k]: [n, m]. */
function product(a: ArrayLike<number>, b: ArrayLike<number>, k: number): Float64Array {
  const [n, m] = [a.length / k, b.length / k];
  return Float64Array.from({ length: n * m }, (_, at) => {
    const [i, j] = [Math.floor(at / m), at % m];
    return Array.from({ length: k }, (_, l) => a[i * k + l]! * b[j * k + l]!).reduce((sum, value) => sum + value, 0);
  });
}

test("solves what it is given, from the lower half alone", () => {
  const size = fc.integer({ min: 1, max: 12 });
  fc.assert(
    fc.property(size, size, fc.nat(), (n, m, seed) => {
      const factor = normal(`factor ${seed}`, n * n);
      const a = product(factor, factor, n);
      for (let i = 0; i < n; i++) a[i * n + i]! += 0.5;
      const wanted = normal(`solution ${seed}`, m * n); // Xᵀ [m, n]
      const b = product(a, wanted, n); // [n, m]
      for (let i = 0; i < n; i++) a.fill(Number.NaN, i * n + i + 1, (i + 1) * n);
      choleskySolve(a, b, n);
      const found = Float64Array.from(wanted, (_, at) => b[(at % n) * m + Math.floor(at / n)]!);
      expect(difference(found, wanted)).toBeLessThan(1e-9);
    }),
    { seed: 3, numRuns: 50 },
  );
});

test("refuses a matrix that is not positive definite", () => {
  expect(() => choleskySolve(Float64Array.of(1, 0, 2, 4), new Float64Array(2), 2)).toThrow(/row 1 leaves 0/);
  expect(() => choleskySolve(Float64Array.of(Number.NaN), new Float64Array(1), 1)).toThrow(/row 0 leaves NaN/);
});
