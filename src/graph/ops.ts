/**
 * Differentiable operations. Each computes its result from `nodes.ts` and puts on the tape how a gradient flows back, so an
 * operation's forward and backward pass stand side by side. The hot ones are fused: their backward pass reuses what the
 * forward pass computed and recomputes no matrix product.
 *
 * Shapes: B batch · T tokens · N = B·T tokens of a batch · M mask rows · D width · F FFN channels · K kept ones · H query heads ·
 * G key/value heads · C head width · V vocabulary. Paper: Hou et al. 2025, arXiv:2501.02086.
 */
import { ShapeError } from "../errors.ts";
import { type Graph, size, type Tensor } from "./graph.ts";
import * as n from "./nodes.ts";

function add(a: Tensor, b: Tensor): Tensor {
  return a.graph.record({
    op: "add",
    inputs: [a, b],
    output: n.add(a, b),
    backward: (dy, [needA, needB]) => [
      needA ? n.sumTo(dy, a.shape) : undefined,
      needB ? n.sumTo(dy, b.shape) : undefined,
    ],
  });
}

function sub(a: Tensor, b: Tensor): Tensor {
  return a.graph.record({
    op: "sub",
    inputs: [a, b],
    output: n.sub(a, b),
    backward: (dy, [needA, needB]) => [
      needA ? n.sumTo(dy, a.shape) : undefined,
      needB ? n.sumTo(n.neg(dy), b.shape) : undefined,
    ],
  });
}

function mul(a: Tensor, b: Tensor): Tensor {
  return a.graph.record({
    op: "mul",
    inputs: [a, b],
    output: n.mul(a, b),
    backward: (dy, [needA, needB]) => [
      needA ? n.sumTo(n.mul(dy, b), a.shape) : undefined,
      needB ? n.sumTo(n.mul(dy, a), b.shape) : undefined,
    ],
  });
}

function div(a: Tensor, b: Tensor): Tensor {
  const output = n.div(a, b);
  return a.graph.record({
    op: "div",
    inputs: [a, b],
    output,
    backward: (dy, [needA, needB]) => [
      needA ? n.sumTo(n.div(dy, b), a.shape) : undefined,
      needB ? n.sumTo(n.neg(n.div(n.mul(dy, output), b)), b.shape) : undefined,
    ],
  });
}

/** Along the last axis. */
function softmax(x: Tensor): Tensor {
  const output = n.softmax(x);
  return x.graph.record({
    op: "softmax",
    inputs: [x],
    output,
    backward: (dy) => [n.mul(output, n.sub(dy, n.reduceSum(n.mul(dy, output), [-1], true)))],
  });
}

/** y = x · factor, a plain number. */
function scale(x: Tensor, factor: number): Tensor {
  const c = x.graph.scalar(factor);
  return x.graph.record({ op: "scale", inputs: [x], output: n.mul(x, c), backward: (dy) => [n.mul(dy, c)] });
}

function exp(x: Tensor): Tensor {
  const output = n.exp(x);
  return x.graph.record({ op: "exp", inputs: [x], output, backward: (dy) => [n.mul(dy, output)] });
}

function log(x: Tensor): Tensor {
  return x.graph.record({ op: "log", inputs: [x], output: n.log(x), backward: (dy) => [n.div(dy, x)] });
}

/** cap · tanh(x / cap): close to x where it is small, and never beyond ±cap. */
function softCap(x: Tensor, cap: number): Tensor {
  const c = x.graph.scalar(cap);
  const t = n.tanh(n.div(x, c));
  return x.graph.record({
    op: "softCap",
    inputs: [x],
    output: n.mul(t, c),
    backward: (dy) => [n.mul(dy, tanhSlope(t))],
  });
}

/** d tanh(u)/du = 1 − t², t = tanh(u). */
function tanhSlope(t: Tensor): Tensor {
  return n.sub(t.graph.scalar(1), n.mul(t, t));
}

/** The nonlinearity of a gated FFN. GELU is its approximation with tanh, as Gemma uses it. */
export type Activation = "silu" | "gelu";

