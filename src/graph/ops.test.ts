/**
 * Every operation against its float64 definition (`test/reference/ops.ts`): values, and gradients by central differences.
 *
 * The tolerance is for float32, relative above 1: sums of a few dozen terms, so some tens of its rounding error of 6e-8. The
 * worst seen is 5.9e-6, in the gated FFN.
 */
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Array64 } from "../../test/reference/ops.ts";
import * as reference from "../../test/reference/ops.ts";
import { difference, evaluate, integers, normal, numericGradient, quiet } from "../../test/support/graphs.ts";
import { golden } from "../../test/support/softTopK.ts";
import { softTopK, softTopKGradient } from "../mask/softTopK.ts";
import { gradients } from "./autodiff.ts";
import { Graph, size, type Tensor } from "./graph.ts";
import { type Activation, ops } from "./ops.ts";
import { compile, type Session } from "./session.ts";

const TOLERANCE = 1e-5;

interface Input {
  shape: readonly number[];
  /** From a standard normal sample to the value. */
  from(z: number): number;
}
const any = (...shape: number[]): Input => ({ shape, from: (z) => z });
/** Half as large: what the gates of an FFN see of it then stays within ±5, where most of theirs is. */
const small = (...shape: number[]): Input => ({ shape, from: (z) => z / 2 });
const positive = (...shape: number[]): Input => ({ shape, from: (z) => 0.5 + Math.abs(z) });

interface Case {
  name: string;
  /** All differentiable. Whatever else the operation takes is fixed by the case. */
  inputs: readonly Input[];
  graph(...inputs: Tensor[]): Tensor;
  reference(...inputs: Array64[]): Array64;
}
const testCase = (name: string, inputs: readonly Input[], graph: Case["graph"], plain: Case["reference"]): Case => ({
  name,
  inputs,
  graph,
  reference: plain,
});

/** An elementwise operation of two operands, `b` the right one. */
const binary = (graph: Case["graph"], plain: Case["reference"], b = any): Case[] => [
  testCase("equal shapes", [any(3, 4), b(3, 4)], graph, plain),
  testCase("a missing axis and an axis of length 1 on the right", [any(2, 3, 4), b(3, 1)], graph, plain),
  testCase("a broadcast left operand", [any(4), b(2, 3, 4)], graph, plain),
  testCase("both broadcast", [any(2, 1, 4), b(3, 1)], graph, plain),
  testCase("a scalar", [any(2, 3), b()], graph, plain),
];

const ids = Int32Array.of(3, 0, 3, 3, 6, 0); // repeated, so that gradients of a row add up
const labels = Int32Array.of(2, -100, 0, 8, -1, 2);

const attentionCase = (
  H: number,
  G: number,
  T: number,
  options: { scale?: number; window?: number; softCap?: number } = {},
  sees?: reference.Sees,
): Case =>
  testCase(
    `${H} query heads, ${G} key/value heads, T ${T}, ${JSON.stringify({ ...options, ...sees })}`,
    [any(2, T, H * 4), any(2, T, G * 4), any(2, T, G * 4)],
    (q, k, v) => ops.attention(q!, k!, v!, { headWidth: 4, ...options, sees: sees && seesOf(q!.graph, sees, T) }),
    (q, k, v) => reference.attention(q!, k!, v!, { headWidth: 4, ...options, ...(sees && { sees }) }),
  );
const ropeCase = (
  name: string,
  shape: readonly number[],
  inverse: readonly number[],
  magnitude: number,
  sees?: reference.Sees,
): Case =>
  testCase(
    name,
    [any(...shape)],
    (x) => ops.rope(x!, { inverse: Float64Array.from(inverse), magnitude }, sees && seesOf(x!.graph, sees, shape[1]!)),
    (x) => reference.rope(x!, 2 * inverse.length, inverse, magnitude, sees),
  );

/** Two rows: one text; a beginning of a token, a text of two more tokens, two that share the beginning. */
const SHARING: reference.Sees = {
  starts: [0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 4, 4],
  shared: [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1],
};
/** Two rows: three texts that share nothing; a beginning of two tokens, which two texts share. */
const PARTED: reference.Sees = {
  starts: [0, 0, 2, 2, 2, 5, 0, 0, 0, 3, 3, 3],
  shared: [0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2],
};
const seesOf = (graph: Graph, { starts, shared }: reference.Sees, T: number) => {
  const input = (values: ArrayLike<number>) => graph.constant(Int32Array.from(values), [2, T]);
  return { starts: input(starts), shared: input(shared) };
};

