/**
 * A Hugging Face model in llama.cpp's terms: metadata keys, tensor names, row order.
 */
import type { ModelConfig, Weight } from "../model/config.ts";
import type { GgufFile, GgufMetadata, GgufTensorType, GgufValue } from "./gguf.ts";
import { float32, string, uint32 } from "./ggufValues.ts";
import { blockLength, encodeHalf, encodeQ8 } from "./quantize.ts";
import { halvesToPairs } from "./rope.ts";

/** Types that a model's matrices are stored in. Norms and biases are always F32. */
export type WeightType = Exclude<GgufTensorType, "I8">;

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

/** A width in the metadata of an open model file. */
export function modelNumber(file: GgufFile, key: string): number {
  return file.number(`${file.string("general.architecture")}.${key}`);
}
