/**
 * SoftTopK: scores of the channels of one layer → soft mask. This is the plain float64 reference, which inference uses as it is;
 * the training graph has its own float32 form, tied to this one by tests.
 *
 *     λ = argmax { sᵀλ + ε·H(λ) : λ ∈ [0, 1]^n, Σλ = k } = min(1, c·exp(s/ε)), c such that Σλ = k
 *     m = λ ⊙ Top(λ, k)
 *
 * @see Hou et al. 2025, arXiv:2501.02086, Eq. 3; the operator is that of CoDA (arXiv:2304.04947). Exact by sorting instead of the
 * usual fixed-point loop, which is far off where scores spread. Ours adds the tie rule.
 *
 * Shapes: n channels of one layer (d_ffn) · k kept ones (t_ffn)
 */
import { OptionError, ShapeError } from "../errors.ts";

export interface SoftTopK {
  /** λ, [n], in [0, 1], sums to k. At least 1/(n − k + 1) on kept channels, so that no kept channel vanishes. */
  lambda: Float64Array;
  /** The k channels of highest score, ascending. Of equal scores the lower index is kept, on every backend. */
  kept: Int32Array;
}

/**
 * @param scores masking scores z of one layer, [n], finite
 * @param k channels to keep, integer in 1..n
 * @param epsilon weight ε of the entropy, positive: 0⁺ gives λ ∈ {0, 1}, ∞ gives λ = k/n
 * @throws {OptionError} if k or ε is out of range, or a score is not finite
 */
export function softTopK(scores: ArrayLike<number>, k: number, epsilon: number): SoftTopK {
  const { order, lambda } = solve(scores, k, epsilon);
  return { lambda, kept: order.subarray(0, k).slice().sort() };
}

/**
 * Gradient of a loss with respect to the scores. Top is a constant here, yet dropped channels do get a gradient: all unsaturated
 * channels share the normaliser c.
 *
 * @param scores as in the forward pass, [n]; likewise `k` and `epsilon`
 * @param maskGradient dL/dm, [n]; ignored on dropped channels
 * @returns dL/ds, [n]; 0 on saturated channels, and everywhere if k = n
 * @throws {OptionError} as `softTopK`
 * @throws {ShapeError} if `maskGradient` has another length than `scores`
 */
export function softTopKGradient(
  scores: ArrayLike<number>,
  k: number,
  epsilon: number,
  maskGradient: ArrayLike<number>,
): Float64Array {
  const { order, lambda, numSaturated } = solve(scores, k, epsilon);
  const n = scores.length;
  if (maskGradient.length !== n) throw new ShapeError("softTopKGradient", `dL/dm [${n}]`, [maskGradient.length]);
  const gradient = new Float64Array(n);
  if (k === n) return gradient; // λ = 1, whatever the scores

  let sum = 0; // Σ λ over unsaturated channels
  let inner = 0; // ⟨λ, dL/dλ⟩ over them
  for (let rank = numSaturated; rank < n; rank++) {
    const i = order[rank]!;
    sum += lambda[i]!;
    if (rank < k) inner += lambda[i]! * maskGradient[i]!;
  }
  for (let rank = numSaturated; rank < n; rank++) {
    const i = order[rank]!;
    gradient[i] = (lambda[i]! / epsilon) * ((rank < k ? maskGradient[i]! : 0) - inner / sum);
  }
  return gradient;
}

interface Solution {
  /** Channels by descending score, [n]. */
  order: Int32Array;
  /** [n], by channel. */
  lambda: Float64Array;
  /** The first so many of `order` have λ = 1 and do not move; less than k. */
  numSaturated: number;
}

function solve(scores: ArrayLike<number>, k: number, epsilon: number): Solution {
  const n = scores.length;
  if (!Number.isInteger(k) || k < 1 || k > n)
    throw new OptionError(`softTopK: k must be an integer in 1..${n}, got ${k}.`);
  if (!(epsilon > 0 && epsilon < Infinity))
    throw new OptionError(`softTopK: ε must be positive and finite, got ${epsilon}.`);
  for (let i = 0; i < n; i++) {
    if (!Number.isFinite(scores[i])) {
      throw new OptionError(
        `softTopK: scores must be finite, got ${scores[i]} at channel ${i}. Has training diverged?`,
      );
    }
  }
  const order = Int32Array.from({ length: n }, (_, i) => i).sort((a, b) => scores[b]! - scores[a]! || a - b);

  // Weights w = exp(s/ε) relative to the k-th score, whose own λ is at least 1/(n − k + 1): each of the n − k + 1 lowest has at most
  // that λ, and they share at least 1. So what lies n times above it is saturated, and w may be capped there: nothing overflows.
  const pivot = scores[order[k - 1]!]!;
  const weight = Float64Array.from(order, (i) => Math.min(n, Math.exp((scores[i]! - pivot) / epsilon)));
  const tail = new Float64Array(n + 1); // tail[r] = Σ_{j ≥ r} weight[j]
  for (let r = n - 1; r >= 0; r--) tail[r] = tail[r + 1]! + weight[r]!;

  let numSaturated = 0; // ends at k − 1 at the latest, since weight[k − 1] ≤ tail[k − 1]
  while ((k - numSaturated) * weight[numSaturated]! > tail[numSaturated]!) numSaturated++;
  const lambda = new Float64Array(n);
  order.forEach((i, rank) => {
    lambda[i] = rank < numSaturated ? 1 : ((k - numSaturated) * weight[rank]!) / tail[numSaturated]!;
  });
  return { order, lambda, numSaturated };
}