function activation(x: Tensor, kind: Activation): Tensor {
  const { output, slope } = activate[kind](x);
  return x.graph.record({ op: "activation", inputs: [x], output, backward: (dy) => [n.mul(dy, slope())] });
}

/** f(x), and f′(x) for a backward pass. Both are x · σ(u), with σ the sigmoid: (1 + tanh z)/2 = σ(2z). */
const activate: Record<Activation, (x: Tensor) => { output: Tensor; slope: () => Tensor }> = {
  /** u = x; f′ = σ·(1 + x − f). */
  silu(x) {
    const sigma = n.sigmoid(x);
    const output = n.mul(x, sigma);
    return { output, slope: () => n.mul(sigma, n.add(n.sub(x, output), x.graph.scalar(1))) };
  },
  /** u = a·x + b·x³; f′ = σ + f·(1 − σ)·u′. */
  gelu(x) {
    const [a, b] = [Math.sqrt(8 / Math.PI), Math.sqrt(8 / Math.PI) * 0.044715];
    const scalar = (value: number) => x.graph.scalar(value);
    const square = n.mul(x, x);
    const sigma = n.sigmoid(n.mul(x, n.add(n.mul(square, scalar(b)), scalar(a))));
    const output = n.mul(x, sigma);
    const slope = () => {
      const du = n.add(n.mul(square, scalar(3 * b)), scalar(a));
      return n.add(sigma, n.mul(n.mul(output, n.sub(scalar(1), sigma)), du));
    };
    return { output, slope };
  },
};

function sum(x: Tensor, axes: readonly number[], keepDims = false): Tensor {
  const kept = x.shape.map((length, i) =>
    axes.some((axis) => axis === i || axis + x.shape.length === i) ? 1 : length,
  );
  return x.graph.record({
    op: "sum",
    inputs: [x],
    output: n.reduceSum(x, axes, keepDims),
    backward: (dy) => [n.expand(n.reshape(dy, kept), x.shape)],
  });
}

function reshape(x: Tensor, shape: readonly number[]): Tensor {
  const reshaped = n.reshape(x, shape);
  return x.graph.record({
    op: "reshape",
    inputs: [x],
    output: reshaped === x ? n.identity(x) : reshaped,
    backward: (dy) => [n.reshape(dy, x.shape)],
  });
}

function transpose(x: Tensor, perm: readonly number[]): Tensor {
  const inverse = perm.map((_, i) => perm.indexOf(i));
  return x.graph.record({
    op: "transpose",
    inputs: [x],
    output: n.transpose(x, perm),
    backward: (dy) => [n.transpose(dy, inverse)],
  });
}

function concat(parts: readonly Tensor[], axis: number): Tensor {
  const starts = parts.map((_, i) => parts.slice(0, i).reduce((total, part) => total + part.shape[axis]!, 0));
  return parts[0]!.graph.record({
    op: "concat",
    inputs: parts,
    output: n.concat(parts, axis),
    backward: (dy, needs) =>
      parts.map((part, i) => (needs[i] ? n.slice(dy, axis, starts[i]!, starts[i]! + part.shape[axis]!) : undefined)),
  });
}

/** x[..., start:end, ...] along one axis. */
function slice(x: Tensor, axis: number, start: number, end: number): Tensor {
  const output = n.slice(x, axis, start, end);
  const pad = (length: number) =>
    n.zeros(
      x,
      x.shape.map((size, i) => (i === axis ? length : size)),
    );
  return x.graph.record({
    op: "slice",
    inputs: [x],
    output,
    backward: (dy) => {
      const parts = [
        start > 0 ? pad(start) : undefined,
        dy,
        end < x.shape[axis]! ? pad(x.shape[axis]! - end) : undefined,
      ];
      return [
        n.concat(
          parts.filter((part) => part !== undefined),
          axis,
        ),
      ];
    },
  });
}

/** Matrix product over the last two axes, batched over equal leading axes. */
function matmul(a: Tensor, b: Tensor): Tensor {
  return a.graph.record({
    op: "matmul",
    inputs: [a, b],
    output: n.matmul(a, b),
    backward: (dy, [needA, needB]) => [
      needA ? n.sumTo(n.matmul(dy, b, { transB: true }), a.shape) : undefined,
      needB ? n.sumTo(n.matmul(a, dy, { transA: true }), b.shape) : undefined,
    ],
  });
}

