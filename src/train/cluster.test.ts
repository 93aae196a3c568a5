import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { OptionError } from "../errors.ts";
import { Random } from "../random.ts";
import { kMeans, means, wardClusters } from "./cluster.ts";

/** `size` points around each centre, at most 0.2 away in every dimension. */
function blobs(centres: readonly (readonly number[])[], size: number, random: Random): Float32Array[] {
  return centres.flatMap((centre) =>
    Array.from({ length: size }, () => Float32Array.from(centre, (x) => x + 0.4 * random.float() - 0.2)),
  );
}
const squared = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a).reduce((sum, x, i) => sum + (x - b[i]!) ** 2, 0);

/** Joins of the two clusters whose centres' distance costs least, from scratch at every step: partitions by count, and costs. */
function plainWard(points: readonly Float32Array[]) {
  let clusters = points.map((_, i) => [i]);
  const partitions = new Map([[clusters.length, clusters]]);
  const costs = new Map<number, number>(); // of the join that leaves so many
  while (clusters.length > 1) {
    const centres = clusters.map((own) =>
      Array.from(points[0]!, (_, d) => own.reduce((sum, i) => sum + points[i]![d]! / own.length, 0)),
    );
    let [best, a, b] = [Infinity, 0, 0];
    for (let i = 0; i < clusters.length; i++) {
      for (let j = 0; j < i; j++) {
        const [m, n] = [clusters[i]!.length, clusters[j]!.length];
        const cost = ((m * n) / (m + n)) * squared(centres[i]!, centres[j]!);
        if (cost < best) [best, a, b] = [cost, i, j];
      }
    }
    clusters = [...clusters.filter((_, i) => i !== a && i !== b), [...clusters[a]!, ...clusters[b]!]];
    partitions.set(clusters.length, clusters);
    costs.set(clusters.length, best);
  }
  return { partitions, costs };
}
/** A partition without its numbering. */
const asSets = (clusters: readonly (readonly number[])[]) =>
  clusters.map((own) => [...own].sort((a, b) => a - b).join()).sort();
function partition(clusterOf: Int32Array): number[][] {
  const clusters: number[][] = Array.from({ length: Math.max(...clusterOf) + 1 }, () => []);
  for (const [i, cluster] of clusterOf.entries()) clusters[cluster]!.push(i);
  return clusters;
}

describe("Ward's clusters", () => {
  test("are those of joining the cheapest pair again and again, down to the count asked for or a clear one", () => {
    const point = fc.array(fc.double({ min: -10, max: 10, noNaN: true }), { minLength: 3, maxLength: 3 });
    fc.assert(
      fc.property(
        fc.integer({ min: 0 }),
        fc.integer({ min: 1, max: 6 }),
        fc.array(point, { minLength: 1, maxLength: 4 }),
        (seed, atMost, centres) => {
          const points = blobs(centres, 9, new Random(seed)); // distances of which no two are equal
          const { partitions, costs } = plainWard(points);
          const isClear = (count: number) => costs.get(count - 1)! > 3 * costs.get(count)!;
          const clear = Array.from({ length: atMost - 1 }, (_, i) => atMost - i).find(isClear);
          const clusterOf = wardClusters(points, atMost);
          expect(asSets(partition(clusterOf))).toEqual(asSets(partitions.get(clear ?? atMost)!));
        },
      ),
      { seed: 20_261_125, numRuns: 100 },
    );
  });

  test.each([4, 5, 10, 24])("find how many blobs there are, of at most %i", (atMost) => {
    const centres = [
      [0, 0, 0],
      [50, 0, 0],
      [0, 50, 0],
      [0, 0, 50],
    ];
    const clusterOf = wardClusters(blobs(centres, 12, new Random(1)), atMost);
    const wanted = [0, 12, 24, 36].map((from) => Array.from({ length: 12 }, (_, i) => from + i));
    expect(asSets(partition(clusterOf))).toEqual(asSets(wanted));
  });

  test("of equal points are as many as asked for, all in use", () => {
    const clusterOf = wardClusters(
      Array.from({ length: 40 }, () => Float32Array.of(1, 2)),
      7,
    );
    expect(new Set(clusterOf)).toEqual(new Set([0, 1, 2, 3, 4, 5, 6]));
  });

  test("need as many points as clusters, and no more than fit", () => {
    expect(() => wardClusters([Float32Array.of(1)], 2)).toThrow(OptionError);
    const point = Float32Array.of(1);
    expect(() =>
      wardClusters(
        Array.from({ length: 20_001 }, () => point),
        2,
      ),
    ).toThrow(/at most 20000 prompts, got 20001/);
  });
});

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
