/** From a dense model to a narrower one: the channels that matter most for a task's answers, as an ordinary model of that width. */

import type { Model } from "../formats/huggingface.ts";
import type { Mask } from "../mask/mask.ts";
import { maskFromScores } from "../mask/mask.ts";
import type { SavedModel } from "../train/checkpoint.ts";
import type { SftData } from "../train/data.ts";
import { KeptWeights } from "../train/keptWeights.ts";
import { type PruneOptions, type PruneReport, prune } from "../train/prune.ts";

/** Prompts whose answers importance is taken over and `down` is fitted to, at most. */
export const CUT_PROMPTS = 160;

/**
 * Keeps `tFfn` channels of each layer, free ones: no blocks, one mask for all prompts. `down` makes up, by least squares, for what the others gave.
 *
 * @returns a dense model of that width
 */
export async function cutModel(
  dense: SavedModel,
  data: SftData,
  options: Pick<PruneOptions, "tFfn" | "seed" | "importance" | "threads" | "signal" | "onProgress">,
): Promise<{ model: SavedModel; mask: Mask; report: PruneReport }> {
  const how = { prompts: CUT_PROMPTS, block: 1, masks: 1, reconstruct: true, data: [], spinning: false } as const;
  const { model, report } = await prune(dense, data, { ...how, ...options });
  const scores = model.predictor!.head.get("codebook.weight")!.data; // of one entry
  const mask = maskFromScores(scores, { dFfn: dense.llm.config.ffnWidth, tFfn: options.tFfn });
  const { provenance } = dense.card;
  const card = {
    ...dense.card,
    provenance: { ...provenance, recipe: "specialize", created: new Date().toISOString() },
  };
  return { model: { ...dense, card, llm: keepChannels(model.llm, mask) }, mask, report };
}

/** A mask's channels as a model of their own. @param mask hard */
export function keepChannels({ config, weights }: Model, mask: Mask): Model {
  const kept = new KeptWeights(config, mask.tFfn, weights, () => new Float32Array(mask.tFfn * config.width));
  kept.take(mask);
  return { config: { ...config, ffnWidth: mask.tFfn }, weights: kept.weights };
}
