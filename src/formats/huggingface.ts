/**
 * Hugging Face model folders: `config.json` beside `model.safetensors`. One weight file, the three families of
 * {@link ModelFamily}; what we would compute differently (other activations, scaled RoPE, …) is refused.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { FileError } from "../errors.ts";
import {
  checkModelConfig,
  type ModelConfig,
  type ModelFamily,
  parameterShapes,
  type Weight,
  type Weights,
} from "../model/config.ts";
import { readJson } from "./files.ts";
import { SafetensorsFile, writeSafetensors } from "./safetensors.ts";

export interface Model {
  config: ModelConfig;
  weights: Weights;
}

const architectures: Record<ModelFamily, string> = {
  llama: "LlamaForCausalLM",
  qwen2: "Qwen2ForCausalLM",
  qwen3: "Qwen3ForCausalLM",
  gemma2: "Gemma2ForCausalLM",
  gemma3: "Gemma3ForCausalLM",
};

const configSchema = z.object({
  model_type: z.enum(["llama", "qwen2", "qwen3"]),
  hidden_size: z.number(),
  intermediate_size: z.number(),
  num_hidden_layers: z.number(),
  num_attention_heads: z.number(),
  num_key_value_heads: z.number().optional(),
  head_dim: z.number().nullish(),
  vocab_size: z.number(),
  rms_norm_eps: z.number(),
  rope_theta: z.number().default(10_000),
  max_position_embeddings: z.number(),
  tie_word_embeddings: z.boolean().default(false),
  hidden_act: z.literal("silu").default("silu"),
  rope_scaling: z.null().optional(),
  attention_bias: z.literal(false).optional(),
  mlp_bias: z.literal(false).optional(),
  use_sliding_window: z.literal(false).optional(),
});

/** @throws {FileError} if `config.json` is missing, not JSON, or describes a model that we do not compute */
export function readModelConfig(folder: string): ModelConfig {
  const path = join(folder, "config.json");
  const parsed = configSchema.safeParse(readJson(path));
  if (!parsed.success) {
    throw new FileError(path, `${z.prettifyError(parsed.error)}. Only plain llama, qwen2 and qwen3 decoders are read.`);
  }
  const file = parsed.data;
  const config: ModelConfig = {
    family: file.model_type,
    width: file.hidden_size,
    numLayers: file.num_hidden_layers,
    numHeads: file.num_attention_heads,
    numKvHeads: file.num_key_value_heads ?? file.num_attention_heads,
    headWidth: file.head_dim ?? file.hidden_size / file.num_attention_heads,
    ffnWidth: file.intermediate_size,
    vocabSize: file.vocab_size,
    contextLength: file.max_position_embeddings,
    normEps: file.rms_norm_eps,
    ropeTheta: file.rope_theta,
    tieEmbeddings: file.tie_word_embeddings,
  };
  checkModelConfig(config, path);
  return config;
}

function writeModelConfig(folder: string, config: ModelConfig): void {
  const file = {
    architectures: [architectures[config.family]],
    model_type: config.family as "llama" | "qwen2" | "qwen3",
    hidden_size: config.width,
    intermediate_size: config.ffnWidth,
    num_hidden_layers: config.numLayers,
    num_attention_heads: config.numHeads,
    num_key_value_heads: config.numKvHeads,
    head_dim: config.headWidth,
    vocab_size: config.vocabSize,
    rms_norm_eps: config.normEps,
    rope_theta: config.ropeTheta,
    max_position_embeddings: config.contextLength,
    hidden_act: "silu",
    tie_word_embeddings: config.tieEmbeddings,
    torch_dtype: "float32",
  } satisfies z.input<typeof configSchema> & Record<string, unknown>;
  writeFileSync(join(folder, "config.json"), `${JSON.stringify(file, null, 2)}\n`);
}

/** A model folder whose weights are read one by one. Holds a file descriptor until disposed. */
export class ModelFolder implements Disposable {
  readonly config: ModelConfig;
  readonly #file: SafetensorsFile;

  /** @throws {FileError} if a file is missing or corrupt, or the tensors are not exactly those that the config asks for */
  constructor(readonly path: string) {
    this.config = readModelConfig(path);
    this.#file = new SafetensorsFile(join(path, "model.safetensors"));
    try {
      checkTensors(this.#file, this.config);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** A parameter by its name in {@link parameterShapes}, as float32. */
  read(name: string): Weight {
    return this.#file.read(name);
  }

  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }
}

function checkTensors(file: SafetensorsFile, config: ModelConfig): void {
  const wanted = parameterShapes(config);
  const got = file.shapes;
  // A tied head may be stored beside the embedding all the same.
  const isCopy = (name: string) => config.tieEmbeddings && name === "lm_head.weight";
  const missing = [...wanted.keys()].filter((name) => !got.has(name));
  const extra = [...got.keys()].filter((name) => !wanted.has(name) && !isCopy(name));
  if (missing.length > 0 || extra.length > 0) {
    const list = (names: string[]) =>
      names.slice(0, 4).join(", ") + (names.length > 4 ? `, … (${names.length})` : "") || "none";
    throw new FileError(
      file.path,
      `wanted the tensors of its config.json, got missing: ${list(missing)}; extra: ${list(extra)}. Do the two belong together?`,
    );
  }
  for (const [name, shape] of wanted) {
    const stored = got.get(name)!;
    if (stored.length !== shape.length || stored.some((n, i) => n !== shape[i])) {
      throw new FileError(
        file.path,
        `tensor "${name}": wanted [${shape.join(", ")}], got [${stored.join(", ")}]. Does config.json belong to it?`,
      );
    }
  }
}

/** All of a model folder. Memory: 4 bytes per parameter. @throws {FileError} as {@link ModelFolder} */
export function readModelFolder(folder: string): Model {
  using model = new ModelFolder(folder);
  const names = [...parameterShapes(model.config).keys()];
  return { config: model.config, weights: new Map(names.map((name) => [name, model.read(name)])) };
}

/** Writes `config.json` and a float32 `model.safetensors` into `folder`, which is made if need be. Not atomic. */
export function writeModelFolder(folder: string, { config, weights }: Model): void {
  mkdirSync(folder, { recursive: true });
  writeModelConfig(folder, config);
  writeSafetensors(join(folder, "model.safetensors"), weights);
}
