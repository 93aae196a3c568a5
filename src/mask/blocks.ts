/**
 * Blocks of channels: an order of each layer's channels in which neighbours matter for the same prompts, so that a mask of whole blocks costs
 * little against one of free channels. `permuteChannels` (`src/model/permute.ts`) brings a model into it.
 *
 * Shapes: P profiles · L layers · F channels of a layer (d_ffn) · k = F/block blocks
 */
import { OptionError, ShapeError } from "../errors.ts";

/** Per layer, the channels in their new order: `order[layer][place]` is the channel that comes to `place`. [L][F] */
export type ChannelOrder = readonly Int32Array[];

/** Every channel where it is. */
export function storedOrder(numLayers: number, dFfn: number): ChannelOrder {
  return Array.from({ length: numLayers }, () => Int32Array.from({ length: dFfn }, (_, channel) => channel));
}

/** Sweeps over all pairs of blocks, at most: a few suffice. */
const MAX_SWEEPS = 20;

/**
 * Groups the channels of each layer into blocks of equal size such that those of a block have like profiles: k-means with clusters of one size. The
 * squared distances to the means of blocks are never longer than in the order as stored. The same profiles give the same order.
 *
 * Time: sweeps · k · F · P per layer; 0.2 s for F = 1,536, P = 8 and blocks of 16.
 *
 * @param profiles P, each [L·F] and ≥ 0: how much every channel matters for one kind of prompt. Each layer of each is divided by its sum, so that
 *   all kinds count alike
 * @param options `block`: channels of a block
 * @throws {OptionError} if blocks do not divide the channels, or there is no profile
 * @throws {ShapeError} if profiles are of different lengths, or not of whole layers
 */
export function groupChannels(
  profiles: readonly ArrayLike<number>[],
  { dFfn: F, block }: { dFfn: number; block: number },
): ChannelOrder {
  checkBlock("groupChannels", F, block);
  if (profiles.length === 0) throw new OptionError("groupChannels: wanted at least one profile, got none.");
  const numLayers = profiles[0]!.length / F;
  for (const { length } of profiles) {
    if (!Number.isInteger(numLayers) || length !== numLayers * F)
      throw new ShapeError("groupChannels", `profiles [L, F=${F}] of one length`, [length]);
  }
  return storedOrder(numLayers, F).map((stored, layer) => {
    const points = profilePoints(profiles, layer, F);
    const [kept, grown] = [stored, grownOrder(points, block)].map((start) => divideAllPairs(points, start, block));
    return spreadOf(points, grown!, block) < spreadOf(points, kept!, block) ? grown! : kept!;
  });
}

/**
 * Profiles of a layer, channel by channel, [F][P]: square roots, as else the few channels that matter most decide alone (blocks of 64 of SmolLM2-135M
 * keep 0.2 points more so).
 */
function profilePoints(profiles: readonly ArrayLike<number>[], layer: number, F: number): Float64Array[] {
  const points = Array.from({ length: F }, () => new Float64Array(profiles.length));
  for (const [p, profile] of profiles.entries()) {
    let sum = 0;
    for (let channel = 0; channel < F; channel++) sum += profile[layer * F + channel]!;
    for (let channel = 0; channel < F; channel++)
      points[channel]![p] = Math.sqrt(profile[layer * F + channel]! / (sum || 1));
  }
  return points;
}

/**
 * A first order: again and again, the channel that lies farthest from the mean of those that are left, and its nearest neighbours, make a block.
 *
 * @see Domingo-Ferrer & Mateo-Sanz 2002, "Practical data-oriented microaggregation for statistical disclosure control" (MDAV)
 */
function grownOrder(points: readonly Float64Array[], block: number): Int32Array {
  const order: number[] = [];
  let left = [...points.keys()];
  const distance = new Float64Array(points.length);
  while (left.length > 0) {
    const mean = sumOf(points, left).map((sum) => sum / left.length);
    for (const i of left) distance[i] = squaredDistance(points[i]!, mean);
    const farthest = points[left.reduce((best, i) => (distance[i]! > distance[best]! ? i : best))]!;
    for (const i of left) distance[i] = squaredDistance(points[i]!, farthest);
    left.sort((a, b) => distance[a]! - distance[b]! || a - b);
    order.push(...left.slice(0, block));
    left = left.slice(block);
  }
  return Int32Array.from(order);
}

/**
 * Sweeps over all pairs of blocks, each divided anew along the line between its two means: for these means, the best halves. Every division makes the
 * squared distances shorter.
 */
