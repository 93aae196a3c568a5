/**
 * The path of a prompt: predict a mask, gather its sub-network, load it, prefill, decode. Token ids in, token ids out.
 */
import { FileError, InputError } from "../errors.ts";
import type { Bundle } from "../formats/bundle.ts";
import { GgufFile } from "../formats/gguf.ts";
import { modelNumber } from "../formats/ggufModel.ts";
import { type Mask, maskFromScores } from "../mask/mask.ts";
import { readHead, scoreFeature } from "../predictor/head.ts";
import { type CacheOptions, openSubnetwork } from "../subnet/cache.ts";
import { type EngineOptions, type GenerateOptions, openEngine, openFeatureEngine, startBackend } from "./engine.ts";

/** Milliseconds of each stage. Starting llama.cpp itself, once per process, is in none of them. */
export interface StageTimes {
  predict: number;
  gather: number;
  load: number;
  prefill: number;
  decode: number;
}

/** Turns instructions into masks. */
export interface Predictor extends AsyncDisposable {
  /**
   * @param ids BOS and the raw text of the instruction
   * @throws {InputError} if it is longer than the predictor reads
   */
  predict(ids: Int32Array): Promise<Mask>;
}

/**
 * Loads a bundle's predictor.
 *
 * @throws {FileError} if the bundle has none, or it is damaged
 */
export async function openPredictor(
  bundle: Bundle,
  options: Omit<EngineOptions, "contextLength"> = {},
): Promise<Predictor> {
  const { predictor, manifest, ffnWidth: dFfn } = bundle;
  const { tFfn, epsilon, lambda } = manifest;
  if (!predictor || !tFfn || !epsilon) {
    throw new FileError(
      bundle.path,
      "wanted a bundle with a predictor, got one without. Give a mask, or run it dense.",
    );
  }
  const head = readHead(predictor.head, bundle);
  const engine = await openFeatureEngine(predictor.backbone, {
    ...options,
    contextLength: contextLengthOf(predictor.backbone),
  });
  return {
    async predict(ids) {
      const scores = scoreFeature(head, await engine.feature(ids));
      return maskFromScores(scores, { dFfn, tFfn, epsilon: lambda === "soft" ? epsilon : undefined });
    },
    [Symbol.asyncDispose]: () => engine[Symbol.asyncDispose](),
  };
}

function contextLengthOf(path: string): number {
  using file = new GgufFile(path);
  return modelNumber(file, "context_length");
}

export interface AnswerOptions extends Omit<EngineOptions, "contextLength">, GenerateOptions {
  cache?: CacheOptions;
  /** An open predictor to use. Default: it is loaded for this prompt, as part of predicting. */
  predictor?: Predictor;
}

/** A prompt's answer under way. Disposing it early stops it. */
export interface Answer extends AsyncDisposable {
  mask: Mask;
  /** The answer's tokens, once. */
  tokens: AsyncGenerator<number, void, void>;
  /** Whole once the last token has come. */
  ms: StageTimes;
}

/**
 * Answers a prompt with the sub-network of a mask: a given one, or the one that the predictor sees in an instruction.
 *
 * @param promptIds what the LLM reads
 * @param maskOrInstruction a mask, or what the predictor reads
 * @throws {InputError} if a text is longer than its model reads
 * @throws {FileError} if the bundle is damaged, or has no predictor where it needs one
 */
export async function answer(
  bundle: Bundle,
  promptIds: Int32Array,
  maskOrInstruction: Mask | Int32Array,
  { cache, predictor, maxTokens, temperature, seed, signal, ...options }: AnswerOptions,
): Promise<Answer> {
  if (promptIds.length >= bundle.contextLength) {
    throw new InputError(
      `prompt: wanted fewer than ${bundle.contextLength} tokens, got ${promptIds.length}. Shorten it.`,
    );
  }
  const ms: StageTimes = { predict: 0, gather: 0, load: 0, prefill: 0, decode: 0 };
  const timed = async <T>(stage: keyof StageTimes, work: () => Promise<T>): Promise<T> => {
    signal?.throwIfAborted();
    const start = performance.now();
    const result = await work();
    ms[stage] += performance.now() - start;
    return result;
  };
  await startBackend(options.gpu);
  const mask =
    maskOrInstruction instanceof Int32Array
      ? await timed("predict", () => predict(bundle, maskOrInstruction, predictor, options))
      : maskOrInstruction;
  const { path } = await timed("gather", () => openSubnetwork(bundle, mask, cache));
  const contextLength = Math.min(bundle.contextLength, promptIds.length + maxTokens);
  const engine = await timed("load", () => openEngine(path, { ...options, contextLength }));
  async function* decode(): AsyncGenerator<number, void, void> {
    await using _ = engine;
    const tokens = engine.generate(promptIds, { maxTokens, temperature, seed, signal });
    for (let stage: "prefill" | "decode" = "prefill"; ; stage = "decode") {
      const { value, done } = await timed(stage, () => tokens.next());
      if (done) return;
      yield value;
    }
  }
  return { mask, tokens: decode(), ms, [Symbol.asyncDispose]: () => engine[Symbol.asyncDispose]() };
}

async function predict(
  bundle: Bundle,
  instruction: Int32Array,
  predictor: Predictor | undefined,
  options: Omit<EngineOptions, "contextLength">,
): Promise<Mask> {
  if (predictor) return predictor.predict(instruction);
  await using own = await openPredictor(bundle, options);
  return await own.predict(instruction);
}
