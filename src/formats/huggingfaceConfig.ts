/**
 * `config.json` of Hugging Face model folders, in both directions, and `generation_config.json`. What we would compute differently (other
 * activations, other RoPE scaling, windows where there are none) is refused. Code that a folder names (`auto_map`) is never run.
 */
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import { FileError, OptionError } from "../errors.ts";
import { readJson } from "../json.ts";
import { checkModelConfig, type ModelConfig, type RopeScaling } from "../model/config.ts";
import { familyOf, isLocalLayer, MODEL_FAMILIES, type ModelFamily } from "../model/families.ts";
import { zodWords } from "../words.ts";

/** Families by `model_type`. */
const families = new Map(
  MODEL_FAMILIES.flatMap((family) =>
    Object.keys(familyOf({ family }).huggingFace.modelTypes).map((type) => [type, family] as const),
  ),
);
/** By the `model_type` of a model that also sees, that of its text part. */
const textTypes = new Map(
  MODEL_FAMILIES.flatMap((family) => {
    const { multimodalType } = familyOf({ family }).huggingFace;
    return multimodalType === undefined ? [] : [[multimodalType, writtenType(family)] as const];
  }),
);
const knownTypes = [...families.keys(), ...textTypes.keys()].join(", ");

function writtenType(family: ModelFamily): string {
  return Object.keys(familyOf({ family }).huggingFace.modelTypes)[0]!;
}

/** Names of activations by ours. */
const activations = { silu: "silu", gelu: "gelu_pytorch_tanh" } as const;

/** RoPE scaling; `type` is the older key of its kind. */
const ropeSchema = z.looseObject({
  rope_type: z.string().nullish(),
  type: z.string().nullish(),
  rope_theta: z.number().nullish(),
  factor: z.number().nullish(),
  low_freq_factor: z.number().nullish(),
  high_freq_factor: z.number().nullish(),
  original_max_position_embeddings: z.number().nullish(),
  beta_fast: z.number().nullish(),
  beta_slow: z.number().nullish(),
  attention_factor: z.number().nullish(),
  mscale: z.number().nullish(),
  mscale_all_dim: z.number().nullish(),
  truncate: z.boolean().nullish(),
  partial_rotary_factor: z.literal(1).nullish(),
});

const configSchema = z.object({
  hidden_size: z.number(),
  intermediate_size: z.number(),
  num_hidden_layers: z.number(),
  num_attention_heads: z.number(),
  num_key_value_heads: z.number().nullish(),
  head_dim: z.number().nullish(),
  vocab_size: z.number(),
  rms_norm_eps: z.number(),
  max_position_embeddings: z.number(),
  tie_word_embeddings: z.boolean().nullish(),
  rope_theta: z.number().nullish(),
  rope_scaling: ropeSchema.nullish(),
  /** Newer than the two above, and in their place; Gemma 3 has one for each kind of layer. */
  rope_parameters: z
    .union([z.object({ full_attention: ropeSchema, sliding_attention: ropeSchema.optional() }), ropeSchema])
    .nullish(),
  rope_local_base_freq: z.number().nullish(),
  partial_rotary_factor: z.literal(1).nullish(),
  hidden_act: z.string().nullish(),
  hidden_activation: z.string().nullish(),
  mlp_bias: z.literal(false).nullish(),
  attention_bias: z.boolean().nullish(),
  layer_types: z.array(z.string()).nullish(),
  sliding_window: z.number().nullish(),
  sliding_window_pattern: z.number().nullish(),
  _sliding_window_pattern: z.number().nullish(),
  use_sliding_window: z.literal(false).nullish(),
  use_bidirectional_attention: z.literal(false).nullish(),
  query_pre_attn_scalar: z.number().nullish(),
  attn_logit_softcapping: z.number().nullish(),
  final_logit_softcapping: z.number().nullish(),
});
type ConfigFile = z.infer<typeof configSchema>;

const outerSchema = z.looseObject({
  model_type: z.string(),
  text_config: z.record(z.string(), z.unknown()).optional(),
  quantization_config: z.unknown().optional(),
  auto_map: z.unknown().optional(),
  tie_word_embeddings: z.boolean().nullish(),
});

