/** From a dense model to a narrower one: the channels that matter most for a task's answers, as an ordinary model of that width. */

import type { Model } from "../formats/huggingface.ts";
import type { Mask } from "../mask/mask.ts";
import { maskFromScores } from "../mask/mask.ts";
import type { SavedModel } from "../train/checkpoint.ts";
import type { SftData } from "../train/data.ts";
import { KeptWeights } from "../train/keptWeights.ts";
import { type PruneOptions, prune } from "../train/prune.ts";
import type { ReconstructionError } from "../train/reconstruct.ts";

/** Prompts whose answers importance is taken over and `down` is fitted to, at most. */
export const CUT_PROMPTS = 160;

/** How a model is cut. */
export type CutOptions = Pick<PruneOptions, "tFfn" | "seed" | "importance" | "threads" | "signal" | "onProgress"> & {
  /** Default: true. */
  reconstruct?: boolean;
};

/** What a cut gives: a dense model of that width, and what least squares did where there were any. */
export interface CutModel {
  model: SavedModel;
  reconstruction?: ReconstructionError | undefined;
}

/**
 * Keeps `tFfn` channels of each layer, free ones: no blocks, one mask for all prompts. `down` makes up, by least squares, for what the others gave, unless told not to.
 */
export async function cutModel(dense: SavedModel, data: SftData, options: CutOptions): Promise<CutModel> {
  const how = { prompts: CUT_PROMPTS, block: 1, masks: 1, reconstruct: true, data: [], spinning: false } as const;
  const { model, report } = await prune(dense, data, { ...how, ...options });
  const scores = model.predictor!.head.get("codebook.weight")!.data; // of one entry
  const mask = maskFromScores(scores, { dFfn: dense.llm.config.ffnWidth, tFfn: options.tFfn });
  return { model: narrowed(dense, model.llm, mask), reconstruction: report.reconstruction };
}

/** A model with these weights' channels that a mask keeps. @param mask hard */
export function narrowed(dense: SavedModel, llm: Model, mask: Mask): SavedModel {
  const { provenance } = dense.card;
  const created = new Date().toISOString();
  const card = { ...dense.card, provenance: { ...provenance, recipe: "specialize", created } };
  return { ...dense, card, llm: keepChannels(llm, mask) };
}

/** A mask's channels as a model of their own. @param mask hard */
export function keepChannels({ config, weights }: Model, mask: Mask): Model {
  const kept = new KeptWeights(config, mask.tFfn, weights, () => new Float32Array(mask.tFfn * config.width));
  kept.take(mask);
  return { config: { ...config, ffnWidth: mask.tFfn }, weights: kept.weights };
}
