/**
 * Writing bundles, of a checkpoint or an imported model. Memory: one layer's FFN in float32 and about 64 MB.
 *
 * Shapes: D model width · F FFN width · L layers
 */
import { copyFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { FileError, OptionError } from "../errors.ts";
import { makeFolder } from "../files.ts";
import { type GgufMetadata, type GgufTensor, tensorBytes, writeGguf } from "../formats/gguf.ts";
import { encodeParameter, extraTensors, GgufModel, ggufName, modelMetadata, storedType } from "../formats/ggufModel.ts";
import { tokenizerMetadata, withoutMerges } from "../formats/ggufTokenizer.ts";
import { ModelFolder } from "../formats/huggingface.ts";
import { blockLength, encodeWeights, type WeightType } from "../formats/quantize.ts";
import { SafetensorsFile } from "../formats/safetensors.ts";
import { readText } from "../json.ts";
import {
  type BundleManifest,
  boundaryOf,
  describeFiles,
  manifestName,
  readManifest,
  verifyFiles,
  writeManifest,
} from "../manifest.ts";
import { checkBlock } from "../mask/blocks.ts";
import { type ModelConfig, parameterShapes, type Weight } from "../model/config.ts";
import { featureWidth, headConfig } from "../model/predictorConfig.ts";
import type { ModelSource } from "../model/source.ts";
import { ChatTemplate, chatTemplateName } from "../text/chatTemplate.ts";
import { PromptFormat } from "../text/prompt.ts";
import { loadTokenizer } from "../text/tokenizer.ts";
import { partMetadata } from "./bundle.ts";
import {
  type ChannelTypes,
  channelLayout,
  channelMetadata,
  channelTensors,
  downType,
  layerData,
  quantizeRows,
  rowScales,
  storedBlock,
} from "./channels.ts";
import { headBlock } from "./head.ts";
import { transposeInto } from "./transpose.ts";
import { WeightCheck } from "./weightCheck.ts";

/** FFN matrices of a layer: gate, up, down. */
const ffnMatrices = 3;
/** Values that are decoded and encoded at a time. */
const chunkValues = 1 << 23;

/** How weights are written into a bundle. */
export interface PackOptions {
  /** Of the matrices; "keep" those that a GGUF file has. Norms and biases are F32. */
  type: WeightType | "keep";
  /** Of the FFN, if another. Where it is Q4_0 `down` is stored in 8 bits: see `channels.ts`. */
  ffnType?: WeightType | undefined;
  /** Of channels, that the bundle's are put into next: refused here where they do not divide them, rather than after all is written. */
  block?: number | undefined;
  signal?: AbortSignal | undefined;
  /** Bytes of the weights that are written, and of all. */
  onProgress?: ((done: number, total: number) => void) | undefined;
}

/** What a bundle is made of. */
export interface BundleContents {
  llm: ModelSource;
  /** The tokenizer in the LLM's metadata. */
  tokenizer: GgufMetadata;
  /** Without a backbone it reads the embedding of `llm`. */
  predictor?: { head: string; backbone?: { model: ModelSource; tokenizer: GgufMetadata } };
  /** Texts of small files: `tokenizer.json`, `chat_template.jinja`, … */
  texts: ReadonlyMap<string, string>;
  manifest: Omit<BundleManifest, "format" | "files">;
}

/**
 * Makes a bundle of a checkpoint folder.
 *
 * @param outFolder must not exist; it appears whole or not at all
 * @returns what there is to say of its weights, for people
 * @throws {FileError} if the checkpoint is damaged, its parts do not fit together, or a weight is not finite
 * @throws {OptionError} if the type does not fit the model, or the folder exists
 */
export async function packBundle(
  checkpoint: string,
  outFolder: string,
  options: PackOptions & { type: WeightType },
): Promise<string[]> {
  const { files, format: _, ...manifest } = readManifest(checkpoint, "ifprune-checkpoint");
  await verifyFiles(checkpoint, { files }, { signal: options.signal });
  const { tFfn, epsilon, bosId, eosId } = manifest;
  using llm = new ModelFolder(join(checkpoint, "llm"));
  const { ffnWidth, numLayers } = llm.config;
  if (tFfn !== undefined && tFfn > ffnWidth)
    throw new FileError(
      join(checkpoint, manifestName),
      `wanted tFfn of at most ${ffnWidth}, the FFN width, got ${tFfn}.`,
    );
  const tokenizer = join(checkpoint, "llm/tokenizer.json");
  const texts = new Map([["tokenizer.json", readText(tokenizer)]]);
  const templatePath = join(checkpoint, "llm", chatTemplateName);
  const chatTemplate = files[`llm/${chatTemplateName}`] && readText(templatePath);
  const eosIds = [eosId];
  if (chatTemplate !== undefined) {
    texts.set(chatTemplateName, chatTemplate);
    const format = new PromptFormat(
      loadTokenizer(tokenizer, boundaryOf(manifest, llm.config)),
      new ChatTemplate(chatTemplate, templatePath),
    );
    eosIds.push(...format.endIds.slice(1));
  }
  const addBos = bosId !== undefined;
  const contents: BundleContents = {
    llm,
    tokenizer: tokenizerMetadata(tokenizer, llm.config, { bosId, eosIds, addBos, chatTemplate }),
    texts,
    manifest,
  };
  if (!files["predictor/head.safetensors"]) return await writeBundle(outFolder, contents, options);
  if (tFfn === undefined || epsilon === undefined)
    throw new FileError(join(checkpoint, manifestName), "wanted tFfn and epsilon beside a predictor, got none.");
  using model = files["predictor/model.safetensors"] ? new ModelFolder(join(checkpoint, "predictor")) : undefined;
  const head = join(checkpoint, "predictor/head.safetensors");
  {
    using file = new SafetensorsFile(head);
    const read = { backbone: (model ?? llm).config, pooling: manifest.predictorPooling };
    headConfig(head, file.shapes, { featureWidth: featureWidth(read), numLayers, ffnWidth }); // is it this model's?
  }
  const backbone = model && {
    model,
    tokenizer: tokenizerMetadata(tokenizer, model.config, { bosId, eosIds: [eosId], addBos: false }),
  };
  return await writeBundle(outFolder, { ...contents, predictor: { head, backbone } }, options);
}

/**
 * Writes a bundle folder.
 *
 * @returns what there is to say of its weights, for people
 * @throws {OptionError} if the type does not fit the model, or the folder exists
 * @throws {FileError} if a source is damaged, or a weight is not finite
 */
export async function writeBundle(
  outFolder: string,
  contents: BundleContents,
  options: PackOptions,
): Promise<string[]> {
  const { llm, predictor, manifest } = contents;
  const { type, ffnType = type, block: next = 1 } = options;
  const { width: D, ffnWidth } = llm.config;
  checkBlock("blocks", ffnWidth, next);
  const tFfn = manifest.tFfn ?? ffnWidth;
  const inBlocks = [type, ffnType].find((each) => blockTypes.has(each));
  if (inBlocks && (D % blockLength !== 0 || tFfn % blockLength !== 0)) {
    throw new OptionError(
      `pack: ${inBlocks} wants widths in multiples of ${blockLength}, got ${D} and t_ffn ${tFfn}. Use F16.`,
    );
  }
  const check = new WeightCheck(llm.path);
  const { metadata, base } = baseFile(contents, type, check);
  const block = predictor ? storedBlock(headBlock(predictor.head, llm.config)) : 1;
  const ffn = channelFile(llm, ffnType, block, check);
  const backbone =
    predictor?.backbone &&
    modelFile(predictor.backbone.model, withoutMerges(predictor.backbone.tokenizer), type === "keep" ? "F16" : type);
  const total = [base, ffn, ...(backbone ? [backbone] : [])].reduce((sum, { bytes }) => sum + bytes, 0);
  let done = 0;
  await makeFolder(outFolder, "pack", async (partial) => {
    const write = (name: string, { metadata, tensors, data }: WeightFile) =>
      writeGguf(join(partial, name), metadata, tensors, counted(data));
    function* counted(data: Iterable<Uint8Array>): Generator<Uint8Array> {
      for (const bytes of data) {
        options.signal?.throwIfAborted();
        yield bytes;
        done += bytes.length;
        options.onProgress?.(done, total);
      }
    }
    await writeGguf(join(partial, "metadata.gguf"), metadata, [], []);
    await write("base.gguf", base);
    await write("ffn.gguf", ffn);
    const names = ["metadata.gguf", "base.gguf", "ffn.gguf", ...contents.texts.keys()];
    for (const [name, text] of contents.texts) writeFileSync(join(partial, name), text);
    if (predictor) {
      if (backbone) {
        await write("predictor.gguf", backbone);
        names.push("predictor.gguf");
      }
      copyFileSync(predictor.head, join(partial, "head.safetensors"));
      names.push("head.safetensors");
    }
    const files = await describeFiles(partial, names, options.signal);
    writeManifest(partial, { ...manifest, format: "ifprune-bundle", files });
  });
  return check.notes();
}

/** What a model's weights are stored in, if nothing is said. */
export function defaultType({ width: D, ffnWidth: F }: ModelConfig): "Q8_0" | "F16" {
  return D % blockLength === 0 && F % blockLength === 0 ? "Q8_0" : "F16";
}

const blockTypes: ReadonlySet<string> = new Set(["Q8_0", "Q4_0"]);
const isFfn = (name: string) => name.includes(".mlp.");

/** A GGUF file to be written: what it holds, and its bytes in order. */
export interface WeightFile {
  metadata: GgufMetadata;
  tensors: GgufTensor[];
  /** Of all tensors. */
  bytes: number;
  data: Iterable<Uint8Array>;
}

export function weightFile(metadata: GgufMetadata, tensors: GgufTensor[], data: Iterable<Uint8Array>): WeightFile {
  return { metadata, tensors, bytes: tensors.reduce((sum, tensor) => sum + tensorBytes(tensor)!, 0), data };
}

/** All but the FFN, and the metadata of the whole model. */
function baseFile(
  { llm, tokenizer }: BundleContents,
  type: PackOptions["type"],
  check: WeightCheck,
): { metadata: GgufMetadata; base: WeightFile } {
  const file = modelFile(llm, tokenizer, type, (name) => !isFfn(name), check);
  const tensorCount = file.tensors.length + ffnMatrices * llm.config.numLayers;
  return { metadata: file.metadata, base: { ...file, metadata: partMetadata(1, llm.config.family, tensorCount) } };
}

/** A model, or some of its parameters, as GGUF. */
export function modelFile(
  model: ModelSource,
  tokenizer: GgufMetadata,
  type: PackOptions["type"],
  included: (name: string) => boolean = () => true,
  check = new WeightCheck(model.path),
): WeightFile {
  const { config } = model;
  const parameters = [...parameterShapes(config)]
    .filter(([name]) => included(name))
    .map(([name, shape]) => ({ name, ...encoded(model, name, shape, type, check) }));
  const extra = extraTensors(config);
  const tensors = [
    ...parameters.map(({ name, type, shape }): GgufTensor => ({ name: ggufName(config, name), type, shape })),
    ...extra.map(({ name, data }): GgufTensor => ({ name, type: "F32", shape: [data.length] })),
  ];
  return weightFile(
    new Map([...modelMetadata(config), ...tokenizer]),
    tensors,
    (function* () {
      for (const { chunks } of parameters) yield* chunks;
      for (const { data } of extra) yield encodeWeights(data, "F32");
    })(),
  );
}

/** A parameter as it is stored: verbatim, or encoded as `type`. */
function encoded(
  model: ModelSource,
  name: string,
  shape: readonly number[],
  type: PackOptions["type"],
  check: WeightCheck,
): { type: GgufTensor["type"]; shape: readonly number[]; chunks: Iterable<Uint8Array> } {
  const isTable = name === "model.embed_tokens.weight" || name === "lm_head.weight";
  // Four bits cost the output layer more than any other.
  function* parts(type?: GgufTensor["type"]): Generator<Weight> {
    const step = isTable ? Math.max(1, Math.floor(chunkValues / shape[1]!)) : shape[0]!;
    for (let from = 0; from < shape[0]!; from += step) {
      const part = model.read(name, isTable ? { from, to: Math.min(from + step, shape[0]!) } : undefined);
      check.look(name, shape, part.data, { firstRow: from, type });
      yield part;
    }
  }
  const stored = type === "keep" && model instanceof GgufModel ? model.stored(name) : undefined;
  // llama.cpp adds norms and biases in F32 alone, and ends the process at others.
  if (stored && (shape.length > 1 || stored.type === "F32"))
    return {
      ...stored,
      chunks: (function* () {
        for (const _ of parts()); // they are looked at as numbers, and kept as they are stored
        yield* stored.chunks;
      })(),
    };
  const own = storedType(shape, type === "keep" ? "F16" : isTable && type === "Q4_0" ? "Q8_0" : type);
  function* chunks(): Generator<Uint8Array> {
    for (const part of parts(own))
      yield isTable ? encodeWeights(part.data, own) : encodeParameter(model.config, name, part, own);
  }
  return { type: own, shape, chunks: chunks() };
}

/** Channel-major FFN: see `channels.ts`. */
function channelFile(llm: ModelSource, type: PackOptions["type"], block: number, check: WeightCheck): WeightFile {
  const { numLayers, width: D, ffnWidth: F, family } = llm.config;
  const names = (layer: number) => {
    const at = (matrix: string) => `model.layers.${layer}.mlp.${matrix}_proj.weight`;
    return { gate: at("gate"), up: at("up"), down: at("down") };
  };
  const layers = Array.from({ length: numLayers }, (_, layer): ChannelTypes => {
    const of = (name: string) => encoded(llm, name, [F, D], type, check).type as ChannelTypes["gate"];
    const { gate, up, down } = names(layer);
    return { gate: of(gate), up: of(up), down: downType(of(down)) };
  });
  return weightFile(
    channelMetadata(family, layers, block),
    channelTensors(layers, D, F, block),
    (function* () {
      for (const [layer, types] of layers.entries()) {
        const { gate, up, down } = names(layer);
        const layout = channelLayout(types, D);
        const records = new Uint8Array(F * layout.bytes);
        place(records, layout.bytes, 0, encoded(llm, gate, [F, D], type, check).chunks, layout.upAt);
        place(
          records,
          layout.bytes,
          layout.upAt,
          encoded(llm, up, [F, D], type, check).chunks,
          layout.downAt - layout.upAt,
        );
        const matrix = llm.read(down); // [D, F]
        check.look(down, matrix.shape, matrix.data, { type: types.down });
        const scales = types.down === "Q8_0" ? rowScales(matrix) : undefined;
        const columns = scales
          ? transposeInto(quantizeRows(matrix, scales), new Uint8Array(D * F), D)
          : encodeWeights(transposeInto(matrix.data, new Float32Array(D * F), D), types.down as "F32" | "F16" | "BF16");
        place(records, layout.bytes, layout.downAt, [columns], layout.bytes - layout.downAt);
        yield* layerData(records, channelLayout(types, D, block), D, scales);
      }
    })(),
  );
}

/** Puts consecutive rows of `length` bytes, which come in pieces of any size, into records of `stride` bytes at offset `at`. */
function place(records: Uint8Array, stride: number, at: number, pieces: Iterable<Uint8Array>, length: number): void {
  let position = 0; // in the stream of rows
  for (const piece of pieces) {
    for (let from = 0; from < piece.length; ) {
      const within = position % length;
      const count = Math.min(length - within, piece.length - from);
      records.set(piece.subarray(from, from + count), Math.floor(position / length) * stride + at + within);
      from += count;
      position += count;
    }
  }
}