export interface ReadConfig {
  config: ModelConfig;
  /** The text part of a model that also sees: its tensors are named otherwise. */
  isMultimodal: boolean;
  /** What was left out. */
  notes: string[];
}

/**
 * @throws {FileError} if `config.json` is missing, not JSON, or describes a model that we do not compute
 * @throws {OptionError} if its numbers cannot make a model
 */
export function readConfigFile(folder: string): ReadConfig {
  const path = join(folder, "config.json");
  const outer = parse(path, outerSchema, readJson(path));
  if (outer.quantization_config) {
    throw new FileError(
      path,
      'wanted plain weights, got a "quantization_config". Weights of GPTQ, AWQ or bitsandbytes are not read: get the original model or a GGUF.',
    );
  }
  const notes = outer.auto_map ? ['"auto_map" of config.json: code that comes with a model is never run.'] : [];
  const textType = textTypes.get(outer.model_type);
  const isMultimodal = textType !== undefined;
  const { tie_word_embeddings: tie } = outer;
  const inner = isMultimodal
    ? { model_type: textType, ...(tie !== undefined && { tie_word_embeddings: tie }), ...outer.text_config }
    : outer;
  const type = inner.model_type;
  const family = typeof type === "string" ? families.get(type) : undefined;
  if (!family) throw new FileError(path, `wanted a model_type of ${knownTypes}, got ${JSON.stringify(type)}.`);
  const { defaults } = familyOf({ family }).huggingFace.modelTypes[type as string]!;
  const file = parse(path, configSchema, { ...defaults, ...inner });
  return { config: modelConfig(path, family, type as string, file), isMultimodal, notes };
}

/** As {@link readConfigFile}. */
export function readModelConfig(folder: string): ModelConfig {
  return readConfigFile(folder).config;
}

function parse<Schema extends z.ZodType>(path: string, schema: Schema, value: unknown): z.infer<Schema> {
  const parsed = schema.safeParse(value);
  if (!parsed.success) {
    throw new FileError(path, `${zodWords(parsed.error)}. Only plain decoders of ${knownTypes} are read.`);
  }
  return parsed.data;
}

function modelConfig(path: string, family: ModelFamily, type: string, file: ConfigFile): ModelConfig {
  const { hasBiases, hasScalesAndCaps, globalEvery, hasLocalTheta, huggingFace, ...traits } = familyOf({ family });
  const { isBoundByWindow } = huggingFace.modelTypes[type]!;
  const refuse = (key: string, wanted: string, got: unknown) => {
    throw new FileError(
      path,
      `"${key}": wanted ${wanted} in a ${type} model, got ${JSON.stringify(got)}. It computes something else.`,
    );
  };
  const activation = activations[traits.activation];
  for (const key of ["hidden_act", "hidden_activation"] as const)
    if ((file[key] ?? activation) !== activation) refuse(key, `"${activation}"`, file[key]);
  // A family with biases of q, k and v has them whatever its config says.
  if (file.attention_bias && !hasBiases) refuse("attention_bias", "false", true);

  const headWidth = file.head_dim ?? file.hidden_size / file.num_attention_heads;
  const { theta, localTheta, scaling } = ropeOf(path, file);
  const scalar = file.query_pre_attn_scalar;
  const config: ModelConfig = {
    family,
    width: file.hidden_size,
    numLayers: file.num_hidden_layers,
    numHeads: file.num_attention_heads,
    numKvHeads: file.num_key_value_heads ?? file.num_attention_heads,
    headWidth,
    ffnWidth: file.intermediate_size,
    vocabSize: file.vocab_size,
    contextLength: file.max_position_embeddings,
    normEps: file.rms_norm_eps,
    ropeTheta: theta,
    ...(scaling && { ropeScaling: scaling }),
    tieEmbeddings: file.tie_word_embeddings ?? false,
    ...(hasScalesAndCaps && scalar != null && scalar !== headWidth && { attentionScale: 1 / Math.sqrt(scalar) }),
    ...(globalEvery !== undefined && { slidingWindow: file.sliding_window ?? undefined }),
    ...(hasLocalTheta && { localRopeTheta: localTheta }),
    ...(hasScalesAndCaps && file.attn_logit_softcapping != null && { attentionSoftCap: file.attn_logit_softcapping }),
    ...(hasScalesAndCaps && file.final_logit_softcapping != null && { logitSoftCap: file.final_logit_softcapping }),
  };
  if (isBoundByWindow && file.sliding_window != null)
    config.contextLength = Math.min(config.contextLength, file.sliding_window);
  checkModelConfig(config, path); // before its numbers are used as counts

  const pattern = file.sliding_window_pattern ?? file._sliding_window_pattern;
  const types = Array.from({ length: config.numLayers }, (_, layer) =>
    isLocalLayer(config, layer) ? "sliding_attention" : "full_attention",
  );
  if (
    pattern != null &&
    globalEvery !== undefined &&
    types.some((kind, i) => (kind === "full_attention") !== ((i + 1) % pattern === 0))
  )
    refuse("sliding_window_pattern", "the family's", pattern);
  const isUniform = isBoundByWindow && file.layer_types?.every((kind) => kind === "sliding_attention");
  if (file.layer_types && !isUniform && file.layer_types.join() !== types.join())
    refuse("layer_types", "the family's pattern", file.layer_types.slice(0, 8));
  return config;
}

