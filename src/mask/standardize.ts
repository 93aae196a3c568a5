/**
 * Scores of channels: of blocks of them, and of unit scale.
 *
 * Shapes: L layers · F channels of a layer (d_ffn)
 */

/** Scores of blocks of channels [L, F/block] as scores of channels [L, F]. */
export function spreadBlocks(scores: Float32Array, block: number): Float32Array {
  if (block === 1) return scores;
  const spread = new Float32Array(scores.length * block);
  for (let i = 0; i < scores.length; i++) spread.fill(scores[i]!, i * block, (i + 1) * block);
  return spread;
}

/** Means of blocks [L, F/block] of channels [L, F]. */
export function blockMeans(channels: Float32Array, block: number): Float32Array {
  if (block === 1) return channels;
  return Float32Array.from({ length: channels.length / block }, (_, i) => {
    return channels.subarray(i * block, (i + 1) * block).reduce((sum, value) => sum + value, 0) / block;
  });
}

/**
 * Masking scores [L, F] of what a head, or a static mask, gives of blocks [L, F/block], as `predictScores` makes them in the graph: standardised per layer, plus what no prompt changes.
 *
 * @param importance [L, F/block]
 */
export function channelScores(
  ofBlocks: ArrayLike<number>,
  { ffnWidth, block, importance }: { ffnWidth: number; block: number; importance?: ArrayLike<number> | undefined },
): Float32Array {
  const scores = standardizeScores(ofBlocks, ffnWidth / block);
  if (importance) for (let i = 0; i < scores.length; i++) scores[i]! += importance[i]!;
  return spreadBlocks(scores, block);
}

/** Added to the variance when scores are standardised, in the graph and outside it. */
export const SCORE_EPSILON = 1e-6;

/** (z − mean)/sqrt(variance + ε) over the channels of each layer (population variance), in float64. Scores [L, F] → [L, F]. */
export function standardizeScores(scores: ArrayLike<number>, ffnWidth: number): Float32Array {
  const result = new Float32Array(scores.length);
  for (let start = 0; start < scores.length; start += ffnWidth) {
    let [sum, squares] = [0, 0];
    for (let i = start; i < start + ffnWidth; i++) sum += scores[i]!;
    const mean = sum / ffnWidth;
    for (let i = start; i < start + ffnWidth; i++) squares += (scores[i]! - mean) ** 2;
    const scale = 1 / Math.sqrt(squares / ffnWidth + SCORE_EPSILON);
    for (let i = start; i < start + ffnWidth; i++) result[i] = (scores[i]! - mean) * scale;
  }
  return result;
}
