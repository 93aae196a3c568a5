/**
 * What a model and its sub-networks will take, from the headers of its files alone: bytes of weights, cache and buffers, bytes read per token.
 *
 * Shapes: D model width · F FFN width · K kept FFN width (t_ffn)
 */
import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { FileError, OptionError } from "../errors.ts";
import { type GgufTensor, tensorTypes } from "../formats/gguf.ts";
import { GgufModel, ggufName } from "../formats/ggufModel.ts";
import { ModelFolder } from "../formats/huggingface.ts";
import { blockLength, isBlockType } from "../formats/quantize.ts";
import { manifestName, type Quality, whatIs } from "../manifest.ts";
import type { ModelConfig } from "../model/config.ts";
import { type Budget, budgetTFfn, defaultTFfn } from "./budget.ts";
import { Bundle } from "./bundle.ts";
import { type ChannelTypes, downType } from "./channels.ts";
import { autoFlaw } from "./maskModel.ts";
import {
  computeBytes,
  DEFAULT_CONTEXT_LENGTH,
  DEFAULT_KV_TYPE,
  type KvType,
  kvCacheBytes,
  repackedBytes,
} from "./memory.ts";
import { defaultType, modelFile } from "./packBundle.ts";
import { modelFolder } from "./pulledModels.ts";
import { residentBytes, residentComputeWidth } from "./residentModel.ts";

/** The stored tensors of a model, as they are or would be in a bundle. */
export interface StoredModel {
  config: ModelConfig;
  /** All but the FFN. */
  shared: readonly GgufTensor[];
  /** Types of the FFN's matrices, layer by layer. */
  ffn: readonly ChannelTypes[];
  /** Files of the predictor, 0 without. */
  predictorBytes: number;
  /** Channels that the predictor keeps, … */
  tFfn?: number | undefined;
  /** … and that it keeps or drops together; 1 without. */
  block: number;
  quality?: Quality | undefined;
  /** Of a bundle whose masks may be run within one model: its bytes, and the values that its FFN computes for a token. */
  resident?: { bytes: number; computeWidth(K: number): number } | undefined;
}

/**
 * Reads the headers of a model.
 *
 * @param name bundle folder, or id of a model that was pulled; or Hugging Face folder or GGUF file, which are taken as `import` would store them
 * @throws {FileError} if it is none of these
 */
export function readStoredModel(name: string): StoredModel {
  const path = modelFolder(name);
  const stat = statSync(path, { throwIfNoEntry: false });
  if (!stat) throw new FileError(path, "wanted a model, got nothing of that name. Check the path.");
  if (stat.isDirectory() && existsSync(join(path, manifestName))) {
    using bundle = new Bundle(path);
    const { config, base, layouts, predictor, manifest } = bundle;
    const files = [predictor?.backbone, predictor?.head].filter((file) => file !== undefined);
    return {
      config,
      shared: [...base.tensors.values()],
      ffn: layouts,
      predictorBytes: files.reduce((sum, file) => sum + statSync(file).size, 0),
      tFfn: manifest.tFfn,
      block: bundle.block,
      quality: manifest.quality,
      resident: autoFlaw(bundle) === undefined ? residentOf(bundle) : undefined,
    };
  }
  if (stat.isDirectory() && !existsSync(join(path, "config.json")))
    throw new FileError(path, `wanted a bundle, a Hugging Face folder or a GGUF file, got ${whatIs(path)}`);
  using model = stat.isDirectory() ? new ModelFolder(path) : new GgufModel(path);
  const { config } = model;
  const { tensors } = modelFile(model, new Map(), model instanceof GgufModel ? "keep" : defaultType(config));
  const types = new Map(tensors.map(({ name, type }) => [name, type]));
  const ffn = Array.from({ length: config.numLayers }, (_, layer): ChannelTypes => {
    const of = (matrix: string) => {
      const type = types.get(ggufName(config, `model.layers.${layer}.mlp.${matrix}_proj.weight`))!;
      if (!isBlockType(type)) throw new Error(`internal: ${matrix} of type ${type}`);
      return type;
    };
    return { gate: of("gate"), up: of("up"), down: downType(of("down")) };
  });
  return { config, shared: tensors.filter(({ name }) => !ffnName.test(name)), ffn, predictorBytes: 0, block: 1 };
}

function residentOf(bundle: Bundle): NonNullable<StoredModel["resident"]> {
  const { block } = bundle;
  const perBlock = residentComputeWidth(bundle, block); // in proportion to the kept blocks; the bundle is closed by then
  return { bytes: residentBytes(bundle), computeWidth: (K) => (K / block) * perBlock };
}

const ffnName = /^blk\.\d+\.ffn_(gate|up|down)\.weight$/;

/** What one model takes, in bytes. */
export interface ModelBytes {
  /** Attention, norms, embeddings. */
  shared: number;
  ffn: number;
  kvCache: number;
  /** An allowance: see `computeBytes`. */
  compute: number;
  /** Of copies of weights: see `repackedBytes`. */
  repacked: number;
  total: number;
  /** Read per token of decoding, with half the context cached: see {@link bytesPerToken}. */
  perToken: number;
}

export interface Estimate {
  tFfn: number;
  contextLength: number;
  kvType: KvType;
  dense: ModelBytes;
  /** Without the predictor. */
  subnetwork: ModelBytes;
  /** The same mask in the resident form, which holds the channels of all masks, where there is one. */
  resident?: ModelBytes | undefined;
  predictor: number;
}

