/**
 * The serving bundle: a model in the layout that sub-networks are cut from. A folder with
 *
 * - `metadata.gguf`: all metadata with the tokenizer, and no tensors
 * - `base.gguf`: what all sub-networks share (attention, norms, embeddings). It is part 2 of a model in 3 files; part 1 is the metadata with
 *   another FFN width, part 3 the kept channels of the FFN. It has no tokenizer, as engines read each part's.
 * - `ffn.gguf`: the FFN, channel by channel (`channels.ts`), so that none but the kept channels are read.
 * - `tokenizer.json`, and with a predictor `head.safetensors` and `predictor.gguf` (its backbone), unless it reads the model's own embedding
 * - of an imported model, `chat_template.jinja` and the small files that an export takes along
 * - `ifprune.json`: the manifest
 *
 * Reading is here, writing in `packBundle.ts`.
 *
 * Shapes: D model width · F FFN width · L layers
 */
import { join } from "node:path";
import { FileError } from "../errors.ts";
import { GgufFile, type GgufMetadata } from "../formats/gguf.ts";
import { readGgufConfig, readGgufParameter, splitMetadata } from "../formats/ggufModel.ts";
import { string } from "../formats/ggufValues.ts";
import { decodeBlocks, fromHalf, rowBytes } from "../formats/quantize.ts";
import { readText } from "../json.ts";
import { type BundleManifest, manifestHash, manifestName, readManifest, type VerifyFilesOptions } from "../manifest.ts";
import type { ModelConfig, Weight } from "../model/config.ts";
import type { ModelSource } from "../model/source.ts";
import { type ChannelLayout, channelsName, columnBytes, downScaleName, readChannelLayouts } from "./channels.ts";
import { headBlock } from "./head.ts";
import { modelFolder } from "./pulledModels.ts";
import { transposeInto } from "./transpose.ts";
import { verifyUnlessKnown } from "./verifiedFiles.ts";

/** Files of a model that is made of a bundle: metadata, what is shared, FFN. llama.cpp opens them as one. */
export const partNames = [
  "model-00001-of-00003.gguf",
  "model-00002-of-00003.gguf",
  "model-00003-of-00003.gguf",
] as const;
export const splitCount = partNames.length;

/** Metadata of a part that has nothing but tensors. @param tensorCount of all parts */
export function partMetadata(index: 1 | 2, architecture: string, tensorCount: number): GgufMetadata {
  return new Map([["general.architecture", string(architecture)], ...splitMetadata(index, splitCount, tensorCount)]);
}

/** What several wait for, until the last of them leaves. */
interface SharedWork {
  work: Promise<void>;
  stop: AbortController;
  waiting: number;
}

/** An open bundle. Holds file descriptors until disposed. */
export class Bundle implements ModelSource {
  /** Of its folder. */
  readonly path: string;
  readonly manifest: BundleManifest;
  /** Identity. */
  readonly hash: string;
  /** Of the whole model, with its tokenizer. @internal */
  readonly metadata: GgufMetadata;
  /** @internal */
  readonly base: GgufFile;
  /** @internal */
  readonly ffn: GgufFile;
  readonly config: ModelConfig;
  /** How the channels of each layer are stored. @internal */
  readonly layouts: readonly ChannelLayout[];
  #block: number | undefined;
  #verifying: SharedWork | undefined;
  #closing: Error | undefined;

