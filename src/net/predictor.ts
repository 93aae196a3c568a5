/**
 * The sparsity predictor (Hou et al. 2025, arXiv:2501.02086, §3.2) on a graph: a small LM reads the instruction; its hidden state at the last text token,
 * or the mean over all of them, goes through two linear layers to one score per FFN channel of the big model.
 *
 * Ours, against mask collapse: the feature is centred and scaled by running statistics (constants in the backward pass), no
 * biases, no activation, and scores are standardised per layer, so that ε means the same everywhere.
 *
 * Shapes: B instructions · T tokens · D backbone width · Dp feature width · R head rank · L layers and F FFN channels of the big model, in
 * F/block blocks of one score
 */
import type { Graph, Tensor } from "../graph/graph.ts";
import * as n from "../graph/nodes.ts";
import { ops } from "../graph/ops.ts";
import { SCORE_EPSILON } from "../mask/standardize.ts";
import { backboneShapes } from "../model/backbone.ts";
import { featureWidth, HEAD_MATRICES, headShapes, type PredictorConfig } from "../model/predictorConfig.ts";
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

/** Declares the backbone's parameters as inputs of a graph. */
export function backboneInputs(graph: Graph, { backbone }: PredictorConfig, prefix: string): Parameters {
  return new Map([...backboneShapes(backbone)].map(([name, shape]) => [name, graph.input(prefix + name, shape)]));
}

/** Declares the head's parameters and the feature's statistics as inputs of a graph. */
export function headInputs(graph: Graph, config: PredictorConfig, prefix: string): Omit<PredictorTensors, "backbone"> {
  const Dp = featureWidth(config);
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
  const feature = pooledFeature(config, backbone, ids, lastRows);
  const centred = ops.div(ops.sub(feature, featureMean), featureStd);
  const [first, second] = HEAD_MATRICES[config.head];
  const inner = ops.linear(centred, head.get(first)!);
  const z = ops.linear(config.head === "codebook" ? chooseOne(inner) : inner, head.get(second)!); // [B, L·numBlocks]
  let scores = ops.standardize(ops.reshape(z, [B * L, numBlocks]), SCORE_EPSILON);
  const importance = head.get("importance");
  if (importance) scores = ops.reshape(ops.add(ops.reshape(scores, [B, L, numBlocks]), importance), [B * L, numBlocks]);
  return { feature, inner, scores: spreadBlockScores(scores, block) };
}

/** The raw feature [B, Dp] of instructions. */
function pooledFeature(
  { backbone: config, pooling }: PredictorConfig,
  backbone: Parameters,
  ids: Tensor,
  lastRows: Tensor,
): Tensor {
  const [B, T] = ids.shape as [number, number];
  const isBag = config.numLayers === 0;
  const hidden = isBag
    ? ops.reshape(ops.embedding(backbone.get("model.embed_tokens.weight")!, ids), [B * T, config.width])
    : decoder(config, backbone, ids); // [B·T, D]
  const last = () => ops.embedding(hidden, lastRows);
  if (pooling === "last") return last();
  const shares = tokenShares(lastRows, T, isBag ? 0 : 1);
  const ofTokens = ops.mul(ops.reshape(hidden, [B, T, config.width]), n.reshape(shares, [B, T, 1]));
  const mean = ops.sum(ofTokens, [1]);
  return pooling === "both" ? ops.concat([mean, last()], 1) : mean;
}

/**
 * What each token has in the mean of its instruction [B, T]: nothing in the padding, nor before token `first`, unless there are only such.
 *
 * @param lastRows [B]: b·T + index of the last token
 */
function tokenShares(lastRows: Tensor, T: number, first: number): Tensor {
  const { graph } = lastRows;
  const B = lastRows.shape[0]!;
  const rows = Int32Array.from({ length: B }, (_, row) => row * T);
  const last = n.sub(n.reshape(lastRows, [B, 1]), graph.constant(rows, [B, 1]));
  const from = n.min(last, graph.constant(Int32Array.of(first), [1, 1]));
  const at = graph.constant(
    Int32Array.from({ length: T }, (_, t) => t),
    [1, T],
  );
  const isWithin = (low: Tensor, high: Tensor) => n.cast(n.lessOrEqual(low, high), "float32");
  const counted = n.mul(isWithin(from, at), isWithin(at, last));
  return n.div(counted, n.reduceSum(counted, [1], true));
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