/** x Wᵀ: [N, in] × weight [out, in] (Hugging Face layout) → [N, out]. */
function linear(x: Tensor, weight: Tensor): Tensor {
  if (x.shape.length !== 2) throw new ShapeError("linear", "x [N, in]", x.shape);
  return x.graph.record({
    op: "linear",
    inputs: [x, weight],
    output: n.matmul(x, weight, { transB: true }),
    backward: (dy, [needX, needWeight]) => [
      needX ? n.matmul(dy, weight) : undefined,
      needWeight ? n.matmul(dy, x, { transA: true }) : undefined,
    ],
  });
}

/**
 * Rows of `table` [V, D] at `ids` (int32, any shape, each in 0..V-1): [...ids, D].
 * The gradient adds rows with one-threaded `ScatterElements`; `ScatterND` races on repeated ids.
 */
function embedding(table: Tensor, ids: Tensor): Tensor {
  const D = table.shape[1]!;
  return table.graph.record({
    op: "embedding",
    inputs: [table],
    output: n.gather(table, ids),
    backward: (dy) => {
      const N = size(ids.shape);
      const rows = n.expand(n.reshape(ids, [N, 1]), [N, D]);
      return [n.scatterElements(n.zeros(table), rows, n.reshape(dy, [N, D]), 0, "add")];
    },
  });
}

/** x / rms(x) · weight over the last axis; x [..., D], weight [D]. */
function rmsNorm(x: Tensor, weight: Tensor, epsilon: number): Tensor {
  const D = x.shape.at(-1)!;
  if (weight.shape.length !== 1 || weight.shape[0] !== D)
    throw new ShapeError("rmsNorm", `weight [${D}]`, weight.shape);
  const perRow = [...x.shape.slice(0, -1), 1];
  const results = [{ shape: x.shape }, { shape: perRow }];
  const attributes = { axis: -1, epsilon: { float: epsilon }, stash_type: 1 };
  const [output, inverseRms] = x.graph.emitMany("SimplifiedLayerNormalization", [x, weight], results, attributes);
  return x.graph.record({
    op: "rmsNorm",
    inputs: [x, weight],
    output: output!,
    backward: (dy, [needX, needWeight]) => {
      const normed = n.mul(x, inverseRms!);
      const dNormed = n.mul(dy, weight);
      const projection = n.reduceMean(n.mul(dNormed, normed), [-1], true);
      return [
        needX ? n.mul(n.sub(dNormed, n.mul(normed, projection)), inverseRms!) : undefined,
        needWeight ? n.sumTo(n.mul(dy, normed), [D]) : undefined,
      ];
    },
  });
}

/** (x − mean) / sqrt(variance + epsilon) over the last axis (population variance). */
function standardize(x: Tensor, epsilon: number): Tensor {
  const centred = n.sub(x, n.reduceMean(x, [-1], true));
  const variance = n.reduceMean(n.mul(centred, centred), [-1], true);
  const inverseStd = n.reciprocal(n.sqrt(n.add(variance, x.graph.scalar(epsilon))));
  const output = n.mul(centred, inverseStd);
  return x.graph.record({
    op: "standardize",
    inputs: [x],
    output,
    backward: (dy) => {
      const mean = n.reduceMean(dy, [-1], true);
      const projection = n.reduceMean(n.mul(dy, output), [-1], true);
      return [n.mul(n.sub(n.sub(dy, mean), n.mul(output, projection)), inverseStd)];
    },
  });
}

/**
 * What each token of a row sees before it, [B, T], int32 both: the row's first `shared` tokens, and those from `starts` on, as if they stood end to end. So several
 * texts that begin alike share a row, each as it is alone: the beginning has 0 and 0, each text after it its own first token and the beginning's length.
 */
export interface Sees {
  starts: Tensor;
  shared: Tensor;
}

