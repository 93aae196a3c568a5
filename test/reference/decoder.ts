/**
 * A decoder written for reading, in float64 and plain loops: the independent reference that fast paths are compared with.
 * Written from the papers: Llama 3 (arXiv:2407.21783), Gemma 2 (arXiv:2408.00118), Gemma 3 (arXiv:2503.19786), YaRN (arXiv:2309.00071).
 *
 * Shapes: T tokens · D model width · F FFN width · L layers · H query heads · G key/value heads · C head width · V vocabulary
 */
import type { Model } from "../../src/formats/huggingface.ts";
import type { Mask } from "../../src/mask/mask.ts";
import type { ModelConfig } from "../../src/model/config.ts";

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
  /** act(gate)·up before the mask, [L][T][F]. */
  activations: Float64Array[][];
}

/** Runs the masked full model. @param mask m [L][F], or that of each token; absent: all ones */
export function forward(
  { config, weights }: Model,
  ids: ArrayLike<number>,
  mask?: readonly ArrayLike<number>[] | ((token: number) => readonly ArrayLike<number>[]),
): Forward {
  const maskOf = typeof mask === "function" ? mask : () => mask;
  const { numLayers, numHeads: H, numKvHeads: G, headWidth: C, width: D, family } = config;
  const isGemma = family === "gemma2" || family === "gemma3";
  const weight = (name: string) => weights.get(name)!.data;
  const norm = (row: Float64Array, name: string) =>
    rmsNorm(row, weight(name), config.normEps, isGemma ? (w) => 1 + w : (w) => w);
  const embedding = weight("model.embed_tokens.weight");
  const T = ids.length;
  const x = Array.from({ length: T }, (_, t) =>
    Float64Array.from(
      embedding.subarray(ids[t]! * D, (ids[t]! + 1) * D),
      (value) => value * (isGemma ? Math.sqrt(D) : 1),
    ),
  );
  const activations = Array.from({ length: numLayers }, (): Float64Array[] => []);
  for (let layer = 0; layer < numLayers; layer++) {
    const at = `model.layers.${layer}`;
    // Gemma 2: local and global layers in turn; Gemma 3: five local layers, then a global one.
    const isLocal = (family === "gemma2" && layer % 2 === 0) || (family === "gemma3" && layer % 6 !== 5);
    const window = isLocal ? config.slidingWindow! : Number.POSITIVE_INFINITY;
    const scale = config.attentionScale ?? 1 / Math.sqrt(C);
    const isScaled = !(family === "gemma3" && isLocal);
    const angles = isScaled ? scaledAngles(config) : plainAngles(config.localRopeTheta!, C);
    const { ropeScaling: scaling } = config;
    const magnitude = isScaled && scaling?.kind === "yarn" ? 0.1 * Math.log(scaling.factor) + 1 : 1;

    const project = (name: "q" | "k" | "v", input: Float64Array, position: number): Float64Array[] => {
      const y = matVec(weight(`${at}.self_attn.${name}_proj.weight`), input);
      if (family === "qwen2") add(y, weight(`${at}.self_attn.${name}_proj.bias`));
      const heads = Array.from({ length: y.length / C }, (_, head) => y.subarray(head * C, (head + 1) * C));
      if (name === "v") return heads;
      const hasNorm = family === "qwen3" || family === "gemma3";
      const normed = hasNorm ? heads.map((h) => norm(h, `${at}.self_attn.${name}_norm.weight`)) : heads;
      return normed.map((head) => rope(head, position, angles).map((value) => value * magnitude));
    };
    const inputs = x.map((row) => norm(row, `${at}.input_layernorm.weight`));
    const [q, k, v] = (["q", "k", "v"] as const).map((name) => inputs.map((row, t) => project(name, row, t)));
    for (let t = 0; t < T; t++) {
      const attended = new Float64Array(H * C);
      for (let head = 0; head < H; head++) {
        const group = Math.floor((head * G) / H);
        const scores = Float64Array.from({ length: t + 1 }, (_, s) =>
          t - s < window ? cap(dot(q![t]![head]!, k![s]![group]!) * scale, config.attentionSoftCap) : -Infinity,
        );
        for (const [s, p] of softmax(scores).entries()) {
          for (let c = 0; c < C; c++) attended[head * C + c]! += p * v![s]![group]![c]!;
        }
      }
      const mixed = matVec(weight(`${at}.self_attn.o_proj.weight`), attended);
      add(x[t]!, isGemma ? norm(mixed, `${at}.post_attention_layernorm.weight`) : mixed);
      const input = norm(x[t]!, `${at}.${isGemma ? "pre_feedforward" : "post_attention"}_layernorm.weight`);
      const gate = matVec(weight(`${at}.mlp.gate_proj.weight`), input);
      const up = matVec(weight(`${at}.mlp.up_proj.weight`), input);
      const active = gate.map((g, i) => (isGemma ? gelu(g) : silu(g)) * up[i]!);
      activations[layer]!.push(active);
      const m = maskOf(t)?.[layer];
      const channels = active.map((value, i) => value * (m ? m[i]! : 1));
      const y = matVec(weight(`${at}.mlp.down_proj.weight`), channels);
      add(x[t]!, isGemma ? norm(y, `${at}.post_feedforward_layernorm.weight`) : y);
    }
  }
  const hidden = x.map((row) => norm(row, "model.norm.weight"));
  const head = config.tieEmbeddings ? embedding : weight("lm_head.weight");
  const logits = hidden.map((row) => matVec(head, row).map((value) => cap(value, config.logitSoftCap)));
  return { activations, hidden, logits };
}

