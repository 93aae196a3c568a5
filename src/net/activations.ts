/**
 * What the FFN channels of a dense model do with tokens, for models larger than memory: the model runs layer by layer, one layer's weights in
 * float32 at a time, with the hidden states of all tokens kept between layers.
 *
 * Shapes: T tokens of a window · D model width · L layers · F FFN channels
 */

import { InputError } from "../errors.ts";
import { Graph, type Tensor } from "../graph/graph.ts";
import * as n from "../graph/nodes.ts";
import { SessionCache, type SessionOptions } from "../graph/session.ts";
import { columnNorms } from "../mask/baselines.ts";
import { type ModelConfig, parameterShapes } from "../model/config.ts";
import { isLocalLayer } from "../model/families.ts";
import type { ModelSource } from "../model/source.ts";
import { decoderLayer, scaleEmbedding } from "./decoder.ts";
import { activations, griffinShares } from "./statistics.ts";

/** Token ids that are read together, the first `skipped` of them (BOS) without being counted. */
export interface Window {
  ids: Int32Array;
  skipped: number;
}

export interface ActivationOptions extends SessionOptions {
  /** Stops between two windows of a layer. */
  signal?: AbortSignal | undefined;
  /** Windows run through a layer, and all of them. */
  onProgress?: ((done: number, total: number) => void) | undefined;
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
  options: ActivationOptions = {},
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
  options: ActivationOptions = {},
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
  { signal, onProgress, ...sessionOptions }: ActivationOptions,
  finish?: (sums: Float64Array, down: Float32Array) => void,
): Promise<Float64Array> {
  const { config } = model;
  const { numLayers: L, ffnWidth: F, width: D } = config;
  const T = Math.max(...windows.map(({ ids }) => ids.length)); // shorter ones are padded: causal attention keeps padding from text
  const names = layerParameters(config);
  const hidden = windows.map(({ ids }) => embed(model, ids, T)); // [T, D] each
  const counted = windows.map(({ ids, skipped }) => new Float32Array(T).fill(1, skipped, ids.length));
  let spare: Float32Array = new Float32Array(T * D);
  const sums = new Float64Array(L * F);
  const sessions = new SessionCache(sessionOptions);
  try {
    for (let layer = 0; layer < L; layer++) {
      signal?.throwIfAborted();
      const session = await sessions.get(layerKind(config, layer), () => layerGraph(config, layer, T, statistic));
      const weights = Object.fromEntries(names.map((name) => [name, model.read(`model.layers.${layer}.${name}`).data]));
      const own = sums.subarray(layer * F, (layer + 1) * F);
      for (const [i, x] of hidden.entries()) {
        signal?.throwIfAborted();
        const feeds = { ...weights, x, counted: counted[i]! };
        const result = (await session.run(feeds, { y: spare })) as { sums: Float32Array };
        [hidden[i], spare] = [spare, x];
        for (let channel = 0; channel < F; channel++) own[channel]! += result.sums[channel]!;
        onProgress?.(layer * windows.length + i + 1, L * windows.length);
      }
      finish?.(own, weights["mlp.down_proj.weight"]!);
    }
  } finally {
    await sessions.release();
  }
  return sums;
}

/** Names of a layer's parameters, without `model.layers.N.`; the same for all layers. */
function layerParameters(config: ModelConfig): string[] {
  const prefix = "model.layers.0.";
  return [...parameterShapes(config).keys()].flatMap((name) =>
    name.startsWith(prefix) ? [name.slice(prefix.length)] : [],
  );
}

/** Layers of a kind are the same graph. */
function layerKind(config: ModelConfig, layer: number): string {
  return `${layer === 0 ? "first" : "later"} ${isLocalLayer(config, layer) ? "local" : "global"}`;
}

/**
 * Inputs: a layer's parameters, `x` [T, D] (in the first layer rows of the embedding), `counted` [T], 1 for tokens that count, else 0.
 * Outputs: `y` [T, D], `sums` [F], the statistic summed over counted tokens.
 */
function layerGraph(config: ModelConfig, layer: number, T: number, statistic: (activations: Tensor) => Tensor): Graph {
  const { width: D, ffnWidth: F } = config;
  const graph = new Graph(`layer ${layerKind(config, layer)} T=${T}`);
  const shapes = parameterShapes(config);
  const inputs = new Map(
    layerParameters(config).map((name) => [name, graph.input(name, shapes.get(`model.layers.0.${name}`)!)]),
  );
  const x = graph.input("x", [T, D]);
  const counted = n.reshape(graph.input("counted", [T]), [1, T]);
  const first = layer === 0 ? scaleEmbedding(config, x) : x;
  const y = decoderLayer(
    config,
    layer,
    (name) => inputs.get(name)!,
    first,
    { B: 1, T },
    undefined,
    (input, ffn) => {
      graph.output("sums", n.reshape(n.matmul(counted, statistic(activations(input, ffn))), [F]));
    },
  );
  graph.output("y", y);
  return graph;
}

/** Rows of the embedding for a window, [T, D], zeros after its end. */
function embed(model: ModelSource, ids: Int32Array, T: number): Float32Array {
  const { width: D, vocabSize: V } = model.config;
  const rows = new Float32Array(T * D);
  for (const [t, id] of ids.entries()) {
    if (id < 0 || id >= V)
      throw new InputError(`activations: wanted token ids below ${V}, got ${id}. Is the tokenizer the model's?`);
    rows.set(model.read("model.embed_tokens.weight", { from: id, to: id + 1 }).data, t * D);
  }
  return rows;
}