function divideAllPairs(points: readonly Float64Array[], start: Int32Array, block: number): Int32Array {
  const order = start.slice();
  const members = blocksOf(order, block);
  const sums = members.map((channels) => sumOf(points, channels));
  const along = new Float64Array(points.length); // of a pair's channels, from the first block to the second
  for (let sweep = 0, isDone = false; !isDone && sweep < MAX_SWEEPS; sweep++) {
    isDone = true;
    for (let a = 0; a < members.length; a++) {
      for (let b = a + 1; b < members.length; b++) {
        const [first, second] = [members[a]!, members[b]!];
        const direction = sums[b]!.map((sum, p) => sum - sums[a]![p]!);
        let [lastOfFirst, firstOfSecond] = [-Infinity, Infinity];
        for (const i of [...first, ...second]) along[i] = dot(points[i]!, direction);
        for (const i of first) lastOfFirst = Math.max(lastOfFirst, along[i]!);
        for (const i of second) firstOfSecond = Math.min(firstOfSecond, along[i]!);
        if (lastOfFirst <= firstOfSecond) continue;
        isDone = false;
        const both = Int32Array.of(...first, ...second).sort((i, j) => along[i]! - along[j]! || i - j);
        first.set(both.subarray(0, block));
        second.set(both.subarray(block));
        sums[a] = sumOf(points, first);
        sums[b] = sumOf(points, second);
      }
    }
  }
  return order;
}

/** Views into an order, block by block. */
function blocksOf(order: Int32Array, block: number): Int32Array[] {
  return Array.from({ length: order.length / block }, (_, b) => order.subarray(b * block, (b + 1) * block));
}

function sumOf(points: readonly Float64Array[], channels: Iterable<number>): Float64Array {
  const sum = new Float64Array(points[0]!.length);
  for (const channel of channels) for (let p = 0; p < sum.length; p++) sum[p]! += points[channel]![p]!;
  return sum;
}

/** Sum of squared distances to the means of blocks. */
function spreadOf(points: readonly Float64Array[], order: Int32Array, block: number): number {
  let spread = 0;
  for (const channels of blocksOf(order, block)) {
    const mean = sumOf(points, channels).map((sum) => sum / block);
    for (const channel of channels) spread += squaredDistance(points[channel]!, mean);
  }
  return spread;
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

function squaredDistance(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i]! - b[i]!) ** 2;
  return sum;
}

/**
 * Share of a profile's importance that a mask of whole blocks keeps, each layer counting alike; with blocks of 1, one of free channels.
 *
 * @param profile [L·F] in the order as stored, ≥ 0
 * @param options `block`: channels of a block · `tFfn`: channels that are kept in a layer, whole blocks · `chosenBy`: the profile whose best blocks are
 *   kept, [L·F]; if absent the profile itself, which is the most that a mask can keep
 * @throws {OptionError} if blocks do not divide the channels, or those kept
 * @throws {ShapeError} if a profile is of another model than the order
 */
export function keptImportance(
  profile: ArrayLike<number>,
  order: ChannelOrder,
  { block, tFfn, chosenBy = profile }: { block: number; tFfn: number; chosenBy?: ArrayLike<number> },
): number {
  const F = order[0]!.length;
  checkBlock("keptImportance", F, block);
  for (const { length } of [profile, chosenBy]) {
    if (length !== order.length * F)
      throw new ShapeError("keptImportance", `profiles [L=${order.length}, F=${F}]`, [length]);
  }
  const count = tFfn / block;
  if (!Number.isInteger(count) || count < 1 || tFfn > F)
    throw new OptionError(`keptImportance: wanted t_ffn in whole blocks of ${block} up to ${F} channels, got ${tFfn}.`);
  const shares = order.map((channels, layer) => {
    const total = (of: ArrayLike<number>, some: Int32Array) =>
      some.reduce((sum, channel) => sum + of[layer * F + channel]!, 0);
    const blocks = blocksOf(channels, block);
    const scores = blocks.map((own) => total(chosenBy, own));
    const best = [...blocks.keys()].sort((a, b) => scores[b]! - scores[a]! || a - b).slice(0, count);
    return best.reduce((sum, b) => sum + total(profile, blocks[b]!), 0) / (total(profile, channels) || 1);
  });
  return shares.reduce((sum, share) => sum + share, 0) / shares.length;
}

/** @param operation for the message @throws {OptionError} unless whole blocks are F channels */
export function checkBlock(operation: string, F: number, block: number): void {
  if (Number.isInteger(block) && block >= 1 && F % block === 0) return;
  throw new OptionError(`${operation}: wanted blocks that divide ${F} channels (d_ffn), got blocks of ${block}.`);
}
