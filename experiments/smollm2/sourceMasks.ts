/** Masks that a dense model gets without training, for prompts of a comparison. */
import { chooseMask, openMaskSource, type SourceChoice } from "../../src/answer/maskSource.ts";
import type { PromptedModel } from "../../src/answer/promptedModel.ts";
import type { Mask } from "../../src/mask/mask.ts";

/** The mask of each prompt, of `tFfn` channels per layer. @param how `cache`: folder of the scores */
export async function sourceMasks(
  model: PromptedModel,
  prompts: readonly string[],
  choice: SourceChoice,
  { tFfn, cache, threads }: { tFfn: number; cache: string; threads: number },
): Promise<Mask[]> {
  const { ffnWidth } = model.weights.config;
  await using source = await openMaskSource(model, choice, { threads, cache: { root: cache } });
  const masks: Mask[] = [];
  for (const prompt of prompts)
    masks.push((await chooseMask(source, model.format.instruction(prompt), { tFfn, ffnWidth })).mask);
  return masks;
}
