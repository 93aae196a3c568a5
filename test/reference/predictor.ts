/**
 * The sparsity predictor from its definition, in float64.
 *
 * Shapes: Dp feature width · R head rank · L layers, F FFN channels of the big model · G scores of a layer
 */
import type { Model } from "../../src/formats/huggingface.ts";
import type { Pooling } from "../../src/model/predictorConfig.ts";
import { forward } from "./decoder.ts";
import * as plain from "./ops.ts";

/**
 * The raw feature [Dp] of an instruction.
 *
 * @param backbone of no layers: its embedding
 */
export function featureOf(backbone: Model, ids: Int32Array, pooling: Pooling = "last"): Float64Array {
  const { numLayers, width: D } = backbone.config;
  const row = (id: number) => backbone.weights.get("model.embed_tokens.weight")!.data.subarray(id * D, (id + 1) * D);
  const hidden = numLayers === 0 ? Array.from(ids, (id) => Float64Array.from(row(id))) : forward(backbone, ids).hidden;
  const last = hidden.at(-1)!;
  const counted = numLayers > 0 && hidden.length > 1 ? hidden.slice(1) : hidden;
  const mean = last.map((_, i) => counted.reduce((sum, state) => sum + state[i]!, 0) / counted.length);
  return { last, mean, both: Float64Array.of(...mean, ...last) }[pooling];
}

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
  pooling: Pooling = "last",
): { feature: Float64Array; scores: Float64Array } {
  const feature = featureOf(backbone, ids, pooling);
  const Dp = feature.length;
  const isCodebook = "router.weight" in head;
  const [inner, outer] = isCodebook ? ["router.weight", "codebook.weight"] : ["w1.weight", "w2.weight"];
  const R = head[inner]!.length / Dp;
  const G = head[outer]!.length / R / numLayers;
  const tensor = (name: string, shape: number[]) => ({ shape, data: Float64Array.from(head[name]!) });
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
