/**
 * What the FFN channels of a dense model do with tokens, for models larger than memory.
 *
 * Shapes: T tokens of a window · D model width · L layers · F FFN channels
 */
import type { Tensor } from "../graph/graph.ts";
import * as n from "../graph/nodes.ts";
import { columnNorms } from "../mask/baselines.ts";
import type { ModelSource } from "../model/source.ts";
import { type LayerOptions, layerByLayer } from "./layerByLayer.ts";
import { activations, griffinShares } from "./statistics.ts";

/** Token ids that are read together, the first `skipped` of them (BOS, what is before the user's text) without being counted. */
export interface Window {
  ids: Int32Array;
  skipped: number;
}

/**
 * GRIFFIN's score of every channel for a prompt: each token's activations are normalised to length 1, and a channel scores the L2 norm of its
 * activations over the tokens.
 *
 * @param windows of the prompt, in whole or in parts that do not see each other
 * @returns [L·F]
 * @throws {InputError} if an id is not of the model's vocabulary
 * @throws {FileError} if the model is damaged
 * @see Dong, Chen & Chi 2024, arXiv:2404.01365
 */
export async function griffinScores(
  model: ModelSource,
  windows: readonly Window[],
  options: LayerOptions = {},
): Promise<Float32Array> {
  const sums = await sumOverTokens(model, windows, griffinShares, options);
  return Float32Array.from(sums, Math.sqrt);
}

/**
 * What every channel contributes on average over tokens: mean |activation| × L2 norm of its down column.
 *
 * Parameters and errors as in {@link griffinScores}
 *
 * @returns [L·F]
 */
export async function contributionScores(
  model: ModelSource,
  windows: readonly Window[],
  options: LayerOptions = {},
): Promise<Float32Array> {
  const F = model.config.ffnWidth;
  const sums = await sumOverTokens(model, windows, n.abs, options, (layerSums, down) => {
    for (const [channel, norm] of columnNorms(down, F).entries()) layerSums[channel]! *= norm;
  });
  const count = windows.reduce((sum, { ids, skipped }) => sum + ids.length - skipped, 0);
  return Float32Array.from(sums, (sum) => sum / count);
}

/**
 * Sums a statistic of activations over the counted tokens of all windows.
 *
 * @param statistic of the activations of tokens [T, F], of each alone
 * @param finish changes a layer's sums [F] in place, given the layer's `down` [D, F]
 * @returns [L·F]
 */
async function sumOverTokens(
  model: ModelSource,
  windows: readonly Window[],
  statistic: (activations: Tensor) => Tensor,
  options: LayerOptions,
  finish?: (sums: Float64Array, down: Float32Array) => void,
): Promise<Float64Array> {
  const { numLayers: L, ffnWidth: F } = model.config;
  const T = Math.max(...windows.map(({ ids }) => ids.length)); // one graph for all: shorter ones are padded
  const counted = windows.map(({ ids, skipped }) => new Float32Array(T).fill(1, skipped, ids.length));
  const all = new Float64Array(L * F);
  const ofLayer = (layer: number) => all.subarray(layer * F, (layer + 1) * F);
  await layerByLayer(
    model,
    windows.map(({ ids }) => ({ rows: [ids], B: 1, T })),
    {
      observe(graph, _, input, ffn) {
        const weights = n.reshape(graph.input("counted", [T]), [1, T]); // 1 for tokens that count, else 0
        graph.output("sums", n.reshape(n.matmul(weights, statistic(activations(input, ffn))), [F]));
      },
      feeds: (_, window) => ({ counted: counted[window]! }),
      take(layer, { sums }) {
        const own = ofLayer(layer);
        for (let channel = 0; channel < F; channel++) own[channel]! += sums![channel]!;
      },
      finish: (layer, down) => finish?.(ofLayer(layer), down),
    },
    options,
  );
  return all;
}
