/**
 * The sparsity predictor (Hou et al. 2025, arXiv:2501.02086, §3.2) on a graph: a small LM reads the instruction; its hidden state at the last text token goes
 * through two linear layers to one score per FFN channel of the big model.
 *
 * Ours, against mask collapse: the feature is centred and scaled by running statistics (constants in the backward pass), no
 * biases, no activation, and scores are standardised per layer, so that ε means the same everywhere.
 *
 * Shapes: B instructions · T tokens · Dp backbone width · R head rank · L layers and F FFN channels of the big model, in F/block blocks of
 * one score
 */
import type { Graph, Tensor } from "../graph/graph.ts";
import * as n from "../graph/nodes.ts";
import { ops } from "../graph/ops.ts";
import { SCORE_EPSILON } from "../mask/standardize.ts";
import { HEAD_MATRICES, headShapes, type PredictorConfig } from "../model/predictorConfig.ts";
import { decoder, type Parameters } from "./decoder.ts";

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
 * @returns the raw feature [B, Dp], what the first matrix makes of it [B, R] (of a codebook: the logits of its entries) and the
 *   masking scores z [B·L, F]
 */
export function predictScores(
  config: PredictorConfig,
  { backbone, head, featureMean, featureStd }: PredictorTensors,
  ids: Tensor,
  lastRows: Tensor,
): { feature: Tensor; inner: Tensor; scores: Tensor } {
  const { numLayers: L, ffnWidth: F, block } = config;
  const B = ids.shape[0]!;
  const numBlocks = F / block; // of a layer
  const hidden = decoder(config.backbone, backbone, ids); // [B·T, Dp]
  const feature = ops.embedding(hidden, lastRows);
  const centred = ops.div(ops.sub(feature, featureMean), featureStd);
  const [first, second] = HEAD_MATRICES[config.head];
  const inner = ops.linear(centred, head.get(first)!);
  const z = ops.linear(config.head === "codebook" ? chooseOne(inner) : inner, head.get(second)!); // [B, L·numBlocks]
  let scores = ops.standardize(ops.reshape(z, [B * L, numBlocks]), SCORE_EPSILON);
  const importance = head.get("importance");
  if (importance) scores = ops.reshape(ops.add(ops.reshape(scores, [B, L, numBlocks]), importance), [B * L, numBlocks]);
  return { feature, inner, scores: spreadBlockScores(scores, block) };
}

/**
 * 1 at the largest logit of each row, 0 elsewhere. Its gradient is that of the softmax (straight-through): the chosen entry's
 * logit moves by how its probability would change the loss, and so do the others'.
 */
function chooseOne(logits: Tensor): Tensor {
  const p = ops.softmax(logits);
  const chosen = n.scatterElements(
    n.zeros(p),
    n.argMax(logits),
    n.expand(p.graph.scalar(1), [p.shape[0]!, 1]),
    1,
    "none",
  );
  return ops.add(p, n.sub(chosen, p)); // what is not on the tape is a constant to the gradient
}

/**
 * Scores of blocks [rows, F/block] as scores of channels [rows, F]. SoftTopK of equal scores gives equal λ, and ties go to the
 * lower index, so with t_ffn a multiple of the block size whole blocks are kept.
 */
export function spreadBlockScores(scores: Tensor, block: number): Tensor {
  if (block === 1) return scores;
  const [rows, numBlocks] = scores.shape as [number, number];
  const ones = scores.graph.constant(new Float32Array(block).fill(1), [1, 1, block]);
  return ops.reshape(ops.mul(ops.reshape(scores, [rows, numBlocks, 1]), ones), [rows, numBlocks * block]);
}

/** Splits masks of all layers, [B·L, F] as SoftTopK returns them, into one [B, F] per layer. */
export function masksPerLayer(masks: Tensor, numLayers: number): Tensor[] {
  const F = masks.shape[1]!;
  const B = masks.shape[0]! / numLayers;
  const all = ops.reshape(masks, [B, numLayers, F]);
  return Array.from({ length: numLayers }, (_, layer) => ops.reshape(ops.slice(all, 1, layer, layer + 1), [B, F]));
}