  /**
   * Opens a bundle. Sizes are checked, hashes only by {@link verify}.
   *
   * @param name its folder, or the id of a model that was pulled
   * @throws {FileError} if a file is missing, of the wrong size, or not what a bundle holds
   */
  constructor(name: string) {
    const path = modelFolder(name);
    this.path = path;
    this.manifest = readManifest(path, "ifprune-bundle");
    this.hash = manifestHash(path);
    for (const name of ["metadata.gguf", "base.gguf", "ffn.gguf", "tokenizer.json"]) {
      if (!this.manifest.files[name])
        throw new FileError(
          join(path, manifestName),
          `wanted the file "${name}" in it, got none. Pack or import it again.`,
        );
    }
    using metadata = new GgufFile(join(path, "metadata.gguf"));
    this.metadata = metadata.metadata;
    this.base = new GgufFile(join(path, "base.gguf"));
    try {
      this.ffn = new GgufFile(join(path, "ffn.gguf"));
    } catch (error) {
      this.base[Symbol.dispose]();
      throw error;
    }
    try {
      this.config = readGgufConfig(metadata, this.base);
      const { block = 1 } = this.manifest;
      if (this.ffnWidth % block !== 0)
        throw new FileError(
          join(path, manifestName),
          `wanted a block that divides ${this.ffnWidth} channels, got ${block}.`,
        );
      this.layouts = readChannelLayouts(this.ffn, this.config);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** L */
  get numLayers(): number {
    return this.config.numLayers;
  }

  /** D */
  get width(): number {
    return this.config.width;
  }

  /** F */
  get ffnWidth(): number {
    return this.config.ffnWidth;
  }

  /** Longest sequence of the model, in tokens. */
  get contextLength(): number {
    return this.config.contextLength;
  }

  get tokenizerPath(): string {
    return join(this.path, "tokenizer.json");
  }

  /** Files of the predictor, or undefined where the bundle has none. Without a backbone it reads the embedding of the model. */
  get predictor(): { backbone?: string; head: string } | undefined {
    const pathOf = (name: string) => (this.manifest.files[name] ? join(this.path, name) : undefined);
    const head = pathOf("head.safetensors");
    return head === undefined ? undefined : { backbone: pathOf("predictor.gguf"), head };
  }

  /** Channels that masks keep or drop together: the predictor's, or those of a bundle that was grouped; else 1. @throws {FileError} if it is damaged */
  get block(): number {
    this.#block ??= this.predictor ? headBlock(this.predictor.head, this.config) : (this.manifest.block ?? 1);
    return this.#block;
  }

  /** The text of a small file, or undefined where the bundle has none of that name. */
  text(name: string): string | undefined {
    return this.manifest.files[name] && readText(join(this.path, name));
  }

  read(name: string, rows?: { from: number; to: number }): Weight {
    const [, layer, matrix] = /^model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj\.weight$/.exec(name) ?? [];
    if (layer === undefined) return readGgufParameter(this.base, this.config, name, rows);
    if (matrix === "down") return this.#down(Number(layer), rows);
    return this.#rows(Number(layer), matrix as "gate" | "up", rows ?? { from: 0, to: this.ffnWidth });
  }

  /** Rows of gate or up: a stretch of each channel's record. */
  #rows(layer: number, matrix: "gate" | "up", { from, to }: { from: number; to: number }): Weight {
    const layout = this.layouts[layer]!;
    const [at, end] = matrix === "gate" ? [0, layout.upAt] : [layout.upAt, layout.downAt];
    const bytes = this.#stretch(layer, at, end - at, from, to);
    return { shape: [to - from, this.width], data: decodeBlocks(bytes, layout[matrix]) };
  }

  #down(layer: number, { from, to }: { from: number; to: number } = { from: 0, to: this.width }): Weight {
    const { down: type, downAt, block } = this.layouts[layer]!;
    if (block > 1) return this.#downOfBlocks(layer, from, to);
    const size = columnBytes[type];
    const F = this.ffnWidth;
    const columns = this.#stretch(layer, downAt + from * size, (to - from) * size, 0, F); // [F, to − from]
    const values = type === "Q8_0" ? Float32Array.from(new Int8Array(columns.buffer)) : decodeBlocks(columns, type);
    const data = transposeInto(values, new Float32Array(values.length), F);
    if (type === "Q8_0") {
      const scales = this.downScales(layer).subarray(from, to);
      for (const [row, scale] of scales.entries()) {
        const factor = fromHalf(scale);
        for (let i = row * F; i < (row + 1) * F; i++) data[i]! *= factor;
      }
    }
    return { shape: [to - from, F], data };
  }

