/**
 * The two orders of query and key rows. RoPE rotates pairs of a head's channels: neighbours (2i, 2i + 1) in llama2.c and in GGUF's
 * llama architecture, halves (i, i + C/2) in Hugging Face models and GGUF's other architectures.
 *
 * Shapes: D model width · C head width
 */
import type { Weight } from "../model/config.ts";

/** Rows of a `[heads · C, D]` matrix from neighbours to halves. */
export function pairsToHalves(matrix: Weight, headWidth: number): Weight {
  const half = headWidth / 2;
  return reorderRows(matrix, headWidth, (row) => (row < half ? 2 * row : 2 * (row - half) + 1));
}

/** The inverse of {@link pairsToHalves}. */
export function halvesToPairs(matrix: Weight, headWidth: number): Weight {
  return reorderRows(matrix, headWidth, (row) => (row % 2 === 0 ? row / 2 : (row - 1 + headWidth) / 2));
}

/** Row r of each head becomes the head's row `source(r)`. */
function reorderRows({ shape, data }: Weight, headWidth: number, source: (row: number) => number): Weight {
  const D = shape[1]!;
  const result = new Float32Array(data.length);
  for (let row = 0; row < shape[0]!; row++) {
    const within = row % headWidth;
    const from = row - within + source(within);
    result.set(data.subarray(from * D, (from + 1) * D), row * D);
  }
  return { shape, data: result };
}