export interface EstimateOptions extends Budget {
  /** Default: {@link defaultContextLength} */
  contextLength?: number | undefined;
  /** Default: {@link DEFAULT_KV_TYPE} */
  kvType?: KvType | undefined;
}

/**
 * @throws {OptionError} if an option does not suit the model
 */
export function estimate(model: StoredModel, options: EstimateOptions = {}): Estimate {
  const { config, ffn, predictorBytes } = model;
  const { ffnWidth: F } = config;
  const { contextLength = defaultContextLength(config), kvType = DEFAULT_KV_TYPE } = options;
  const told = budgetTFfn(options, {
    ...model,
    ffnWidth: F,
    source: model.tFfn === undefined ? "griffin" : "predictor",
  });
  const tFfn = told ?? model.tFfn ?? defaultTFfn(F, model.block);
  if (!Number.isInteger(tFfn) || tFfn < 1 || tFfn > F)
    throw new OptionError(`estimate: t_ffn must be an integer in 1..${F}, the FFN width, got ${tFfn}.`);
  if (tFfn % blockLength !== 0 && ffn.some(({ down }) => down === "Q8_0"))
    throw new OptionError(`estimate: Q8_0 wants t_ffn in multiples of ${blockLength}, got ${tFfn}.`);
  if (!Number.isInteger(contextLength) || contextLength < 2 || contextLength > config.contextLength) {
    throw new OptionError(
      `estimate: the context must be an integer in 2..${config.contextLength}, what the model reads, got ${contextLength}.`,
    );
  }
  return {
    tFfn,
    contextLength,
    kvType,
    dense: modelBytes(model, F, contextLength, kvType),
    subnetwork: modelBytes(model, tFfn, contextLength, kvType),
    resident: model.resident && residentModelBytes(model, model.resident, tFfn, contextLength, kvType),
    predictor: predictorBytes,
  };
}

function residentModelBytes(
  model: StoredModel,
  { bytes: weights, computeWidth }: NonNullable<StoredModel["resident"]>,
  K: number,
  contextLength: number,
  kvType: KvType,
): ModelBytes {
  const { config, ffn } = model;
  const gathered = modelBytes(model, K, contextLength, kvType);
  const all = sumBytes(ffnTensors(model, config.ffnWidth));
  const bytes = {
    shared: weights - all,
    ffn: all,
    kvCache: gathered.kvCache,
    compute: computeBytes({ ...config, ffnWidth: computeWidth(K) }, contextLength, kvType),
    repacked: ffn.some(({ gate }) => gate === "Q8_0") ? repackedBytes(weights) : 0,
  };
  return { ...bytes, total: totalOf(bytes), perToken: gathered.perToken };
}

/** Tokens of prompt and answer, unless told. */
export function defaultContextLength({ contextLength }: Pick<ModelConfig, "contextLength">): number {
  return Math.min(contextLength, DEFAULT_CONTEXT_LENGTH);
}

function modelBytes(model: StoredModel, K: number, contextLength: number, kvType: KvType): ModelBytes {
  const { config, shared } = model;
  const ffn = ffnTensors(model, K);
  const bytes = {
    shared: sumBytes(shared),
    ffn: sumBytes(ffn),
    kvCache: kvCacheBytes(config, contextLength, kvType),
    compute: computeBytes({ ...config, ffnWidth: K }, contextLength, kvType),
    repacked: repackedBytes(sumBytes([...shared, ...ffn].filter(({ type }) => type === "Q8_0"))),
  };
  return {
    ...bytes,
    total: totalOf(bytes),
    perToken: bytesPerToken(model, K, Math.ceil(contextLength / 2), kvType),
  };
}

const totalOf = (bytes: Record<string, number>) => Object.values(bytes).reduce((sum, part) => sum + part, 0);

/** The FFN of K channels as it is stored. */
function ffnTensors({ config: { width: D }, ffn }: StoredModel, K: number): Omit<GgufTensor, "name">[] {
  return ffn.flatMap(({ gate, up, down }) => [
    { type: gate, shape: [K, D] },
    { type: up, shape: [K, D] },
    { type: down, shape: [D, K] },
  ]);
}

/**
 * Bytes that decoding one token reads: all weights, but the table of embeddings only where it is the output matrix too, and the cache.
 *
 * @param cached tokens before this one
 */
export function bytesPerToken(model: StoredModel, K: number, cached: number, kvType: KvType): number {
  const { config, shared } = model;
  const read = shared.filter(({ name }) => config.tieEmbeddings || name !== "token_embd.weight");
  return sumBytes([...read, ...ffnTensors(model, K)]) + kvCacheBytes(config, cached, kvType);
}

/** As in a file; down rows of a dense model that has no whole blocks of channels are rounded up, for it cannot be stored in that type. */
function sumBytes(tensors: readonly Omit<GgufTensor, "name">[]): number {
  return tensors.reduce((sum, { type, shape }) => {
    const { elements, bytes } = tensorTypes[type];
    const rows = shape.slice(0, -1).reduce((product, n) => product * n, 1);
    return sum + rows * Math.ceil(shape.at(-1)! / elements) * bytes;
  }, 0);
}
