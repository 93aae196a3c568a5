/**
 * Evaluation of a bundle as it is served: quantised weights, compact sub-networks, the engine that serves it. Slower than the graph, prompt by
 * prompt; prompts that share a mask share a loaded sub-network.
 */
import { createHash } from "node:crypto";
import type { Bundle } from "../bundle/bundle.ts";
import { readHead, scoreFeature } from "../bundle/head.ts";
import { openSubnetwork } from "../bundle/subnetworkCache.ts";
import type { Engine, EngineProvider } from "../engine/engine.ts";
import { FileError } from "../errors.ts";
import { type DenseMask, fromDenseMask, fullMask, maskFromScores, toDenseMask } from "../mask/mask.ts";
import type { GenerateOptions, LabelledSequence, SequenceScore } from "../net/evaluator.ts";
import type { MaskedModel } from "./evaluate.ts";

export interface BundleEvaluatorOptions {
  threads?: number;
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

  async predict(instructions: readonly Int32Array[]): Promise<{ mask: DenseMask; scores: Float32Array }[]> {
    const { predictor, manifest, ffnWidth: dFfn, contextLength, path } = this.#bundle;
    const { tFfn, epsilon, lambda } = manifest;
    if (!predictor || !tFfn || !epsilon)
      throw new FileError(path, "wanted a bundle with a predictor, got one without.");
    const head = readHead(predictor.head, this.#bundle);
    await using engine = await this.#engines.openFeature(predictor.backbone, { ...this.#options, contextLength });
    const results: { mask: DenseMask; scores: Float32Array }[] = [];
    for (const ids of instructions) {
      const scores = scoreFeature(head, await engine.feature(ids));
      const mask = maskFromScores(scores, { dFfn, tFfn, epsilon: lambda === "soft" ? epsilon : undefined });
      results.push({ mask: toDenseMask(mask), scores });
    }
    return results;
  }

  score(sequences: readonly LabelledSequence[], masks?: readonly DenseMask[]): Promise<SequenceScore[]> {
    return this.#withEngines(sequences, masks, async (engine, { ids, labels }) => {
      const logits = await engine.logits(ids);
      const score = { nll: 0, tokens: 0, correctTokens: 0 };
      labels.forEach((label, t) => {
        if (label < 0) return;
        const row = logits[t]!;
        const max = row.reduce((a, b) => Math.max(a, b), -Infinity);
        score.nll += max + Math.log(row.reduce((sum, logit) => sum + Math.exp(logit - max), 0)) - row[label]!;
        score.tokens++;
        if (row.indexOf(max) === label) score.correctTokens++;
      });
      return score;
    });
  }

  /** As `Evaluator.generate`; the engine has a cache and needs no drafts. */
  generate(prompts: readonly Int32Array[], { masks, maxTokens }: GenerateOptions): Promise<Int32Array[]> {
    const items = prompts.map((ids, i) => ({ ids, max: typeof maxTokens === "number" ? maxTokens : maxTokens[i]! }));
    return this.#withEngines(items, masks, async (engine, { ids, max }) => {
      const answer: number[] = [];
      for await (const id of engine.generate(ids, { maxTokens: max })) answer.push(id);
      return Int32Array.from(answer);
    });
  }

  /** Runs `work` on each item with the sub-network of its mask, one sub-network loaded at a time. */
  async #withEngines<Item, Result>(
    items: readonly Item[],
    masks: readonly DenseMask[] | undefined,
    work: (engine: Engine, item: Item) => Promise<Result>,
  ): Promise<Result[]> {
    const { numLayers, ffnWidth, contextLength } = this.#bundle;
    const groups = new Map<string, number[]>();
    items.forEach((_, i) => {
      const key = masks ? createHash("sha256").update(masks[i]!).digest("hex") : "dense";
      groups.set(key, [...(groups.get(key) ?? []), i]);
    });
    const results = new Array<Result>(items.length);
    for (const members of groups.values()) {
      const mask = masks ? fromDenseMask(masks[members[0]!]!, ffnWidth) : fullMask(numLayers, ffnWidth);
      const { path } = await openSubnetwork(this.#bundle, mask);
      await using engine = await this.#engines.open(path, { ...this.#options, contextLength });
      for (const i of members) results[i] = await work(engine, items[i]!);
    }
    return results;
  }
}