function ropeOf(
  path: string,
  file: ConfigFile,
): { theta: number; localTheta: number; scaling?: RopeScaling | undefined } {
  const { rope_parameters: parameters, rope_scaling: older } = file;
  const byLayer =
    parameters && "full_attention" in parameters
      ? (parameters as Record<string, z.infer<typeof ropeSchema>>)
      : undefined;
  const rope = byLayer?.full_attention ?? (parameters as z.infer<typeof ropeSchema> | undefined) ?? older;
  const local = byLayer?.sliding_attention;
  if (local && readScaling(path, local, file))
    throw new FileError(path, "wanted local layers without RoPE scaling, got some.");
  const scaling = rope ? readScaling(path, rope, file) : undefined;
  if (parameters && older && !isDeepStrictEqual(scaling, readScaling(path, older, file)))
    throw new FileError(path, 'wanted "rope_parameters" or "rope_scaling", got both, and they differ.');
  return {
    theta: rope?.rope_theta ?? file.rope_theta ?? 10_000,
    localTheta: local?.rope_theta ?? file.rope_local_base_freq ?? 10_000,
    scaling,
  };
}

function readScaling(path: string, rope: z.infer<typeof ropeSchema>, file: ConfigFile): RopeScaling | undefined {
  const kind = rope.rope_type ?? rope.type ?? "default";
  const need = (
    key: "factor" | "low_freq_factor" | "high_freq_factor" | "original_max_position_embeddings",
  ): number => {
    const value = rope[key];
    if (value == null) throw new FileError(path, `RoPE scaling of kind "${kind}": wanted "${key}", got none.`);
    return value;
  };
  switch (kind) {
    case "default":
      if (rope.factor != null && rope.factor !== 1)
        throw new FileError(path, `rope_scaling: wanted its kind ("rope_type"), got a factor of ${rope.factor} only.`);
      return undefined;
    case "linear":
      return { kind, factor: need("factor") };
    case "llama3":
      return {
        kind,
        factor: need("factor"),
        lowFactor: need("low_freq_factor"),
        highFactor: need("high_freq_factor"),
        originalContextLength: need("original_max_position_embeddings"),
      };
    case "yarn": {
      const factor = need("factor");
      const attention = rope.attention_factor ?? 0.1 * Math.log(factor) + 1;
      const isPlain = Math.abs(attention - 0.1 * Math.log(factor) - 1) < 1e-6 && rope.truncate !== false;
      if (!isPlain || rope.mscale != null || rope.mscale_all_dim != null)
        throw new FileError(path, "wanted YaRN with its own factor of attention and whole bounds, got a variant.");
      return {
        kind,
        factor,
        originalContextLength: rope.original_max_position_embeddings ?? file.max_position_embeddings,
        betaFast: rope.beta_fast ?? 32,
        betaSlow: rope.beta_slow ?? 1,
      };
    }
    default:
      throw new FileError(path, `wanted RoPE scaling of kind default, linear, llama3 or yarn, got "${kind}".`);
  }
}

