/**
 * Statistics of what FFN channels do with tokens, as functions on a graph.
 *
 * Shapes: N tokens · D width · F FFN channels
 */
import type { Tensor } from "../graph/graph.ts";
import * as n from "../graph/nodes.ts";
import { type Ffn, ops } from "../graph/ops.ts";

/** Activations `act(x gateᵀ) ⊙ (x upᵀ)` of a layer's channels: [N, D] → [N, F]. */
export function activations(x: Tensor, { gate, up, activation }: Ffn): Tensor {
  return n.mul(ops.activation(n.matmul(x, gate, { transB: true }), activation), n.matmul(x, up, { transB: true }));
}

/**
 * What each channel has of the squared length of a token's activations [N, F]: rows sum to 1, or to 0 where nothing is active. GRIFFIN scores a
 * channel by the root of the sum over tokens.
 *
 * @see Dong, Chen & Chi 2024, arXiv:2404.01365
 */
export function griffinShares(activations: Tensor): Tensor {
  const squares = n.mul(activations, activations);
  const length = n.add(n.reduceSum(squares, [1], true), activations.graph.scalar(SMALLEST)); // squared, [N, 1]
  return n.div(squares, length);
}

/** Added to squared lengths: a token without any activation adds nothing. */
const SMALLEST = 1e-30;
