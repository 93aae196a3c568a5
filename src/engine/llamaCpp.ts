/**
 * llama.cpp through node-llama-cpp: token ids in, token ids out. Knows no text.
 */
import { readdirSync, statSync } from "node:fs";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import type {
  ControlledEvaluateInputItem,
  Llama,
  LlamaContextSequence,
  LlamaGrammarEvaluationState,
  LlamaModel,
  SequenceEvaluateOptions,
  Token,
} from "node-llama-cpp";
import { checkMemory, computeBytes, type KvType, kvCacheBytes, repackedBytes } from "../bundle/memory.ts";
import { FileError, InputError, MemoryError, OptionError } from "../errors.ts";
import { GgufFile } from "../formats/gguf.ts";
import { readGgufConfig } from "../formats/ggufModel.ts";
import { Random } from "../random.ts";
import type { Engine, EngineOptions, EngineProvider, FeatureEngine, ScoredToken } from "./engine.ts";
import { Rounds } from "./rounds.ts";
import { completeSampling, drawToken, largest, logSoftmax, type Sampling } from "./sampling.ts";

/** One per process and GPU setting: it holds llama.cpp's backends. */
const backends = new Map<"auto" | false, Promise<Llama>>();

/** Starts llama.cpp, which takes about a second; later calls return the same. Imported here, as that alone takes half of it. */
function startBackend(gpu: "auto" | false = false): Promise<Llama> {
  const start = async () => {
    const { getLlama, LlamaLogLevel } = await import("node-llama-cpp");
    const maxThreads = availableParallelism(); // of all models that run at a time, together
    return getLlama({ build: "never", skipDownload: true, gpu, maxThreads, logLevel: LlamaLogLevel.error });
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
  model: LlamaModel;
  context: Context;
  /** V */
  vocabSize: number;
  dispose(): Promise<void>;
}

async function load<Context>(
  path: string,
  { contextLength, sequences = 1, threads, kvType = "F16", gpu = false, force = false, signal }: EngineOptions,
  createContext: (model: LlamaModel) => Promise<Context>,
): Promise<Loaded<Context>> {
  if (!Number.isInteger(contextLength) || contextLength < 2) {
    throw new OptionError(`engine: "contextLength" must be an integer of at least 2, got ${contextLength}.`);
  }
  if (!Number.isInteger(sequences) || sequences < 1) {
    throw new OptionError(`engine: "sequences" must be a positive integer, got ${sequences}.`);
  }
  if (threads !== undefined && (!Number.isInteger(threads) || threads < 1)) {
    throw new OptionError(`engine: "threads" must be a positive integer, got ${threads}.`);
  }
  const vocabSize = inspect(path, force || gpu ? undefined : { contextLength, sequences, kvType });
  const llama = await startBackend(gpu);
  let model: LlamaModel | undefined;
  try {
    model = await llama.loadModel({
      modelPath: path,
      defaultContextFlashAttention: kvType === "F32" ? false : "auto", // llama.cpp computes it with F16 keys and values
      experimentalDefaultContextKvCacheKeyType: kvType,
      experimentalDefaultContextKvCacheValueType: kvType,
      ignoreMemorySafetyChecks: force,
      loadSignal: signal,
    });
    const context = await createContext(model);
    const { dispose } = model; // also frees its contexts
    return { model, context, vocabSize, dispose: dispose.bind(model) };
  } catch (cause) {
    await model?.dispose();
    signal?.throwIfAborted();
    const { InsufficientMemoryError } = await import("node-llama-cpp");
    const { message } = cause as Error;
    if (cause instanceof InsufficientMemoryError)
      throw new MemoryError(
        `load: wanted memory for the model, got from llama.cpp: ${message}. Use a smaller context.`,
        {
          cause,
        },
      );
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
function inspect(path: string, wanted?: { contextLength: number; sequences: number; kvType: KvType }): number {
  using file = new GgufFile(path);
  const tokens = file.metadata.get("tokenizer.ggml.tokens");
  if (tokens?.type !== "array")
    throw new FileError(path, "wanted a model with a tokenizer, got none. Is it a model's first file?");
  if (wanted) {
    const { contextLength, sequences, kvType } = wanted;
    const config = readGgufConfig(file);
    const files = partsOf(path);
    const weights = totalBytes(files);
    const needed =
      weights +
      (isQ8(files.at(-1)!) ? repackedBytes(weights) : 0) +
      sequences * kvCacheBytes(config, contextLength, kvType) +
      computeBytes(config, sequences * contextLength, kvType);
    checkMemory(needed, `the model and ${sequences * contextLength} tokens`);
  }
  return tokens.value.length;
}

/** Whether most of a file's tensors of two dimensions are Q8_0. Of parts the last is looked at, which has no tokenizer to read. */
function isQ8(path: string): boolean {
  using file = new GgufFile(path);
  const matrices = [...file.tensors.values()].filter(({ shape }) => shape.length > 1);
  return 2 * matrices.filter(({ type }) => type === "Q8_0").length > matrices.length;
}

async function openEngine(path: string, options: EngineOptions): Promise<Engine> {
  const { contextLength, sequences = 1, threads = defaultThreads(path), force, signal } = options;
  const { model, context, vocabSize, dispose } = await load(path, options, (loaded) =>
    loaded.createContext({
      contextSize: contextLength,
      threads,
      sequences,
      ignoreMemorySafetyChecks: force,
      createSignal: signal,
    }),
  );
  const rounds = new Rounds();
  const free = Array.from({ length: sequences }, () => context.getSequence());
  const take = async (ids: Int32Array, abort?: AbortSignal, logitBias: Sampling["logitBias"] = new Map()) => {
    checkIds(ids, contextLength, vocabSize);
    checkBias(logitBias, model, vocabSize);
    abort?.throwIfAborted();
    const sequence = free.pop();
    if (!sequence) throw new Error(`internal: more calls at a time than ${sequences}, the sequences of the engine`);
    const taken = { sequence, [Symbol.dispose]: () => void free.push(sequence) };
    try {
      await rounds.step(() => sequence.clearHistory());
      return taken;
    } catch (error) {
      taken[Symbol.dispose]();
      throw error;
    }
  };
  return {
    async *generate(ids, generateOptions) {
      const { maxTokens, signal: abort, ignoreEos = false, schema, ...given } = generateOptions;
      const room = roomFor(maxTokens, contextLength - ids.length);
      const sampling = completeSampling(given);
      using taken = await take(ids, abort, sampling.logitBias);
      const answer: Token[] = [];
      const sampler = await llamaSampling(model, sampling, room, answer, schema);
      const rest = await readPrompt(rounds, taken.sequence, ids, abort);
      const tokens = taken.sequence.evaluate(rest, { ...sampler, yieldEogToken: ignoreEos });
      try {
        while (answer.length < room) {
          const { value: token, done } = await rounds.step(() => tokens.next());
          abort?.throwIfAborted();
          if (done) return;
          answer.push(token);
          yield token;
        }
      } finally {
        await tokens.return();
      }
    },
    async *generateScored(ids, { maxTokens, signal: abort, ignoreEos = false, top, ...given }) {
      const room = roomFor(maxTokens, contextLength - ids.length);
      const sampling = completeSampling(given);
      const random = new Random(sampling.seed);
      using taken = await take(ids, abort, sampling.logitBias);
      const answer: Token[] = [];
      let input = await readPrompt(rounds, taken.sequence, ids, abort);
      while (answer.length < room) {
        const last: ControlledEvaluateInputItem = [
          input.pop()!,
          { generateNext: { logits: true, options: rawLogits } },
        ];
        const outputs = await rounds.step(() => taken.sequence.controlledEvaluate([...input, last]));
        abort?.throwIfAborted();
        const logits = toArray(outputs[input.length]!.next.logits!, vocabSize);
        const id = drawToken(logits, sampling, answer, random.float()) as Token;
        if (model.isEogToken(id) && !ignoreEos) return;
        answer.push(id);
        const logprobs = logSoftmax(logits);
        const alternatives = largest(logprobs, top).map((other) => ({ id: other, logprob: logprobs[other]! }));
        yield { id, logprob: logprobs[id]!, top: alternatives };
        input = [id];
      }
    },
    async score(ids, { top, signal: abort }) {
      using taken = await take(ids, abort);
      const scored: ScoredToken[] = [];
      for (let from = 0; from < ids.length - 1; from += scoredTokens) {
        abort?.throwIfAborted();
        const next = ids.subarray(from + 1, Math.min(ids.length, from + 1 + scoredTokens));
        const input = Array.from(next, (id, i): ControlledEvaluateInputItem => {
          const logits = { filter: { tokens: [id as Token], includeTop: Math.max(1, top) } };
          return [ids[from + i] as Token, { generateNext: { logits, totalLogitWeight: true, options: rawLogits } }];
        });
        const outputs = await rounds.step(() => taken.sequence.controlledEvaluate(input));
        for (const [i, output] of outputs.entries()) {
          const { logits, totalLogitWeight } = output!.next;
          const best = [...logits!].sort(([, a], [, b]) => b - a);
          const shift = best[0]![1] + Math.log(totalLogitWeight!);
          const alternatives = best.slice(0, top).map(([id, logit]) => ({ id, logprob: logit - shift }));
          const id = next[i]!;
          scored.push({ id, logprob: logits!.get(id as Token)! - shift, top: alternatives });
        }
      }
      return scored;
    },
    async logits(ids) {
      using taken = await take(ids);
      const input = Array.from(ids, (id): [Token, object] => [id as Token, { generateNext: { logits: true } }]);
      const outputs = await rounds.step(() => taken.sequence.controlledEvaluate(input));
      return outputs.map((output) => toArray(output!.next.logits!, vocabSize));
    },
    [Symbol.asyncDispose]: dispose,
  };
}

/** Tokens of a prompt that are read between two looks at its signal. */
const promptChunk = 128;
/** Positions whose logits are held at a time. */
const scoredTokens = 32;
/** Samplers that leave logits as they are: llama.cpp gives out what they have made of them. */
const rawLogits = { temperature: 0, topK: 0, topP: 1 } as const;
/** Longest schema as JSON, and longest grammar made of one, in characters. */
const [maxSchemaLength, maxGrammarLength] = [1 << 16, 1 << 18];

function toArray(logits: ReadonlyMap<Token, number>, vocabSize: number): Float32Array {
  const array = new Float32Array(vocabSize);
  for (const [token, logit] of logits) array[token] = logit;
  return array;
}

function roomFor(maxTokens: number, left: number): number {
  if (!Number.isInteger(maxTokens) || maxTokens < 1) {
    throw new OptionError(`engine: "maxTokens" must be a positive integer, got ${maxTokens}.`);
  }
  return Math.min(maxTokens, left);
}

/** Reads a prompt but for its end, which is returned. Without a signal nothing is read: one batch is fastest. */
async function readPrompt(
  rounds: Rounds,
  sequence: LlamaContextSequence,
  ids: Int32Array,
  signal?: AbortSignal,
): Promise<Token[]> {
  const tokens = Array.from(ids) as Token[];
  if (!signal) return tokens;
  let from = 0;
  for (; tokens.length - from > promptChunk; from += promptChunk) {
    const chunk = tokens.slice(from, from + promptChunk);
    await rounds.step(() => sequence.evaluateWithoutGeneratingNewTokens(chunk));
    signal.throwIfAborted();
  }
  return tokens.slice(from);
}

/** @param answer grows while it is generated */
async function llamaSampling(
  model: LlamaModel,
  sampling: Sampling,
  room: number,
  answer: Token[],
  schema?: object,
): Promise<SequenceEvaluateOptions> {
  const { TokenBias } = await import("node-llama-cpp");
  const { temperature, seed, topK, topP, minP, logitBias } = sampling;
  const { repeatPenalty: penalty, frequencyPenalty, presencePenalty } = sampling;
  const penalizes = penalty !== 1 || frequencyPenalty !== 0 || presencePenalty !== 0;
  const tokenBias = new TokenBias(model.tokenizer);
  for (const [id, logit] of logitBias) tokenBias.set(id as Token, { logit });
  return {
    ...{ temperature, seed, topK, topP, minP },
    ...(logitBias.size > 0 && { tokenBias }),
    ...(penalizes && {
      repeatPenalty: { punishTokens: () => answer, maxPunishTokens: room, penalty, frequencyPenalty, presencePenalty },
    }),
    ...(schema && { grammarEvaluationState: await grammarState(model, schema) }),
  };
}

/** @throws {OptionError} if the schema is too large, or no grammar can be made of it */
async function grammarState(model: LlamaModel, schema: object): Promise<LlamaGrammarEvaluationState> {
  const { LlamaGrammarEvaluationState: State } = await import("node-llama-cpp");
  let flaw: unknown;
  try {
    if (JSON.stringify(schema).length > maxSchemaLength) throw new Error(`more than ${maxSchemaLength} characters`);
    const grammar = await model.llama.createGrammarForJsonSchema(schema as { type: "object" });
    if (grammar.grammar.length <= maxGrammarLength) return new State({ model, grammar });
    flaw = new Error(`a grammar of more than ${maxGrammarLength} characters`);
  } catch (error) {
    flaw = error;
  }
  const { message } = flaw as Error;
  throw new OptionError(`schema: wanted one that a grammar can be made of, got: ${message}.`, { cause: flaw });
}

function checkBias(logitBias: Sampling["logitBias"], model: LlamaModel, vocabSize: number): void {
  for (const id of logitBias.keys()) {
    if (!Number.isInteger(id) || id < 0 || id >= vocabSize)
      throw new OptionError(`sampling: wanted a bias of tokens below ${vocabSize}, got one of ${id}.`);
    if (model.isEogToken(id as Token))
      // node-llama-cpp would leave it out
      throw new OptionError(`sampling: wanted no bias of tokens that end an answer, got one of ${id}.`);
  }
}

async function openFeatureEngine(path: string, options: EngineOptions): Promise<FeatureEngine> {
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

async function describe(): Promise<string> {
  const { llamaCppRelease, buildType, systemInfo } = await startBackend();
  const { getModuleVersion } = await import("node-llama-cpp");
  const { repo, release } = llamaCppRelease;
  return `llama.cpp ${repo} ${release} (${buildType}) by node-llama-cpp ${await getModuleVersion()}. ${systemInfo.trim()}`;
}

export const llamaCpp: EngineProvider = {
  async start(gpu) {
    await startBackend(gpu);
  },
  describe,
  open: openEngine,
  openFeature: openFeatureEngine,
};
