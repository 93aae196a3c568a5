/**
 * llama.cpp through node-llama-cpp: token ids in, token ids out. Knows no text.
 */
import { readdirSync, statSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import type { Llama, LlamaContextSequence, LlamaModel, Token } from "node-llama-cpp";
import { FileError, InputError, MemoryError, OptionError } from "../errors.ts";
import { GgufFile } from "../formats/gguf.ts";
import { readGgufConfig } from "../formats/ggufModel.ts";
import { checkMemory, computeBytes, type KvType, kvCacheBytes, repackedBytes } from "./memory.ts";

export interface EngineOptions {
  /** Most tokens of prompt and answer together. */
  contextLength: number;
  /** Default: one for files under 32 MiB, whose work is not worth sharing; one per core for larger ones. */
  threads?: number;
  /** Type of the key/value cache: F16 halves its memory, F32 is exact. Default: F16. */
  kvType?: KvType;
  /** "auto" takes a GPU where there is one with its binaries installed. Default: no GPU. */
  gpu?: "auto" | false;
  /** Load even what does not fit into memory by our estimate. Default: false. */
  force?: boolean;
}

export interface GenerateOptions {
  maxTokens: number;
  /** 0 is greedy. Default: 0. */
  temperature?: number;
  /** Of the sampling at a temperature above 0. Default: 0. */
  seed?: number;
  /** Stops between two tokens. */
  signal?: AbortSignal;
  /** Goes on after the end-of-sequence token, for measurements. Default: false. */
  ignoreEos?: boolean;
}

/** A loaded model. One call at a time. */
export interface Engine extends AsyncDisposable {
  /**
   * The answer to `ids`, token by token, without the end-of-sequence token that ends it. Ends also at `maxTokens` or a full context.
   *
   * @throws {InputError} if `ids` is empty, leaves no room in the context, or is not of this vocabulary
   */
  generate(ids: Int32Array, options: GenerateOptions): AsyncGenerator<number, void, void>;
  /** Next-token logits [V] after each of `ids`. @throws {InputError} as {@link Engine.generate} */
  logits(ids: Int32Array): Promise<Float32Array[]>;
}

/** One per process and GPU setting: it holds llama.cpp's backends. */
const backends = new Map<"auto" | false, Promise<Llama>>();

/** Starts llama.cpp, which takes about a second; later calls return the same. Imported here, as that alone takes half of it. */
export function startBackend(gpu: "auto" | false = false): Promise<Llama> {
  const start = async () => {
    const { getLlama, LlamaLogLevel } = await import("node-llama-cpp");
    return getLlama({ build: "never", skipDownload: true, gpu, logLevel: LlamaLogLevel.error });
  };
  const started = backends.get(gpu) ?? start();
  backends.set(gpu, started);
  return started;
}

/**
 * Threads of llama.cpp wait for each other by spinning: beside another busy process, two of them ran a model of 2 MB at 10 tokens/s
 * where one ran it at 300 and more; and with more threads than cores, which is node-llama-cpp's choice on two, a model of 3B reads 28 times
 * slower than with one each.
 */
const smallModelBytes = 32 * 2 ** 20;

function defaultThreads(path: string): number {
  return totalBytes(partsOf(path)) < smallModelBytes ? 1 : availableParallelism();
}

/** Files of a model, given the first, whose parts have a folder of their own. */
function partsOf(path: string): string[] {
  const isSplit = /-00001-of-\d{5}\.gguf$/.test(path);
  return isSplit
    ? readdirSync(dirname(path))
        .filter((name) => name.endsWith(".gguf"))
        .sort()
        .map((name) => join(dirname(path), name))
    : [path];
}

const totalBytes = (files: readonly string[]) =>
  files.reduce((sum, file) => sum + (statSync(file, { throwIfNoEntry: false })?.size ?? 0), 0);

interface Loaded<Context> {
  context: Context;
  /** V */
  vocabSize: number;
  dispose(): Promise<void>;
}

async function load<Context>(
  path: string,
  { contextLength, threads, kvType = "F16", gpu = false, force = false }: EngineOptions,
  createContext: (model: LlamaModel) => Promise<Context>,
): Promise<Loaded<Context>> {
  if (!Number.isInteger(contextLength) || contextLength < 2) {
    throw new OptionError(`engine: "contextLength" must be an integer of at least 2, got ${contextLength}.`);
  }
  if (threads !== undefined && (!Number.isInteger(threads) || threads < 1)) {
    throw new OptionError(`engine: "threads" must be a positive integer, got ${threads}.`);
  }
  const vocabSize = inspect(path, force || gpu ? undefined : { contextLength, kvType });
  const llama = await startBackend(gpu);
  let model: LlamaModel | undefined;
  try {
    model = await llama.loadModel({
      modelPath: path,
      defaultContextFlashAttention: kvType === "F32" ? false : "auto", // llama.cpp computes it with F16 keys and values
      experimentalDefaultContextKvCacheKeyType: kvType,
      experimentalDefaultContextKvCacheValueType: kvType,
      ignoreMemorySafetyChecks: force,
    });
    const context = await createContext(model);
    const { dispose } = model; // also frees its contexts
    return { context, vocabSize, dispose: dispose.bind(model) };
  } catch (cause) {
    await model?.dispose();
    const { InsufficientMemoryError } = await import("node-llama-cpp");
    const { message } = cause as Error;
    if (cause instanceof InsufficientMemoryError)
      throw new MemoryError(`load: wanted memory for ${path}, got from llama.cpp: ${message}. Use a smaller context.`, {
        cause,
      });
    throw new FileError(path, `wanted a model that llama.cpp runs, got: ${message}`, { cause });
  }
}

/**
 * Looks at a model before it is loaded, which also keeps damaged headers from node-llama-cpp, which hangs on them.
 *
 * @param wanted a context that must fit into memory with the model
 * @returns V
 * @throws {MemoryError} if it does not
 */
function inspect(path: string, wanted?: { contextLength: number; kvType: KvType }): number {
  using file = new GgufFile(path);
  const tokens = file.metadata.get("tokenizer.ggml.tokens");
  if (tokens?.type !== "array")
    throw new FileError(path, "wanted a model with a tokenizer, got none. Is it a model's first file?");
  if (wanted) {
    const { contextLength, kvType } = wanted;
    const config = readGgufConfig(file);
    const files = partsOf(path);
    const weights = totalBytes(files);
    const needed =
      weights +
      (isQ8(files.at(-1)!) ? repackedBytes(weights) : 0) +
      kvCacheBytes(config, contextLength, kvType) +
      computeBytes(config, contextLength, kvType);
    checkMemory(needed, `${path} and ${contextLength} tokens`);
  }
  return tokens.value.length;
}

/** Whether most of a file's tensors of two dimensions are Q8_0. Of parts the last is looked at, which has no tokenizer to read. */
function isQ8(path: string): boolean {
  using file = new GgufFile(path);
  const matrices = [...file.tensors.values()].filter(({ shape }) => shape.length > 1);
  return 2 * matrices.filter(({ type }) => type === "Q8_0").length > matrices.length;
}

/**
 * @throws {FileError} if llama.cpp cannot load the model
 * @throws {MemoryError} if it does not fit into memory
 */
export async function openEngine(path: string, options: EngineOptions): Promise<Engine> {
  const { contextLength, threads = defaultThreads(path), force: ignoreMemorySafetyChecks } = options;
  const { context, vocabSize, dispose } = await load(path, options, (model) =>
    model.createContext({ contextSize: contextLength, threads, sequences: 1, ignoreMemorySafetyChecks }),
  );
  const sequence = context.getSequence();
  const check = (ids: Int32Array) => checkIds(ids, contextLength, vocabSize);
  return {
    async *generate(ids, generateOptions) {
      check(ids);
      yield* generate(sequence, contextLength, ids, generateOptions);
    },
    async logits(ids) {
      check(ids);
      await sequence.clearHistory();
      const input = Array.from(ids, (id): [Token, object] => [id as Token, { generateNext: { logits: true } }]);
      const outputs = await sequence.controlledEvaluate(input);
      return outputs.map((output) => {
        const logits = new Float32Array(vocabSize);
        for (const [token, logit] of output!.next.logits!) logits[token] = logit;
        return logits;
      });
    },
    [Symbol.asyncDispose]: dispose,
  };
}

async function* generate(
  sequence: LlamaContextSequence,
  contextLength: number,
  ids: Int32Array,
  { maxTokens, temperature = 0, seed = 0, signal, ignoreEos = false }: GenerateOptions,
): AsyncGenerator<number, void, void> {
  if (!Number.isInteger(maxTokens) || maxTokens < 1) {
    throw new OptionError(`engine: "maxTokens" must be a positive integer, got ${maxTokens}.`);
  }
  signal?.throwIfAborted();
  const room = Math.min(maxTokens, contextLength - ids.length);
  await sequence.clearHistory();
  let count = 0;
  const options = { temperature, seed, topK: 0, topP: 1, yieldEogToken: ignoreEos } as const;
  for await (const token of sequence.evaluate(Array.from(ids) as Token[], options)) {
    signal?.throwIfAborted();
    yield token;
    if (++count >= room) return;
  }
}

/** A model that turns token ids into a feature. */
export interface FeatureEngine extends AsyncDisposable {
  /** Final-norm hidden state [D] of the last token. @throws {InputError} as {@link Engine.generate} */
  feature(ids: Int32Array): Promise<Float32Array>;
}

/** @throws {FileError | MemoryError} as {@link openEngine} */
export async function openFeatureEngine(path: string, options: EngineOptions): Promise<FeatureEngine> {
  const { contextLength, threads = defaultThreads(path) } = options;
  const { context, vocabSize, dispose } = await load(path, options, (model) =>
    model.createEmbeddingContext({ contextSize: contextLength, batchSize: contextLength, threads }),
  );
  return {
    async feature(ids) {
      checkIds(ids, contextLength, vocabSize);
      const { vector } = await context.getEmbeddingFor(Array.from(ids) as Token[]);
      return Float32Array.from(vector);
    },
    [Symbol.asyncDispose]: dispose,
  };
}

function checkIds(ids: Int32Array, contextLength: number, vocabSize: number): void {
  if (ids.length === 0) throw new InputError("engine: wanted at least one token, got none.");
  if (ids.length >= contextLength) {
    throw new InputError(
      `engine: wanted fewer than ${contextLength} tokens, the context length, got ${ids.length}. Shorten the text.`,
    );
  }
  const stranger = ids.find((id) => id < 0 || id >= vocabSize);
  if (stranger !== undefined) {
    throw new InputError(`engine: wanted token ids below ${vocabSize}, got ${stranger}. Is the tokenizer the model's?`);
  }
}
