import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { OptionError } from "../errors.ts";
import { Random } from "../random.ts";
import { kMeans, means } from "./cluster.ts";

/** `size` points around each centre, at most 0.2 away in every dimension. */
function blobs(centres: readonly (readonly number[])[], size: number, random: Random): Float32Array[] {
  return centres.flatMap((centre) =>
    Array.from({ length: size }, () => Float32Array.from(centre, (x) => x + 0.4 * random.float() - 0.2)),
  );
}
const squared = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a).reduce((sum, x, i) => sum + (x - b[i]!) ** 2, 0);

describe("k-means", () => {
  test.each([1, 2, 3, 4, 5])("finds blobs that lie far apart, seed %i", (seed) => {
    const centres = [
      [0, 0, 0],
      [50, 0, 0],
      [0, 50, 0],
      [0, 0, 50],
    ];
    const { clusterOf } = kMeans(blobs(centres, 12, new Random(seed)), 4, new Random(`${seed}/k-means`));
    for (let blob = 0; blob < 4; blob++) expect(new Set(clusterOf.subarray(12 * blob, 12 * blob + 12)).size).toBe(1);
    expect(new Set(clusterOf).size).toBe(4);
  });

  test("of any points: all clusters in use, centres are means, every point in its nearest cluster, the same again", () => {
    const point = fc.array(fc.double({ min: -10, max: 10, noNaN: true }), { minLength: 2, maxLength: 2 });
    fc.assert(
      fc.property(fc.array(point, { minLength: 6, maxLength: 40 }), fc.integer({ min: 1, max: 6 }), (rows, count) => {
        const points = rows.map((row) => Float32Array.from(row));
        const { clusterOf, centres } = kMeans(points, count, new Random(7));
        expect(kMeans(points, count, new Random(7)).clusterOf).toEqual(clusterOf);
        expect(new Set(clusterOf).size).toBe(count);
        expect(centres).toEqual(means(points, clusterOf, count));
        const isDistinct = new Set(points.map(String)).size >= count;
        for (const [i, own] of isDistinct ? points.entries() : []) {
          const least = Math.min(...centres.map((centre) => squared(own, centre)));
          expect(squared(own, centres[clusterOf[i]!]!)).toBeLessThanOrEqual(least + 1e-9);
        }
      }),
      { seed: 20_261_124, numRuns: 100 },
    );
  });

  test("needs as many points as clusters", () => {
    expect(() => kMeans([Float32Array.of(1)], 2, new Random(1))).toThrow(OptionError);
  });
});