  #downOfBlocks(layer: number, from: number, to: number): Weight {
    const { down: type, downAt, bytes, block } = this.layouts[layer]!;
    const F = this.ffnWidth;
    const data = new Float32Array((to - from) * F);
    const rows = new Uint8Array((to - from) * rowBytes(type, block));
    for (let channel = 0; channel < F; channel += block) {
      const start = F * downAt + (channel / block) * (bytes - block * downAt);
      this.#read(layer, rows, start + from * rowBytes(type, block));
      const values = decodeBlocks(rows, type);
      for (let row = 0; row < to - from; row++)
        data.set(values.subarray(row * block, (row + 1) * block), row * F + channel);
    }
    return { shape: [to - from, F], data };
  }

  /** Fills `target` with a layer's bytes from `offset`. */
  #read(layer: number, target: Uint8Array, offset: number): void {
    this.ffn.readInto(target, this.ffn.tensor(channelsName(layer)), offset);
  }

  /** Bytes `at .. at + length` of the records of channels `from .. to`, one after the other. Memory: records of a few MB. */
  #stretch(layer: number, at: number, length: number, from: number, to: number): Uint8Array<ArrayBuffer> {
    const { bytes: stride, block } = this.layouts[layer]!;
    if (block > 1) {
      const parts = new Uint8Array((to - from) * length);
      this.#read(layer, parts, this.ffnWidth * at + from * length);
      return parts;
    }
    const step = Math.max(1, Math.floor((4 << 20) / stride));
    const records = new Uint8Array(step * stride);
    const result = new Uint8Array((to - from) * length);
    for (let channel = from; channel < to; channel += step) {
      const count = Math.min(step, to - channel);
      this.#read(layer, records.subarray(0, count * stride), channel * stride);
      for (let i = 0; i < count; i++) {
        result.set(records.subarray(i * stride + at, i * stride + at + length), (channel - from + i) * length);
      }
    }
    return result;
  }

  /** Half-precision scale of each row of `down`, `[D]`, where its columns are signed bytes. */
  downScales(layer: number): Uint16Array<ArrayBuffer> {
    const scales = new Uint16Array(this.width);
    this.ffn.readInto(new Uint8Array(scales.buffer), this.ffn.tensor(downScaleName(layer)), 0);
    return scales;
  }

  /**
   * Reads the files that are not known to be as the manifest says. Who makes anything of them waits for it first; those who ask meanwhile share it, and
   * progress is told to the first of them.
   *
   * @throws {FileError} if one was changed or damaged
   */
  async verify({ signal, onProgress }: VerifyFilesOptions = {}): Promise<void> {
    signal?.throwIfAborted();
    if (this.#closing) throw this.#closing;
    this.#verifying ??= this.#verify(onProgress);
    const shared = this.#verifying;
    shared.waiting++;
    try {
      await new Promise<void>((resolve, reject) => {
        const leave = () => reject(signal!.reason);
        signal?.addEventListener("abort", leave, { once: true });
        shared.work.then(resolve, reject).finally(() => signal?.removeEventListener("abort", leave));
      });
    } finally {
      if (--shared.waiting === 0) {
        shared.stop.abort(); // nobody is left who wants it
        if (this.#verifying === shared) this.#verifying = undefined;
      }
    }
  }

  /** Ends a verification for all who wait for it, and refuses every other: whoever owns the bundle is closing it. @param reason what they get */
  stopVerifying(reason: Error): void {
    this.#closing = reason;
    this.#verifying?.stop.abort(reason);
  }

  #verify(onProgress: VerifyFilesOptions["onProgress"]): SharedWork {
    const stop = new AbortController();
    const work = verifyUnlessKnown(this.path, this.manifest, { signal: stop.signal, onProgress });
    return { work, stop, waiting: 0 };
  }

  [Symbol.dispose](): void {
    this.base[Symbol.dispose]();
    this.ffn[Symbol.dispose]();
  }
}