const activations = ["silu", "gelu"] as const;
const ffnCase = (name: string, activation: Activation, M?: number): Case =>
  testCase(
    `${activation}, ${name}`,
    [small(12, 5), any(7, 5), any(7, 5), any(5, 7), ...(M ? [any(M, 7)] : [])],
    (x, gate, up, down, mask) => ops.gatedFfn(x!, { gate: gate!, up: up!, down: down!, activation }, mask),
    (x, gate, up, down, mask) => reference.gatedFfn(x!, { gate: gate!, up: up!, down: down!, activation }, mask),
  );
const kept = Int32Array.of(4, 0, 6, 1, 4, 5); // channel 4 in two rows: its gradients add up
const compactCase = (M: number, K: number, activation: Activation): Case =>
  testCase(
    `${activation}, M ${M} rows of ${K} kept channels`,
    [small(12, 5), any(7, 5), any(7, 5), any(5, 7), any(M, K)],
    (x, gate, up, down, lambda) => {
      const indices = x!.graph.constant(kept.slice(0, M * K), [M, K]);
      return ops.compactFfn(x!, { gate: gate!, up: up!, down: down!, activation }, { indices, lambda: lambda! });
    },
    (x, gate, up, down, lambda) => {
      const mask = { shape: [M, 7], data: new Float64Array(M * 7) };
      for (const [i, value] of lambda!.data.entries()) mask.data[Math.floor(i / K) * 7 + kept[i]!] = value;
      return reference.gatedFfn(x!, { gate: gate!, up: up!, down: down!, activation }, mask);
    },
  );
const keptTopKCase = (n: number, k: number, epsilon: number): Case =>
  testCase(
    `n ${n}, k ${k}, ε ${epsilon}`,
    [any(3, n)],
    (scores) => ops.keptTopK(scores!, k, epsilon).lambda,
    (scores) => {
      const { data } = reference.softTopK(scores!, k, epsilon);
      const rows = [0, 1, 2].map((row) => data.subarray(row * n, (row + 1) * n));
      const sorted = rows.flatMap((row) => [...row].filter((value) => value > 0).sort((a, b) => b - a));
      return { shape: [3, k], data: Float64Array.from(sorted) };
    },
  );
const softTopKCase = (n: number, k: number, epsilon: number): Case =>
  testCase(
    `n ${n}, k ${k}, ε ${epsilon}`,
    [any(3, n)],
    (scores) => ops.softTopK(scores!, k, epsilon),
    (scores) => reference.softTopK(scores!, k, epsilon),
  );

