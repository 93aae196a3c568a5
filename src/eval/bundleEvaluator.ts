/**
 * A bundle under masks as it is served: quantised weights, compact sub-networks, the engine that serves it. Slower than the graph, prompt by
 * prompt; prompts that share a mask share a loaded sub-network.
 */
import { OneEngine } from "../answer/oneEngine.ts";
import type { Bundle } from "../bundle/bundle.ts";
import type { Form } from "../bundle/formOptions.ts";
import { maskHash } from "../bundle/subnetworkCache.ts";
import type { Engine, EngineProvider } from "../engine/engine.ts";
import { labelScore } from "../engine/labelScore.ts";
import { fullMask, type Mask } from "../mask/mask.ts";
import type { LabelledSequence, SequenceScore } from "../net/evaluator.ts";
import type { MaskedAnswer, MaskedModel, MaskedQuestion } from "./evaluate.ts";

export interface BundleEvaluatorOptions {
  threads?: number | undefined;
  /** Default: gathered. */
  form?: Form | undefined;
}

export class BundleEvaluator implements MaskedModel {
  readonly #engines: EngineProvider;
  readonly #bundle: Bundle;
  readonly #options: BundleEvaluatorOptions;

  constructor(engines: EngineProvider, bundle: Bundle, options: BundleEvaluatorOptions = {}) {
    this.#engines = engines;
    this.#bundle = bundle;
    this.#options = options;
  }

  score(
    sequences: readonly LabelledSequence[],
    masks?: readonly Mask[],
    signal?: AbortSignal,
  ): Promise<SequenceScore[]> {
    return this.#withEngines(sequences, masks, signal, (engine, sequence) => labelScore(engine, sequence, signal));
  }

  answer(
    questions: readonly MaskedQuestion[],
    { masks, signal }: Parameters<MaskedModel["answer"]>[1],
  ): Promise<MaskedAnswer[]> {
    return this.#withEngines(questions, masks, signal, async (engine, { prompt, sequence, maxTokens }) => {
      const score = await labelScore(engine, sequence, signal);
      const answer: number[] = [];
      for await (const id of engine.generate(prompt, { maxTokens, signal })) answer.push(id); // it knows what ends one
      return { score, answer: Int32Array.from(answer) };
    });
  }

  /** Runs `work` on each item with the sub-network of its mask, one sub-network loaded at a time. */
  async #withEngines<Item, Result>(
    items: readonly Item[],
    masks: readonly Mask[] | undefined,
    signal: AbortSignal | undefined,
    work: (engine: Engine, item: Item) => Promise<Result>,
  ): Promise<Result[]> {
    const { numLayers, ffnWidth, contextLength } = this.#bundle;
    const dense = fullMask(numLayers, ffnWidth);
    const groups = new Map<string, number[]>();
    items.forEach((_, i) => {
      const key = maskHash(masks?.[i] ?? dense);
      groups.set(key, [...(groups.get(key) ?? []), i]);
    });
    const results = new Array<Result>(items.length);
    const model = { engines: this.#engines, bundle: this.#bundle };
    await using engines = new OneEngine(model, contextLength, 1, this.#options);
    for (const [key, members] of groups) {
      const engine = await engines.of(key, masks?.[members[0]!] ?? dense);
      for (const i of members) {
        signal?.throwIfAborted();
        results[i] = await work(engine, items[i]!);
      }
    }
    return results;
  }
}
