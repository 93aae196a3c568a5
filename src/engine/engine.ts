/**
 * What a language model is to the rest: token ids in, token ids out. Types alone; `llamaCpp.ts` is one implementation, which whoever uses engines is given.
 *
 * Shapes: D model width · V vocabulary
 */

import type { KvType } from "../bundle/memory.ts";
import type { GPUS } from "./engineOptions.ts";
import type { Sampling } from "./sampling.ts";

/** For reports. */
export interface EngineDescription {
  /** With version and build. */
  name: string;
  /** Instruction sets and kernels. */
  processor: string;
  /** As "cuda" or "metal"; false without. */
  gpu: string | false;
}

/** What opens engines. */
export interface EngineProvider {
  /** Loads its code. What is asked for while {@link start} goes on then takes none of its time. */
  load(): Promise<void>;
  /** Gets ready, where that takes long; later calls return at once. Opening does it too. */
  start(gpu?: EngineOptions["gpu"]): Promise<void>;
  /** What runs models here: name, version and build, what it uses of the processor, and the kind of GPU. */
  describe(gpu?: EngineOptions["gpu"]): Promise<EngineDescription>;
  /**
   * @param path of a GGUF file, the first of them where the model has several
   * @throws {FileError} if the file is not a model that the engine runs
   * @throws {OptionError} if an option is out of range
   * @throws {MemoryError} if it does not fit into memory
   */
  open(path: string, options: EngineOptions): Promise<Engine>;
  /** Loads a model for several engines: all of `options` but the adapter are those of each. @throws as {@link EngineProvider.open} */
  openModel(path: string, options: Omit<EngineOptions, "adapter">): Promise<EngineModel>;
  /** @throws as {@link EngineProvider.open} */
  openFeature(path: string, options: FeatureOptions): Promise<FeatureEngine>;
}

/** How an engine runs a model. Numbers are those of `engineOptions.ts`. */
export interface EngineOptions {
  /** Most tokens of prompt and answer together. */
  contextLength: number;
  /** Calls that run at a time, each with a cache of its own; their tokens are computed in one batch. */
  sequences?: number | undefined;
  /** Of every step. Default: as many as other programs leave cores, or fewer where those say tokens quicker (`threads.ts`); at most one for files under 32 MiB, whose work is not worth sharing. */
  threads?: number | undefined;
  /** Take the same number of threads wherever it is in the last bits of what is computed, so that the same calls give the same tokens. Default: false. */
  steady?: boolean | undefined;
  /** Type of the key/value cache: F16 halves its memory, F32 is exact. Default: `DEFAULT_KV_TYPE`. */
  kvType?: KvType | undefined;
  /** Default: no GPU. */
  gpu?: (typeof GPUS)[number] | undefined;
  /** A LoRA adapter, as the bytes of a GGUF file, whose products are added to those of the weights. Default: none. */
  adapter?: Uint8Array | undefined;
  /** Load even what does not fit into memory by our estimate. Default: false. */
  force?: boolean | undefined;
  /** Stops loading. */
  signal?: AbortSignal | undefined;
}

/** How an engine makes features. */
export interface FeatureOptions extends EngineOptions {
  /** The hidden state of the last token, or the mean over those of all. Default: the last. */
  pooling?: "last" | "mean" | undefined;
}

/** Sampling is greedy unless told. */
export interface GenerateOptions extends Partial<Sampling> {
  maxTokens: number;
  /** Stops between two tokens, and within a prompt after at most 128. */
  signal?: AbortSignal | undefined;
  /** Goes on after the end-of-sequence token, for measurements. Default: false. */
  ignoreEos?: boolean | undefined;
  /** A JSON schema that the answer must follow, in the part of JSON Schema that node-llama-cpp knows. White space may come after it. */
  schema?: object | undefined;
}

/** A token with its probability, and those of others in its place. */
export interface ScoredToken {
  id: number;
  /** Natural logarithm of the probability that the model itself gives it: before bias, penalties, temperature and the rest of sampling. */
  logprob: number;
  /** The likeliest tokens in its place, the likeliest first. */
  top: readonly { id: number; logprob: number }[];
}

/** A token of a scored answer: read of the prompt, said, or the one that ends the answer. */
export interface AnswerToken extends ScoredToken {
  part: "prompt" | "answer" | "end";
}

/** A loaded model. As many calls at a time as it has sequences. None sees what another has read. */
export interface Engine extends AsyncDisposable {
  /**
   * The answer to `ids`, token by token, without the end-of-sequence token that ends it. Ends also at `maxTokens` or a full context.
   *
   * @throws {InputError} if `ids` is empty, leaves no room in the context, or is not of this vocabulary
   * @throws {OptionError} if an option is out of range, or the schema is too large or has what grammars do not know
   */
  generate(ids: Int32Array, options: GenerateOptions): AsyncGenerator<number, void, void>;
  /**
   * The same with log-probabilities, and with the end-of-sequence token where that ends it. At a temperature above 0 the same seed draws other tokens
   * than without, as the drawing is not llama.cpp's; it takes no schema. Slower than {@link Engine.generate}: all logits pass through JavaScript.
   *
   * @param options `echo`: what {@link Engine.score} gives of `ids` comes first, read once for both
   */
  generateScored(
    ids: Int32Array,
    options: Omit<GenerateOptions, "schema"> & { top: number; echo?: boolean },
  ): AsyncGenerator<AnswerToken, void, void>;
  /**
   * Log-probabilities of all of `ids` but the first, or of those at `from` and after it.
   *
   * @throws {InputError} as {@link Engine.generate}
   */
  score(ids: Int32Array, options: { top: number; from?: number; signal?: AbortSignal }): Promise<ScoredToken[]>;
  /** Next-token logits [V] after each of `ids`: megabytes a token, for small models and comparisons. @throws {InputError} as {@link Engine.generate} */
  logits(ids: Int32Array): Promise<Float32Array[]>;
  /** Takes another adapter from the next call on, which is much cheaper than another engine. No call may be running. @throws as {@link EngineModel.engine} */
  adapt(adapter: Uint8Array): Promise<void>;
}

/** Loaded weights that engines share, each with caches and an adapter of its own. Disposing it frees the engines too. */
export interface EngineModel extends AsyncDisposable {
  /**
   * @throws {FileError} if the adapter is not one of this model, or there is no room on the disk that it passes over
   * @throws {MemoryError} if the engine does not fit into memory beside what is loaded
   */
  engine(options?: Pick<EngineOptions, "adapter" | "signal">): Promise<Engine>;
}

/** A model that turns token ids into a feature. */
export interface FeatureEngine extends AsyncDisposable {
  /** Hidden state [D] after the final norm. @throws {InputError} as {@link Engine.generate} */
  feature(ids: Int32Array): Promise<Float32Array>;
}
