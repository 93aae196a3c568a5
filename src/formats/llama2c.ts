/**
 * Importer of llama2.c's checkpoints (version 0) and tokenizers into the Hugging Face layout.
 *
 * Shapes: D model width · F FFN width · L layers · H query heads · G key/value heads · C head width · V vocabulary
 *
 * @see https://github.com/karpathy/llama2.c (run.c reads both files)
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { FileError } from "../errors.ts";
import { checkModelConfig, type ModelConfig, parameterShapes, type Weights } from "../model/config.ts";
import { makeFolder, ReadableFile } from "./files.ts";
import { type Model, writeModelFolder } from "./huggingface.ts";
import { type CheckpointManifest, describeFiles, writeManifest } from "./manifest.ts";
import { pairsToHalves } from "./rope.ts";

const headerBytes = 7 * 4;
const maxTokenBytes = 256;
const bosId = 1;
const eosId = 2;

/**
 * Imports a model and its tokenizer as a checkpoint folder without a predictor.
 *
 * @param folder must not exist; it appears whole or not at all
 * @param provenance name and licence of the model, for the manifest
 * @throws {FileError} if a file is not what its header says
 * @throws {OptionError} if the folder exists
 */
export async function importLlama2c(
  modelPath: string,
  tokenizerPath: string,
  folder: string,
  provenance: CheckpointManifest["provenance"],
): Promise<void> {
  const model = readLlama2c(modelPath);
  const tokenizer = readLlama2cTokenizer(tokenizerPath, model.config.vocabSize);
  await makeFolder(folder, "import", async (partial) => {
    writeModelFolder(join(partial, "llm"), model);
    writeFileSync(join(partial, "llm/tokenizer.json"), `${JSON.stringify(tokenizer)}\n`);
    writeManifest(partial, {
      format: "ifprune-checkpoint",
      version: 1,
      lambda: "hard",
      predictorInput: "prompt",
      promptTemplate: "{prompt}",
      bosId,
      eosId,
      provenance,
      files: await describeFiles(partial, ["llm/config.json", "llm/model.safetensors", "llm/tokenizer.json"]),
    });
  });
}

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
  const utf8 = new TextDecoder("utf-8", { fatal: true });
  const tokens: { text: string; score: number }[] = [];
  let offset = 4; // past the length of the longest token
  for (let id = 0; id < vocabSize; id++) {
    const entry = file.read(offset, 8, `token ${id}`);
    const length = entry.readInt32LE(4);
    if (length < 0 || length > maxTokenBytes) {
      throw new FileError(
        path,
        `token ${id}: wanted a length in 0..${maxTokenBytes}, got ${length}. Is the file corrupt?`,
      );
    }
    const bytes = file.read(offset + 8, length, `token ${id}`);
    offset += 8 + length;
    try {
      tokens.push({ text: utf8.decode(bytes).replaceAll(" ", space), score: entry.readFloatLE(0) });
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
  const names = tokens.map(({ text }, id) => specials[id] ?? text);
  const ids = new Map(names.map((name, id) => [name, id]));
  if (ids.size !== names.length)
    throw new FileError(path, "wanted distinct tokens, got one twice. Is the file corrupt?");
  // Merges of special and byte tokens never apply: their texts do not come up from single characters.
  const merges = tokens
    .slice(specials.length + 256)
    .flatMap(({ text, score }) => splits(text, ids).map((pair) => ({ pair, score })))
    .sort((a, b) => b.score - a.score)
    .map(({ pair }) => pair);
  const special = (content: string, id: number) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  });
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: specials.map(special),
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "Prepend", prepend: space },
        { type: "Replace", pattern: { String: " " }, content: space },
      ],
    },
    pre_tokenizer: null,
    post_processor: {
      type: "TemplateProcessing",
      single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
      pair: [
        { SpecialToken: { id: "<s>", type_id: 0 } },
        { Sequence: { id: "A", type_id: 0 } },
        { SpecialToken: { id: "<s>", type_id: 1 } },
        { Sequence: { id: "B", type_id: 1 } },
      ],
      special_tokens: { "<s>": { id: "<s>", ids: [bosId], tokens: ["<s>"] } },
    },
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: space }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        { type: "Strip", content: " ", start: 1, stop: 0 },
      ],
    },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: "<unk>",
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
      vocab: Object.fromEntries(ids),
      merges,
    },
  };
}

/** SentencePiece's visible space, which Hugging Face and GGUF vocabularies of this kind use. */
export const space = "\u2581";

/** The ways to put a token together from two others. */
function splits(text: string, ids: ReadonlyMap<string, number>): [string, string][] {
  const characters = [...text];
  return characters
    .map((_, at): [string, string] => [characters.slice(0, at).join(""), characters.slice(at).join("")])
    .filter(([left, right]) => ids.has(left) && ids.has(right));
}
