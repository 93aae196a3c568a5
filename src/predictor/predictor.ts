/**
 * The sparsity predictor (P §3.2) on a graph: a small LM reads the instruction; its hidden state at the last text token goes
 * through two linear layers to one score per FFN channel of the big model.
 *
 * Ours, against mask collapse: the feature is centred and scaled by running statistics (constants in the backward pass), no
 * biases, no activation, and scores are standardised per layer, so that ε means the same everywhere.
 *
 * Shapes: B instructions · T tokens · Dp backbone width · R head rank · L layers and F FFN channels of the big model
 */
import type { Graph, Tensor } from "../graph/graph.ts";
import { ops } from "../graph/ops.ts";
import type { ModelConfig } from "../model/config.ts";
import { decoder, type Parameters } from "../model/decoder.ts";
import { SCORE_EPSILON } from "./standardize.ts";

export interface PredictorConfig {
  backbone: ModelConfig;
  /** R (paper: 128) */
  rank: number;
  /** L of the big model */
  numLayers: number;
  /** F of the big model */
  ffnWidth: number;
  /** An input-independent term s0 [L, F] is added to the scores. Off by default: it invites masks that ignore the input. */
  importance: boolean;
}

/** Trained parameters of the head with their shapes. */
export function headShapes({
  backbone,
  rank,
  numLayers,
  ffnWidth,
  importance,
}: PredictorConfig): Map<string, readonly number[]> {
  return new Map<string, readonly number[]>([
    ["w1.weight", [rank, backbone.width]],
    ["w2.weight", [numLayers * ffnWidth, rank]],
    ...(importance ? [["importance", [numLayers, ffnWidth]] as const] : []),
  ]);
}

export interface PredictorTensors {
  backbone: Parameters;
  /** By the names of `headShapes`. */
  head: Parameters;
  /** Running mean of the feature, [Dp]. */
  featureMean: Tensor;
  /** Running standard deviation of the feature, [Dp]. */
  featureStd: Tensor;
}

/** Declares the head's parameters and the feature's statistics as inputs of a graph. */
export function headInputs(graph: Graph, config: PredictorConfig, prefix: string): Omit<PredictorTensors, "backbone"> {
  const Dp = config.backbone.width;
  return {
    head: new Map([...headShapes(config)].map(([name, shape]) => [name, graph.input(prefix + name, shape)])),
    featureMean: graph.input(`${prefix}feature.mean`, [Dp]),
    featureStd: graph.input(`${prefix}feature.std`, [Dp]),
  };
}

/**
 * @param ids instructions [B, T], int32, BOS first, right-padded
 * @param lastRows [B], int32: b·T + index of the last text token of instruction b
 * @returns the raw feature [B, Dp] and the masking scores z [B·L, F]
 */
export function predictScores(
  config: PredictorConfig,
  { backbone, head, featureMean, featureStd }: PredictorTensors,
  ids: Tensor,
  lastRows: Tensor,
): { feature: Tensor; scores: Tensor } {
  const { numLayers: L, ffnWidth: F } = config;
  const B = ids.shape[0]!;
  const hidden = decoder(config.backbone, backbone, ids); // [B·T, Dp]
  const feature = ops.embedding(hidden, lastRows);
  const centred = ops.div(ops.sub(feature, featureMean), featureStd);
  const z = ops.linear(ops.linear(centred, head.get("w1.weight")!), head.get("w2.weight")!); // [B, L·F]
  const scores = ops.standardize(ops.reshape(z, [B * L, F]), SCORE_EPSILON);
  const importance = head.get("importance");
  if (!importance) return { feature, scores };
  return { feature, scores: ops.reshape(ops.add(ops.reshape(scores, [B, L, F]), importance), [B * L, F]) };
}

/** Splits masks of all layers, [B·L, F] as SoftTopK returns them, into one [B, F] per layer. */
export function masksPerLayer(masks: Tensor, numLayers: number): Tensor[] {
  const F = masks.shape[1]!;
  const B = masks.shape[0]! / numLayers;
  const all = ops.reshape(masks, [B, numLayers, F]);
  return Array.from({ length: numLayers }, (_, layer) => ops.reshape(ops.slice(all, 1, layer, layer + 1), [B, F]));
}
