/**
 * A decoder written for reading, in float64 and plain loops: the independent reference that fast paths are compared with.
 *
 * Shapes: T tokens · D model width · F FFN width · L layers · H query heads · G key/value heads · C head width · V vocabulary
 */
import type { Model } from "../../src/formats/huggingface.ts";
import type { Mask } from "../../src/mask/mask.ts";

/** Channel weights m [L][F]: λ on kept channels, 0 elsewhere. */
export function channelWeights({ layers, lambda, dFfn }: Mask): Float64Array[] {
  return layers.map((kept, layer) => {
    const m = new Float64Array(dFfn);
    for (const [i, channel] of kept.entries()) m[channel] = lambda ? lambda[layer]![i]! : 1;
    return m;
  });
}

export interface Forward {
  /** [T][V] */
  logits: Float64Array[];
  /** Hidden states after the final norm, [T][D]. */
  hidden: Float64Array[];
  /** silu(gate)·up before the mask, [L][T][F]. */
  activations: Float64Array[][];
}

/** Runs the masked full model. @param mask m [L][F]; absent: all ones */
export function forward(
  { config, weights }: Model,
  ids: ArrayLike<number>,
  mask?: readonly ArrayLike<number>[],
): Forward {
  const { numLayers, numHeads: H, numKvHeads: G, headWidth: C, width: D, normEps, family } = config;
  const weight = (name: string) => weights.get(name)!.data;
  const embedding = weight("model.embed_tokens.weight");
  const T = ids.length;
  const x = Array.from({ length: T }, (_, t) => Float64Array.from(embedding.subarray(ids[t]! * D, (ids[t]! + 1) * D)));
  const activations = Array.from({ length: numLayers }, (): Float64Array[] => []);
  for (let layer = 0; layer < numLayers; layer++) {
    const at = `model.layers.${layer}`;
    const project = (name: "q" | "k" | "v", input: Float64Array, position: number): Float64Array[] => {
      const y = matVec(weight(`${at}.self_attn.${name}_proj.weight`), input);
      if (family === "qwen2") add(y, weight(`${at}.self_attn.${name}_proj.bias`));
      const heads = Array.from({ length: y.length / C }, (_, head) => y.subarray(head * C, (head + 1) * C));
      if (name === "v") return heads;
      const normed =
        family === "qwen3"
          ? heads.map((h) => rmsNorm(h, weight(`${at}.self_attn.${name}_norm.weight`), normEps))
          : heads;
      return normed.map((head) => rope(head, position, config.ropeTheta));
    };
    const inputs = x.map((row) => rmsNorm(row, weight(`${at}.input_layernorm.weight`), normEps));
    const [q, k, v] = (["q", "k", "v"] as const).map((name) => inputs.map((row, t) => project(name, row, t)));
    for (let t = 0; t < T; t++) {
      const attended = new Float64Array(H * C);
      for (let head = 0; head < H; head++) {
        const group = Math.floor((head * G) / H);
        const scores = Float64Array.from(
          { length: t + 1 },
          (_, s) => dot(q![t]![head]!, k![s]![group]!) / Math.sqrt(C),
        );
        for (const [s, p] of softmax(scores).entries()) {
          for (let c = 0; c < C; c++) attended[head * C + c]! += p * v![s]![group]![c]!;
        }
      }
      add(x[t]!, matVec(weight(`${at}.self_attn.o_proj.weight`), attended));
      const input = rmsNorm(x[t]!, weight(`${at}.post_attention_layernorm.weight`), normEps);
      const gate = matVec(weight(`${at}.mlp.gate_proj.weight`), input);
      const up = matVec(weight(`${at}.mlp.up_proj.weight`), input);
      const active = gate.map((g, i) => (g / (1 + Math.exp(-g))) * up[i]!);
      activations[layer]!.push(active);
      const channels = active.map((value, i) => value * (mask ? mask[layer]![i]! : 1));
      add(x[t]!, matVec(weight(`${at}.mlp.down_proj.weight`), channels));
    }
  }
  const hidden = x.map((row) => rmsNorm(row, weight("model.norm.weight"), normEps));
  const head = config.tieEmbeddings ? embedding : weight("lm_head.weight");
  return { activations, hidden, logits: hidden.map((row) => matVec(head, row)) };
}

/** Continues `ids` greedily by `count` tokens; lower id first among equals. Returns the new tokens. */
export function greedy(
  model: Model,
  ids: readonly number[],
  count: number,
  mask?: readonly ArrayLike<number>[],
): number[] {
  const all = [...ids];
  for (let i = 0; i < count; i++) {
    const logits = forward(model, all, mask).logits.at(-1)!;
    all.push(logits.indexOf(Math.max(...logits)));
  }
  return all.slice(ids.length);
}

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

/** `[rows, columns] · [columns]` */
export function matVec(matrix: Float32Array, vector: Float64Array): Float64Array {
  const columns = vector.length;
  return Float64Array.from({ length: matrix.length / columns }, (_, row) =>
    dot(matrix.subarray(row * columns, (row + 1) * columns), vector),
  );
}

function add(target: Float64Array, values: ArrayLike<number>): void {
  for (let i = 0; i < target.length; i++) target[i]! += values[i]!;
}

function rmsNorm(row: Float64Array, gain: Float32Array, epsilon: number): Float64Array {
  const scale = 1 / Math.sqrt(dot(row, row) / row.length + epsilon);
  return row.map((value, i) => value * scale * gain[i]!);
}

/** Rotates channels i and i + C/2 by position · θ^(−2i/C). */
function rope(head: Float64Array, position: number, theta: number): Float64Array {
  const half = head.length / 2;
  return head.map((value, c) => {
    const i = c % half;
    const angle = position * theta ** (-i / half);
    const other = c < half ? -head[c + half]! : head[c - half]!;
    return value * Math.cos(angle) + other * Math.sin(angle);
  });
}

function softmax(scores: Float64Array): Float64Array {
  const largest = Math.max(...scores);
  const exponentials = scores.map((score) => Math.exp(score - largest));
  const sum = exponentials.reduce((a, b) => a + b, 0);
  return exponentials.map((value) => value / sum);
}
