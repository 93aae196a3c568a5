/**
 * Every operation of the graph again, in float64 and written from its definition: slow, and independent of `src/graph`.
 *
 * Shapes: as in `src/graph/ops.ts`
 */

/** A tensor in row-major order. */
export interface Array64 {
  shape: readonly number[];
  data: Float64Array;
}

type Index = readonly number[];

/** The tensor of a shape whose element at an index is `f(index)`. */
function fill(shape: readonly number[], f: (index: Index) => number): Array64 {
  const length = shape.reduce((a, b) => a * b, 1);
  const index = shape.map(() => 0);
  const data = new Float64Array(length);
  for (let i = 0; i < length; i++) {
    data[i] = f(index);
    for (let axis = shape.length - 1; axis >= 0 && ++index[axis]! === shape[axis]; axis--) index[axis] = 0;
  }
  return { shape, data };
}

/** The element at an index, read as NumPy broadcasts: axes that are missing or of length 1 repeat. */
function at({ shape, data }: Array64, index: Index): number {
  let offset = 0;
  const lead = index.length - shape.length;
  for (const [axis, n] of shape.entries()) offset = offset * n + (n === 1 ? 0 : index[axis + lead]!);
  return data[offset]!;
}

/** Σ f(0) … f(n − 1) */
function total(n: number, f: (i: number) => number): number {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += f(i);
  return sum;
}

const map = (x: Array64, f: (value: number) => number): Array64 => ({ shape: x.shape, data: x.data.map(f) });
const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

function elementwise(a: Array64, b: Array64, f: (a: number, b: number) => number): Array64 {
  const rank = Math.max(a.shape.length, b.shape.length);
  const length = ({ shape }: Array64, axis: number) => shape[axis - rank + shape.length] ?? 1;
  const shape = Array.from({ length: rank }, (_, axis) => Math.max(length(a, axis), length(b, axis)));
  return fill(shape, (index) => f(at(a, index), at(b, index)));
}

export const add = (a: Array64, b: Array64) => elementwise(a, b, (x, y) => x + y);
export const sub = (a: Array64, b: Array64) => elementwise(a, b, (x, y) => x - y);
export const mul = (a: Array64, b: Array64) => elementwise(a, b, (x, y) => x * y);
export const div = (a: Array64, b: Array64) => elementwise(a, b, (x, y) => x / y);
export const scale = (x: Array64, factor: number) => map(x, (value) => value * factor);
export const exp = (x: Array64) => map(x, Math.exp);
export const log = (x: Array64) => map(x, Math.log);
const silu = (x: Array64) => map(x, (value) => value * sigmoid(value));
const gelu = (x: Array64) =>
  map(x, (value) => 0.5 * value * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (value + 0.044715 * value ** 3))));
export const activation = (x: Array64, kind: "silu" | "gelu") => ({ silu, gelu })[kind](x);
export const softCap = (x: Array64, cap: number) => map(x, (value) => cap * Math.tanh(value / cap));

/** @param axes not negative */
export function sum(x: Array64, axes: readonly number[], keepDims = false): Array64 {
  const kept = x.shape.map((n, axis) => (axes.includes(axis) ? 1 : n));
  const result = fill(kept, () => 0);
  const flat = fill(kept, (index) => index.reduce((offset, i, axis) => offset * kept[axis]! + i, 0));
  fill(x.shape, (index) => {
    result.data[at(flat, index)]! += at(x, index);
    return 0;
  });
  return keepDims ? result : { shape: x.shape.filter((_, axis) => !axes.includes(axis)), data: result.data };
}

export const reshape = (x: Array64, shape: readonly number[]): Array64 => ({ shape, data: x.data });

export function transpose(x: Array64, perm: readonly number[]): Array64 {
  return fill(
    perm.map((axis) => x.shape[axis]!),
    (index) => {
      const source: number[] = [];
      for (const [i, axis] of perm.entries()) source[axis] = index[i]!;
      return at(x, source);
    },
  );
}

export function slice(x: Array64, axis: number, start: number, end: number): Array64 {
  const shape = x.shape.map((n, i) => (i === axis ? end - start : n));
  return fill(shape, (index) =>
    at(
      x,
      index.map((i, a) => (a === axis ? i + start : i)),
    ),
  );
}