/** Of each token among those that it sees: [B, T], int32. */
function positionsOf({ starts, shared }: Sees): Tensor {
  const T = starts.shape[1]!;
  return n.add(n.sub(counting(starts.graph, [1, T]), starts), shared);
}

/** 0, 1, 2, … in a shape of one axis longer than 1. */
const counting = (graph: Graph, shape: readonly number[]): Tensor =>
  graph.constant(
    Int32Array.from({ length: size(shape) }, (_, i) => i),
    shape,
  );

/**
 * Rotary position embedding of x [B, T, heads·C], pairs (i, i + C/2) as in Hugging Face checkpoints, positions 0..T-1, or those among what each token sees.
 *
 * @param inverse radians per token of each pair [C/2]
 * @param magnitude factor of the result
 */
function rope(x: Tensor, { inverse, magnitude }: { inverse: Float64Array; magnitude: number }, sees?: Sees): Tensor {
  const half = inverse.length;
  const headWidth = 2 * half;
  const { graph } = x;
  const [B, T, width] = x.shape;
  if (x.shape.length !== 3 || width! % headWidth !== 0)
    throw new ShapeError("rope", `[B, T, heads·${headWidth}]`, x.shape);
  const angle = (i: number) => Math.floor(i / half) * inverse[i % half]!;
  const table = (f: (angle: number) => number) =>
    graph.constant(
      Float32Array.from({ length: T! * half }, (_, i) => magnitude * f(angle(i))),
      [T!, half],
    );
  const cosine = table(Math.cos);
  const sine = table(Math.sin);
  const positions = sees
    ? n.cast(positionsOf(sees), "int64")
    : graph.constant(
        BigInt64Array.from({ length: B! * T! }, (_, i) => BigInt(i % T!)),
        [B!, T!],
      );
  const attributes = { interleaved: 0, num_heads: width! / headWidth };
  const rotate = (y: Tensor, sin: Tensor) =>
    graph.emit("RotaryEmbedding", [y, positions, cosine, sin], x.shape, attributes, "float32", "com.microsoft");
  // A rotation's transpose is the rotation by the opposite angle; the magnitude stays.
  return graph.record({
    op: "rope",
    inputs: [x],
    output: rotate(x, sine),
    backward: (dy) => [
      rotate(
        dy,
        table((a) => -Math.sin(a)),
      ),
    ],
  });
}

/**
 * Causal grouped-query attention. q [B, T, H·C], k and v [B, T, G·C] → [B, T, H·C]; query head h reads key/value head
 * floor(h·G/H). The R = H/G query heads of a group are stacked along the rows of one product, so keys are never copied.
 *
 * @param scale factor of q·k, 1/√C by default
 * @param window tokens that a query sees, itself included; absent: all before it
 * @param softCap logits x become softCap · tanh(x / softCap)
 * @param sees absent: all before it
 */
