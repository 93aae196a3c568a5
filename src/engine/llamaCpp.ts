/**
 * llama.cpp through node-llama-cpp: token ids in, token ids out. Knows no text.
 *
 * Shapes: D model width · V vocabulary
 */
import type { ControlledEvaluateInputItem, LlamaEmbeddingContext, Token } from "node-llama-cpp";
import { checkMemory } from "../bundle/memory.ts";
import { ContextLengthError, InputError } from "../errors.ts";
import { checkNumber } from "../options.ts";
import { Random } from "../random.ts";
import type {
  AnswerToken,
  Engine,
  EngineModel,
  EngineOptions,
  EngineProvider,
  FeatureEngine,
  GenerateOptions,
  ScoredToken,
} from "./engine.ts";
import { MAX_TOKENS } from "./engineOptions.ts";
import { LlamaAdapters } from "./llamaAdapters.ts";
import { asOurs, type LlamaFile, loadLlama, startBackend } from "./llamaFile.ts";
import { checkBias, llamaSampling } from "./llamaSampling.ts";
import { completeSampling, drawToken, largest, logProbabilities, type Sampling } from "./sampling.ts";
import { Sequences, type TakenSequence } from "./sequences.ts";
import type { StepThreads } from "./threads.ts";

export const llamaCpp: EngineProvider = {
  async load() {
    await import("node-llama-cpp");
  },
  async start(gpu) {
    await startBackend(gpu);
  },
  async describe(gpuChoice) {
    const { llamaCppRelease, buildType, systemInfo, gpu } = await startBackend(gpuChoice);
    const { getModuleVersion } = await import("node-llama-cpp");
    const { repo, release } = llamaCppRelease;
    const name = `llama.cpp ${repo} ${release} (${buildType}) by node-llama-cpp ${await getModuleVersion()}`;
    return { name, processor: systemInfo.trim(), gpu };
  },
  async open(path, { adapter, ...options }) {
    const model = await openLlama(path, options);
    try {
      return await model.engine({ adapter, signal: options.signal }, model);
    } catch (error) {
      await model[Symbol.asyncDispose]();
      throw error;
    }
  },
  openModel: openLlama,
  async openFeature(path, options) {
    const { contextLength, force = false, signal } = options;
    const file = await loadLlama(path, options, true);
    try {
      const { model, threads, budget } = file;
      const create = () =>
        model.createEmbeddingContext({
          ...{ contextSize: contextLength, batchSize: contextLength, threads },
          ignoreMemorySafetyChecks: force,
          ...(signal && { createSignal: signal }),
        });
      const context = await asOurs(path, signal, () => budget.run({ threads, yields: false }, create));
      return new LlamaFeatureEngine(file, context, contextLength);
    } catch (error) {
      await file.dispose();
      throw error;
    }
  },
};

async function openLlama(path: string, options: EngineOptions): Promise<LlamaEngineModel> {
  return new LlamaEngineModel(await loadLlama(path, options), options);
}

class LlamaEngineModel implements EngineModel {
  readonly #file: LlamaFile;
  readonly #options: EngineOptions;
  readonly #adapters: LlamaAdapters;
  #hasEngine = false;

  constructor(file: LlamaFile, options: EngineOptions) {
    this.#file = file;
    this.#options = options;
    this.#adapters = new LlamaAdapters(file.model);
  }

