/**
 * k-means, for prompts by what they activate. Plain Lloyd iterations from k-means++ seeds, several times; the same data, seed and count
 * give the same clusters.
 *
 * Shapes: N points · D dimensions · C clusters
 */
import { OptionError } from "../errors.ts";
import type { Random } from "../random.ts";

const MAX_ITERATIONS = 50;
/** Starts from other seeds. One start alone often leaves two kinds of prompts in one cluster, and splits another. */
const NUM_STARTS = 5;

export interface Clusters {
  /** Cluster of each point, [N]; every cluster in 0..C-1 has at least one. */
  clusterOf: Int32Array;
  /** Mean of each cluster, C × [D]. */
  centres: Float64Array[];
}

/**
 * @param points N × [D], N ≥ C
 * @throws {OptionError} if there are fewer points than clusters
 * @see Arthur & Vassilvitskii 2007, "k-means++: the advantages of careful seeding"
 */
export function kMeans(points: readonly Float32Array[], count: number, random: Random): Clusters {
  if (!(count >= 1 && count <= points.length)) {
    throw new OptionError(`clusters: wanted 1..${points.length} (prompts), got ${count}. Take more examples.`);
  }
  const starts = Array.from({ length: NUM_STARTS }, () => kMeansOnce(points, count, random));
  return starts.reduce((best, other) => (other.spread < best.spread ? other : best));
}

/** `spread`: sum of squared distances to the centres, what k-means makes small. */
function kMeansOnce(points: readonly Float32Array[], count: number, random: Random): Clusters & { spread: number } {
  let centres = seeds(points, count, random);
  let clusterOf = new Int32Array(points.length).fill(-1);
  for (let iteration = 0; iteration < MAX_ITERATIONS; iteration++) {
    const distance = new Float64Array(points.length);
    const next = Int32Array.from(points, (point, i) => {
      const [best, squares] = nearest(point, centres);
      distance[i] = squares;
      return best;
    });
    adoptFarthest(next, distance, count);
    const isDone = next.every((cluster, i) => cluster === clusterOf[i]);
    clusterOf = next;
    if (isDone) break;
    centres = means(points, clusterOf, count);
  }
  const spread = points.reduce((sum, point, i) => sum + squaredDistance(point, centres[clusterOf[i]!]!), 0);
  return { clusterOf, centres, spread };
}

/** Points as first centres, each drawn in proportion to its squared distance from those before it. */
function seeds(points: readonly Float32Array[], count: number, random: Random): Float64Array[] {
  const centres = [Float64Array.from(points[random.int(points.length)]!)];
  const distance = Float64Array.from(points, (point) => squaredDistance(point, centres[0]!));
  while (centres.length < count) {
    let left = random.float() * distance.reduce((sum, squares) => sum + squares, 0);
    const drawn = distance.findIndex((squares) => {
      left -= squares;
      return left < 0;
    });
    const centre = Float64Array.from(points[drawn < 0 ? random.int(points.length) : drawn]!); // < 0: all points are centres
    centres.push(centre);
    for (const [i, point] of points.entries()) distance[i] = Math.min(distance[i]!, squaredDistance(point, centre));
  }
  return centres;
}

/** A cluster that lost all its points takes the one that lies farthest from its centre. */
function adoptFarthest(clusterOf: Int32Array, distance: Float64Array, count: number): void {
  const sizes = new Int32Array(count);
  for (const cluster of clusterOf) sizes[cluster]!++;
  for (let empty = sizes.indexOf(0); empty >= 0; empty = sizes.indexOf(0)) {
    let farthest = -1;
    for (const [i, squares] of distance.entries()) {
      if (sizes[clusterOf[i]!]! > 1 && (farthest < 0 || squares > distance[farthest]!)) farthest = i;
    }
    sizes[clusterOf[farthest]!]!--;
    sizes[empty]!++;
    clusterOf[farthest] = empty;
    distance[farthest] = 0;
  }
}

/** @returns the index of the nearest centre, and the squared distance to it */
function nearest(point: Float32Array, centres: readonly Float64Array[]): [number, number] {
  let [best, least] = [0, Infinity];
  for (const [i, centre] of centres.entries()) {
    const squares = squaredDistance(point, centre);
    if (squares < least) [best, least] = [i, squares];
  }
  return [best, least];
}

function squaredDistance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i]! - b[i]!) ** 2;
  return sum;
}

/** Means of the points of each cluster. */
export function means(points: readonly ArrayLike<number>[], clusterOf: Int32Array, count: number): Float64Array[] {
  const D = points[0]!.length;
  const sums = Array.from({ length: count }, () => new Float64Array(D));
  const sizes = new Int32Array(count);
  for (const [i, point] of points.entries()) {
    const cluster = clusterOf[i]!;
    sizes[cluster]!++;
    const sum = sums[cluster]!;
    for (let d = 0; d < D; d++) sum[d]! += point[d]!;
  }
  return sums.map((sum, cluster) => sum.map((value) => value / Math.max(1, sizes[cluster]!)));
}