/** Writes `config.json`, such that {@link readModelConfig} gives the same. @param torchType of the weights beside it */
export function writeModelConfig(
  folder: string,
  config: ModelConfig,
  torchType: "float32" | "float16" | "bfloat16",
): void {
  const { family, headWidth } = config;
  const { hasScalesAndCaps, globalEvery, hasLocalTheta, huggingFace, ...traits } = familyOf(config);
  const { attentionScale, slidingWindow, attentionSoftCap, logitSoftCap } = config;
  if (!hasScalesAndCaps && (attentionScale ?? slidingWindow ?? attentionSoftCap ?? logitSoftCap))
    throw new OptionError(
      `config.json: wanted a plain ${family} model, got scales, caps or windows. Only Gemma has them.`,
    );
  const activation = activations[traits.activation];
  const file = {
    architectures: [huggingFace.architecture],
    model_type: writtenType(family),
    hidden_size: config.width,
    intermediate_size: config.ffnWidth,
    num_hidden_layers: config.numLayers,
    num_attention_heads: config.numHeads,
    num_key_value_heads: config.numKvHeads,
    head_dim: headWidth,
    vocab_size: config.vocabSize,
    rms_norm_eps: config.normEps,
    rope_theta: config.ropeTheta,
    ...(config.ropeScaling && { rope_scaling: scalingFile(config.ropeScaling) }),
    max_position_embeddings: config.contextLength,
    hidden_act: activation,
    ...(globalEvery !== undefined && { sliding_window: slidingWindow }),
    ...(hasScalesAndCaps && {
      hidden_activation: activation,
      query_pre_attn_scalar: attentionScale ? scalarOf(attentionScale) : headWidth,
      attn_logit_softcapping: attentionSoftCap ?? null,
      final_logit_softcapping: logitSoftCap ?? null,
    }),
    ...(hasLocalTheta && { rope_local_base_freq: config.localRopeTheta, sliding_window_pattern: globalEvery }),
    tie_word_embeddings: config.tieEmbeddings,
    torch_dtype: torchType,
  };
  writeFileSync(join(folder, "config.json"), `${JSON.stringify(file, null, 2)}\n`);
}

/** The n of a scale 1/√n: a whole number where it is one but for rounding. */
function scalarOf(scale: number): number {
  const scalar = scale ** -2;
  return Math.abs(scalar - Math.round(scalar)) < 1e-9 * scalar ? Math.round(scalar) : scalar;
}

function scalingFile(scaling: RopeScaling): Record<string, unknown> {
  const { kind, factor } = scaling;
  const common = { rope_type: kind, factor };
  switch (kind) {
    case "linear":
      return common;
    case "llama3":
      return {
        ...common,
        low_freq_factor: scaling.lowFactor,
        high_freq_factor: scaling.highFactor,
        original_max_position_embeddings: scaling.originalContextLength,
      };
    case "yarn":
      return {
        ...common,
        original_max_position_embeddings: scaling.originalContextLength,
        beta_fast: scaling.betaFast,
        beta_slow: scaling.betaSlow,
      };
    default:
      return kind satisfies never;
  }
}

const tokenIds = z
  .union([
    z
      .number()
      .int()
      .nonnegative()
      .transform((id) => [id]),
    z.array(z.number().int().nonnegative()),
  ])
  .nullish();
const specialIds = { bos_token_id: tokenIds, eos_token_id: tokenIds };
const generationSchema = z.object({ ...specialIds, text_config: z.object(specialIds).optional() });
type ReadIds = z.infer<typeof generationSchema>;

export interface GenerationConfig {
  bosId?: number | undefined;
  /** Tokens that end an answer; may be none. */
  eosIds: number[];
}

/**
 * How a model's answers begin and end: of `generation_config.json`, else of `config.json`.
 *
 * @throws {FileError} if one of them is not JSON, or has something else than ids
 */
export function readGenerationConfig(folder: string): GenerationConfig {
  const [generation, config] = ["generation_config.json", "config.json"].map((name) => {
    const path = join(folder, name);
    return parse(path, generationSchema, existsSync(path) ? readJson(path) : {});
  }) as [ReadIds, ReadIds];
  const ids = (key: "bos_token_id" | "eos_token_id") =>
    generation[key] ?? config[key] ?? config.text_config?.[key] ?? [];
  return { bosId: ids("bos_token_id")[0], eosIds: ids("eos_token_id") };
}
