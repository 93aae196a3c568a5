/**
 * The serving bundle: a checkpoint in the layout that sub-networks are cut from. A folder with
 *
 * - `base.gguf`: what all sub-networks share (attention, norms, embeddings), and all metadata with the tokenizer. It is part 2
 *   of a model in 3 files; part 1 is this metadata with another FFN width, part 3 the kept channels of the FFN.
 * - `ffn.gguf`: every FFN channel of a layer as one record of bytes: its gate row, its up row, its down column. A sub-network's
 *   channels are then few long reads, and none of the rest of the file is touched.
 * - `tokenizer.json`, and with a predictor `predictor.gguf` (the backbone) and `head.safetensors`
 * - `ifprune.json`: the manifest
 *
 * Records of Q8_0 bundles: gate and up rows as Q8_0 blocks; of `down`, whose blocks would run across channels, one signed byte per
 * output with one half-precision scale per output row (`blk.N.ffn_down.scale`), so that any choice of channels makes Q8_0 blocks of
 * equal scale without quantising again. Its error is at most half of max|row| / 127, where Q8_0 has half of max|block| / 127.
 *
 * Shapes: D model width · F FFN width · L layers · R head rank
 */
import { createHash } from "node:crypto";
import { copyFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { FileError, OptionError } from "../errors.ts";
import { parameterShapes, type Weight } from "../model/config.ts";
import { headConfig } from "../model/predictorConfig.ts";
import { makeFolder } from "./files.ts";
import { GgufFile, type GgufMetadata, type GgufTensor, writeGguf } from "./gguf.ts";
import {
  encodeParameter,
  encodeWeights,
  ggufName,
  modelMetadata,
  modelNumber,
  splitMetadata,
  storedType,
  type WeightType,
} from "./ggufModel.ts";
import { tokenizerMetadata } from "./ggufTokenizer.ts";
import { ModelFolder } from "./huggingface.ts";
import {
  type BundleManifest,
  describeFiles,
  manifestName,
  readManifest,
  verifyFiles,
  writeManifest,
} from "./manifest.ts";
import { blockBytes, blockLength, fromHalf, roundAwayFromZero, toHalf } from "./quantize.ts";
import { SafetensorsFile } from "./safetensors.ts";
import { transpose } from "./transpose.ts";

/** Files of a sub-network: metadata, what is shared, FFN. */
export const splitCount = 3;
/** FFN tensors of a layer: gate, up, down. */
const ffnMatrices = 3;

/** Bytes of a gate or up row, and of the down column, in a channel's record. */
export function channelBytes(type: WeightType, width: number): { row: number; column: number } {
  switch (type) {
    case "F32":
      return { row: 4 * width, column: 4 * width };
    case "F16":
      return { row: 2 * width, column: 2 * width };
    case "Q8_0":
      return { row: (width / blockLength) * blockBytes, column: width };
    default:
      return type satisfies never;
  }
}

export function channelsName(layer: number): string {
  return `blk.${layer}.ffn_channels`;
}

export function downScaleName(layer: number): string {
  return `blk.${layer}.ffn_down.scale`;
}

/** An open bundle. Holds file descriptors until disposed. */
export class Bundle implements Disposable {
  readonly manifest: BundleManifest;
  /** Identity: the hash of the manifest, which holds the hashes of all files. */
  readonly hash: string;
  readonly base: GgufFile;
  readonly ffn: GgufFile;
  /** L */
  readonly numLayers: number;
  /** D */
  readonly width: number;
  /** F */
  readonly ffnWidth: number;
  /** Longest sequence of the model, in tokens. */
  readonly contextLength: number;

  /**
   * Opens a bundle folder. Sizes are checked, hashes only by {@link verify}.
   *
   * @throws {FileError} if a file is missing, of the wrong size, or not what a bundle holds
   */
  constructor(readonly path: string) {
    this.manifest = readManifest(path, "ifprune-bundle");
    this.hash = createHash("sha256")
      .update(readFileSync(join(path, manifestName)))
      .digest("hex");
    for (const name of ["base.gguf", "ffn.gguf", "tokenizer.json"]) {
      if (!this.manifest.files[name])
        throw new FileError(join(path, manifestName), `wanted the file "${name}" in it, got none.`);
    }
    this.base = new GgufFile(join(path, "base.gguf"));
    try {
      this.ffn = new GgufFile(join(path, "ffn.gguf"));
    } catch (error) {
      this.base[Symbol.dispose]();
      throw error;
    }
    try {
      this.numLayers = modelNumber(this.base, "block_count");
      this.width = modelNumber(this.base, "embedding_length");
      this.ffnWidth = modelNumber(this.base, "feed_forward_length");
      this.contextLength = modelNumber(this.base, "context_length");
      this.#checkChannels();
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  #checkChannels(): void {
    const { row, column } = channelBytes(this.manifest.weightType, this.width);
    for (let layer = 0; layer < this.numLayers; layer++) {
      this.#expect(channelsName(layer), "I8", [this.ffnWidth, 2 * row + column]);
      if (this.manifest.weightType === "Q8_0") this.#expect(downScaleName(layer), "F16", [this.width]);
    }
  }

  #expect(name: string, type: string, shape: readonly number[]): void {
    const got = this.ffn.tensor(name);
    if (got.type !== type || got.shape.join() !== shape.join()) {
      throw new FileError(
        this.ffn.path,
        `tensor "${name}": wanted ${type} [${shape.join(", ")}], got ${got.type} [${got.shape.join(", ")}]. Pack it again.`,
      );
    }
  }

  get tokenizerPath(): string {
    return join(this.path, "tokenizer.json");
  }

  /** Files of the predictor, or undefined where the bundle has none. */
  get predictor(): { backbone: string; head: string } | undefined {
    if (!this.manifest.files["predictor.gguf"]) return undefined;
    return { backbone: join(this.path, "predictor.gguf"), head: join(this.path, "head.safetensors") };
  }

  /** Reads all files. @throws {FileError} if one was changed or damaged */
  async verify(): Promise<void> {
    await verifyFiles(this.path, this.manifest);
  }

  [Symbol.dispose](): void {
    this.base[Symbol.dispose]();
    this.ffn[Symbol.dispose]();
  }
}

/**
 * Makes a bundle of a checkpoint folder. Memory: about two tensors of the model.
 *
 * @param outFolder must not exist; it appears whole or not at all
 * @param options.type type of the weights. Q8_0 wants D and t_ffn in multiples of 32, and F too where the model is to run dense.
 * @throws {FileError} if the checkpoint is damaged or its parts do not fit together
 * @throws {OptionError} if the type does not fit the model, or the folder exists
 */
export async function packBundle(checkpoint: string, outFolder: string, { type }: { type: WeightType }): Promise<void> {
  const manifest = readManifest(checkpoint, "ifprune-checkpoint");
  await verifyFiles(checkpoint, manifest);
  await makeFolder(outFolder, "pack", async (partial) => {
    using llm = new ModelFolder(join(checkpoint, "llm"));
    const { width, ffnWidth, numLayers } = llm.config;
    if (type === "Q8_0" && (width % blockLength !== 0 || (manifest.tFfn ?? ffnWidth) % blockLength !== 0)) {
      throw new OptionError(
        `pack: Q8_0 wants widths in multiples of ${blockLength}, got ${width} and t_ffn ${manifest.tFfn ?? ffnWidth}. Use F16.`,
      );
    }
    if (manifest.tFfn !== undefined && manifest.tFfn > ffnWidth) {
      throw new FileError(
        join(checkpoint, manifestName),
        `wanted tFfn of at most ${ffnWidth}, the FFN width, got ${manifest.tFfn}.`,
      );
    }
    const tokenizer = join(checkpoint, "llm/tokenizer.json");
    const { bosId, eosId } = manifest;
    const llmTokenizer = tokenizerMetadata(tokenizer, llm.config, { bosId, eosId, addBos: true });
    await writeBase(join(partial, "base.gguf"), llm, llmTokenizer, type);
    await writeChannels(join(partial, "ffn.gguf"), llm, type);
    copyFileSync(tokenizer, join(partial, "tokenizer.json"));
    const names = ["base.gguf", "ffn.gguf", "tokenizer.json"];
    if (manifest.files["predictor/head.safetensors"]) {
      if (manifest.tFfn === undefined || manifest.epsilon === undefined) {
        throw new FileError(join(checkpoint, manifestName), "wanted tFfn and epsilon beside a predictor, got none.");
      }
      using backbone = new ModelFolder(join(checkpoint, "predictor"));
      const head = join(checkpoint, "predictor/head.safetensors");
      {
        using file = new SafetensorsFile(head);
        headConfig(head, file.shapes, { backboneWidth: backbone.config.width, numLayers, ffnWidth }); // is it this model's?
      }
      const backboneTokenizer = tokenizerMetadata(tokenizer, backbone.config, { bosId, eosId, addBos: false });
      await writeBackbone(join(partial, "predictor.gguf"), backbone, backboneTokenizer, type);
      copyFileSync(head, join(partial, "head.safetensors"));
      names.push("predictor.gguf", "head.safetensors");
    }
    const files = await describeFiles(partial, names);
    writeManifest(partial, { ...manifest, format: "ifprune-bundle", weightType: type, files });
  });
}

const isFfn = (name: string) => name.includes(".mlp.");

async function writeBase(path: string, llm: ModelFolder, tokenizer: GgufMetadata, type: WeightType): Promise<void> {
  const names = [...parameterShapes(llm.config).keys()].filter((name) => !isFfn(name));
  const tensorCount = names.length + ffnMatrices * llm.config.numLayers;
  const metadata: GgufMetadata = new Map([
    ...modelMetadata(llm.config),
    ...tokenizer,
    ...splitMetadata(1, splitCount, tensorCount),
  ]);
  await writeParameters(path, metadata, llm, names, type);
}

async function writeBackbone(
  path: string,
  backbone: ModelFolder,
  tokenizer: GgufMetadata,
  type: WeightType,
): Promise<void> {
  const metadata: GgufMetadata = new Map([...modelMetadata(backbone.config), ...tokenizer]);
  await writeParameters(path, metadata, backbone, [...parameterShapes(backbone.config).keys()], type);
}

async function writeParameters(
  path: string,
  metadata: GgufMetadata,
  model: ModelFolder,
  names: readonly string[],
  type: WeightType,
): Promise<void> {
  const { config } = model;
  const shapes = parameterShapes(config);
  const tensors = names.map((name): GgufTensor => {
    const shape = shapes.get(name)!;
    return { name: ggufName(name), type: storedType(shape, type), shape };
  });
  await writeGguf(
    path,
    metadata,
    tensors,
    (function* () {
      for (const [i, name] of names.entries())
        yield encodeParameter(config, name, model.read(name), tensors[i]!.type as WeightType);
    })(),
  );
}

async function writeChannels(path: string, llm: ModelFolder, type: WeightType): Promise<void> {
  const { numLayers, width: D, ffnWidth: F, family } = llm.config;
  const { row, column } = channelBytes(type, D);
  const layers = Array.from({ length: numLayers }, (_, layer) => layer);
  const tensors = layers.flatMap((layer): GgufTensor[] => [
    { name: channelsName(layer), type: "I8", shape: [F, 2 * row + column] },
    ...(type === "Q8_0" ? [{ name: downScaleName(layer), type: "F16", shape: [D] } as const] : []),
  ]);
  const metadata: GgufMetadata = new Map([
    ["general.architecture", { type: "string", value: `${family}-ffn-channels` }],
  ]);
  await writeGguf(
    path,
    metadata,
    tensors,
    (function* () {
      for (const layer of layers) {
        const [gate, up, down] = ["gate", "up", "down"].map((name) =>
          llm.read(`model.layers.${layer}.mlp.${name}_proj.weight`),
        ) as [Weight, Weight, Weight];
        const scales = type === "Q8_0" ? rowScales(down) : undefined;
        const columns = transpose(down.data, new Float32Array(D * F), D); // [F, D]
        const records = new Uint8Array(F * (2 * row + column));
        for (let channel = 0; channel < F; channel++) {
          const at = channel * (2 * row + column);
          const of = (matrix: Float32Array) => matrix.subarray(channel * D, (channel + 1) * D);
          records.set(encodeWeights(of(gate.data), type), at);
          records.set(encodeWeights(of(up.data), type), at + row);
          records.set(scales ? quantizeColumn(of(columns), scales) : encodeWeights(of(columns), type), at + 2 * row);
        }
        yield records;
        if (scales) yield new Uint8Array(scales.buffer);
      }
    })(),
  );
}

/** Half-precision scale of each row of `down` [D, F], rounded up so that no quant exceeds 127. */
function rowScales({ shape: [D, F], data }: Weight): Uint16Array<ArrayBuffer> {
  const scales = new Uint16Array(D!);
  for (let output = 0; output < D!; output++) {
    let largest = 0;
    for (let i = output * F!; i < (output + 1) * F!; i++) largest = Math.max(largest, Math.abs(data[i]!));
    const half = toHalf(largest / 127);
    scales[output] = fromHalf(half) < largest / 127 ? half + 1 : half;
  }
  return scales;
}

/** One channel's column of `down` as signed bytes, in units of each output's scale. */
function quantizeColumn(values: Float32Array, scales: Uint16Array): Uint8Array {
  const quants = new Int8Array(values.length);
  for (let output = 0; output < values.length; output++) {
    const scale = fromHalf(scales[output]!);
    quants[output] = scale ? roundAwayFromZero(values[output]! / scale) : 0;
  }
  return new Uint8Array(quants.buffer);
}
