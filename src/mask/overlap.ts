/**
 * How far masks of different prompts differ: the measures that tell a working predictor from a collapsed one, whose masks do
 * not depend on the prompt. Always read them beside the chance level t_ffn / d_ffn.
 *
 * Shapes: N prompts · L layers · F channels of a layer (d_ffn) · K kept ones (t_ffn)
 */
import { ShapeError } from "../errors.ts";
import type { Mask } from "./mask.ts";

/**
 * Share of kept channels that two masks have in common, per layer: |a ∩ b| / K. Chance: K/F.
 *
 * @throws {ShapeError} if the masks differ in shape
 */
export function overlap(a: Mask, b: Mask): number[] {
  checkAlike([a, b], "overlap");
  return a.layers.map((kept, layer) => {
    const other = new Set(b.layers[layer]);
    return kept.filter((channel) => other.has(channel)).length / a.tFfn;
  });
}

/** Plain numbers, for the training log. NaN, in JSON null, where there is nothing to average over. */
export interface MaskDiagnostics {
  /** Domains in the order of `matrix`. */
  domains: string[];
  /** K/F: the overlap of masks drawn at random. */
  chance: number;
  /** Mean overlap of two prompts of the same domain, per layer; every domain with two prompts or more weighs the same. [L] */
  overlapWithin: number[];
  /** Mean overlap of two prompts of different domains, per layer; every pair of domains weighs the same. [L] */
  overlapAcross: number[];
  /** Mean overlap of two prompts by their domains, averaged over layers. [domains, domains] */
  matrix: number[][];
  /** The same of each layer, if asked for: too long for a training log. [L, domains, domains] */
  matrices?: number[][][];
  /** Share of channels that some prompt keeps, per layer; K/F if all masks are the same. [L] */
  everUsed: number[];
  /** Mean λ of kept channels, per layer. [L] */
  meanLambda: number[];
  /**
   * Standard deviation of a channel's score over prompts, root mean square over channels, per layer. Scores that are
   * standardised per layer have variance 1 over channels, so the square is the share of it that the prompt decides. [L]
   */
  scoreStd?: number[];
}

/**
 * @param masks one per prompt, N ≥ 1, alike in shape
 * @param labels the domain of each prompt, [N]
 * @param scores the scores that each mask was made from, N × [L, F]
 * @param byLayer whether to give `matrices`
 * @throws {ShapeError} if these do not fit together
 */
export function maskDiagnostics(
  masks: readonly Mask[],
  labels: readonly string[],
  scores?: readonly ArrayLike<number>[],
  { byLayer = false }: { byLayer?: boolean } = {},
): MaskDiagnostics {
  const { tFfn, dFfn, layers } = checkAlike(masks, "maskDiagnostics");
  const wanted = (what: string, length: number, got: number): void => {
    if (got !== length) throw new ShapeError("maskDiagnostics", `${what} [${length}]`, [got]);
  };
  wanted("labels", masks.length, labels.length);
  if (scores) wanted("scores", masks.length, scores.length);
  for (const row of scores ?? []) wanted("scores of a prompt", layers.length * dFfn, row.length);

  const domains = [...new Set(labels)].sort();
  const membersOf = domains.map((domain) => masks.filter((_, n) => labels[n] === domain));
  const matrices = layers.map((_, layer) => overlapMatrix(membersOf, layer));
  const average = (keep: (a: number, b: number) => boolean) =>
    matrices.map((matrix) =>
      mean(matrix.flatMap((row, a) => row.filter((share, b) => keep(a, b) && !Number.isNaN(share)))),
    );
  return {
    domains,
    chance: tFfn / dFfn,
    overlapWithin: average((a, b) => a === b),
    overlapAcross: average((a, b) => a !== b),
    matrix: domains.map((_, a) => domains.map((_, b) => mean(matrices.map((matrix) => matrix[a]![b]!)))),
    ...(byLayer && { matrices }),
    everUsed: layers.map((_, layer) => usage(masks, layer).filter((count) => count > 0).length / dFfn),
    meanLambda: layers.map((_, layer) => mean(masks.map(({ lambda }) => (lambda ? mean(lambda[layer]!) : 1)))),
    ...(scores && { scoreStd: layers.map((_, layer) => scoreStd(scores, layer * dFfn, dFfn)) }),
  };
}

/** How many of the masks keep each channel of a layer. [F] */
function usage(masks: readonly Mask[], layer: number): Float64Array {
  const counts = new Float64Array(masks[0]!.dFfn);
  for (const { layers } of masks) for (const channel of layers[layer]!) counts[channel]!++;
  return counts;
}

/**
 * Mean overlap of two prompts by their domains. Pairs are not visited one by one: with u_a(c) the masks of domain a that keep
 * channel c, Σ |m ∩ m'| = Σ_c u_a(c) u_b(c) over pairs across two domains, Σ_c u_a(c) (u_a(c) − 1) over ordered pairs within one.
 */
function overlapMatrix(membersOf: readonly (readonly Mask[])[], layer: number): number[][] {
  const used = membersOf.map((masks) => usage(masks, layer));
  return membersOf.map((ofA, a) =>
    membersOf.map((ofB, b) => {
      const self = a === b ? 1 : 0; // a mask is not paired with itself
      const common = used[a]!.reduce((sum, count, channel) => sum + count * (used[b]![channel]! - self), 0);
      return common / (ofA.length * (ofB.length - self) * ofA[0]!.tFfn);
    }),
  );
}

/** Root mean square over `count` channels from `start` of the standard deviation over prompts. */
function scoreStd(scores: readonly ArrayLike<number>[], start: number, count: number): number {
  const variances = Array.from({ length: count }, (_, i) => {
    const values = scores.map((row) => row[start + i]!);
    const centre = mean(values);
    return mean(values.map((value) => (value - centre) ** 2));
  });
  return Math.sqrt(mean(variances));
}

/** The first of several masks of one shape. */
function checkAlike(masks: readonly Mask[], operation: string): Mask {
  const shape = ({ layers, tFfn, dFfn }: Mask) => [layers.length, tFfn, dFfn];
  const [first, ...rest] = masks;
  if (!first) throw new ShapeError(operation, "at least one mask", [0]);
  for (const mask of rest) {
    if (shape(mask).join() !== shape(first).join()) {
      throw new ShapeError(operation, `masks of one shape, [L, K, F] = [${shape(first).join(", ")}]`, shape(mask));
    }
  }
  return first;
}

function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]!;
  return sum / values.length;
}