  /** @param owned what goes with the engine; the context alone if absent */
  async engine(
    { adapter, signal }: Pick<EngineOptions, "adapter" | "signal"> = {},
    owned?: AsyncDisposable,
  ): Promise<Engine> {
    const { contextLength, force = false, gpu } = this.#options;
    const { model, path, sequences, threads, budget, bytes } = this.#file;
    // Loading the weights has looked at the memory of one.
    if (this.#hasEngine && !force && !gpu) checkMemory(bytes, `${sequences * contextLength} more tokens`);
    const create = () =>
      model.createContext({
        sequences,
        threads,
        contextSize: contextLength,
        ignoreMemorySafetyChecks: force,
        createSignal: signal,
      });
    // Within the budget: a context never gets more threads than there were to have when it was made.
    const context = await asOurs(path, signal, () => budget.run({ threads, yields: false }, create));
    this.#hasEngine = true;
    const adapt = (other: Uint8Array) => asOurs(path, undefined, () => this.#adapters.set(context, other));
    const own = {
      [Symbol.asyncDispose]: async () => {
        await context.dispose();
        await this.#adapters.leave(context);
      },
    };
    try {
      if (adapter) await adapt(adapter);
    } catch (error) {
      await own[Symbol.asyncDispose]();
      throw error;
    }
    return new LlamaEngine(
      this.#file,
      contextLength,
      new Sequences(context, this.#file.stepThreads()),
      owned ?? own,
      adapt,
    );
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#file.dispose();
  }
}

/** Positions whose logits are held at a time. */
const scoredTokens = 32;
/** Samplers that leave logits as they are: llama.cpp gives out what they have made of them. */
const rawLogits = { temperature: 0, topK: 0, topP: 1 } as const;

class LlamaEngine implements Engine {
  readonly #file: LlamaFile;
  readonly #contextLength: number;
  readonly #sequences: Sequences;
  readonly #owned: AsyncDisposable;
  readonly adapt: Engine["adapt"];

  constructor(
    file: LlamaFile,
    contextLength: number,
    sequences: Sequences,
    owned: AsyncDisposable,
    adapt: Engine["adapt"],
  ) {
    this.#file = file;
    this.#contextLength = contextLength;
    this.#sequences = sequences;
    this.#owned = owned;
    this.adapt = adapt;
  }

  async *generate(
    ids: Int32Array,
    { maxTokens, signal, ignoreEos = false, schema, ...given }: GenerateOptions,
  ): AsyncGenerator<number, void, void> {
    const room = this.#roomFor(maxTokens, ids);
    const sampling = completeSampling(given);
    using sequence = await this.#take(ids, signal, sampling);
    const answer: Token[] = [];
    const sampler = await llamaSampling(this.#file.model, sampling, room, answer, schema);
    const rest = await sequence.read(ids, signal);
    for await (const token of sequence.generate(rest, { ...sampler, yieldEogToken: ignoreEos }, signal)) {
      answer.push(token);
      yield token;
      if (answer.length === room) return;
    }
  }

  async *generateScored(
    ids: Int32Array,
    { maxTokens, signal, ignoreEos = false, top, echo = false, ...given }: Parameters<Engine["generateScored"]>[1],
  ): AsyncGenerator<AnswerToken, void, void> {
    const room = this.#roomFor(maxTokens, ids);
    const sampling = completeSampling(given);
    const random = new Random(sampling.seed);
    using sequence = await this.#take(ids, signal, sampling);
    const answer: Token[] = [];
    if (echo) {
      for await (const token of this.#scores(sequence, ids, { top, signal })) yield { ...token, part: "prompt" };
    }
    let input = echo ? [ids.at(-1) as Token] : await sequence.read(ids, signal);
    while (answer.length < room) {
      const last: ControlledEvaluateInputItem = [input.pop()!, { generateNext: { logits: true, options: rawLogits } }];
      const outputs = await sequence.evaluate([...input, last]);
      signal?.throwIfAborted();
      const logits = toArray(outputs[input.length]!.next.logits!, this.#file.vocabSize);
      const id = drawToken(logits, sampling, answer, random.float()) as Token;
      const isEnd = this.#file.model.isEogToken(id) && !ignoreEos;
      answer.push(id);
      const logprobs = logProbabilities(logits);
      const alternatives = largest(logprobs, top).map((other) => ({ id: other, logprob: logprobs[other]! }));
      yield { id, logprob: logprobs[id]!, top: alternatives, part: isEnd ? "end" : "answer" };
      if (isEnd) return;
      input = [id];
    }
  }

  async score(ids: Int32Array, options: Parameters<Engine["score"]>[1]): Promise<ScoredToken[]> {
    using sequence = await this.#take(ids, options.signal, undefined, Math.max(0, ids.length - 1));
    const scored: ScoredToken[] = [];
    for await (const token of this.#scores(sequence, ids, options)) scored.push(token);
    return scored;
  }

  /** Reads all of `ids` but the last one, and tells of each, from the one before `first` on, what it made of the next. */
  async *#scores(
    sequence: TakenSequence,
    ids: Int32Array,
    { top, from: first = 1, signal }: Parameters<Engine["score"]>[1],
  ): AsyncGenerator<ScoredToken, void, void> {
    for (let from = 0; from < ids.length - 1; from += scoredTokens) {
      signal?.throwIfAborted();
      const next = ids.subarray(from + 1, Math.min(ids.length, from + 1 + scoredTokens));
      const input = Array.from(next, (id, i): ControlledEvaluateInputItem => {
        if (from + i + 1 < first) return ids[from + i] as Token;
        const logits = { filter: { tokens: [id as Token], includeTop: Math.max(1, top) } };
        return [ids[from + i] as Token, { generateNext: { logits, totalLogitWeight: true, options: rawLogits } }];
      });
      const outputs = await sequence.evaluate(input);
      for (const [i, output] of outputs.entries()) {
        if (!output) continue;
        const { logits, totalLogitWeight } = output.next;
        const best = [...logits!].sort(([, a], [, b]) => b - a);
        const shift = best[0]![1] + Math.log(totalLogitWeight!);
        const alternatives = best.slice(0, top).map(([id, logit]) => ({ id, logprob: logit - shift }));
        const id = next[i]!;
        yield { id, logprob: logits!.get(id as Token)! - shift, top: alternatives };
      }
    }
  }

  async logits(ids: Int32Array): Promise<Float32Array[]> {
    using sequence = await this.#take(ids);
    const outputs = await sequence.evaluate(
      Array.from(ids, (id): ControlledEvaluateInputItem => [id as Token, { generateNext: { logits: true } }]),
    );
    return outputs.map((output) => toArray(output!.next.logits!, this.#file.vocabSize));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#owned[Symbol.asyncDispose]();
  }

  #roomFor(maxTokens: number, ids: Int32Array): number {
    checkNumber("engine", "maxTokens", maxTokens, MAX_TOKENS);
    return Math.min(maxTokens, this.#contextLength - ids.length);
  }

  async #take(
    ids: Int32Array,
    signal?: AbortSignal,
    sampling?: Sampling,
    numRead = ids.length,
  ): Promise<TakenSequence> {
    checkIds(ids, numRead, this.#contextLength, this.#file.vocabSize);
    if (sampling) checkBias(sampling.logitBias, this.#file.model, this.#file.vocabSize);
    signal?.throwIfAborted();
    return this.#sequences.take();
  }
}

class LlamaFeatureEngine implements FeatureEngine {
  readonly #file: LlamaFile;
  readonly #context: LlamaEmbeddingContext;
  readonly #contextLength: number;
  readonly #threads: StepThreads;

  constructor(file: LlamaFile, context: LlamaEmbeddingContext, contextLength: number) {
    this.#file = file;
    this.#context = context;
    this.#contextLength = contextLength;
    this.#threads = file.stepThreads();
  }

  async feature(ids: Int32Array): Promise<Float32Array> {
    checkIds(ids, ids.length, this.#contextLength, this.#file.vocabSize);
    const embed = () => this.#context.getEmbeddingFor(Array.from(ids) as Token[]);
    const { vector } = await this.#threads.step([ids.length], embed);
    return Float32Array.from(vector);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#file.dispose();
  }
}

/** [V] */
function toArray(logits: ReadonlyMap<Token, number>, vocabSize: number): Float32Array {
  const array = new Float32Array(vocabSize);
  for (const [token, logit] of logits) array[token] = logit;
  return array;
}

/** @param numRead of `ids`: the last may be only asked about */
function checkIds(ids: Int32Array, numRead: number, contextLength: number, vocabSize: number): void {
  if (ids.length === 0) throw new InputError("engine: wanted at least one token, got none.");
  if (numRead >= contextLength) throw new ContextLengthError(numRead, contextLength);
  const stranger = ids.find((id) => id < 0 || id >= vocabSize);
  if (stranger !== undefined) {
    throw new InputError(`engine: wanted token ids below ${vocabSize}, got ${stranger}. Is the tokenizer the model's?`);
  }
}
