/**
 * Shape of a decoder-only transformer, and the names and shapes of its parameters. Names are those of Hugging Face checkpoints.
 *
 * Shapes: D model width · F FFN width (d_ffn) · L layers · H query heads · G key/value heads · C head width · V vocabulary
 */
import { OptionError } from "../errors.ts";

/** Families differ in q/k/v biases (qwen2) and in per-head RMSNorm of q and k (qwen3); the rest is the Llama block. */
export type ModelFamily = "llama" | "qwen2" | "qwen3";

export interface ModelConfig {
  family: ModelFamily;
  /** D */
  width: number;
  /** L */
  numLayers: number;
  /** H */
  numHeads: number;
  /** G, divides `numHeads` */
  numKvHeads: number;
  /** C, even (RoPE rotates pairs) */
  headWidth: number;
  /** F: d_ffn of the full model */
  ffnWidth: number;
  /** V */
  vocabSize: number;
  /** Longest sequence, in tokens. */
  contextLength: number;
  normEps: number;
  ropeTheta: number;
  /** The output matrix is the embedding. */
  tieEmbeddings: boolean;
}

/** A float32 tensor in row-major order. Training weights are always of this type; files may hold others. */
export interface Weight {
  shape: readonly number[];
  data: Float32Array;
}

/** Parameters by Hugging Face name. */
export type Weights = Map<string, Weight>;

/**
 * Every parameter of a model with its shape, in the order of the forward pass.
 * Matrices are `[out, in]`, as in Hugging Face checkpoints.
 */
export function parameterShapes(config: ModelConfig): Map<string, readonly number[]> {
  const { width: D, ffnWidth: F, numHeads: H, numKvHeads: G, headWidth: C, vocabSize: V } = config;
  const shapes = new Map<string, readonly number[]>([["model.embed_tokens.weight", [V, D]]]);
  for (let layer = 0; layer < config.numLayers; layer++) {
    const at = `model.layers.${layer}`;
    shapes.set(`${at}.input_layernorm.weight`, [D]);
    for (const [name, rows] of [
      ["q", H * C],
      ["k", G * C],
      ["v", G * C],
    ] as const) {
      shapes.set(`${at}.self_attn.${name}_proj.weight`, [rows, D]);
      if (config.family === "qwen2") shapes.set(`${at}.self_attn.${name}_proj.bias`, [rows]);
      if (config.family === "qwen3" && name !== "v") shapes.set(`${at}.self_attn.${name}_norm.weight`, [C]);
    }
    shapes.set(`${at}.self_attn.o_proj.weight`, [D, H * C]);
    shapes.set(`${at}.post_attention_layernorm.weight`, [D]);
    shapes.set(`${at}.mlp.gate_proj.weight`, [F, D]);
    shapes.set(`${at}.mlp.up_proj.weight`, [F, D]);
    shapes.set(`${at}.mlp.down_proj.weight`, [D, F]);
  }
  shapes.set("model.norm.weight", [D]);
  if (!config.tieEmbeddings) shapes.set("lm_head.weight", [V, D]);
  return shapes;
}

/**
 * @throws {OptionError} when the numbers cannot make a model; `where` names their origin (a file, a recipe section)
 */
export function checkModelConfig(config: ModelConfig, where: string): void {
  const { numHeads, numKvHeads, headWidth } = config;
  for (const [name, value, max] of [
    ["width", config.width, 1 << 17],
    ["numLayers", config.numLayers, 1 << 10],
    ["numHeads", numHeads, 1 << 12],
    ["numKvHeads", numKvHeads, 1 << 12],
    ["headWidth", headWidth, 1 << 12],
    ["ffnWidth", config.ffnWidth, 1 << 20],
    ["vocabSize", config.vocabSize, 1 << 21],
    ["contextLength", config.contextLength, 1 << 24],
  ] as const) {
    if (!Number.isInteger(value) || value < 1 || value > max) {
      throw new OptionError(`${where}: "${name}" must be an integer in 1..${max}, got ${value}.`);
    }
  }
  if (numHeads % numKvHeads !== 0) {
    throw new OptionError(`${where}: key/value heads must divide query heads, got ${numHeads} and ${numKvHeads}.`);
  }
  if (headWidth % 2 !== 0) throw new OptionError(`${where}: head width must be even for RoPE, got ${headWidth}.`);
  for (const [name, value] of [
    ["normEps", config.normEps],
    ["ropeTheta", config.ropeTheta],
  ] as const) {
    if (!(value > 0 && Number.isFinite(value)))
      throw new OptionError(`${where}: "${name}" must be positive, got ${value}.`);
  }
}