const cases: Record<keyof typeof ops, readonly Case[]> = {
  add: binary(ops.add, reference.add),
  sub: binary(ops.sub, reference.sub),
  mul: binary(ops.mul, reference.mul),
  div: binary(ops.div, reference.div, positive),
  scale: [
    testCase(
      "by −1.5",
      [any(2, 3)],
      (x) => ops.scale(x!, -1.5),
      (x) => reference.scale(x!, -1.5),
    ),
    testCase(
      "by 1",
      [any(2, 3)],
      (x) => ops.scale(x!, 1),
      (x) => x!,
    ),
  ],
  exp: [testCase("a matrix", [any(2, 3)], ops.exp, reference.exp)],
  log: [testCase("a matrix", [positive(2, 3)], ops.log, reference.log)],
  softCap: [
    testCase(
      "at 1.5",
      [any(4, 5)],
      (x) => ops.softCap(x!, 1.5),
      (x) => reference.softCap(x!, 1.5),
    ),
  ],
  activation: activations.map((kind) =>
    testCase(
      kind,
      [{ shape: [4, 5], from: (z) => 3 * z }],
      (x) => ops.activation(x!, kind),
      (x) => reference.activation(x!, kind),
    ),
  ),
  softmax: [
    testCase("a matrix", [any(4, 5)], ops.softmax, reference.softmax),
    testCase("of rank 3", [any(2, 3, 4)], ops.softmax, reference.softmax),
  ],
  sum: [
    testCase(
      "the first axis",
      [any(2, 3, 4)],
      (x) => ops.sum(x!, [0]),
      (x) => reference.sum(x!, [0]),
    ),
    testCase(
      "two axes, kept",
      [any(2, 3, 4)],
      (x) => ops.sum(x!, [0, 2], true),
      (x) => reference.sum(x!, [0, 2], true),
    ),
    testCase(
      "the last axis, counted from the end",
      [any(2, 3)],
      (x) => ops.sum(x!, [-1]),
      (x) => reference.sum(x!, [1]),
    ),
    testCase(
      "all axes",
      [any(2, 3)],
      (x) => ops.sum(x!, [0, 1]),
      (x) => reference.sum(x!, [0, 1]),
    ),
    testCase(
      "an axis of length 1, kept",
      [any(2, 1)],
      (x) => ops.sum(x!, [1], true),
      (x) => x!,
    ),
  ],
  reshape: [
    testCase(
      "two axes to three",
      [any(4, 6)],
      (x) => ops.reshape(x!, [2, 3, 4]),
      (x) => reference.reshape(x!, [2, 3, 4]),
    ),
    testCase(
      "to a scalar",
      [any(1, 1)],
      (x) => ops.reshape(x!, []),
      (x) => reference.reshape(x!, []),
    ),
    testCase(
      "from a scalar",
      [any()],
      (x) => ops.reshape(x!, [1, 1]),
      (x) => reference.reshape(x!, [1, 1]),
    ),
    testCase(
      "to the shape it has",
      [any(4, 6)],
      (x) => ops.reshape(x!, [4, 6]),
      (x) => x!,
    ),
  ],
  transpose: [
    testCase(
      "a cycle of axes",
      [any(2, 3, 4)],
      (x) => ops.transpose(x!, [2, 0, 1]),
      (x) => reference.transpose(x!, [2, 0, 1]),
    ),
    testCase(
      "no axis",
      [any(2, 3)],
      (x) => ops.transpose(x!, [0, 1]),
      (x) => x!,
    ),
  ],
  concat: [
    testCase(
      "three parts along the middle axis",
      [any(2, 1, 3), any(2, 4, 3), any(2, 2, 3)],
      (...parts) => ops.concat(parts, 1),
      (...parts) => reference.concat(parts, 1),
    ),
    testCase(
      "one part",
      [any(2, 3)],
      (...parts) => ops.concat(parts, 1),
      (x) => x!,
    ),
  ],
  slice: [
    testCase(
      "the beginning",
      [any(4, 3)],
      (x) => ops.slice(x!, 0, 0, 2),
      (x) => reference.slice(x!, 0, 0, 2),
    ),
    testCase(
      "the middle",
      [any(2, 5, 3)],
      (x) => ops.slice(x!, 1, 1, 4),
      (x) => reference.slice(x!, 1, 1, 4),
    ),
    testCase(
      "the end",
      [any(2, 5)],
      (x) => ops.slice(x!, 1, 3, 5),
      (x) => reference.slice(x!, 1, 3, 5),
    ),
    testCase(
      "all of it",
      [any(2, 5)],
      (x) => ops.slice(x!, 1, 0, 5),
      (x) => reference.slice(x!, 1, 0, 5),
    ),
  ],
  matmul: [
    testCase("matrices", [any(3, 4), any(4, 5)], ops.matmul, reference.matmul),
    testCase("batches", [any(2, 3, 4), any(2, 4, 5)], ops.matmul, reference.matmul),
    testCase("a batch and one matrix", [any(2, 3, 4), any(4, 5)], ops.matmul, reference.matmul),
    testCase("one matrix and a batch", [any(3, 4), any(2, 4, 5)], ops.matmul, reference.matmul),
  ],
  linear: [testCase("rows by [out, in]", [any(6, 4), any(5, 4)], ops.linear, reference.linear)],
  embedding: [
    testCase(
      "repeated ids",
      [any(7, 4)],
      (table) => ops.embedding(table!, table!.graph.constant(ids, [2, 3])),
      (table) => reference.embedding(table!, { shape: [2, 3], data: ids }),
    ),
  ],
  rmsNorm: [
    testCase(
      "rows",
      [any(3, 8), any(8)],
      (x, w) => ops.rmsNorm(x!, w!, 1e-5),
      (x, w) => reference.rmsNorm(x!, w!, 1e-5),
    ),
    testCase(
      "heads",
      [any(2, 3, 4), any(4)],
      (x, w) => ops.rmsNorm(x!, w!, 0.5),
      (x, w) => reference.rmsNorm(x!, w!, 0.5),
    ),
  ],
  standardize: [
    testCase(
      "rows",
      [any(3, 8)],
      (x) => ops.standardize(x!, 1e-6),
      (x) => reference.standardize(x!, 1e-6),
    ),
    testCase(
      "an ε that matters",
      [any(3, 8)],
      (x) => ops.standardize(x!, 0.5),
      (x) => reference.standardize(x!, 0.5),
    ),
  ],
  rope: [
    ropeCase("one head", [1, 7, 6], [1, 0.05, 0.002], 1),
    ropeCase("three heads, two rows", [2, 5, 12], [1, 0.1], 1),
    ropeCase("a magnitude", [2, 5, 8], [1, 0.1], 1.3),
    ropeCase("texts that share a beginning", [2, 6, 8], [1, 0.1], 1.3, SHARING),
    ropeCase("texts that share a row", [2, 6, 4], [1, 0.1], 1, PARTED),
  ],
  attention: [
    attentionCase(1, 1, 1),
    attentionCase(2, 2, 5),
    attentionCase(4, 2, 5),
    attentionCase(6, 1, 3),
    attentionCase(4, 2, 5, { scale: 0.8 }),
    attentionCase(4, 2, 7, { window: 3 }),
    attentionCase(2, 1, 4, { window: 1 }),
    attentionCase(4, 2, 5, { softCap: 0.7 }),
    attentionCase(4, 2, 6, { scale: 0.3, window: 2, softCap: 1.5 }),
    attentionCase(4, 2, 6, {}, SHARING),
    attentionCase(2, 1, 6, {}, PARTED),
    attentionCase(2, 2, 6, { window: 3, softCap: 0.7 }, SHARING),
    attentionCase(2, 1, 6, { window: 2 }, PARTED),
  ],
  gatedFfn: activations.flatMap((activation) => [
    ffnCase("no mask", activation),
    ffnCase("one mask for all", activation, 1),
    ffnCase("a mask per sequence (M = B)", activation, 2),
    ffnCase("a mask per chunk (M > B)", activation, 4),
    ffnCase("a mask per token", activation, 12),
  ]),
  compactFfn: activations.flatMap((activation) => [
    compactCase(1, 3, activation),
    compactCase(2, 3, activation),
    compactCase(6, 1, activation),
  ]),
  crossEntropy: [
    testCase(
      "ignored labels",
      [any(6, 9)],
      (logits) => ops.crossEntropy(logits!, logits!.graph.constant(labels, [6])),
      (logits) => reference.crossEntropy(logits!, labels),
    ),
    testCase(
      "nothing but ignored labels",
      [any(2, 9)],
      (logits) => ops.crossEntropy(logits!, logits!.graph.constant(Int32Array.of(-100, -100), [2])),
      (logits) => reference.crossEntropy(logits!, Int32Array.of(-100, -100)),
    ),
  ],
  klDivergence: [
    testCase(
      "ignored labels",
      [any(6, 9)],
      (logits) => {
        const { graph } = logits!;
        const teacher = graph.constant(normal("teacher", 54, { std: 2 }), [6, 9]);
        return ops.klDivergence(logits!, teacher, graph.constant(labels, [6]));
      },
      (logits) =>
        reference.klDivergence(
          logits!,
          { shape: [6, 9], data: Float64Array.from(normal("teacher", 54, { std: 2 })) },
          labels,
        ),
    ),
  ],
  softTopK: [
    softTopKCase(9, 4, 0.5),
    softTopKCase(12, 1, 0.3),
    softTopKCase(7, 6, 1),
    softTopKCase(5, 5, 1),
    softTopKCase(16, 8, 0.05), // most kept channels are saturated
  ],
  keptTopK: [keptTopKCase(9, 4, 0.5), keptTopKCase(12, 1, 0.3), keptTopKCase(5, 5, 1), keptTopKCase(16, 8, 0.05)],
};

