/**
 * SoftTopK: scores of the channels of one layer → soft mask. This is the plain float64 reference, which inference uses as it is;
 * the training graph has its own float32 form, tied to this one by tests.
 *
 *     λ = argmax { sᵀλ + ε·H(λ) : λ ∈ [0, 1]^F, Σλ = K } = min(1, c·exp(s/ε)), c such that Σλ = K
 *     m = λ ⊙ Top(λ, K)
 *
 * @see Hou et al. 2025, arXiv:2501.02086, Eq. 3; the operator is that of CoDA (arXiv:2304.04947). Exact by sorting instead of the
 * usual fixed-point loop, which is far off where scores spread. Ours adds the tie rule.
 *
 * Shapes: F channels of a layer (d_ffn) · K kept ones (t_ffn)
 */
import { OptionError, ShapeError } from "../errors.ts";

/** What {@link softTopK} keeps of scores, and how strongly. */
export interface SoftTopK {
  /** λ, [F], in [0, 1], sums to K. At least 1/(F − K + 1) on kept channels, so that no kept channel vanishes. */
  lambda: Float64Array;
  /** The K channels of highest score, ascending. Of equal scores the lower index is kept, on every backend. */
  kept: Int32Array;
}

/**
 * @param scores masking scores z of one layer, [F], finite
 * @param K channels to keep, integer in 1..F
 * @param epsilon weight ε of the entropy, positive: 0⁺ gives λ ∈ {0, 1}, ∞ gives λ = K/F
 * @throws {OptionError} if K or ε is out of range, or a score is not finite
 */
export function softTopK(scores: ArrayLike<number>, K: number, epsilon: number): SoftTopK {
  const { order, lambda } = solve(scores, K, epsilon);
  return { lambda, kept: order.subarray(0, K).slice().sort() };
}

/**
 * The K channels of highest score, ascending; of equal scores the lower index: what SoftTopK keeps, whatever its ε, without sorting.
 *
 * @throws {OptionError} as `softTopK`
 */
export function topK(scores: ArrayLike<number>, K: number): Int32Array {
  checkScores(scores, K);
  const F = scores.length;
  const threshold = ranked(new Float64Array(scores), F - K);
  let ties = K;
  for (let i = 0; i < F; i++) if (scores[i]! > threshold) ties--;
  const kept = new Int32Array(K);
  for (let i = 0, count = 0; count < K; i++) {
    if (scores[i]! > threshold || (scores[i]! === threshold && ties-- > 0)) kept[count++] = i;
  }
  return kept;
}

/** What stands at `rank` once values are sorted (Hoare's selection). Reorders them. */
function ranked(values: Float64Array, rank: number): number {
  for (let from = 0, to = values.length - 1; from < to; ) {
    const pivot = values[(from + to) >> 1]!;
    let [low, high] = [from, to];
    while (low <= high) {
      while (values[low]! < pivot) low++;
      while (values[high]! > pivot) high--;
      if (low > high) break;
      const value = values[low]!;
      values[low++] = values[high]!;
      values[high--] = value;
    }
    if (rank <= high) to = high;
    else if (rank >= low) from = low;
    else break;
  }
  return values[rank]!;
}

/**
 * Gradient of a loss with respect to the scores. Top is a constant here, yet dropped channels do get a gradient: all unsaturated
 * channels share the normaliser c.
 *
 * @param scores as in the forward pass, [F]; likewise `K` and `epsilon`
 * @param maskGradient dL/dm, [F]; ignored on dropped channels
 * @returns dL/ds, [F]; 0 on saturated channels, and everywhere if K = F
 * @throws {OptionError} as `softTopK`
 * @throws {ShapeError} if `maskGradient` has another length than `scores`
 */
export function softTopKGradient(
  scores: ArrayLike<number>,
  K: number,
  epsilon: number,
  maskGradient: ArrayLike<number>,
): Float64Array {
  const { order, lambda, numSaturated } = solve(scores, K, epsilon);
  const F = scores.length;
  if (maskGradient.length !== F) throw new ShapeError("softTopKGradient", `dL/dm [${F}]`, [maskGradient.length]);
  const gradient = new Float64Array(F);
  if (K === F) return gradient; // λ = 1, whatever the scores

  let sum = 0; // Σ λ over unsaturated channels
  let inner = 0; // ⟨λ, dL/dλ⟩ over them
  for (let rank = numSaturated; rank < F; rank++) {
    const i = order[rank]!;
    sum += lambda[i]!;
    if (rank < K) inner += lambda[i]! * maskGradient[i]!;
  }
  for (let rank = numSaturated; rank < F; rank++) {
    const i = order[rank]!;
    gradient[i] = (lambda[i]! / epsilon) * ((rank < K ? maskGradient[i]! : 0) - inner / sum);
  }
  return gradient;
}

interface Solution {
  /** Channels by descending score, [F]. */
  order: Int32Array;
  /** [F], by channel. */
  lambda: Float64Array;
  /** The first so many of `order` have λ = 1 and do not move; less than K. */
  numSaturated: number;
}

function checkScores(scores: ArrayLike<number>, K: number): void {
  const F = scores.length;
  if (!Number.isInteger(K) || K < 1 || K > F)
    throw new OptionError(`softTopK: K must be an integer in 1..${F}, got ${K}.`);
  for (let i = 0; i < F; i++) {
    if (!Number.isFinite(scores[i])) {
      throw new OptionError(
        `softTopK: scores must be finite, got ${scores[i]} at channel ${i}. Has training diverged?`,
      );
    }
  }
}

function solve(scores: ArrayLike<number>, K: number, epsilon: number): Solution {
  const F = scores.length;
  checkScores(scores, K);
  if (!(epsilon > 0 && epsilon < Infinity))
    throw new OptionError(`softTopK: ε must be positive and finite, got ${epsilon}.`);
  const order = Int32Array.from({ length: F }, (_, i) => i).sort((a, b) => scores[b]! - scores[a]! || a - b);

  // Weights w = exp(s/ε) relative to the K-th score, whose own λ is at least 1/(F − K + 1): each of the F − K + 1 lowest has at most
  // that λ, and they share at least 1. So what lies F times above it is saturated, and w may be capped there: nothing overflows.
  const pivot = scores[order[K - 1]!]!;
  const weight = Float64Array.from(order, (i) => Math.min(F, Math.exp((scores[i]! - pivot) / epsilon)));
  const tail = new Float64Array(F + 1); // tail[r] = Σ_{j ≥ r} weight[j]
  for (let r = F - 1; r >= 0; r--) tail[r] = tail[r + 1]! + weight[r]!;

  let numSaturated = 0; // ends at K − 1 at the latest, since weight[K − 1] ≤ tail[K − 1]
  while ((K - numSaturated) * weight[numSaturated]! > tail[numSaturated]!) numSaturated++;
  const lambda = new Float64Array(F);
  order.forEach((i, rank) => {
    lambda[i] = rank < numSaturated ? 1 : ((K - numSaturated) * weight[rank]!) / tail[numSaturated]!;
  });
  return { order, lambda, numSaturated };
}
