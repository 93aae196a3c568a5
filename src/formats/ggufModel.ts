/**
 * A Hugging Face model in llama.cpp's terms: metadata keys, tensor names, row order, tokenizer.
 */
import { z } from "zod";
import { FileError } from "../errors.ts";
import type { ModelConfig, Weight } from "../model/config.ts";
import { readJson } from "./files.ts";
import type { GgufFile, GgufMetadata, GgufScalar, GgufTensorType, GgufValue } from "./gguf.ts";
import { space } from "./llama2c.ts";
import { blockLength, encodeHalf, encodeQ8 } from "./quantize.ts";
import { halvesToPairs } from "./rope.ts";

/** Types that a model's matrices are stored in. Norms and biases are always F32. */
export type WeightType = Exclude<GgufTensorType, "I8">;

const string = (value: string): GgufValue => ({ type: "string", value });
const uint32 = (value: number): GgufValue => ({ type: "uint32", value });
const float32 = (value: number): GgufValue => ({ type: "float32", value });
const bool = (value: boolean): GgufValue => ({ type: "bool", value });
const array = (of: "string" | "float32" | "int32", value: readonly GgufScalar[]): GgufValue => ({
  type: "array",
  of,
  value,
});

/** Metadata that describes the network itself; the family's name is also GGUF's for the architecture. */
export function modelMetadata(config: ModelConfig): GgufMetadata {
  const at = config.family;
  return new Map([
    ["general.architecture", string(at)],
    [`${at}.context_length`, uint32(config.contextLength)],
    [`${at}.embedding_length`, uint32(config.width)],
    [`${at}.block_count`, uint32(config.numLayers)],
    [feedForwardKey(at), uint32(config.ffnWidth)],
    [`${at}.attention.head_count`, uint32(config.numHeads)],
    [`${at}.attention.head_count_kv`, uint32(config.numKvHeads)],
    [`${at}.attention.key_length`, uint32(config.headWidth)],
    [`${at}.attention.value_length`, uint32(config.headWidth)],
    [`${at}.attention.layer_norm_rms_epsilon`, float32(config.normEps)],
    [`${at}.rope.dimension_count`, uint32(config.headWidth)],
    [`${at}.rope.freq_base`, float32(config.ropeTheta)],
    [`${at}.vocab_size`, uint32(config.vocabSize)],
  ]);
}

export function feedForwardKey(architecture: string): string {
  return `${architecture}.feed_forward_length`;
}

/** Metadata that marks part `index` of `count` files, with `tensorCount` tensors in all of them together. */
export function splitMetadata(index: number, count: number, tensorCount: number): GgufMetadata {
  return new Map<string, GgufValue>([
    ["split.no", { type: "uint16", value: index }],
    ["split.count", { type: "uint16", value: count }],
    ["split.tensors.count", { type: "int32", value: tensorCount }],
  ]);
}

const tensorNames: Record<string, string> = {
  input_layernorm: "attn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "self_attn.q_norm": "attn_q_norm",
  "self_attn.k_norm": "attn_k_norm",
  post_attention_layernorm: "ffn_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
  "model.embed_tokens": "token_embd",
  "model.norm": "output_norm",
  lm_head: "output",
};

/** GGUF's name of a Hugging Face parameter. */
export function ggufName(name: string): string {
  const [, layer, part, kind] = /^(?:model\.layers\.(\d+)\.)?(.+)\.(weight|bias)$/.exec(name) ?? [];
  const translated = tensorNames[part!];
  if (!translated) throw new Error(`internal: no GGUF name for "${name}"`);
  return `${layer === undefined ? "" : `blk.${layer}.`}${translated}.${kind}`;
}

/** Type of a tensor in a model stored as `type`: vectors stay F32, and rows that are no whole blocks fall back to F16. */
export function storedType(shape: readonly number[], type: WeightType): WeightType {
  if (shape.length < 2) return "F32";
  return type === "Q8_0" && shape.at(-1)! % blockLength !== 0 ? "F16" : type;
}

/** A parameter's bytes in GGUF: rows of q and k in llama's order, then encoded. */
export function encodeParameter(config: ModelConfig, name: string, weight: Weight, type: WeightType): Uint8Array {
  const reorder = config.family === "llama" && /\.[qk]_proj\.weight$/.test(name);
  return encodeWeights(reorder ? halvesToPairs(weight, config.headWidth).data : weight.data, type);
}

/** Encodes consecutive rows. Little-endian machines only, as llama.cpp's. */
export function encodeWeights(values: Float32Array, type: WeightType): Uint8Array {
  switch (type) {
    case "F32":
      return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    case "F16":
      return new Uint8Array(encodeHalf(values).buffer);
    case "Q8_0":
      return encodeQ8(values);
    default:
      return type satisfies never;
  }
}

/** llama.cpp's kinds of tokens. */
const tokenType = { normal: 1, unknown: 2, control: 3, unused: 5, byte: 6 } as const;

const tokenizerSchema = z.object({
  added_tokens: z
    .array(z.object({ id: z.number().int().nonnegative(), content: z.string(), special: z.boolean() }))
    .default([]),
  normalizer: z.unknown(),
  pre_tokenizer: z.unknown(),
  model: z.object({
    type: z.literal("BPE"),
    unk_token: z.string().nullish(),
    vocab: z.custom<Record<string, number>>(
      (value) => typeof value === "object" && value !== null,
      "wanted token -> id",
    ),
    merges: z.array(z.union([z.tuple([z.string(), z.string()]), z.string()])),
  }),
});

