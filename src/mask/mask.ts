/**
 * The mask: which FFN channels of each layer are kept, and by how much they are scaled. The one type that the learning and
 * the using side share.
 *
 * Shapes: L layers · F channels of a layer (d_ffn) · K kept ones (t_ffn)
 */
import { OptionError, ShapeError } from "../errors.ts";
import { softTopK, topK } from "./softTopK.ts";

/** Which channels are kept, layer by layer. */
export interface Mask {
  /** Kept channels per layer (t_ffn). */
  tFfn: number;
  /** Channels per layer of the full model (d_ffn). */
  dFfn: number;
  /** Per layer, `tFfn` kept channel indices, strictly ascending. */
  layers: readonly Int32Array[];
  /** Per layer, the soft weight λ in (0, 1] of each kept channel, in the order of `layers`. Absent: hard mask, λ = 1. */
  lambda?: readonly Float32Array[];
}

/** A mask as the graph takes it: λ of every channel, 0 where it is dropped. [L, F] */
export type DenseMask = Float32Array;

/** What is wrong with a mask, as "wanted X, got Y", or nothing. Takes plain numbers too, as they come from a file. */
export function maskFlaw({
  tFfn,
  dFfn,
  layers,
  lambda,
}: {
  tFfn: number;
  dFfn: number;
  layers: readonly ArrayLike<number>[];
  lambda?: readonly ArrayLike<number>[];
}): string | undefined {
  if (!Number.isInteger(dFfn) || dFfn < 1) return `wanted a positive integer as d_ffn, got ${dFfn}`;
  if (!Number.isInteger(tFfn) || tFfn < 1 || tFfn > dFfn) return `wanted t_ffn in 1..${dFfn} (d_ffn), got ${tFfn}`;
  if (layers.length === 0) return "wanted at least one layer, got none";
  if (lambda && lambda.length !== layers.length) return `wanted λ for ${layers.length} layers, got ${lambda.length}`;
  for (const [layer, kept] of layers.entries()) {
    if (kept.length !== tFfn) return `wanted ${tFfn} kept channels in layer ${layer}, got ${kept.length}`;
    for (let i = 0, previous = -1; i < tFfn; previous = kept[i++]!) {
      const channel = kept[i]!;
      if (!Number.isInteger(channel) || channel <= previous || channel >= dFfn) {
        return `wanted strictly ascending channels in 0..${dFfn - 1} in layer ${layer}, got ${channel} at position ${i}`;
      }
    }
    const weights = lambda?.[layer];
    if (!weights) continue;
    if (weights.length !== tFfn) return `wanted ${tFfn} values of λ in layer ${layer}, got ${weights.length}`;
    for (let i = 0; i < tFfn; i++) {
      if (!(weights[i]! > 0 && weights[i]! <= 1))
        return `wanted λ in (0, 1] in layer ${layer}, got ${weights[i]} at position ${i}`;
    }
  }
  return undefined;
}

/**
 * @param model the model that the mask is to be used with
 * @throws {OptionError} if the mask is malformed; `where` names its origin
 * @throws {ShapeError} if it was made for a model of another shape
 */
export function checkMask(mask: Mask, where: string, model?: { numLayers: number; ffnWidth: number }): void {
  const flaw = maskFlaw(mask);
  if (flaw) throw new OptionError(`${where}: ${flaw}.`);
  if (model && (mask.layers.length !== model.numLayers || mask.dFfn !== model.ffnWidth)) {
    throw new ShapeError(
      where,
      `a mask [L=${model.numLayers}, F=${model.ffnWidth}]`,
      [mask.layers.length, mask.dFfn],
      "Was the mask made for another model?",
    );
  }
}

/**
 * The mask that scores ask for.
 *
 * @param scores masking scores z, [L, F], finite
 * @param shape `tFfn` is K, `epsilon` the ε of SoftTopK; without it the mask is hard
 * @throws {OptionError} if K or ε is out of range, or a score is not finite
 * @throws {ShapeError} if the scores do not fill whole layers
 */
export function maskFromScores(
  scores: ArrayLike<number>,
  shape: { dFfn: number; tFfn: number; epsilon?: number },
): Mask {
  const { dFfn, tFfn, epsilon } = shape;
  const numLayers = scores.length / dFfn;
  if (!Number.isInteger(numLayers) || numLayers < 1)
    throw new ShapeError("maskFromScores", `scores [L, F=${dFfn}]`, [scores.length]);
  const layers: Int32Array[] = [];
  const lambdas: Float32Array[] = [];
  const all = new Float64Array(scores);
  for (let layer = 0; layer < numLayers; layer++) {
    const row = all.subarray(layer * dFfn, (layer + 1) * dFfn);
    if (epsilon === undefined) {
      layers.push(topK(row, tFfn));
      continue;
    }
    const { kept, lambda } = softTopK(row, tFfn, epsilon);
    layers.push(kept);
    lambdas.push(Float32Array.from(kept, (channel) => lambda[channel]!));
  }
  return { tFfn, dFfn, layers, ...(epsilon !== undefined && { lambda: lambdas }) };
}

/** The mask that keeps every channel: the dense model. */
export function fullMask(numLayers: number, dFfn: number): Mask {
  const all = Int32Array.from({ length: dFfn }, (_, channel) => channel);
  return { tFfn: dFfn, dFfn, layers: new Array<Int32Array>(numLayers).fill(all) };
}

export function toDenseMask({ dFfn, layers, lambda }: Mask): DenseMask {
  const dense = new Float32Array(layers.length * dFfn);
  layers.forEach((kept, layer) => {
    kept.forEach((channel, i) => {
      dense[layer * dFfn + channel] = lambda?.[layer]?.[i] ?? 1;
    });
  });
  return dense;
}

/**
 * The inverse of `toDenseMask`. Weights that are all 1 make a hard mask.
 *
 * @throws {OptionError} if layers keep different numbers of channels, or a weight is not in [0, 1]
 */
export function fromDenseMask(dense: DenseMask, dFfn: number): Mask {
  const layers: Int32Array[] = [];
  const lambda: Float32Array[] = [];
  for (let start = 0; start < dense.length; start += dFfn) {
    const row = dense.subarray(start, start + dFfn);
    const kept = Int32Array.from(row.keys()).filter((channel) => row[channel] !== 0);
    layers.push(kept);
    lambda.push(Float32Array.from(kept, (channel) => row[channel]!));
  }
  const isHard = lambda.every((weights) => weights.every((weight) => weight === 1));
  const mask: Mask = { tFfn: layers[0]?.length ?? 0, dFfn, layers, ...(!isHard && { lambda }) };
  checkMask(mask, "fromDenseMask");
  return mask;
}
