/**
 * Checkpoints and tokenizers of llama2.c: its stories models.
 *
 * Shapes: D model width · F FFN width · L layers · H query heads · G key/value heads · V vocabulary
 */
import { FileError } from "../errors.ts";
import { ReadableFile } from "../files.ts";
import { checkModelConfig, type ModelConfig, parameterShapes, type Weights } from "../model/config.ts";
import { visibleSpace } from "../text/tokenizerFile.ts";
import { sentencePieceJson, tokenType } from "./ggufTokenizer.ts";
import type { Model } from "./huggingface.ts";
import { pairsToHalves } from "./ropeOrder.ts";

const headerBytes = 7 * 4;
const maxTokenBytes = 256;
/** Ids of BOS and EOS in every tokenizer of llama2.c. */
export const llama2cIds = { bos: 1, eos: 2 } as const;
/** After the special tokens and those of single bytes. */
const firstPiece = 3 + 256;

/** Reads a version 0 checkpoint: seven int32, then float32 tensors, each for all layers. @throws {FileError} */
export function readLlama2c(path: string): Model {
  using file = new ReadableFile(path);
  const header = file.read(0, headerBytes, "header");
  const [D, F, L, H, G, signedV, contextLength] = Array.from({ length: 7 }, (_, i) => header.readInt32LE(4 * i)) as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const config: ModelConfig = {
    family: "llama",
    width: D,
    numLayers: L,
    numHeads: H,
    numKvHeads: G,
    headWidth: D / H,
    ffnWidth: F,
    vocabSize: Math.abs(signedV),
    contextLength,
    normEps: 1e-5,
    ropeTheta: 10_000,
    tieEmbeddings: signedV > 0,
  };
  try {
    checkModelConfig(config, "header");
  } catch (cause) {
    throw new FileError(path, `${(cause as Error).message} Is it a llama2.c checkpoint of version 0?`, { cause });
  }
  const shapes = parameterShapes(config);
  const perLayer = (name: string) => Array.from({ length: L }, (_, layer) => `model.layers.${layer}.${name}.weight`);
  const order = [
    "model.embed_tokens.weight",
    ...perLayer("input_layernorm"),
    ...["q", "k", "v", "o"].flatMap((name) => perLayer(`self_attn.${name}_proj`)),
    ...perLayer("post_attention_layernorm"),
    ...["gate", "down", "up"].flatMap((name) => perLayer(`mlp.${name}_proj`)),
    "model.norm.weight",
    null, // two RoPE tables, [contextLength, C / 2] each, which nobody reads
    ...(config.tieEmbeddings ? [] : ["lm_head.weight"]),
  ];
  const ropeBytes = 4 * contextLength * config.headWidth;
  const bytesOf = (name: string) => 4 * shapes.get(name)!.reduce((product, n) => product * n, 1);
  const wantedBytes = order.reduce((sum, name) => sum + (name ? bytesOf(name) : ropeBytes), headerBytes);
  if (wantedBytes !== file.size) {
    throw new FileError(
      path,
      `wanted ${wantedBytes} bytes as its header says, got ${file.size}. Is it of another version?`,
    );
  }
  const weights: Weights = new Map();
  let offset = headerBytes;
  for (const name of order) {
    if (!name) {
      offset += ropeBytes;
      continue;
    }
    const data = new Float32Array(file.read(offset, bytesOf(name), name).buffer);
    const weight = { shape: shapes.get(name)!, data };
    weights.set(name, /\.[qk]_proj\.weight$/.test(name) ? pairsToHalves(weight, config.headWidth) : weight);
    offset += data.byteLength;
  }
  return { config, weights };
}

/**
 * Reads a llama2.c tokenizer as the contents of a `tokenizer.json`. It encodes alike: a leading space, single characters or else
 * bytes, then merges of the pair whose token has the highest score.
 *
 * @param vocabSize V; the file does not say how many tokens it holds
 * @throws {FileError}
 */
export function readLlama2cTokenizer(path: string, vocabSize: number): object {
  using file = new ReadableFile(path);
  const most = 4 + vocabSize * (8 + maxTokenBytes);
  if (vocabSize < firstPiece || file.size > most)
    throw new FileError(
      path,
      `wanted at least ${firstPiece} tokens in at most ${most} bytes, got ${vocabSize} in ${file.size}.`,
    );
  const content = file.read(0, file.size, "tokens"); // in one piece: there may be millions
  const part = (from: number, length: number, id: number) => {
    if (from + length > content.length)
      throw new FileError(path, `the file ended inside token ${id}. Is it truncated?`);
    return content.subarray(from, from + length);
  };
  const utf8 = new TextDecoder("utf-8", { fatal: true });
  const tokens: { text: string; score: number }[] = [];
  let offset = 4; // past the length of the longest token
  for (let id = 0; id < vocabSize; id++) {
    const entry = part(offset, 8, id);
    const length = entry.readInt32LE(4);
    if (length < 0 || length > maxTokenBytes) {
      throw new FileError(
        path,
        `token ${id}: wanted a length in 0..${maxTokenBytes}, got ${length}. Is the file corrupt?`,
      );
    }
    const bytes = part(offset + 8, length, id);
    offset += 8 + length;
    try {
      tokens.push({ text: utf8.decode(bytes).replaceAll(" ", visibleSpace), score: entry.readFloatLE(0) });
    } catch (cause) {
      throw new FileError(path, `token ${id}: wanted UTF-8, got other bytes. Is it a llama2.c tokenizer?`, { cause });
    }
  }
  if (offset !== file.size) {
    throw new FileError(
      path,
      `wanted ${vocabSize} tokens, got ${file.size - offset} bytes more. Is it another model's?`,
    );
  }
  const specials = ["<unk>", "<s>", "</s>"];
  const typed = tokens.map(({ text, score }, id) => {
    const type = id >= firstPiece ? "normal" : id >= specials.length ? "byte" : id > 0 ? "control" : "unknown";
    return { text: specials[id] ?? text, score, type: tokenType[type] };
  });
  if (new Set(typed.map(({ text }) => text)).size !== typed.length)
    throw new FileError(path, "wanted distinct tokens, got one twice. Is the file corrupt?");
  return sentencePieceJson(typed, true, llama2cIds.bos, path);
}