/** Byte-level BPE in which every digit is a token of its own: llama.cpp's "smollm" pre-tokenizer cuts alike. */
const byteLevelSchema = z.object({
  normalizer: z.null().optional(),
  pre_tokenizer: z.object({
    type: z.literal("Sequence"),
    pretokenizers: z.tuple([
      z.object({ type: z.literal("Digits"), individual_digits: z.literal(true) }),
      z.object({ type: z.literal("ByteLevel"), add_prefix_space: z.literal(false), use_regex: z.literal(true) }),
    ]),
  }),
});

/** SentencePiece-like BPE with a leading space and bytes for unknown characters, as the llama2.c importer makes it. */
const sentencePieceSchema = z.object({
  normalizer: z.object({
    type: z.literal("Sequence"),
    normalizers: z.tuple([
      z.object({ type: z.literal("Prepend"), prepend: z.literal(space) }),
      z.object({
        type: z.literal("Replace"),
        pattern: z.object({ String: z.literal(" ") }),
        content: z.literal(space),
      }),
    ]),
  }),
  pre_tokenizer: z.null().optional(),
  model: z.object({ byte_fallback: z.literal(true) }),
});

/**
 * The tokenizer of a `tokenizer.json` as GGUF metadata. Only kinds that llama.cpp cuts exactly alike are taken.
 *
 * @param options.addBos whether llama.cpp puts BOS before what it reads; without, it takes token ids as they are
 * @throws {FileError} if it is of another kind, or larger than the model's vocabulary
 */
export function tokenizerMetadata(
  path: string,
  config: ModelConfig,
  { bosId, eosId, addBos }: { bosId: number; eosId: number; addBos: boolean },
): GgufMetadata {
  const file = readJson(path);
  const parsed = tokenizerSchema.safeParse(file);
  if (!parsed.success) throw new FileError(path, `wanted a BPE tokenizer, got: ${z.prettifyError(parsed.error)}.`);
  const { model, added_tokens: added } = parsed.data;

  const tokens: string[] = Array.from({ length: config.vocabSize }, (_, id) => `[unused${id}]`);
  const types: number[] = tokens.map(() => tokenType.unused);
  const place = (text: string, id: number, type: number) => {
    if (!(Number.isInteger(id) && id >= 0 && id < config.vocabSize)) {
      throw new FileError(
        path,
        `wanted ids below the model's ${config.vocabSize}, got "${text}" = ${id}. Is it another model's?`,
      );
    }
    tokens[id] = text;
    types[id] = type;
  };
  for (const [text, id] of Object.entries(model.vocab)) place(text, id, tokenType.normal);
  for (const { id, content, special } of added) if (special) place(content, id, tokenType.control);
  for (const id of [bosId, eosId]) {
    if (types[id] !== tokenType.control)
      throw new FileError(path, `wanted BOS and EOS to be special tokens, got id ${id}.`);
  }

  const metadata: GgufMetadata = new Map([
    ["tokenizer.ggml.bos_token_id", uint32(bosId)],
    ["tokenizer.ggml.eos_token_id", uint32(eosId)],
    ["tokenizer.ggml.add_bos_token", bool(addBos)],
    ["tokenizer.ggml.add_eos_token", bool(false)],
  ]);
  const merges = model.merges.map((merge) => (typeof merge === "string" ? merge : merge.join(" ")));
  if (byteLevelSchema.safeParse(file).success) {
    metadata.set("tokenizer.ggml.model", string("gpt2"));
    metadata.set("tokenizer.ggml.pre", string("smollm"));
    metadata.set("tokenizer.ggml.merges", array("string", merges));
  } else if (sentencePieceSchema.safeParse(file).success) {
    const ranks = new Map<string, number>();
    for (const merge of merges) {
      const token = merge.replace(" ", "");
      if (!ranks.has(token)) ranks.set(token, ranks.size);
    }
    for (const [id, token] of tokens.entries()) if (/^<0x[0-9A-F]{2}>$/.test(token)) types[id] = tokenType.byte;
    if (model.unk_token) types[model.vocab[model.unk_token] ?? -1] = tokenType.unknown;
    metadata.set("tokenizer.ggml.model", string("llama"));
    metadata.set(
      "tokenizer.ggml.scores",
      array(
        "float32",
        tokens.map((token) => -(ranks.get(token) ?? 0)),
      ),
    );
    metadata.set("tokenizer.ggml.unknown_token_id", uint32(model.vocab[model.unk_token ?? ""] ?? 0));
    metadata.set("tokenizer.ggml.add_space_prefix", bool(true));
  } else {
    throw new FileError(
      path,
      "wanted byte-level BPE with single digits, or a llama2.c import, got another pre-tokenizer.",
    );
  }
  metadata.set("tokenizer.ggml.tokens", array("string", tokens));
  metadata.set("tokenizer.ggml.token_type", array("int32", types));
  return metadata;
}

/** A width in the metadata of an open model file. */
export function modelNumber(file: GgufFile, key: string): number {
  return file.number(`${file.string("general.architecture")}.${key}`);
}
