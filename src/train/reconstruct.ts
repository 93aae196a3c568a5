/**
 * Reconstruction before any training: of each layer's FFN a new `down`, with which the channels that masks keep give, as well as they can, what all channels
 * gave. Least squares in closed form: one `down` for all masks, each over its own tokens.
 *
 * Shapes: L layers · D model width · F FFN channels · A channels that some mask keeps
 */
import { type DenseMask, type Mask, toDenseMask } from "../mask/mask.ts";
import type { ModelConfig, Weights } from "../model/config.ts";
import { inMemory } from "../model/source.ts";
import type { LayerOptions } from "../net/layerByLayer.ts";
import { type NormalEquations, normalEquations } from "../net/normalEquations.ts";
import { choleskySolve } from "./cholesky.ts";

/** Length of the error of the FFN's outputs over that of the outputs, on the tokens that were fitted: mean over layers. */
export interface ReconstructionError {
  before: number;
  after: number;
}

/**
 * What holds weights to those they had: this share of the mean of ‖m⊙u‖² over the tokens, so that it says the less the more of them there are. Where it is weaker, `down` is fitted to its tokens
 * rather than to their kind: with a hundredth of it held-out answers lost up to four times as much (docs/log.md, 2026-11-30, "least squares that hold on").
 */
const RIDGE = 0.2;

/**
 * Minimises Σ over tokens of ‖W(m⊙u) − down·u‖² + ridge·‖W − down‖² in every layer: u are the dense model's activations, m the mask of the token's sequence. The
 * penalty is on the change, so that W is never worse than `down` on these tokens, and is `down` where every mask keeps everything. Columns of channels that
 * no mask keeps stay.
 *
 * Layers are fitted apart, each to the dense model's activations: errors of layers before it are not made up for.
 *
 * Memory: as {@link normalEquations}, 8·A·(A + D) bytes, and `down` of all layers once more; other arrays are shared.
 *
 * @param sequences token ids, and which of the masks they are under
 * @param masks hard, one at least
 */
export async function reconstructDown(
  { config, weights }: { config: ModelConfig; weights: Weights },
  sequences: readonly { ids: Int32Array; mask: number }[],
  masks: readonly Mask[],
  options: LayerOptions = {},
): Promise<{ weights: Weights; error: ReconstructionError }> {
  const { numLayers: L, ffnWidth: F, width: D } = config;
  const dense = masks.map(toDenseMask);
  const tokens = sequences.reduce((sum, { ids }) => sum + ids.length, 0);
  const reconstructed = new Map(weights);
  const error = { before: 0, after: 0 };
  const visit = (layer: number, equations: NormalEquations, down: Float32Array) => {
    const { missing, output } = equations;
    const { changed, removed } = fittedDown(equations, down, keptBySome(dense, layer, F), tokens);
    reconstructed.set(`model.layers.${layer}.mlp.down_proj.weight`, { shape: [D, F], data: changed });
    error.before += Math.sqrt(missing / (output || 1)) / L;
    error.after += Math.sqrt(Math.max(0, missing - removed) / (output || 1)) / L;
  };
  await normalEquations(inMemory("reconstruction", { config, weights }), sequences, dense, visit, options);
  return { weights: reconstructed, error };
}

/** Channels of a layer that at least one mask keeps, [A]. */
function keptBySome(masks: readonly DenseMask[], layer: number, F: number): Int32Array {
  const channels = Int32Array.from({ length: F }, (_, channel) => channel);
  return channels.filter((channel) => masks.some((mask) => mask[layer * F + channel]! > 0));
}

/** A layer's `down` [D, F] with the change Δ that (gram + ridge)·Δᵀ = crossᵀ asks for, and by how much that lowers Σ of squared errors. */
function fittedDown(
  { gram, cross }: NormalEquations,
  down: Float32Array,
  channels: Int32Array,
  tokens: number,
): { changed: Float32Array; removed: number } {
  const A = channels.length;
  const F = Math.sqrt(gram.length);
  const D = down.length / F;
  const squares = channels.reduce((sum, channel) => sum + gram[channel * F + channel]!, 0);
  const ridge = (RIDGE * squares) / tokens || 1;
  const matrix = new Float64Array(A * A);
  const delta = new Float64Array(A * D);
  for (const [i, channel] of channels.entries()) {
    for (let j = 0; j <= i; j++) matrix[i * A + j] = gram[channel * F + channels[j]!]!;
    matrix[i * A + i]! += ridge;
    for (let d = 0; d < D; d++) delta[i * D + d] = cross[d * F + channel]!;
  }
  choleskySolve(matrix, delta, A);
  const changed = down.slice();
  let removed = 0; // 2⟨Δ, cross⟩ − ⟨Δ gram, Δ⟩, where Δ gram = cross − ridge·Δ
  for (const [i, channel] of channels.entries()) {
    for (let d = 0; d < D; d++) {
      const change = delta[i * D + d]!;
      changed[d * F + channel]! += change;
      removed += change * (cross[d * F + channel]! + ridge * change);
    }
  }
  return { changed, removed };
}
