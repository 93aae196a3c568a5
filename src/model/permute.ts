/** Another order of a model's FFN channels: the same model, as the sum over channels does not depend on their order. */
import { ShapeError } from "../errors.ts";
import type { Weights } from "./config.ts";

/**
 * A model whose channel `place` of a layer is the channel `order[layer][place]` of the given one: rows of gate and up, columns of down. Its logits are the
 * same but for rounding, and a mask of its places keeps the channels that stood there.
 *
 * Memory: the FFN once more; all other arrays are shared.
 *
 * @param order per layer, every channel once, [L][F]
 * @throws {ShapeError} if the order is not one of this model's channels
 */
export function permuteChannels(weights: Weights, order: readonly Int32Array[]): Weights {
  const permuted = new Map(weights);
  const numLayers = [...weights.keys()].filter((name) => name.endsWith("mlp.down_proj.weight")).length;
  if (order.length !== numLayers)
    throw new ShapeError("permuteChannels", `an order of ${numLayers} layers`, [order.length]);
  for (const [layer, channels] of order.entries()) {
    const at = (matrix: string) => `model.layers.${layer}.mlp.${matrix}_proj.weight`;
    const [D, F] = weights.get(at("down"))!.shape as [number, number];
    if (channels.length !== F || channels.toSorted().some((channel, i) => channel !== i))
      throw new ShapeError("permuteChannels", `each of the ${F} channels of layer ${layer} once`, [...channels]);
    for (const matrix of ["gate", "up"]) {
      const { shape, data } = weights.get(at(matrix))!;
      const rows = new Float32Array(data.length);
      for (const [place, channel] of channels.entries())
        rows.set(data.subarray(channel * D, (channel + 1) * D), place * D);
      permuted.set(at(matrix), { shape, data: rows });
    }
    const { shape, data } = weights.get(at("down"))!;
    const columns = new Float32Array(data.length);
    for (let row = 0; row < data.length; row += F) {
      for (const [place, channel] of channels.entries()) columns[row + place] = data[row + channel]!;
    }
    permuted.set(at("down"), { shape, data: columns });
  }
  return permuted;
}