export function concat(parts: readonly Array64[], axis: number): Array64 {
  const lengths = parts.map(({ shape }) => shape[axis]!);
  const shape = parts[0]!.shape.map((n, i) => (i === axis ? total(parts.length, (p) => lengths[p]!) : n));
  return fill(shape, (index) => {
    let [part, place] = [0, index[axis]!];
    while (place >= lengths[part]!) place -= lengths[part++]!;
    return at(
      parts[part]!,
      index.map((i, a) => (a === axis ? place : i)),
    );
  });
}

/** [..., m, k] × [..., k, n] → [..., m, n], leading axes broadcast. */
export function matmul(a: Array64, b: Array64): Array64 {
  const k = a.shape.at(-1)!;
  const batch = a.shape.length > b.shape.length ? a.shape.slice(0, -2) : b.shape.slice(0, -2);
  return fill([...batch, a.shape.at(-2)!, b.shape.at(-1)!], (index) => {
    const [lead, row, column] = [index.slice(0, -2), index.at(-2)!, index.at(-1)!];
    return total(k, (i) => at(a, [...lead, row, i]) * at(b, [...lead, i, column]));
  });
}

/** [N, in] × [out, in] → [N, out] */
export const linear = (x: Array64, weight: Array64): Array64 => matmul(x, transpose(weight, [1, 0]));

export function embedding(table: Array64, ids: { shape: readonly number[]; data: Int32Array }): Array64 {
  const D = table.shape[1]!;
  const data = Array.from(ids.data, (id) => [...table.data.subarray(id * D, (id + 1) * D)]).flat();
  return { shape: [...ids.shape, D], data: Float64Array.from(data) };
}

/** Applies `f` to every row of the last axis. */
function rows(x: Array64, f: (row: Float64Array) => ArrayLike<number>): Array64 {
  const width = x.shape.at(-1)!;
  const data = new Float64Array(x.data.length);
  for (let start = 0; start < data.length; start += width) data.set(f(x.data.subarray(start, start + width)), start);
  return { shape: x.shape, data };
}

const mean = (row: Float64Array) => total(row.length, (i) => row[i]!) / row.length;

export function rmsNorm(x: Array64, weight: Array64, epsilon: number): Array64 {
  return rows(x, (row) => {
    const rms = Math.sqrt(mean(row.map((value) => value ** 2)) + epsilon);
    return row.map((value, i) => (value / rms) * weight.data[i]!);
  });
}

export function standardize(x: Array64, epsilon: number): Array64 {
  return rows(x, (row) => {
    const centre = mean(row);
    const std = Math.sqrt(mean(row.map((value) => (value - centre) ** 2)) + epsilon);
    return row.map((value) => (value - centre) / std);
  });
}

export function softmax(x: Array64): Array64 {
  return rows(x, (row) => {
    const exponentials = row.map(Math.exp);
    const norm = exponentials.reduce((sum, value) => sum + value, 0);
    return exponentials.map((value) => value / norm);
  });
}

/** As complex numbers: (x_i, x_{i + C/2}) at position t, of those that it sees, is turned by t·inverse_i, and stretched. */
export function rope(
  x: Array64,
  headWidth: number,
  inverse: ArrayLike<number>,
  magnitude: number,
  sees?: Sees,
): Array64 {
  const half = headWidth / 2;
  return fill(x.shape, ([b, t, column]) => {
    const place = column! % headWidth;
    const i = place % half;
    const real = at(x, [b!, t!, column! - place + i]);
    const imaginary = at(x, [b!, t!, column! - place + i + half]);
    const position = seenBy(sees, b! * x.shape[1]! + t!, t!).length - 1;
    const angle = position * inverse[i]!;
    return (
      magnitude *
      (place < half
        ? real * Math.cos(angle) - imaginary * Math.sin(angle)
        : real * Math.sin(angle) + imaginary * Math.cos(angle))
    );
  });
}

/**
 * Token t of query head h averages the values of tokens s that it sees (all s ≤ t, or those below shared[t] and from starts[t] on), of the last `window` of them, weighted by softmax(q·k·scale), of key/value head ⌊h·G/H⌋. Logits are
 * capped softly before the softmax.
 */