/** Bit i of the number of a subset says whether the subset holds the i-th input. */
const subsets = (count: number): boolean[][] =>
  Array.from({ length: 2 ** count - 1 }, (_, bits) =>
    Array.from({ length: count }, (_, i) => ((bits + 1) >> i) % 2 === 1),
  );

describe("each operation, and its gradient for every choice of inputs that want one", () => {
  test("has a case", () => {
    for (const op of Object.keys(ops)) expect(cases[op as keyof typeof ops] ?? [], op).not.toHaveLength(0);
  });

  for (const [op, list] of Object.entries(cases)) {
    test.each(list)(`${op}: $name`, async ({ name, inputs, graph: build, reference: plain }) => {
      const values = inputs.map(({ shape, from }, i) => normal(`${op}/${name}/${i}`, size(shape)).map(from));
      const exact = values.map((data, i) => ({ shape: inputs[i]!.shape, data: Float64Array.from(data) }));
      const expected = plain(...exact);
      const weights = normal(`${op}/${name}/weights`, size(expected.shape));
      const weighted = (y: Array64) => y.data.reduce((sum, value, i) => sum + weights[i]! * value, 0);

      const graph = new Graph(op);
      const tensors = inputs.map(({ shape }, i) => graph.input(`x${i}`, shape));
      const y = build(...tensors);
      expect(tensors, "an output is a tensor of its own").not.toContain(y);
      expect(y.shape).toEqual(expected.shape);
      const products = ops.mul(y, graph.constant(weights, y.shape));
      const loss = y.shape.length === 0 ? products : ops.sum(products, [...y.shape.keys()]);
      graph.output("y", y);
      const wanted = subsets(inputs.length);
      for (const [s, subset] of wanted.entries()) {
        const chosen = [...tensors.keys()].filter((i) => subset[i]);
        const results = gradients(
          loss,
          chosen.map((i) => tensors[i]!),
        );
        for (const [at, i] of chosen.entries()) graph.output(`d${i} of ${s}`, results[at]!);
      }
      const outputs = await evaluate(graph, Object.fromEntries(values.map((data, i) => [`x${i}`, data])));

      expect(difference(outputs.y!, expected.data)).toBeLessThan(TOLERANCE);
      for (const [i, input] of exact.entries()) {
        const at = (data: Float64Array) => weighted(plain(...exact.map((x) => (x === input ? { ...x, data } : x))));
        const numeric = numericGradient(at, input.data);
        for (const [s, subset] of wanted.entries()) {
          if (!subset[i]) continue;
          expect(difference(outputs[`d${i} of ${s}`]!, numeric), `input ${i}, subset ${s}`).toBeLessThan(TOLERANCE);
        }
      }
    });
  }
});