function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: {
    headWidth: number;
    scale?: number | undefined;
    window?: number | undefined;
    softCap?: number | undefined;
    sees?: Sees | undefined;
  },
): Tensor {
  const { graph } = q;
  const [B, T, qWidth] = q.shape as [number, number, number];
  const { headWidth: C, scale: alpha = 1 / Math.sqrt(C), window = T, softCap: cap, sees } = options;
  const [H, G] = [qWidth / C, k.shape[2]! / C];
  if (!Number.isInteger(H) || !Number.isInteger(G) || H % G !== 0)
    throw new ShapeError("attention", `heads of width ${C}`, [qWidth, k.shape[2]!]);
  const R = H / G;
  const split = (x: Tensor, heads: number) =>
    n.reshape(n.transpose(n.reshape(x, [B, T, heads, C]), [0, 2, 1, 3]), [B, G, (heads / G) * T, C]);
  const join = (x: Tensor, heads: number) =>
    n.reshape(n.transpose(n.reshape(x, [B, heads, T, C]), [0, 2, 1, 3]), [B, T, heads * C]);
  const hidden = sees ? unseenKeys(sees, window) : lateKeys(graph, T, window);

  const [qs, ks, vs] = [split(q, H), split(k, G), split(v, G)];
  const products = n.matmul(qs, ks, { transB: true, alpha: alpha / (cap ?? 1) }); // [B, G, R·T, T]
  const tanh = cap === undefined ? undefined : n.tanh(products);
  const logits = tanh ? n.mul(tanh, graph.scalar(cap!)) : products;
  const masked = n.add(n.reshape(logits, [B, H, T, T]), hidden);
  const weights = n.reshape(n.softmax(masked), [B, G, R * T, T]);
  const mixed = n.matmul(weights, vs); // [B, G, R·T, C]
  return graph.record({
    op: "attention",
    inputs: [q, k, v],
    output: join(mixed, H),
    backward: (dy) => {
      const dMixed = split(dy, H);
      const dWeights = n.matmul(dMixed, vs, { transB: true });
      // Softmax: dlogits = w ⊙ (dw − Σ w·dw), and Σ_j w_ij·dw_ij = ⟨mixed_i, dMixed_i⟩.
      const dLogits = n.mul(weights, n.sub(dWeights, n.reduceSum(n.mul(mixed, dMixed), [-1], true)));
      const dProducts = tanh ? n.mul(dLogits, tanhSlope(tanh)) : dLogits; // of q·k·alpha, before the cap
      return [
        join(n.matmul(dProducts, ks, { alpha }), H),
        join(n.matmul(dProducts, qs, { transA: true, alpha }), G),
        join(n.matmul(weights, dMixed, { transA: true }), G),
      ];
    },
  });
}

/** −∞ for keys after a query or out of its window, else 0: [1, 1, T, T]. */
function lateKeys(graph: Graph, T: number, window: number): Tensor {
  const hidden = Float32Array.from({ length: T * T }, (_, i) => {
    const age = Math.floor(i / T) - (i % T); // of the key, in tokens
    return age >= 0 && age < window ? 0 : -Infinity;
  });
  return graph.constant(hidden, [1, 1, T, T]);
}

/** The same where a query does not see all before it: [B, 1, T, T]. */
function unseenKeys(sees: Sees, window: number): Tensor {
  const { graph } = sees.starts;
  const [B, T] = sees.starts.shape as [number, number];
  const queries = (x: Tensor) => n.reshape(x, [x.shape[0]!, 1, T, 1]);
  const keys = counting(graph, [1, 1, 1, T]);
  const [none, seen] = [graph.scalar(-Infinity), graph.scalar(0)];
  const ofStart = n.where(n.less(keys, queries(sees.shared)), seen, none);
  const before = n.where(n.less(keys, queries(sees.starts)), ofStart, seen);
  const causal = n.add(before, lateKeys(graph, T, T));
  if (window >= T) return causal;
  const positions = positionsOf(sees);
  const age = n.sub(queries(positions), n.reshape(positions, [B, 1, 1, T]));
  return n.where(n.less(age, graph.constant(Int32Array.of(window), [])), causal, none);
}

/** A gated FFN: gate and up [F, D], down [D, F]. */
export interface Ffn {
  gate: Tensor;
  up: Tensor;
  down: Tensor;
  activation: Activation;
}

/**
 * Gated FFN with an optional channel mask (Hou et al., §3.1): ((act(x gateᵀ) ⊙ (x upᵀ)) ⊙ m) downᵀ.
 *
 * @param x [N, D]
 * @param mask [M, F]: row r masks tokens r·N/M … (r+1)·N/M − 1, so one row per sequence, or per chunk of a sequence
 * @returns [N, D]
 */
