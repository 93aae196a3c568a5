/**
 * Checked ONNX nodes: each function infers its result's shape and refuses arguments that do not fit. Nothing here is on the
 * tape; differentiable operations are in `ops.ts`, and their backward passes are written with these.
 */
import { ShapeError } from "../errors.ts";
import { size, type Tensor } from "./graph.ts";
import type { DType } from "./onnx.ts";

type Shape = readonly number[];

/** NumPy broadcasting of two shapes. @throws {ShapeError} */
function broadcastShapes(op: string, a: Shape, b: Shape): number[] {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const m = a[i - rank + a.length] ?? 1;
    const n = b[i - rank + b.length] ?? 1;
    if (m !== n && m !== 1 && n !== 1) throw new ShapeError(op, `shapes that broadcast with [${a.join(", ")}]`, b);
    return Math.max(m, n);
  });
}

const binary =
  (op: string, dtype?: DType) =>
  (a: Tensor, b: Tensor): Tensor =>
    a.graph.emit(op, [a, b], broadcastShapes(op, a.shape, b.shape), {}, dtype ?? a.dtype);
const unary =
  (op: string) =>
  (a: Tensor): Tensor =>
    a.graph.emit(op, [a], a.shape, {}, a.dtype);

export const add = binary("Add");
export const sub = binary("Sub");
export const mul = binary("Mul");
export const div = binary("Div");
export const min = binary("Min");
export const lessOrEqual = binary("LessOrEqual", "bool");
export const less = binary("Less", "bool");
export const exp = unary("Exp");
export const log = unary("Log");
export const sqrt = unary("Sqrt");
export const reciprocal = unary("Reciprocal");
export const sigmoid = unary("Sigmoid");
export const tanh = unary("Tanh");
export const neg = unary("Neg");
export const abs = unary("Abs");
/** The same values as a tensor of their own. */
export const identity = unary("Identity");

/**
 * Matrix product over the last two axes, batched over equal leading axes (or unbatched on either side), times `alpha`.
 * Transposed operands cost nothing: the kernel reads them in place.
 */
export function matmul(a: Tensor, b: Tensor, { transA = false, transB = false, alpha = 1 } = {}): Tensor {
  if (a.shape.length < 2 || b.shape.length < 2)
    throw new ShapeError("matmul", "two matrices", a.shape.length < 2 ? a.shape : b.shape);
  const [am, ak] = transA ? [a.shape.at(-1)!, a.shape.at(-2)!] : [a.shape.at(-2)!, a.shape.at(-1)!];
  const [bk, bn] = transB ? [b.shape.at(-1)!, b.shape.at(-2)!] : [b.shape.at(-2)!, b.shape.at(-1)!];
  if (ak !== bk)
    throw new ShapeError("matmul", `inner dimension ${ak} (left operand [${a.shape.join(", ")}])`, b.shape);
  const batch = broadcastShapes("matmul", a.shape.slice(0, -2), b.shape.slice(0, -2));
  const graph = a.graph;
  graph.flops += 2 * size(batch) * am * ak * bn;
  const attributes = { transA: Number(transA), transB: Number(transB), alpha: { float: alpha } };
  return graph.emit("FusedMatMul", [a, b], [...batch, am, bn], attributes, "float32", "com.microsoft");
}

function axesInput(x: Tensor, axes: Shape): Tensor {
  return x.graph.constant(BigInt64Array.from(axes, BigInt), [axes.length]);
}

function reduce(op: string, x: Tensor, axes: readonly number[], keepDims: boolean): Tensor {
  const positive = axes.map((axis) => (axis < 0 ? axis + x.shape.length : axis));
  if (!positive.every((axis) => axis in x.shape)) throw new ShapeError(op, `axes of [${x.shape.join(", ")}]`, axes);
  const shape = x.shape.flatMap((n, i) => (positive.includes(i) ? (keepDims ? [1] : []) : [n]));
  return x.graph.emit(op, [x, axesInput(x, axes)], shape, { keepdims: Number(keepDims) }, x.dtype);
}
export const reduceSum = (x: Tensor, axes: readonly number[], keepDims = false) =>
  reduce("ReduceSum", x, axes, keepDims);
export const reduceMean = (x: Tensor, axes: readonly number[], keepDims = false) =>
  reduce("ReduceMean", x, axes, keepDims);
export const reduceSumSquare = (x: Tensor, axes: readonly number[], keepDims = false) =>
  reduce("ReduceSumSquare", x, axes, keepDims);

/** Sums a broadcast gradient back to the shape it was broadcast from; `x` itself where nothing was broadcast. */
export function sumTo(x: Tensor, shape: Shape): Tensor {
  const lead = x.shape.length - shape.length;
  const axes = x.shape.flatMap((n, i) => (i < lead || (shape[i - lead] === 1 && n !== 1) ? [i] : []));
  return axes.length === 0 ? x : reshape(reduceSum(x, axes, true), shape);
}

/** `x` itself where it has the shape already. */
export function reshape(x: Tensor, shape: Shape): Tensor {
  if (size(shape) !== size(x.shape))
    throw new ShapeError("reshape", `${size(x.shape)} elements as in [${x.shape.join(", ")}]`, shape);
  if (shape.length === x.shape.length && shape.every((n, i) => n === x.shape[i])) return x;
  if (shape.length === 0) return x.graph.emit("Squeeze", [x], [], {}, x.dtype); // an empty list of dimensions is no constant
  return x.graph.emit("Reshape", [x, axesInput(x, shape)], shape, {}, x.dtype);
}