describe("gradients", () => {
  test("add up over all uses of a tensor; are zero where nothing depends on it", async () => {
    const graph = new Graph("fan-out");
    const [x, unused] = [graph.input("x", [3]), graph.input("unused", [2])];
    const loss = ops.sum(ops.add(ops.mul(x, x), ops.mul(ops.exp(x), x)), [0]); // Σ x² + x·eˣ
    const [dx, dUnused] = gradients(loss, [x, unused]);
    graph.output("dx", dx!);
    graph.output("dUnused", dUnused!);
    const values = normal("fan-out", 3);
    const outputs = await evaluate(graph, { x: values, unused: normal("unused", 2) });
    expect(
      difference(
        outputs.dx!,
        values.map((v) => 2 * v + (1 + v) * Math.exp(v)),
      ),
    ).toBeLessThan(1e-6);
    expect([...outputs.dUnused!]).toEqual([0, 0]);
  });

  test("would count twice where a step returns its input, or what another step returned: neither is recorded", () => {
    const graph = new Graph("aliases");
    const x = graph.input("x", [3]);
    const y = ops.exp(x);
    const backward = (dy: Tensor) => [dy];
    expect(() => graph.record({ op: "alias", inputs: [x], output: x, backward })).toThrow(
      /internal: alias returns "x"/,
    );
    expect(() => graph.record({ op: "alias", inputs: [x], output: y, backward })).toThrow(/another step's output/);
  });

  test("are of scalars only", () => {
    const x = new Graph("vector").input("x", [3]);
    expect(() => gradients(ops.exp(x), [x])).toThrow(/internal: gradients of a tensor of shape \[3\]/);
  });
});

/** Graph and float64 reference on many rows of one shape. */
describe("softTopK in float32", () => {
  /** Outputs `m`, and `d`: the gradient of Σ w·m. */
  function softTopKGraph(rows: number, n: number, k: number, epsilon: number): Graph {
    const graph = new Graph("softTopK");
    const [scores, w] = [graph.input("scores", [rows, n]), graph.input("w", [rows, n])];
    const m = ops.softTopK(scores, k, epsilon);
    graph.output("m", m);
    graph.output("d", gradients(ops.sum(ops.mul(m, w), [0, 1]), [scores])[0]!);
    return graph;
  }
  const places = (m: Float32Array) => [...m.keys()].filter((i) => m[i] !== 0);
  const masked = (lambda: ArrayLike<number>, kept: Iterable<number>) => {
    const m = new Float64Array(lambda.length);
    for (const i of kept) m[i] = lambda[i]!;
    return m;
  };

  test.each(golden)("golden case n $n, k $k, ε $eps", async ({ n, k, eps, scores, weights, lambda, kept, grad }) => {
    const w = Float32Array.from(weights ?? scores);
    const { m, d } = await evaluate(softTopKGraph(1, n, k, eps), { scores: Float32Array.from(scores), w });
    expect(places(m!)).toEqual(kept);
    expect(difference(m!, masked(lambda, kept))).toBeLessThan(2e-6);
    if (grad) expect(difference(d!, grad)).toBeLessThan(1e-5); // λ's error times 1/ε = 10
  });

  const ROWS = 32;
  describe.each([
    { n: 40, k: 10, epsilon: 0.3 },
    { n: 40, k: 1, epsilon: 0.1 },
    { n: 40, k: 39, epsilon: 0.3 },
    { n: 96, k: 24, epsilon: 0.1 },
    { n: 12, k: 12, epsilon: 1 },
    { n: 64, k: 32, epsilon: 3 },
  ])("agrees with the float64 reference, n $n, k $k, ε $epsilon, seed 5", ({ n, k, epsilon }) => {
    let session: Session;
    beforeAll(async () => {
      session = await compile(softTopKGraph(ROWS, n, k, epsilon), quiet);
    });
    afterAll(() => session.release());

    /** Rows of any spread from all but equal to far apart, many with ties. */
    const row = fc
      .tuple(fc.constantFrom(1e-3, 1, 10, 1e3), fc.boolean())
      .chain(([spread, hasTies]) =>
        fc.array(
          hasTies
            ? fc.integer({ min: -4, max: 4 }).map((x) => Math.fround((x / 4) * spread))
            : fc.double({ min: -1, max: 1, noNaN: true }).map((x) => Math.fround(x * spread)),
          { minLength: n, maxLength: n },
        ),
      );
    /** Away from the kinks, where exp((s + a)/ε) reaches 1: there, float32 and float64 may fall on different sides. */
    const isSmooth = (scores: readonly number[]) => {
      const { lambda, kept } = softTopK(scores, k, epsilon);
      const lowest = kept.reduce((low, i) => (scores[i]! <= scores[low]! ? i : low)); // never saturated, but for k = n
      return (
        k === n || scores.every((s) => Math.abs(lambda[lowest]! * Math.exp((s - scores[lowest]!) / epsilon) - 1) > 1e-4)
      );
    };

    test("values, kept channels and gradient", async () => {
      const w = integers("weights", ROWS * n, 7).map((x) => x - 3);
      let smooth = 0;
      await fc.assert(
        fc.asyncProperty(fc.array(row, { minLength: ROWS, maxLength: ROWS }), async (rows) => {
          const { m, d } = await session.run({ scores: Float32Array.from(rows.flat()), w: Float32Array.from(w) });
          for (const [r, scores] of rows.entries()) {
            const of = (array: ArrayLike<number>) => Array.prototype.slice.call(array, r * n, (r + 1) * n) as number[];
            const { lambda, kept } = softTopK(scores, k, epsilon);
            const own = Float32Array.from(of(m!));
            expect(places(own)).toEqual([...kept]);
            expect(difference(own, masked(lambda, kept))).toBeLessThan(2e-6);
            if (!isSmooth(scores)) continue;
            smooth++;
            const wanted = softTopKGradient(scores, k, epsilon, of(w));
            expect(difference(of(d!), wanted)).toBeLessThan(1e-5 / Math.min(1, epsilon)); // λ's error, times 1/ε
          }
        }),
        { seed: 5, numRuns: 25 },
      );
      expect(smooth).toBeGreaterThan(0.25 * 25 * ROWS);
    });
  });
});
