/**
 * Shape of a decoder-only transformer, and the names and shapes of its parameters. Names are those of Hugging Face checkpoints.
 *
 * Shapes: D model width · F FFN width (d_ffn) · L layers · H query heads · G key/value heads · C head width · V vocabulary
 */
import { OptionError } from "../errors.ts";
import { familyOf, type ModelFamily } from "./families.ts";

/**
 * How a model reads farther than its RoPE was first trained for: every frequency divided by `factor`; only the low ones (Llama 3.1); or by a ramp
 * between two numbers of rotations, with attention scaled as well (YaRN, arXiv:2309.00071).
 */
export type RopeScaling =
  | { kind: "linear"; factor: number }
  | { kind: "llama3"; factor: number; lowFactor: number; highFactor: number; originalContextLength: number }
  | { kind: "yarn"; factor: number; originalContextLength: number; betaFast: number; betaSlow: number };

/** Shape of a decoder. */
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
  /** θ; of global layers alone, where local ones have their own. */
  ropeTheta: number;
  /** As θ. */
  ropeScaling?: RopeScaling | undefined;
  /** The output matrix is the embedding. */
  tieEmbeddings: boolean;
  /** Factor of q·k. Absent: 1/√C. */
  attentionScale?: number | undefined;
  /** Tokens that a local layer sees, the current one included; families with such layers must have it. */
  slidingWindow?: number | undefined;
  /** θ of local layers, in families that have one, which must have it. */
  localRopeTheta?: number | undefined;
  /** Attention logits x become cap · tanh(x / cap). */
  attentionSoftCap?: number | undefined;
  /** The same for output logits. */
  logitSoftCap?: number | undefined;
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
  const { hasBiases, hasHeadNorms, hasPostNorms } = familyOf(config);
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
      if (hasBiases) shapes.set(`${at}.self_attn.${name}_proj.bias`, [rows]);
      if (hasHeadNorms && name !== "v") shapes.set(`${at}.self_attn.${name}_norm.weight`, [C]);
    }
    shapes.set(`${at}.self_attn.o_proj.weight`, [D, H * C]);
    shapes.set(`${at}.post_attention_layernorm.weight`, [D]);
    if (hasPostNorms) {
      shapes.set(`${at}.pre_feedforward_layernorm.weight`, [D]);
      shapes.set(`${at}.post_feedforward_layernorm.weight`, [D]);
    }
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
  for (const [name, value, max, min = 1] of [
    ["width", config.width, 1 << 17],
    ["numLayers", config.numLayers, 512], // llama.cpp ends the process above
    ["numHeads", numHeads, 1 << 12],
    ["numKvHeads", numKvHeads, 1 << 12],
    ["headWidth", headWidth, 1 << 12],
    ["ffnWidth", config.ffnWidth, 1 << 20],
    ["vocabSize", config.vocabSize, 1 << 21],
    ["contextLength", config.contextLength, 1 << 24, 2], // a prompt and an answer of one token each
    ["slidingWindow", config.slidingWindow ?? 1, 1 << 24],
  ] as const) {
    if (!Number.isInteger(value) || value < min || value > max) {
      throw new OptionError(`${where}: "${name}" must be an integer in ${min}..${max}, got ${value}.`);
    }
  }
  if (numHeads % numKvHeads !== 0) {
    throw new OptionError(`${where}: key/value heads must divide query heads, got ${numHeads} and ${numKvHeads}.`);
  }
  if (headWidth % 2 !== 0) throw new OptionError(`${where}: head width must be even for RoPE, got ${headWidth}.`);
  const { ropeScaling: scaling } = config;
  for (const [name, value] of [
    ["normEps", config.normEps],
    ["ropeTheta", config.ropeTheta],
    ["attentionScale", config.attentionScale ?? 1],
    ["localRopeTheta", config.localRopeTheta ?? 1],
    ["attentionSoftCap", config.attentionSoftCap ?? 1],
    ["logitSoftCap", config.logitSoftCap ?? 1],
    ...Object.entries(scaling ?? {}).flatMap(([key, value]) =>
      typeof value === "number" ? [[`ropeScaling.${key}`, value] as const] : [],
    ),
  ] as const) {
    const stored = Math.fround(value); // as GGUF has it
    if (!(stored > 0 && Number.isFinite(stored)))
      throw new OptionError(`${where}: "${name}" must be positive, got ${value}.`);
  }
  const { globalEvery, hasLocalTheta } = familyOf(config);
  if (globalEvery !== undefined && !config.slidingWindow)
    throw new OptionError(`${where}: "slidingWindow" must be given for ${config.family}, got none.`);
  if (hasLocalTheta && !config.localRopeTheta)
    throw new OptionError(`${where}: "localRopeTheta" must be given for ${config.family}, got none.`);
  if (scaling?.kind === "llama3" && scaling.highFactor <= scaling.lowFactor)
    throw new OptionError(`${where}: "ropeScaling.highFactor" must be above lowFactor, got ${scaling.highFactor}.`);
}

export function countParameters(config: ModelConfig): number {
  return [...parameterShapes(config).values()].reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0);
}
