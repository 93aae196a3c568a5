/**
 * The path of a prompt: make its mask, gather its sub-network, load it, prefill, decode. Token ids in, token ids out.
 */

import type { Bundle } from "../bundle/bundle.ts";
import type { CacheOptions } from "../bundle/cacheEntries.ts";
import { residentShare } from "../bundle/formBytes.ts";
import { FormMeter } from "../bundle/formMeter.ts";
import { DEFAULT_FORM, type WantedForm } from "../bundle/formOptions.ts";
import { chooseForm, formsOnDisk, type MaskForm, openMaskModel } from "../bundle/maskModel.ts";
import { availableBytes, DEFAULT_KV_TYPE } from "../bundle/memory.ts";
import type { EngineOptions, EngineProvider, GenerateOptions } from "../engine/engine.ts";
import { ContextLengthError } from "../errors.ts";
import type { Mask } from "../mask/mask.ts";

/** Milliseconds of each stage; `predict` is that of making the mask. Starting the engine itself, once per process, is in none of them. */
export interface StageTimes {
  predict: number;
  gather: number;
  load: number;
  prefill: number;
  decode: number;
}

export interface AnswerOptions extends Omit<EngineOptions, "contextLength" | "sequences" | "adapter">, GenerateOptions {
  /**
   * How the mask is run: gathered, or within the bundle's resident model, which is written when it is first wanted. Default: the form that is expected to
   * answer sooner.
   */
  form?: WantedForm | undefined;
  cache?: Omit<CacheOptions, "signal"> | undefined;
  /** At the start of each stage; of decode, before each token. */
  onStage?: ((stage: keyof StageTimes) => void) | undefined;
}

/** A prompt's answer under way. Disposing it early stops it. */
export interface Answer extends MaskForm, AsyncDisposable {
  mask: Mask;
  /** The answer's tokens, once. */
  tokens: AsyncGenerator<number, void, void>;
  /** Whole once the last token has come. */
  ms: StageTimes;
}

/**
 * Answers a prompt with the sub-network of a mask.
 *
 * @param promptIds what the LLM reads
 * @param choice the mask, or what makes it: the time of that is `predict`
 * @throws {ContextLengthError} if the prompt is longer than the model reads
 * @throws {FileError} if the bundle is damaged
 */
export async function answer(
  engines: EngineProvider,
  bundle: Bundle,
  promptIds: Int32Array,
  choice: Mask | (() => Promise<Mask>),
  options: AnswerOptions,
): Promise<Answer> {
  const { form: wanted = DEFAULT_FORM, cache, onStage, ...rest } = options;
  const { threads, kvType = DEFAULT_KV_TYPE, gpu, force, ...asked } = rest;
  const { maxTokens, signal } = asked;
  if (promptIds.length >= bundle.contextLength) throw new ContextLengthError(promptIds.length, bundle.contextLength);
  const ms: StageTimes = { predict: 0, gather: 0, load: 0, prefill: 0, decode: 0 };
  const timed = async <T>(stage: keyof StageTimes, work: () => Promise<T>): Promise<T> => {
    signal?.throwIfAborted();
    onStage?.(stage);
    const start = performance.now();
    const result = await work();
    ms[stage] += performance.now() - start;
    return result;
  };
  await engines.start(gpu);
  const mask = typeof choice === "function" ? await timed("predict", choice) : choice;
  const contextLength = Math.min(bundle.contextLength, promptIds.length + maxTokens);
  let meter: FormMeter | undefined;
  const chosen = chooseForm(bundle, mask, wanted, () => {
    meter = new FormMeter(bundle, cache);
    const { own, shared } = residentShare(bundle, { tFfn: mask.tFfn, contextLength, slots: 1, kvType });
    return {
      meter,
      promptTokens: promptIds.length,
      maxTokens,
      states: formsOnDisk(bundle, mask, cache),
      memory: { needed: own + shared, limit: force ? Infinity : availableBytes() },
    };
  });
  const { path, adapter, cached } = await timed("gather", () =>
    openMaskModel(bundle, mask, chosen.form, { ...cache, signal }),
  );
  const engineOptions = { threads, kvType, gpu, force, signal, contextLength, adapter };
  const engine = await timed("load", () => engines.open(path, engineOptions));
  async function* decode(): AsyncGenerator<number, void, void> {
    await using _ = engine;
    const tokens = engine.generate(promptIds, asked);
    let answerTokens = 0;
    for (let stage: "prefill" | "decode" = "prefill"; ; stage = "decode") {
      const { value, done } = await timed(stage, () => tokens.next());
      if (done) break;
      answerTokens++;
      yield value;
    }
    const { load, prefill, decode } = ms;
    const took = { ...(!cached && { gather: ms.gather }), load, prefill, decode };
    meter?.learn(chosen.form, mask.tFfn, took, { promptTokens: promptIds.length, answerTokens });
  }
  return { mask, ...chosen, tokens: decode(), ms, [Symbol.asyncDispose]: () => engine[Symbol.asyncDispose]() };
}
