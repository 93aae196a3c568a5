/**
 * The sparsity predictor from its definition, in float64.
 *
 * Shapes: Dp backbone width · R head rank · L layers, F FFN channels of the big model · G scores of a layer
 */
import type { Model } from "../../src/formats/huggingface.ts";
import { forward } from "./decoder.ts";
import * as plain from "./ops.ts";

/**
 * Feature [Dp] of an instruction and its masking scores [L, F].
 *
 * @param head `w1.weight` [R, Dp] and `w2.weight` [L·G, R], or `router.weight` and `codebook.weight`; `feature.mean` and `feature.std`
 *   [Dp], `importance` [L, G] if there is one
 * @param block channels that share a score: F = G · block
 * @param choose shares of a codebook's entries by their logits; absent: all of the largest
 */
export function scoreInstruction(
  backbone: Model,
  head: Readonly<Record<string, ArrayLike<number>>>,
  numLayers: number,
  ids: Int32Array,
  block = 1,
  choose: (logits: Float64Array) => Float64Array = oneHot,
): { feature: Float64Array; scores: Float64Array } {
  const Dp = backbone.config.width;
  const isCodebook = "router.weight" in head;
  const [inner, outer] = isCodebook ? ["router.weight", "codebook.weight"] : ["w1.weight", "w2.weight"];
  const R = head[inner]!.length / Dp;
  const G = head[outer]!.length / R / numLayers;
  const tensor = (name: string, shape: number[]) => ({ shape, data: Float64Array.from(head[name]!) });
  const feature = forward(backbone, ids).hidden.at(-1)!;
  const deviation = plain.sub({ shape: [1, Dp], data: feature }, tensor("feature.mean", [Dp]));
  const centred = plain.div(deviation, tensor("feature.std", [Dp]));
  const hidden = plain.linear(centred, tensor(inner, [R, Dp]));
  const chosen = isCodebook ? { ...hidden, data: choose(hidden.data) } : hidden;
  const z = plain.linear(chosen, tensor(outer, [numLayers * G, R]));
  const scores = plain.standardize(plain.reshape(z, [numLayers, G]), 1e-6);
  const { data } = head.importance ? plain.add(scores, tensor("importance", [numLayers, G])) : scores;
  return {
    feature,
    scores: Float64Array.from({ length: data.length * block }, (_, i) => data[Math.floor(i / block)]!),
  };
}

/** 1 at the largest, 0 elsewhere. */
export function oneHot(logits: Float64Array): Float64Array {
  const best = logits.indexOf(Math.max(...logits));
  return logits.map((_, entry) => Number(entry === best));
}
