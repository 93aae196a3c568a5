/** A model file in llama.cpp: looked at, then loaded, with what holds its tokens. */
import { readdirSync, statSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import type { Llama, LlamaModel } from "node-llama-cpp";
import {
  checkMemory,
  computeBytes,
  DEFAULT_KV_TYPE,
  type KvType,
  kvCacheBytes,
  repackedBytes,
} from "../bundle/memory.ts";
import { EngineError, FileError, IfpruneError, MemoryError } from "../errors.ts";
import { arrayLength, GgufFile } from "../formats/gguf.ts";
import { readGgufConfig } from "../formats/ggufModel.ts";
import { checkNumber, readNumbers } from "../options.ts";
import type { EngineOptions, FeatureOptions } from "./engine.ts";
import { ENGINE_OPTIONS } from "./engineOptions.ts";
import { freeCores, StepThreads, ThreadBudget } from "./threads.ts";

/** One per process and GPU setting: it holds llama.cpp's backends. */
const backends = new Map<"auto" | false, Promise<Llama>>();

/**
 * Starts llama.cpp, which takes about a second; later calls return the same, unless it failed. Imported here, as that alone takes half of it.
 *
 * @throws {EngineError} if there is no binary of it that runs here
 */
export function startBackend(gpu: "auto" | false = false): Promise<Llama> {
  const start = async () => {
    try {
      const { getLlama, LlamaLogLevel } = await import("node-llama-cpp");
      const maxThreads = availableParallelism(); // of all models that run at a time, together
      return await getLlama({ build: "never", skipDownload: true, gpu, maxThreads, logLevel: LlamaLogLevel.error });
    } catch (cause) {
      backends.delete(gpu); // what failed may have been of the moment
      throw new EngineError(cause);
    }
  };
  const started = backends.get(gpu) ?? start();
  backends.set(gpu, started);
  return started;
}

/** Of all contexts of a backend. */
const budgets = new WeakMap<Llama, ThreadBudget>();

function budgetOf(llama: Llama): ThreadBudget {
  const allow = (threads: number) => {
    llama.maxThreads = threads;
  };
  const budget = budgets.get(llama) ?? new ThreadBudget(llama.maxThreads, allow, freeCores());
  budgets.set(llama, budget);
  return budget;
}

/**
 * Beside another busy process, two threads ran a model of 2 MB at 10 tokens/s where one ran it at 300 and more; and with more threads than cores, which is node-llama-cpp's choice on two, a model of
 * 3B reads 28 times slower than with one each.
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

/** Whether all steps of a context take the same number of threads: somebody said it, or it would be in the bits of what is to be steady. */
export function keepsThreads({ threads, steady, kvType, contextLength }: EngineOptions): boolean {
  return threads !== undefined || (steady === true && kvType === "F16" && contextLength > LAST_UNSPLIT);
}

/** Tokens of a context up to which flash attention does not part the keys of a sequence that says a token among threads: from 512 on, and their number is rounded up to a multiple of 256. */
const LAST_UNSPLIT = 256;

/** A loaded model, and what its contexts have in common. */
export interface LlamaFile {
  path: string;
  model: LlamaModel;
  /** V */
  vocabSize: number;
  sequences: number;
  /** The most that a step of its contexts takes. */
  threads: number;
  budget: ThreadBudget;
  /** Of one context of it. */
  stepThreads(): StepThreads;
  /** Of a context. */
  bytes: number;
  /** Also frees its contexts. */
  dispose(): Promise<void>;
}

/** @param isFeature its contexts keep the logits of every token, and copy them */
export async function loadLlama(
  path: string,
  { kvType = DEFAULT_KV_TYPE, gpu = false, force = false, steady = false, signal, pooling, ...given }: FeatureOptions,
  isFeature = false,
): Promise<LlamaFile> {
  const { contextLength } = given;
  checkNumber("engine", "contextLength", contextLength, ENGINE_OPTIONS.contextLength);
  const { sequences, threads = defaultThreads(path) } = readNumbers("engine", ENGINE_OPTIONS, given);
  const { vocabSize, weights, context: withoutLogits } = inspect(path, { contextLength, sequences, kvType });
  const context = withoutLogits + (isFeature ? 2 * Float32Array.BYTES_PER_ELEMENT * vocabSize * contextLength : 0);
  if (!force && !gpu) checkMemory(weights + context, `the model and ${sequences * contextLength} tokens`);
  const llama = await startBackend(gpu);
  const model = await asOurs(path, signal, () =>
    llama.loadModel({
      modelPath: path,
      useMmap: false, // a mapped file that is truncated ends the process, one that is written to changes its answers
      defaultContextFlashAttention: kvType === "F32" ? false : "auto", // llama.cpp computes it with F16 keys and values
      experimentalDefaultContextKvCacheKeyType: kvType,
      experimentalDefaultContextKvCacheValueType: kvType,
      ignoreMemorySafetyChecks: force,
      loadSignal: signal,
      // llama.cpp takes it from the model's file: a key that LMs do not have
      ...(pooling === "mean" && { metadataOverrides: { [architectureOf(path)]: { pooling_type: MEAN_POOLING } } }),
    }),
  );
  const budget = budgetOf(llama);
  const isFixed = llama.gpu !== false || keepsThreads({ ...given, steady, kvType });
  const stepThreads = () => new StepThreads(budget, threads, isFixed);
  const dispose = model.dispose.bind(model);
  return { path, model, vocabSize, sequences, threads, budget, stepThreads, bytes: context, dispose };
}

/** Does what may fail in llama.cpp. @throws in our words @param path of the file that is at fault */
export async function asOurs<T>(path: string, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    signal?.throwIfAborted();
    if (cause instanceof IfpruneError) throw cause; // of ours already, and perhaps of another file
    const { InsufficientMemoryError } = await import("node-llama-cpp");
    const { message } = cause as Error;
    if (cause instanceof InsufficientMemoryError)
      throw new MemoryError(
        `load: wanted memory for the model, got from llama.cpp: ${message}. Use a smaller context.`,
        { cause },
      );
    throw new FileError(path, `wanted a model that llama.cpp runs, got: ${message}`, { cause });
  }
}