function gatedFfn(x: Tensor, ffn: Ffn, mask?: Tensor): Tensor {
  const { gate, up, down } = ffn;
  const [N, F] = [x.shape[0]!, gate.shape[0]!];
  if (String(up.shape) !== String(gate.shape))
    throw new ShapeError("gatedFfn", `up [${gate.shape.join(", ")}]`, up.shape);
  const a = n.matmul(x, gate, { transB: true });
  const b = n.matmul(x, up, { transB: true });
  const { output: s, slope } = activate[ffn.activation](a);
  const u = n.mul(s, b); // [N, F]
  const M = mask?.shape[0] ?? 1;
  if (mask && (mask.shape.length !== 2 || mask.shape[1] !== F || N % M !== 0)) {
    throw new ShapeError("gatedFfn", `mask [M, ${F}] with M dividing ${N} tokens`, mask.shape);
  }
  const rows = [M, N / M, F];
  const m = mask && n.reshape(mask, [M, 1, F]);
  const masked = m ? n.reshape(n.mul(n.reshape(u, rows), m), [N, F]) : u;
  return x.graph.record({
    op: "gatedFfn",
    inputs: mask ? [x, gate, up, down, mask] : [x, gate, up, down],
    output: n.matmul(masked, down, { transB: true }),
    backward: (dy, [needX, needGate, needUp, needDown, needMask]) => {
      const dMasked = n.matmul(dy, down);
      const du = m ? n.reshape(n.mul(n.reshape(dMasked, rows), m), [N, F]) : dMasked;
      const db = n.mul(du, s);
      const da = n.mul(n.mul(du, b), slope());
      return [
        needX ? n.add(n.matmul(da, gate), n.matmul(db, up)) : undefined,
        needGate ? n.matmul(da, x, { transA: true }) : undefined,
        needUp ? n.matmul(db, x, { transA: true }) : undefined,
        needDown ? n.matmul(dy, masked, { transA: true }) : undefined,
        needMask ? n.reduceSum(n.reshape(n.mul(dMasked, u), rows), [1]) : undefined,
      ];
    },
  });
}

/** The kept FFN channels of each mask row: their places [M, K], int32 or int64, and λ [M, K]. */
export interface KeptChannels {
  indices: Tensor;
  lambda: Tensor;
}

/**
 * The same FFN computed on the kept channels alone: equal to `gatedFfn` under the mask that has λ at `indices` and 0 elsewhere, in
 * value and in every gradient (a dropped channel adds nothing to either). The weights of each row's channels are gathered first, so it
 * pays where many tokens share a row.
 *
 * @param x [N, D], row r of the mask is used for tokens r·N/M …
 * @returns [N, D]
 */
function compactFfn(x: Tensor, ffn: Ffn, { indices, lambda }: KeptChannels): Tensor {
  const { gate, up, down } = ffn;
  const [N, D] = x.shape as [number, number];
  const [M, K] = lambda.shape as [number, number];
  if (lambda.shape.length !== 2 || N % M !== 0 || indices.shape.join() !== lambda.shape.join())
    throw new ShapeError("compactFfn", `λ [M, K] with M dividing ${N} tokens, and its indices`, lambda.shape);
  if (String(up.shape) !== String(gate.shape))
    throw new ShapeError("compactFfn", `up [${gate.shape.join(", ")}]`, up.shape);
  const rows = [M, N / M, D];
  const x3 = n.reshape(x, rows);
  const [gateK, upK, downK] = [gate, up, n.transpose(down, [1, 0])].map((w) => n.gather(w, indices)) as [
    Tensor,
    Tensor,
    Tensor,
  ]; // [M, K, D]
  const a = n.matmul(x3, gateK, { transB: true }); // [M, N/M, K]
  const b = n.matmul(x3, upK, { transB: true });
  const { output: s, slope } = activate[ffn.activation](a);
  const u = n.mul(s, b);
  const m = n.reshape(lambda, [M, 1, K]);
  const masked = n.mul(u, m);
  return x.graph.record({
    op: "compactFfn",
    inputs: [x, gate, up, down, lambda],
    output: n.reshape(n.matmul(masked, downK), [N, D]),
    backward: (dy, [needX, needGate, needUp, needDown, needLambda]) => {
      const dy3 = n.reshape(dy, rows);
      const dMasked = n.matmul(dy3, downK, { transB: true });
      const du = n.mul(dMasked, m);
      const db = n.mul(du, s);
      const da = n.mul(n.mul(du, b), slope());
      const place = n.expand(n.reshape(indices, [M * K, 1]), [M * K, D]);
      /** Σ over tokens of p ⊗ q, added up where rows of the mask keep the same channel. [F, D] */
      const spread = (p: Tensor, q: Tensor) => {
        const perRow = n.reshape(n.matmul(p, q, { transA: true }), [M * K, D]);
        return n.scatterElements(n.zeros(gate), place, perRow, 0, "add");
      };
      return [
        needX ? n.reshape(n.add(n.matmul(da, gateK), n.matmul(db, upK)), [N, D]) : undefined,
        needGate ? spread(da, x3) : undefined,
        needUp ? spread(db, x3) : undefined,
        needDown ? n.transpose(spread(masked, dy3), [1, 0]) : undefined,
        needLambda ? n.reduceSum(n.mul(dMasked, u), [1]) : undefined,
      ];
    },
  });
}