export function attention(
  q: Array64,
  k: Array64,
  v: Array64,
  options: { headWidth: number; scale?: number; window?: number; softCap?: number; sees?: Sees },
): Array64 {
  const { headWidth: C, scale = 1 / Math.sqrt(C), window = Number.POSITIVE_INFINITY, softCap, sees } = options;
  const capped = (logit: number) => (softCap === undefined ? logit : softCap * Math.tanh(logit / softCap));
  const [B, T, width] = q.shape as [number, number, number];
  const [H, G] = [width / C, k.shape[2]! / C];
  const result = fill(q.shape, () => 0);
  for (let b = 0; b < B; b++) {
    for (let h = 0; h < H; h++) {
      const g = Math.floor((h * G) / H);
      for (let t = 0; t < T; t++) {
        const dot = (s: number) => total(C, (c) => at(q, [b, t, h * C + c]) * at(k, [b, s, g * C + c]));
        const seen = seenBy(sees, b * T + t, t).slice(-window);
        const weights = Array.from({ length: t + 1 }, (_, s) =>
          seen.includes(s) ? Math.exp(capped(dot(s) * scale)) : 0,
        );
        const norm = total(t + 1, (s) => weights[s]!);
        for (let c = 0; c < C; c++) {
          result.data[(b * T + t) * width + h * C + c] = total(
            t + 1,
            (s) => (weights[s]! / norm) * at(v, [b, s, g * C + c]),
          );
        }
      }
    }
  }
  return result;
}

/** What tokens of rows [B, T] see: `Sees` in `src/graph/ops.ts`. */
export interface Sees {
  starts: ArrayLike<number>;
  shared: ArrayLike<number>;
}

/** Tokens of its row that the token at `place` of all, `t` of its row, sees, itself the last. */
export function seenBy(sees: Sees | undefined, place: number, t: number): number[] {
  const before = Array.from({ length: t + 1 }, (_, s) => s);
  return sees ? before.filter((s) => s < sees.shared[place]! || s >= sees.starts[place]!) : before;
}

export function gatedFfn(
  x: Array64,
  { gate, up, down, activation: kind }: { gate: Array64; up: Array64; down: Array64; activation: "silu" | "gelu" },
  mask?: Array64,
): Array64 {
  const hidden = mul(activation(linear(x, gate), kind), linear(x, up));
  const tokensPerRow = x.shape[0]! / (mask?.shape[0] ?? 1);
  const masked = mask
    ? fill(
        hidden.shape,
        ([token, f]) => at(hidden, [token!, f!]) * mask.data[Math.floor(token! / tokensPerRow) * mask.shape[1]! + f!]!,
      )
    : hidden;
  return linear(masked, down);
}

/** Scalar: Σ −ln softmax(logits)[label] over labels that are not negative. */
export function crossEntropy(logits: Array64, labels: Int32Array): Array64 {
  const V = logits.shape[1]!;
  const loss = total(labels.length, (row) => {
    if (labels[row]! < 0) return 0;
    const values = logits.data.subarray(row * V, (row + 1) * V);
    return Math.log(total(V, (i) => Math.exp(values[i]! - values[labels[row]!]!)));
  });
  return { shape: [], data: Float64Array.of(loss) };
}

/** Scalar: Σ_v q_v ln(q_v / p_v), q and p the softmax of teacher and logits, over rows whose label is not negative. */
export function klDivergence(logits: Array64, teacher: Array64, labels: Int32Array): Array64 {
  const V = logits.shape[1]!;
  const [p, q] = [softmax(logits).data, softmax(teacher).data];
  const loss = total(labels.length, (row) =>
    labels[row]! < 0 ? 0 : total(V, (i) => q[row * V + i]! * Math.log(q[row * V + i]! / p[row * V + i]!)),
  );
  return { shape: [], data: Float64Array.of(loss) };
}

/** λ = min(1, exp((s + a)/ε)) with a by bisection, and 0 outside the k highest scores; of equal scores the lower index is kept. */
export function softTopK(scores: Array64, k: number, epsilon: number): Array64 {
  return rows(scores, (s) => {
    const lambda = (shift: number) => s.map((value) => Math.min(1, Math.exp((value - shift) / epsilon)));
    let [low, high] = [Math.min(...s) - 1, Math.max(...s) + epsilon * Math.log(s.length)]; // sums to n, and to 1 at most
    for (let i = 0; i < 100; i++) {
      const middle = (low + high) / 2;
      if (mean(lambda(middle)) * s.length > k) low = middle;
      else high = middle;
    }
    const order = [...s.keys()].sort((a, b) => s[b]! - s[a]! || a - b);
    const kept = new Set(order.slice(0, k));
    return lambda(high).map((value, i) => (kept.has(i) ? value : 0));
  });
}
