/**
 * Masks that are not a predictor's choice for its prompt: the baselines and controls that such a choice has to beat.
 *
 * Shapes: T tokens · D model width · L layers · F channels of a layer (d_ffn) · K kept ones (t_ffn)
 */
import { OptionError, ShapeError } from "../errors.ts";
import type { ModelConfig, Weights } from "../model/config.ts";
import { Random } from "../random.ts";
import { type DenseMask, type Mask, maskFromScores, toDenseMask } from "./mask.ts";

/**
 * K channels per layer drawn at random, in whole blocks of neighbours (`block` divides K and F). The same seed and label give the same
 * mask: one per domain label is the oracle baseline that needs to know the domain; one label for all is a fixed random mask.
 */
export function randomMask(
  { numLayers, dFfn, tFfn, block = 1 }: { numLayers: number; dFfn: number; tFfn: number; block?: number },
  seed: number,
  label: string,
): Mask {
  if (!Number.isInteger(tFfn) || tFfn < 1 || tFfn > dFfn) {
    throw new OptionError(`randomMask: t_ffn must be an integer in 1..${dFfn} (d_ffn), got ${tFfn}.`);
  }
  const random = new Random(`${seed}/mask/${label}`);
  const layers = Array.from({ length: numLayers }, () => {
    const blocks = random.permutation(dFfn / block).subarray(0, tFfn / block);
    return Int32Array.from({ length: tFfn }, (_, i) => blocks[Math.floor(i / block)]! * block + (i % block)).sort();
  });
  return { tFfn, dFfn, layers };
}

/**
 * Keeps the channels of largest weights: the product of the L2 norms of a channel's gate row, up row and down column.
 *
 * @throws {OptionError} if K is out of range or a weight is not finite
 * @throws {ShapeError} if a weight is missing or of another size
 */
export function weightNormMask(
  weights: Weights,
  { numLayers, width: D, ffnWidth: F }: ModelConfig,
  tFfn: number,
): Mask {
  const scores = new Float64Array(numLayers * F).fill(1);
  for (let layer = 0; layer < numLayers; layer++) {
    // [F, D] for gate and up, [D, F] for down: the distance between channels, and between the weights of one
    for (const [name, step, stride] of [
      ["gate", D, 1],
      ["up", D, 1],
      ["down", 1, F],
    ] as const) {
      const path = `model.layers.${layer}.mlp.${name}_proj.weight`;
      const data = weights.get(path)?.data;
      if (data?.length !== D * F)
        throw new ShapeError(`weightNormMask: ${path}`, `${D * F} weights`, [data?.length ?? "none"]);
      for (let channel = 0; channel < F; channel++) {
        let squares = 0;
        for (let i = 0; i < D; i++) squares += data[channel * step + i * stride]! ** 2;
        scores[layer * F + channel]! *= Math.sqrt(squares);
      }
    }
  }
  return maskFromScores(scores, { dFfn: F, tFfn });
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
