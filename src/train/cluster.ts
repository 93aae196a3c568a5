/**
 * Clusters of prompts, by what they activate: Ward's, which show how many there are, or k-means. The same data, count and seed give the
 * same clusters.
 *
 * Shapes: N points, vectors of one length
 */
import { OptionError } from "../errors.ts";
import type { Random } from "../random.ts";

/** Two clusters lie apart clearly if joining them costs so many times what the join before cost. */
const CLEAR_GAP = 3;
/** Points whose distances are kept, at most: 0.8 GB. */
const MAX_POINTS = 20_000;

/**
 * Joins the two clusters that lengthen the squared distances to the centres least, again and again (Ward's method), until `atMost` are
 * left; or fewer, if a number of them is clear: one more join would cost three times what the last one did. Of several the largest.
 *
 * @param points N
 * @returns cluster of each point, [N]; every cluster has at least one
 * @throws {OptionError} if there are fewer points than `atMost`, or more than 20,000
 * @see Ward 1963; Murtagh 1983 for the chains of nearest neighbours
 */
export function wardClusters(points: readonly Float32Array[], atMost: number): Int32Array {
  checkCount(points, atMost);
  if (points.length > MAX_POINTS)
    throw new OptionError(`clusters: wanted at most ${MAX_POINTS} prompts, got ${points.length}. Take fewer examples.`);
  const joins = wardJoins(points).sort((a, b) => a.cost - b.cost);
  return groups(points.length, joins.slice(0, points.length - clearCount(joins, atMost)));
}

/** Two points whose clusters are joined, and how much that adds to the squared distances to the centres. */
interface Join {
  a: number;
  b: number;
  cost: number;
}

/**
 * All N − 1 joins, in no order. A cluster lives in the row of one of its points. Follows nearest neighbours until two are each other's,
 * which Ward's method would join sooner or later, whatever it joins before.
 */
function wardJoins(points: readonly Float32Array[]): Join[] {
  const N = points.length;
  const costs = new Float32Array((N * (N - 1)) / 2);
  const at = (a: number, b: number) => (a > b ? (a * (a - 1)) / 2 + b : (b * (b - 1)) / 2 + a);
  for (let a = 0; a < N; a++) for (let b = 0; b < a; b++) costs[at(a, b)] = squaredDistance(points[a]!, points[b]!) / 2;
  const sizes = new Int32Array(N).fill(1);
  const alive = Array.from({ length: N }, (_, i) => i);
  const joins: Join[] = [];
  const chain: number[] = [];
  while (alive.length > 1) {
    if (chain.length === 0) chain.push(alive[0]!);
    const end = chain.at(-1)!;
    const before = chain.at(-2);
    let nearest = before ?? (alive[0] === end ? alive[1]! : alive[0]!); // of equals the one before, or chains would not end
    for (const other of alive) if (other !== end && costs[at(end, other)]! < costs[at(end, nearest)]!) nearest = other;
    if (nearest !== before) {
      chain.push(nearest);
      continue;
    }
    chain.length -= 2;
    const cost = costs[at(end, before)]!;
    joins.push({ a: before, b: end, cost });
    alive.splice(alive.indexOf(end), 1);
    const [sizeA, sizeB] = [sizes[before]!, sizes[end]!];
    for (const other of alive) {
      if (other === before) continue;
      const size = sizes[other]!;
      const [toA, toB] = [costs[at(before, other)]!, costs[at(end, other)]!];
      costs[at(before, other)] = ((sizeA + size) * toA + (sizeB + size) * toB - size * cost) / (sizeA + sizeB + size);
    }
    sizes[before] = sizeA + sizeB;
  }
  return joins;
}

/** @param joins by ascending cost */
function clearCount(joins: readonly Join[], atMost: number): number {
  for (let count = atMost; count > 1; count--) {
    const next = joins[joins.length - count + 1]!.cost; // what leaves count − 1
    const last = joins[joins.length - count]?.cost ?? Infinity; // every point alone: none
    if (next > CLEAR_GAP * last) return count;
  }
  return atMost;
}

/** Number, from 0, of the group that each of N points is in after some joins. */
function groups(N: number, joins: readonly Join[]): Int32Array {
  const parent = Array.from({ length: N }, (_, i) => i);
  const root = (i: number): number => {
    for (; parent[i] !== i; i = parent[i]!) parent[i] = parent[parent[i]!]!; // halves the way for the next one
    return i;
  };
  for (const { a, b } of joins) parent[root(b)] = root(a);
  const numbers = new Map<number, number>();
  return Int32Array.from(parent, (_, i) => {
    const own = root(i);
    if (!numbers.has(own)) numbers.set(own, numbers.size);
    return numbers.get(own)!;
  });
}

function checkCount(points: readonly Float32Array[], count: number): void {
  if (count >= 1 && count <= points.length) return;
  throw new OptionError(`clusters: wanted 1..${points.length} (prompts), got ${count}. Take more examples.`);
}

const MAX_ITERATIONS = 50;
/** Starts from other seeds. One start alone often leaves two kinds of prompts in one cluster, and splits another. */
const NUM_STARTS = 5;

export interface Clusters {
  /** Cluster of each point, [N]; every cluster in 0..count-1 has at least one. */
  clusterOf: Int32Array;
  /** Mean of each cluster. */
  centres: Float64Array[];
}

/**
 * Plain Lloyd iterations from k-means++ seeds, several times.
 *
 * @param points N, at least `count`
 * @throws {OptionError} if there are fewer points than clusters
 * @see Arthur & Vassilvitskii 2007, "k-means++: the advantages of careful seeding"
 */
export function kMeans(points: readonly Float32Array[], count: number, random: Random): Clusters {
  checkCount(points, count);
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

/** Mean of all points. */
export const meanOf = (points: readonly ArrayLike<number>[]): Float64Array =>
  means(points, new Int32Array(points.length), 1)[0]!;

/** Means of the points of each cluster. */
export function means(points: readonly ArrayLike<number>[], clusterOf: Int32Array, count: number): Float64Array[] {
  const { length } = points[0]!;
  const sums = Array.from({ length: count }, () => new Float64Array(length));
  const sizes = new Int32Array(count);
  for (const [i, point] of points.entries()) {
    const cluster = clusterOf[i]!;
    sizes[cluster]!++;
    const sum = sums[cluster]!;
    for (let d = 0; d < length; d++) sum[d]! += point[d]!;
  }
  return sums.map((sum, cluster) => sum.map((value) => value / Math.max(1, sizes[cluster]!)));
}
