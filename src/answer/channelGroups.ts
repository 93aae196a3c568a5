/**
 * Blocks of channels of a model that was not trained in blocks: those that matter for the same prompts come together. No data is needed: the model
 * answers some plain prompts, and what each channel contributes to each of them is its profile.
 */

import { keptChannels } from "../bundle/budget.ts";
import type { CacheOptions } from "../bundle/cacheEntries.ts";
import { type ChannelOrder, checkBlock, groupChannels, keptImportance, storedOrder } from "../mask/blocks.ts";
import { fullMask } from "../mask/mask.ts";
import type { InstructionModel } from "./instructionModel.ts";
import { ANSWER_TOKENS, PLAIN_PROMPTS } from "./measure.ts";
import { OneEngine } from "./oneEngine.ts";

export interface GroupOptions {
  threads?: number | undefined;
  /** Of the dense model. */
  cache?: CacheOptions | undefined;
  signal?: AbortSignal | undefined;
  /** Prompts done, and all. */
  onProgress?: ((done: number, total: number) => void) | undefined;
}

/** An order of channels, and what it is worth. */
export interface ChannelGroups {
  order: ChannelOrder;
  /**
   * Shares of what contributes to a prompt that its best half of the channels keeps, mean over prompts: each channel by itself, in blocks as they were
   * stored, in those that were found.
   */
  kept: { free: number; stored: number; grouped: number };
}

/**
 * @throws {OptionError} if blocks do not divide the channels
 * @throws {DependencyError} without ONNX Runtime
 * @throws {MemoryError} if the dense model does not fit into memory
 */
export async function findChannelGroups(
  model: InstructionModel,
  block: number,
  { threads, cache, signal, onProgress }: GroupOptions = {},
): Promise<ChannelGroups> {
  const { numLayers, ffnWidth: dFfn, contextLength: longest } = model.bundle;
  checkBlock("groupChannels", dFfn, block); // early, as answers come first
  const { contributionScores } = await import("../net/activations.ts"); // ONNX Runtime
  const prompts = PLAIN_PROMPTS.map((prompt) => model.format.instruction(prompt).ids);
  const contextLength = Math.min(longest, Math.max(...prompts.map(({ length }) => length)) + ANSWER_TOKENS + 1);
  await using engines = new OneEngine(model, contextLength, 1, { threads, signal, cache });
  const dense = await engines.of("dense", fullMask(numLayers, dFfn));
  const profiles: Float32Array[] = [];
  for (const [i, prompt] of prompts.entries()) {
    const ids = [...prompt];
    for await (const id of dense.generate(prompt, { maxTokens: ANSWER_TOKENS, signal })) ids.push(id);
    // The first token's activations are like no other's.
    const windows = [{ ids: Int32Array.from(ids), skipped: 1 }];
    profiles.push(await contributionScores(model.weights, windows, { threads, spinning: false, signal }));
    onProgress?.(i + 1, prompts.length);
  }
  const order = groupChannels(profiles, { dFfn, block });
  const tFfn = keptChannels(0.5, dFfn, block);
  const share = (of: ChannelOrder, size: number) =>
    profiles.reduce((sum, profile) => sum + keptImportance(profile, of, { block: size, tFfn }), 0) / profiles.length;
  const stored = storedOrder(numLayers, dFfn);
  return { order, kept: { free: share(stored, 1), stored: share(stored, block), grouped: share(order, block) } };
}