/**
 * Sum over labelled positions of −ln softmax(logits)[label]. A sum, not a mean: gradients of several micro-batches add up,
 * and the optimiser divides by the number of labels.
 *
 * @param logits [N, V]
 * @param labels [N], int32 in 0..V-1; any negative label is ignored
 * @returns scalar
 */
function crossEntropy(logits: Tensor, labels: Tensor): Tensor {
  const { graph } = logits;
  const N = logits.shape[0]!;
  const column = n.reshape(labels, [N, 1]);
  const isIgnored = n.less(column, graph.constant(Int32Array.of(0), []));
  const weight = n.where(isIgnored, graph.scalar(0), graph.scalar(1)); // [N, 1]
  const index = n.where(isIgnored, graph.constant(Int32Array.of(0), []), column);
  const logProbabilities = n.logSoftmax(logits);
  const picked = n.mul(n.gatherElements(logProbabilities, index), weight);
  return graph.record({
    op: "crossEntropy",
    inputs: [logits],
    output: n.neg(n.reduceSum(picked, [0, 1])),
    backward: (dy) => {
      const rowGradient = n.mul(weight, dy); // [N, 1]
      const scaled = n.mul(n.softmax(logits), rowGradient); // a softmax is one pass; exp of the logarithm is several
      return [n.scatterElements(scaled, index, n.neg(rowGradient), 1, "add")]; // one index per row: no duplicates
    },
  });
}

/**
 * Sum over labelled positions of KL(softmax(teacher) ‖ softmax(logits)), nats. The teacher is a constant.
 *
 * @param logits [N, V]
 * @param teacher [N, V]
 * @param labels [N], int32; positions with a negative label are left out
 * @returns scalar
 */
function klDivergence(logits: Tensor, teacher: Tensor, labels: Tensor): Tensor {
  const { graph } = logits;
  const isIgnored = n.less(n.reshape(labels, [logits.shape[0]!, 1]), graph.constant(Int32Array.of(0), []));
  const weight = n.where(isIgnored, graph.scalar(0), graph.scalar(1)); // [N, 1]
  const target = n.mul(n.softmax(teacher), weight);
  const difference = n.sub(n.logSoftmax(teacher), n.logSoftmax(logits));
  return graph.record({
    op: "klDivergence",
    inputs: [logits],
    output: n.reduceSum(n.mul(target, difference), [0, 1]),
    backward: (dy) => [n.mul(n.sub(n.mul(n.softmax(logits), weight), target), dy)],
  });
}

/**
 * SoftTopK (Hou et al., eq. 3; CoDA, arXiv:2304.04947): m = λ ⊙ Top(λ, k), where λ = min(1, exp((s + a)/ε)) sums to k. Exactly k
 * non-zeros in each row. Solved exactly by sorting, as in `mask/softTopK.ts`; `Top` is a constant in the backward pass.
 *
 * @param scores [rows, n]
 * @returns m [rows, n]
 */
function softTopK(scores: Tensor, k: number, epsilon: number): Tensor {
  const { graph } = scores;
  const { indices, lambda, backward } = sortedSoftTopK(scores, k, epsilon);
  const output = n.scatterElements(n.zeros(scores), indices, lambda, 1, "none");
  return graph.record({
    op: "softTopK",
    inputs: [scores],
    output,
    backward: (dm) => [backward(n.gatherElements(dm, indices))],
  });
}

/**
 * The same in compact form, the k kept entries alone.
 *
 * @param scores [rows, n]
 * @returns λ [rows, k], descending, and the places of its entries in the row [rows, k], int64
 */