/**
 * The most likely token after `ids`, again and again. Every one must be clear: what computes in float32, or in another order, could take another of two
 * that are nearly the same.
 *
 * @param clear by how much each token's logit is above all others, at least
 */
export function greedy(
  model: Model,
  ids: readonly number[],
  count: number,
  mask?: readonly ArrayLike<number>[],
  clear = 1e-3,
): number[] {
  const all = [...ids];
  for (let i = 0; i < count; i++) {
    const logits = forward(model, all, mask).logits.at(-1)!;
    const best = logits.indexOf(Math.max(...logits));
    if (lead(logits, best) < clear)
      throw new Error(`greedy: wanted each token ahead by ${clear}, got ${lead(logits, best)}. Take another prompt.`);
    all.push(best);
  }
  return all.slice(ids.length);
}

/** By how much a token's logit is above all others; in nats too, as that is what log-probabilities differ by. */
export function lead(logits: ArrayLike<number>, id: number): number {
  let other = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < logits.length; i++) if (i !== id) other = Math.max(other, logits[i]!);
  return logits[id]! - other;
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

function rmsNorm(row: Float64Array, gain: Float32Array, epsilon: number, of: (w: number) => number): Float64Array {
  const scale = 1 / Math.sqrt(dot(row, row) / row.length + epsilon);
  return row.map((value, i) => value * scale * of(gain[i]!));
}

const silu = (x: number) => x / (1 + Math.exp(-x));

/** The approximation with tanh. */
const gelu = (x: number) => (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

/** Close to x where it is small, and never beyond ±limit. */
const cap = (x: number, limit: number | undefined) => (limit === undefined ? x : limit * Math.tanh(x / limit));

/** θ^(−2i/C): by how much the i-th pair of channels turns from one token to the next. */
const plainAngles = (theta: number, C: number) => Array.from({ length: C / 2 }, (_, i) => theta ** ((-2 * i) / C));

/** The same, as the model's RoPE scaling changes it. */
function scaledAngles({ ropeTheta, headWidth: C, ropeScaling: scaling }: ModelConfig): number[] {
  const angles = plainAngles(ropeTheta, C);
  if (scaling?.kind === "linear") return angles.map((angle) => angle / scaling.factor);
  if (scaling?.kind === "llama3") {
    const { factor, lowFactor, highFactor, originalContextLength } = scaling;
    return angles.map((angle) => {
      const wavelength = (2 * Math.PI) / angle; // in tokens
      if (wavelength > originalContextLength / lowFactor) return angle / factor;
      if (wavelength < originalContextLength / highFactor) return angle;
      const smooth = (originalContextLength / wavelength - lowFactor) / (highFactor - lowFactor);
      return ((1 - smooth) * angle) / factor + smooth * angle;
    });
  }
  if (scaling?.kind === "yarn") {
    // The pair (a real number) that turns so often within the original context.
    const pairOf = (rotations: number) =>
      (C * Math.log(scaling.originalContextLength / (rotations * 2 * Math.PI))) / (2 * Math.log(ropeTheta));
    const low = Math.max(Math.floor(pairOf(scaling.betaFast)), 0);
    const high = Math.min(Math.ceil(pairOf(scaling.betaSlow)), C - 1);
    return angles.map((angle, i) => {
      const interpolated = Math.min(Math.max((i - low) / (high - low), 0), 1);
      return (angle / scaling.factor) * interpolated + angle * (1 - interpolated);
    });
  }
  return angles;
}

/** Rotates channels i and i + C/2 by position times the i-th angle. */
function rope(head: Float64Array, position: number, angles: readonly number[]): Float64Array {
  const half = head.length / 2;
  return head.map((value, c) => {
    const angle = position * angles[c % half]!;
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
