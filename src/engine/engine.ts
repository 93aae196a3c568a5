/**
 * llama.cpp through node-llama-cpp: token ids in, token ids out. Knows no text.
 */
import type { Llama, LlamaContextSequence, LlamaModel, Token } from "node-llama-cpp";
import { FileError, InputError, OptionError } from "../errors.ts";
import { GgufFile } from "../formats/gguf.ts";

export interface EngineOptions {
  /** Most tokens of prompt and answer together. */
  contextLength: number;
  /** Default: llama.cpp's choice. */
  threads?: number;
  /** Type of the key/value cache: F16 halves its memory, F32 is exact. Default: F16. */
  kvType?: "F16" | "F32";
  /** "auto" takes a GPU where there is one with its binaries installed. Default: no GPU. */
  gpu?: "auto" | false;
}

export interface GenerateOptions {
  maxTokens: number;
  /** 0 is greedy. Default: 0. */
  temperature?: number;
  /** Of the sampling at a temperature above 0. Default: 0. */
  seed?: number;
  /** Stops between two tokens. */
  signal?: AbortSignal;
}

/** A loaded model. One call at a time. */
export interface Engine extends AsyncDisposable {
  /**
   * The answer to `ids`, token by token, without the end-of-sequence token that ends it. Ends also at `maxTokens` or a full context.
   *
   * @throws {InputError} if `ids` is empty or leaves no room in the context
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

async function loadModel(path: string, { kvType = "F16", gpu = false }: EngineOptions): Promise<LlamaModel> {
  new GgufFile(path)[Symbol.dispose](); // node-llama-cpp hangs on a damaged header
  const llama = await startBackend(gpu);
  try {
    return await llama.loadModel({
      modelPath: path,
      defaultContextFlashAttention: kvType === "F32" ? false : "auto", // llama.cpp computes it with F16 keys and values
      experimentalDefaultContextKvCacheKeyType: kvType,
      experimentalDefaultContextKvCacheValueType: kvType,
    });
  } catch (cause) {
    throw new FileError(path, `wanted a model that llama.cpp loads, got: ${(cause as Error).message}`, { cause });
  }
}

/** @throws {FileError} if llama.cpp cannot load the model */
export async function openEngine(path: string, options: EngineOptions): Promise<Engine> {
  checkOptions(options);
  const model = await loadModel(path, options);
  const { contextLength, threads } = options;
  const context = await model.createContext({ contextSize: contextLength, threads, sequences: 1 });
  const sequence = context.getSequence();
  return {
    generate: (ids, generateOptions) => generate(sequence, contextLength, ids, generateOptions),
    async logits(ids) {
      checkIds(ids, contextLength);
      await sequence.clearHistory();
      const input = Array.from(ids, (id) => [id as Token, { generateNext: { logits: true } }] as [Token, object]);
      const outputs = await sequence.controlledEvaluate(input);
      return outputs.map((output) => {
        const entries = output!.next.logits!;
        const logits = new Float32Array(entries.size);
        for (const [token, logit] of entries) logits[token] = logit;
        return logits;
      });
    },
    async [Symbol.asyncDispose]() {
      await model.dispose(); // and its contexts
    },
  };
}

async function* generate(
  sequence: LlamaContextSequence,
  contextLength: number,
  ids: Int32Array,
  { maxTokens, temperature = 0, seed = 0, signal }: GenerateOptions,
): AsyncGenerator<number, void, void> {
  checkIds(ids, contextLength);
  if (!Number.isInteger(maxTokens) || maxTokens < 1) {
    throw new OptionError(`engine: "maxTokens" must be a positive integer, got ${maxTokens}.`);
  }
  signal?.throwIfAborted();
  const room = Math.min(maxTokens, contextLength - ids.length);
  await sequence.clearHistory();
  let count = 0;
  for await (const token of sequence.evaluate(Array.from(ids) as Token[], { temperature, seed, topK: 0, topP: 1 })) {
    signal?.throwIfAborted();
    yield token;
    if (++count >= room) return;
  }
}

/** A model that turns token ids into a feature. */
export interface FeatureEngine extends AsyncDisposable {
  /** Final-norm hidden state [D] of the last token. @throws {InputError} if `ids` is empty or too long */
  feature(ids: Int32Array): Promise<Float32Array>;
}

/** @throws {FileError} if llama.cpp cannot load the model */
export async function openFeatureEngine(path: string, options: EngineOptions): Promise<FeatureEngine> {
  checkOptions(options);
  const model = await loadModel(path, options);
  const { contextLength, threads } = options;
  const context = await model.createEmbeddingContext({ contextSize: contextLength, batchSize: contextLength, threads });
  return {
    async feature(ids) {
      checkIds(ids, contextLength);
      const { vector } = await context.getEmbeddingFor(Array.from(ids) as Token[]);
      return Float32Array.from(vector);
    },
    async [Symbol.asyncDispose]() {
      await model.dispose(); // and its contexts
    },
  };
}

function checkOptions({ contextLength, threads }: EngineOptions): void {
  if (!Number.isInteger(contextLength) || contextLength < 2) {
    throw new OptionError(`engine: "contextLength" must be an integer of at least 2, got ${contextLength}.`);
  }
  if (threads !== undefined && (!Number.isInteger(threads) || threads < 1)) {
    throw new OptionError(`engine: "threads" must be a positive integer, got ${threads}.`);
  }
}

function checkIds(ids: Int32Array, contextLength: number): void {
  if (ids.length === 0) throw new InputError("engine: wanted at least one token, got none.");
  if (ids.length >= contextLength) {
    throw new InputError(
      `engine: wanted fewer than ${contextLength} tokens, the context length, got ${ids.length}. Shorten the text.`,
    );
  }
}
