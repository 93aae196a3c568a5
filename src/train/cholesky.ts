/**
 * Linear equations of a symmetric positive definite matrix, in float64.
 *
 * Shapes: n unknowns · m right-hand sides
 */

/**
 * Solves A X = B by Cholesky's factorisation A = L Lᵀ, where both stand: L comes to the lower half of `a`, X to `b`.
 *
 * Time: n³/6 + m·n² multiplications, each with an addition.
 *
 * @param a A, [n, n]; only its lower half is read
 * @param b B, [n, m]
 */
export function choleskySolve(a: Float64Array, b: Float64Array, n: number): void {
  const m = b.length / n;
  const rowsOfA = Array.from({ length: n }, (_, i) => a.subarray(i * n, (i + 1) * n));
  const rowsOfB = Array.from({ length: n }, (_, i) => b.subarray(i * m, (i + 1) * m));
  for (const [i, row] of rowsOfA.entries()) {
    for (let j = 0; j < i; j++) row[j] = (row[j]! - dot(row, rowsOfA[j]!, j)) / rowsOfA[j]![j]!;
    const square = row[i]! - dot(row, row, i);
    if (!(square > 0)) throw new Error(`internal: choleskySolve: row ${i} leaves ${square}, not positive`);
    row[i] = Math.sqrt(square);
  }
  for (let i = 0; i < n; i++) {
    subtractRows(rowsOfB[i]!, rowsOfA[i]!, rowsOfB, 0, i);
    scale(rowsOfB[i]!, 1 / a[i * n + i]!);
  }
  const column = new Float64Array(n);
  for (let i = n - 1; i >= 0; i--) {
    for (let j = i + 1; j < n; j++) column[j] = a[j * n + i]!;
    subtractRows(rowsOfB[i]!, column, rowsOfB, i + 1, n);
    scale(rowsOfB[i]!, 1 / a[i * n + i]!);
  }
}

/** Σ of the products of the first `length` entries; in four sums, which a processor adds up side by side. */
function dot(x: Float64Array, y: Float64Array, length: number): number {
  let [a, b, c, d] = [0, 0, 0, 0];
  let i = 0;
  for (; i + 3 < length; i += 4) {
    a += x[i]! * y[i]!;
    b += x[i + 1]! * y[i + 1]!;
    c += x[i + 2]! * y[i + 2]!;
    d += x[i + 3]! * y[i + 3]!;
  }
  for (; i < length; i++) a += x[i]! * y[i]!;
  return a + b + (c + d);
}

/** target −= Σ factors[j]·rows[j] for j in from..to−1; four rows at a time, as each time the target is read and written. */
function subtractRows(target: Float64Array, factors: Float64Array, rows: Float64Array[], from: number, to: number) {
  let j = from;
  for (; j + 3 < to; j += 4) {
    const [a, b, c, d] = [rows[j]!, rows[j + 1]!, rows[j + 2]!, rows[j + 3]!];
    const [p, q, r, s] = [factors[j]!, factors[j + 1]!, factors[j + 2]!, factors[j + 3]!];
    for (let i = 0; i < target.length; i++) target[i]! -= p * a[i]! + q * b[i]! + r * c[i]! + s * d[i]!;
  }
  for (; j < to; j++) {
    const [row, factor] = [rows[j]!, factors[j]!];
    for (let i = 0; i < target.length; i++) target[i]! -= factor * row[i]!;
  }
}

function scale(target: Float64Array, factor: number): void {
  for (let i = 0; i < target.length; i++) target[i]! *= factor;
}
