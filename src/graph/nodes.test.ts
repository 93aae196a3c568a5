/** Tensors that do not fit are refused while the graph is built, in words, and never reach ONNX Runtime. */
import { expect, test } from "vitest";
import { integers } from "../../test/support/graphs.ts";
import { Graph, type Tensor } from "./graph.ts";
import * as n from "./nodes.ts";
import { ops } from "./ops.ts";

type Make = (...shape: number[]) => Tensor;
const labels = (logits: Tensor, count: number) => logits.graph.constant(integers("labels", count, 2), [count]);

const refusals: [what: string, build: (make: Make) => void, message: string][] = [
  ["elementwise", (x) => ops.add(x(3, 4), x(4, 3)), "Add: wanted shapes that broadcast with [3, 4], got [4, 3]."],
  ["sum", (x) => ops.sum(x(3, 4), [2]), "ReduceSum: wanted axes of [3, 4], got [2]."],
  ["reshape", (x) => ops.reshape(x(3, 4), [2, 5]), "reshape: wanted 12 elements as in [3, 4], got [2, 5]."],
  [
    "transpose, a missing axis",
    (x) => ops.transpose(x(3, 4), [0]),
    "transpose: wanted every axis of [3, 4] once, got [0].",
  ],
  [
    "transpose, an axis twice",
    (x) => ops.transpose(x(3, 4), [0, 0]),
    "transpose: wanted every axis of [3, 4] once, got [0, 0].",
  ],
  ["concat", (x) => ops.concat([x(2, 3), x(2, 4)], 0), "concat: wanted shapes like [2, 3] but for axis 0, got [2, 4]."],
  ["slice", (x) => ops.slice(x(2, 3), 1, 1, 4), "slice: wanted a range in 0..3, got [1, 4]."],
  ["expand", (x) => n.expand(x(3, 4), [3, 1]), "expand: wanted a shape that [3, 4] broadcasts to, got [3, 1]."],
  [
    "matmul, inner dimension",
    (x) => ops.matmul(x(3, 4), x(3, 4)),
    "matmul: wanted inner dimension 4 (left operand [3, 4]), got [3, 4].",
  ],
  ["matmul, a vector", (x) => ops.matmul(x(3, 4), x(4)), "matmul: wanted two matrices, got [4]."],
  [
    "linear, inner dimension",
    (x) => ops.linear(x(6, 4), x(4, 5)),
    "matmul: wanted inner dimension 4 (left operand [6, 4]), got [4, 5].",
  ],
  ["linear, more than a matrix", (x) => ops.linear(x(2, 3, 4), x(5, 4)), "linear: wanted x [N, in], got [2, 3, 4]."],
  ["rmsNorm", (x) => ops.rmsNorm(x(3, 4), x(3), 1e-5), "rmsNorm: wanted weight [4], got [3]."],
  [
    "rope",
    (x) => ops.rope(x(2, 3, 10), { inverse: Float64Array.of(1, 0.1), magnitude: 1 }),
    "rope: wanted [B, T, heads·4], got [2, 3, 10].",
  ],
  [
    "attention, heads that do not divide",
    (x) => ops.attention(x(2, 5, 12), x(2, 5, 8), x(2, 5, 8), { headWidth: 4 }),
    "attention: wanted heads of width 4, got [12, 8].",
  ],
  [
    "attention, keys of another length",
    (x) => ops.attention(x(2, 5, 8), x(2, 6, 8), x(2, 6, 8), { headWidth: 4 }),
    "reshape: wanted 96 elements as in [2, 6, 8], got [2, 5, 2, 4].",
  ],
  [
    "gatedFfn, mask",
    (x) => ops.gatedFfn(x(6, 4), { gate: x(5, 4), up: x(5, 4), down: x(4, 5), activation: "silu" }, x(4, 5)),
    "gatedFfn: wanted mask [M, 5] with M dividing 6 tokens, got [4, 5].",
  ],
  [
    "crossEntropy",
    (x) => {
      const logits = x(4, 9);
      ops.crossEntropy(logits, labels(logits, 5));
    },
    "reshape: wanted 5 elements as in [5], got [4, 1].",
  ],
  ["softTopK, k", (x) => ops.softTopK(x(2, 4), 5, 1), "softTopK: wanted [rows, n] with n ≥ k = 5, got [2, 4]."],
  ["constant", (x) => x(1).graph.constant(new Float32Array(3), [2, 2]), "constant: wanted 4 values, got [3]."],
  ["input", (x) => x(2, 0), "x0: wanted positive dimensions, got [2, 0]."],
];

test.each(refusals)("%s", (_, build, message) => {
  const graph = new Graph("refused");
  const make: Make = (...shape) => graph.input(`x${graph.inputs.length}`, shape);
  expect(() => build(make)).toThrow(expect.objectContaining({ name: "ShapeError", message }));
});

test("equal constants are stored once, however large; others are not taken for them", () => {
  const graph = new Graph("constants");
  const table = new Float32Array(4096).fill(1);
  const [a, b] = [graph.constant(table, [64, 64]), graph.constant(table.slice(), [64, 64])];
  expect(b).toBe(a);
  for (const other of [
    graph.constant(table, [4096]),
    graph.constant(
      table.map((v, i) => (i === 4095 ? 2 : v)),
      [64, 64],
    ),
  ])
    expect(other).not.toBe(a);
});
