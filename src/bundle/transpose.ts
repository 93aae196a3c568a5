/** Transposing matrices of any element type. */

/**
 * `[rows, columns]` to `[columns, rows]`, tile by tile, so that both stay in the processor's cache.
 *
 * @param to as long as `from`; filled and returned
 */
export function transposeInto<Values extends Float32Array | Uint16Array | Uint8Array>(
  from: Values,
  to: Values,
  rows: number,
): Values {
  const columns = from.length / rows;
  const tile = 32;
  for (let top = 0; top < rows; top += tile) {
    const bottom = Math.min(top + tile, rows);
    for (let left = 0; left < columns; left += tile) {
      const right = Math.min(left + tile, columns);
      for (let column = left; column < right; column++) {
        for (let row = top; row < bottom; row++) to[column * rows + row] = from[row * columns + column]!;
      }
    }
  }
  return to;
}