function keptTopK(scores: Tensor, k: number, epsilon: number): { lambda: Tensor; indices: Tensor } {
  const { indices, lambda, backward } = sortedSoftTopK(scores, k, epsilon);
  const record = { op: "keptTopK", inputs: [scores], output: lambda, backward: (d: Tensor) => [backward(d)] };
  return { indices, lambda: scores.graph.record(record) };
}

/**
 * In float32 the sorted scores are shifted by the k-th and the exponent is clamped: whatever lies e^60 above the k-th is
 * saturated in any case.
 *
 * @returns the kept entries' λ [rows, k], descending, and their places; `backward` takes the gradient of λ to that of the scores
 */
function sortedSoftTopK(scores: Tensor, k: number, epsilon: number) {
  const { graph } = scores;
  const [rows, F] = scores.shape as [number, number];
  if (scores.shape.length !== 2 || !(k >= 1 && k <= F))
    throw new ShapeError("softTopK", `[rows, n] with n ≥ k = ${k}`, scores.shape);
  const { values, indices } = n.sortDescending(scores);
  if (k === F) {
    return { indices, lambda: n.expand(graph.scalar(1), scores.shape), backward: () => n.zeros(scores) };
  }
  const u = n.div(n.sub(values, n.slice(values, 1, k - 1, k)), graph.scalar(epsilon));
  const e = n.exp(n.min(u, graph.scalar(60)));
  const rank = graph.constant(
    Float32Array.from({ length: F }, (_, r) => r),
    [1, F],
  );

  // r saturated entries: the first r with e_{r+1} · (k − r) ≤ T_r, T_r = Σ_{j>r} e_j; the last one if rounding leaves none.
  const tail = n.slice(n.suffixSum(e), 1, 0, k); // T_r for r = 0..k-1
  const room = graph.constant(
    Float32Array.from({ length: k }, (_, r) => k - r),
    [1, k],
  ); // k − r
  const fits = n.lessOrEqual(n.mul(n.slice(e, 1, 0, k), room), tail);
  const isLast = Float32Array.from({ length: k }, (_, r) => (r === k - 1 ? 1 : 0));
  const r = n.argMax(n.where(fits, graph.scalar(1), graph.constant(isLast, [1, k]))); // [rows, 1]
  const roomLeft = n.gatherElements(n.expand(room, [rows, k]), r);
  const alpha = n.sub(n.log(roomLeft), n.log(n.gatherElements(tail, r)));
  const isSaturated = n.less(rank, n.cast(r, "float32"));
  const free = n.min(n.exp(n.add(n.min(u, graph.scalar(60)), alpha)), graph.scalar(1));
  const lambda = n.where(isSaturated, graph.scalar(1), free); // sorted, of all entries
  return {
    indices: n.slice(indices, 1, 0, k),
    lambda: n.slice(lambda, 1, 0, k),
    backward: (dKept: Tensor) => {
      // grad_s = (λ_U/ε) ⊙ (g_U − ⟨λ_U, g_U⟩ / S_U); g is 0 on dropped channels, grad_s is not. S_U = k − r.
      const g = n.concat([dKept, n.zeros(scores, [rows, F - k])], 1);
      const lambdaU = n.where(isSaturated, graph.scalar(0), lambda);
      const mean = n.div(n.reduceSum(n.mul(lambdaU, g), [-1], true), roomLeft);
      const sorted = n.mul(n.div(lambdaU, graph.scalar(epsilon)), n.sub(g, mean));
      return n.scatterElements(n.zeros(scores), indices, sorted, 1, "none");
    },
  };
}

/** Every differentiable operation. A test walks this table, so none can be added without a gradient check. */
export const ops = {
  add,
  sub,
  mul,
  div,
  scale,
  exp,
  log,
  softCap,
  activation,
  softmax,
  sum,
  reshape,
  transpose,
  concat,
  slice,
  matmul,
  linear,
  embedding,
  rmsNorm,
  standardize,
  rope,
  attention,
  gatedFfn,
  compactFfn,
  crossEntropy,
  klDivergence,
  softTopK,
  keptTopK,
};