/** `LLAMA_POOLING_TYPE_MEAN` */
const MEAN_POOLING = 1;

function architectureOf(path: string): string {
  using file = new GgufFile(path);
  return file.string("general.architecture");
}

/**
 * Looks at a model before it is loaded, which also keeps damaged headers from node-llama-cpp, which hangs on them.
 *
 * @returns V, and bytes of the weights and of a context
 */
function inspect(
  path: string,
  { contextLength, sequences, kvType }: { contextLength: number; sequences: number; kvType: KvType },
): { vocabSize: number; weights: number; context: number } {
  using file = new GgufFile(path);
  const tokens = file.metadata.get("tokenizer.ggml.tokens");
  if (tokens?.type !== "array")
    throw new FileError(path, "wanted a model with a tokenizer, got none. Is it a model's first file?");
  const config = readGgufConfig(file);
  const experts = file.metadata.get(`${config.family}.expert_used_count`)?.value;
  // The output of each expert is kept too, until they are added up.
  if (experts !== undefined) config.ffnWidth = Number(experts) * (config.ffnWidth + config.width);
  const files = partsOf(path);
  const weights = totalBytes(files);
  return {
    vocabSize: arrayLength(tokens),
    weights: weights + (isQ8(files.at(-1)!) ? repackedBytes(weights) : 0),
    context:
      sequences * kvCacheBytes(config, contextLength, kvType) + computeBytes(config, sequences * contextLength, kvType),
  };
}

/** Whether most of a file's tensors of two dimensions are Q8_0. Of parts the last is looked at, which has no tokenizer to read. */
function isQ8(path: string): boolean {
  using file = new GgufFile(path);
  const matrices = [...file.tensors.values()].filter(({ shape }) => shape.length > 1);
  return 2 * matrices.filter(({ type }) => type === "Q8_0").length > matrices.length;
}
