/**
 * The sparsity predictor from its definition, in float64.
 *
 * Shapes: Dp backbone width · R head rank · L layers and F FFN channels of the big model
 */
import type { Model } from "../../src/formats/huggingface.ts";
import { forward } from "./decoder.ts";
import * as plain from "./ops.ts";

/**
 * Feature [Dp] of an instruction and its masking scores [L, F].
 *
 * @param head `w1.weight` [R, Dp], `w2.weight` [L·F, R], `feature.mean` and `feature.std` [Dp], `importance` [L, F] if there is one
 */
export function scoreInstruction(
  backbone: Model,
  head: Readonly<Record<string, ArrayLike<number>>>,
  numLayers: number,
  ids: Int32Array,
): { feature: Float64Array; scores: Float64Array } {
  const Dp = backbone.config.width;
  const R = head["w1.weight"]!.length / Dp;
  const F = head["w2.weight"]!.length / R / numLayers;
  const tensor = (name: string, shape: number[]) => ({ shape, data: Float64Array.from(head[name]!) });
  const feature = forward(backbone, ids).hidden.at(-1)!;
  const deviation = plain.sub({ shape: [1, Dp], data: feature }, tensor("feature.mean", [Dp]));
  const centred = plain.div(deviation, tensor("feature.std", [Dp]));
  const z = plain.linear(plain.linear(centred, tensor("w1.weight", [R, Dp])), tensor("w2.weight", [numLayers * F, R]));
  const scores = plain.standardize(plain.reshape(z, [numLayers, F]), 1e-6);
  const { data } = head.importance ? plain.add(scores, tensor("importance", [numLayers, F])) : scores;
  return { feature, scores: data };
}
