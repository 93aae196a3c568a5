/**
 * Scores and masks that are not a predictor's choice for its prompt: the baselines and controls that such a choice has to beat.
 *
 * Shapes: T tokens · D model width · L layers · F channels of a layer (d_ffn) · K kept ones (t_ffn)
 */
import { OptionError, ShapeError } from "../errors.ts";
import type { ModelConfig, Weight } from "../model/config.ts";
import { Random } from "../random.ts";
import { type DenseMask, type Mask, maskFromScores, toDenseMask } from "./mask.ts";

/**
 * Scores that draw channels at random, in whole blocks of neighbours (`block` divides F): per layer a random order of the blocks, the best at 0.
 * The same seed and label give the same scores.
 *
 * @returns [L·F]
 */
export function randomScores(
  { numLayers, dFfn, block = 1 }: { numLayers: number; dFfn: number; block?: number },
  seed: number,
  label: string,
): Float32Array {
  const random = new Random(`${seed}/mask/${label}`);
  const scores = new Float32Array(numLayers * dFfn);
  for (let layer = 0; layer < numLayers; layer++) {
    for (const [rank, place] of random.permutation(dFfn / block).entries()) {
      const start = layer * dFfn + place * block;
      scores.fill(-rank, start, start + block);
    }
  }
  return scores;
}

/**
 * K channels per layer drawn at random, in whole blocks of neighbours (`block` divides K and F). The same seed and label give the same
 * mask: one per domain label is the oracle baseline that needs to know the domain; one label for all is a fixed random mask.
 */
export function randomMask(
  { tFfn, ...shape }: { numLayers: number; dFfn: number; tFfn: number; block?: number },
  seed: number,
  label: string,
): Mask {
  return maskFromScores(randomScores(shape, seed, label), { dFfn: shape.dFfn, tFfn });
}

/**
 * Scores channels by their weights: the product of the L2 norms of a channel's gate row, up row and down column.
 *
 * @param read a parameter by name, one at a time
 * @returns [L·F]
 * @throws {ShapeError} if a weight is missing or of another size
 */
export function weightNorms(
  read: (name: string) => Weight | undefined,
  { numLayers, width: D, ffnWidth: F }: ModelConfig,
): Float32Array {
  const scores = new Float32Array(numLayers * F).fill(1);
  for (let layer = 0; layer < numLayers; layer++) {
    for (const matrix of ["gate", "up", "down"] as const) {
      const path = `model.layers.${layer}.mlp.${matrix}_proj.weight`;
      const data = read(path)?.data;
      if (data?.length !== D * F)
        throw new ShapeError(`weightNorms: ${path}`, `${D * F} weights`, [data?.length ?? "none"]);
      const norms = matrix === "down" ? columnNorms(data, F) : rowNorms(data, D);
      for (let channel = 0; channel < F; channel++) scores[layer * F + channel]! *= norms[channel]!;
    }
  }
  return scores;
}

/** L2 norms of the rows of a matrix with so many columns. */
function rowNorms(matrix: Float32Array, columns: number): Float64Array {
  const squares = new Float64Array(matrix.length / columns);
  for (let row = 0, i = 0; row < squares.length; row++) {
    for (const end = i + columns; i < end; i++) squares[row]! += matrix[i]! ** 2;
  }
  return squares.map(Math.sqrt);
}

/** L2 norms of the columns of a matrix with so many of them. */
export function columnNorms(matrix: Float32Array, columns: number): Float64Array {
  const squares = new Float64Array(columns);
  for (let start = 0; start < matrix.length; start += columns) {
    for (let column = 0; column < columns; column++) squares[column]! += matrix[start + column]! ** 2;
  }
  return squares.map(Math.sqrt);
}

/**
 * Several views of channels as one: the mean of a channel's ranks within its layer, from 0 for the lowest score; channels of equal score share the mean of
 * their ranks. With the activations on a prompt and on a text as views this is GLASS, with equal weights.
 *
 * @param views each [L·F]
 * @returns [L·F], in 0..F−1
 * @see Sattarifard et al. 2025, arXiv:2508.14302 (local and global importance of neurons, by weighted rank aggregation). Ours: the statistic of GRIFFIN for both.
 */
export function meanRanks(views: readonly Float32Array[], dFfn: number): Float32Array {
  const ranks = new Float32Array(views[0]!.length);
  for (const scores of views) {
    for (let start = 0; start < scores.length; start += dFfn) {
      const layer = scores.subarray(start, start + dFfn);
      const order = Array.from(layer.keys()).sort((a, b) => layer[a]! - layer[b]!);
      for (let from = 0, to = 0; from < dFfn; from = to) {
        do to++;
        while (to < dFfn && layer[order[to]!] === layer[order[from]!]);
        for (const channel of order.slice(from, to)) ranks[start + channel]! += (from + to - 1) / 2;
      }
    }
  }
  return ranks.map((sum) => sum / views.length);
}

/**
 * The scores of each layer's blocks in a random order: they keep as many blocks, with the same weights λ, of no choice. The same seed and label give
 * the same order.
 */
export function shuffledScores(
  scores: Float32Array,
  dFfn: number,
  { block = 1, seed, label }: { block?: number | undefined; seed: number; label: string },
): Float32Array {
  const random = new Random(`${seed}/shuffled/${label}`);
  const shuffled = new Float32Array(scores.length);
  for (let layer = 0; layer < scores.length; layer += dFfn) {
    for (const [i, place] of random.permutation(dFfn / block).entries()) {
      const from = layer + place * block;
      shuffled.set(scores.subarray(from, from + block), layer + i * block);
    }
  }
  return shuffled;
}

/** One fixed mask from a predictor: that of the mean of its scores over prompts. */
export function genericMask(
  scores: readonly Float32Array[],
  options: { dFfn: number; tFfn: number; epsilon: number },
): DenseMask {
  return toDenseMask(maskFromScores(meanScores(scores), options));
}

export function meanScores(scores: readonly Float32Array[]): Float32Array {
  return scores[0]!.map((_, i) => scores.reduce((sum, row) => sum + row[i]!, 0) / scores.length);
}

/**
 * For each prompt the index of one of another domain: the one half-way round in an order sorted by domain, or the next that differs.
 * @throws {OptionError} if all are of one domain
 */
export function foreignPartners(domains: readonly string[]): number[] {
  if (new Set(domains).size < 2) throw new OptionError("foreign masks: wanted prompts of at least two tasks, got one.");
  const N = domains.length;
  const order = domains
    .map((_, i) => i)
    .sort((a, b) => (domains[a]! < domains[b]! ? -1 : domains[a]! > domains[b]! ? 1 : a - b));
  const partners = new Array<number>(N);
  order.forEach((example, place) => {
    let at = place + (N >> 1);
    while (domains[order[at % N]!] === domains[example]) at++;
    partners[example] = order[at % N]!;
  });
  return partners;
}
