/**
 * Batches of sequences of similar length, padded on the right: causal attention keeps padding from text.
 *
 * Shapes: B rows of a batch · T tokens
 */

/** Rows of a batch, where nothing else is said. */
export const BATCH = 32;
/** Sequence lengths are rounded up to a multiple of this, so that few graphs are needed. */
const LENGTH_STEP = 16;

/**
 * Groups sequences of similar length: each batch holds at most B of them, padded to one length T.
 *
 * @param rows B, for all lengths or by T
 */
export function batches(
  lengths: readonly number[],
  rows: number | ((T: number) => number) = BATCH,
): { indices: number[]; T: number }[] {
  const order = lengths.map((_, i) => i).sort((a, b) => lengths[a]! - lengths[b]!);
  const result: { indices: number[]; T: number }[] = [];
  for (const i of order) {
    const T = Math.ceil(lengths[i]! / LENGTH_STEP) * LENGTH_STEP;
    const B = typeof rows === "number" ? rows : rows(T);
    const last = result.at(-1);
    if (last && last.T === T && last.indices.length < B) last.indices.push(i);
    else result.push({ indices: [i], T });
  }
  return result;
}

/** How many sequences of T tokens so many positions have room for, at least one. */
export const rowsWithin =
  (positions: number, most = Infinity) =>
  (T: number): number =>
    Math.max(1, Math.min(most, Math.floor(positions / T)));

/** Rows of token ids or labels [B, T]. @param filler where there is none */
export function padded(rows: readonly Int32Array[], T: number, B = BATCH, filler = 0): Int32Array {
  const all = new Int32Array(B * T).fill(filler);
  for (const [row, ids] of rows.entries()) all.set(ids, row * T);
  return all;
}