export function transpose(x: Tensor, perm: readonly number[]): Tensor {
  if (perm.toSorted((a, b) => a - b).join() !== [...x.shape.keys()].join()) {
    throw new ShapeError("transpose", `every axis of [${x.shape.join(", ")}] once`, perm);
  }
  return x.graph.emit(
    "Transpose",
    [x],
    perm.map((axis) => x.shape[axis]!),
    { perm },
    x.dtype,
  );
}

export function softmax(x: Tensor): Tensor {
  return x.graph.emit("Softmax", [x], x.shape, { axis: -1 });
}

export function logSoftmax(x: Tensor): Tensor {
  return x.graph.emit("LogSoftmax", [x], x.shape, { axis: -1 });
}

export function cast(x: Tensor, dtype: "float32" | "int32" | "int64"): Tensor {
  return x.graph.emit("Cast", [x], x.shape, { to: { float32: 1, int32: 6, int64: 7 }[dtype] }, dtype);
}

export function where(condition: Tensor, a: Tensor, b: Tensor): Tensor {
  const shape = broadcastShapes("where", condition.shape, broadcastShapes("where", a.shape, b.shape));
  return a.graph.emit("Where", [condition, a, b], shape, {}, a.dtype);
}

/** Rows `indices` (any shape) of `table` [N, ...rest]: result [...indices, ...rest]. */
export function gather(table: Tensor, indices: Tensor): Tensor {
  return table.graph.emit(
    "Gather",
    [table, indices],
    [...indices.shape, ...table.shape.slice(1)],
    { axis: 0 },
    table.dtype,
  );
}

/** Along the last axis: result[..., j] = x[..., indices[..., j]]. */
export function gatherElements(x: Tensor, indices: Tensor): Tensor {
  return x.graph.emit("GatherElements", [x, indices], indices.shape, { axis: -1 }, x.dtype);
}

/** `base` with `updates` written (or added) at `indices` along `axis`. Never `ScatterND` with duplicates: it races. */
export function scatterElements(
  base: Tensor,
  indices: Tensor,
  updates: Tensor,
  axis: number,
  reduction: "none" | "add",
): Tensor {
  return base.graph.emit("ScatterElements", [base, indices, updates], base.shape, { axis, reduction }, base.dtype);
}

export function expand(x: Tensor, shape: Shape): Tensor {
  if (broadcastShapes("expand", x.shape, shape).join() !== shape.join()) {
    throw new ShapeError("expand", `a shape that [${x.shape.join(", ")}] broadcasts to`, shape);
  }
  return x.graph.emit("Expand", [x, axesInput(x, shape)], shape, {}, x.dtype);
}

export function zeros(like: Tensor, shape: Shape = like.shape): Tensor {
  return expand(like.graph.scalar(0), shape);
}

export function concat(parts: readonly Tensor[], axis: number): Tensor {
  const shape = [...parts[0]!.shape];
  for (const part of parts) {
    const fits = part.shape.length === shape.length && shape.every((n, i) => i === axis || n === part.shape[i]);
    if (!fits) throw new ShapeError("concat", `shapes like [${shape.join(", ")}] but for axis ${axis}`, part.shape);
  }
  shape[axis] = parts.reduce((sum, part) => sum + part.shape[axis]!, 0);
  return parts[0]!.graph.emit("Concat", parts, shape, { axis }, parts[0]!.dtype);
}

/** x[..., start:end, ...] along one axis. */
export function slice(x: Tensor, axis: number, start: number, end: number): Tensor {
  const at = axis < 0 ? axis + x.shape.length : axis;
  if (start < 0 || end > x.shape[at]! || start >= end)
    throw new ShapeError("slice", `a range in 0..${x.shape[at]}`, [start, end]);
  const shape = x.shape.map((n, i) => (i === at ? end - start : n));
  const int64 = (value: number) => x.graph.constant(BigInt64Array.of(BigInt(value)), [1]);
  return x.graph.emit("Slice", [x, int64(start), int64(end), int64(at)], shape, {}, x.dtype);
}

/** All entries of the last axis in descending order, with their places; equal values: lower index first. */
export function sortDescending(x: Tensor): { values: Tensor; indices: Tensor } {
  const k = x.graph.constant(BigInt64Array.of(BigInt(x.shape.at(-1)!)), [1]);
  const results = [{ shape: x.shape }, { shape: x.shape, dtype: "int64" as const }];
  const [values, indices] = x.graph.emitMany("TopK", [x, k], results, { axis: -1, largest: 1, sorted: 1 });
  return { values: values!, indices: indices! };
}

/** Σ_{i ≥ j} x_i along the last axis. */
export function suffixSum(x: Tensor): Tensor {
  const axis = x.graph.constant(BigInt64Array.of(-1n), []);
  return x.graph.emit("CumSum", [x, axis], x.shape, { reverse: 1, exclusive: 0 });
}

/** Place of the first maximum along the last axis, kept as an axis of length 1. */
export function argMax(x: Tensor): Tensor {
  return x.graph.emit(
    "ArgMax",
    [x],
    [...x.shape.slice(0, -1), 1],
    { axis: -1, keepdims: 1, select_last_index: 0 },
    "int64",
  );
}
