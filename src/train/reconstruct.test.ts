import { expect, test } from "vitest";
import { forward, matVec } from "../../test/reference/decoder.ts";
import { difference, integers, quiet } from "../../test/support/graphs.ts";
import { randomModel } from "../../test/support/models.ts";
import type { Model } from "../formats/huggingface.ts";
import { randomMask } from "../mask/baselines.ts";
import { fullMask, type Mask, toDenseMask } from "../mask/mask.ts";
import { reconstructDown } from "./reconstruct.ts";

const model = randomModel({ family: "llama" }, 3);
const { numLayers: L, ffnWidth: F, width: D, vocabSize: V } = model.config;
const nameOf = (layer: number) => `model.layers.${layer}.mlp.down_proj.weight`;
const maskOf = (label: string, tFfn = F >> 1) => randomMask({ numLayers: L, dFfn: F, tFfn }, 1, label);
const sequencesOf = (numMasks: number) =>
  Array.from({ length: 6 }, (_, i) => ({ ids: integers(`tokens ${i}`, 40 - i, V), mask: i % numMasks }));

/** Activations under masks and the dense output of every token of a layer, in float64. */
function tokensOf(model: Model, layer: number, sequences: ReturnType<typeof sequencesOf>, masks: readonly Mask[]) {
  const dense = masks.map(toDenseMask);
  return sequences.flatMap(({ ids, mask }) =>
    forward(model, ids).activations[layer]!.map((u) => ({
      kept: u.map((value, channel) => value * dense[mask]![layer * F + channel]!),
      output: matVec(model.weights.get(nameOf(layer))!.data, u),
    })),
  );
}

/** Length of the error over that of the outputs, mean over layers. */
function errorOf(down: (layer: number) => Float32Array, ...how: [ReturnType<typeof sequencesOf>, readonly Mask[]]) {
  const ofLayers = Array.from({ length: L }, (_, layer) => {
    const squares = tokensOf(model, layer, ...how).map(({ kept, output }) => {
      const found = matVec(down(layer), kept);
      return [output.reduce((sum, y, d) => sum + (y - found[d]!) ** 2, 0), output.reduce((sum, y) => sum + y * y, 0)];
    });
    const [error, size] = squares.reduce(([a, b], [c, d]) => [a! + c!, b! + d!]);
    return Math.sqrt(error! / size!);
  });
  return ofLayers.reduce((sum, value) => sum + value, 0) / L;
}

/** Solves A x = b by Gauss' elimination with pivots. */
function eliminate(a: number[][], b: number[]): number[] {
  const rows = a.map((row, i) => [...row, b[i]!]);
  const n = rows.length;
  for (let column = 0; column < n; column++) {
    const rest = rows.slice(column);
    const pivot = rest.reduce(
      (best, row, i) => (Math.abs(row[column]!) > Math.abs(rest[best]![column]!) ? i : best),
      0,
    );
    [rows[column], rows[column + pivot]] = [rows[column + pivot]!, rows[column]!];
    for (let i = 0; i < n; i++) {
      if (i === column) continue;
      const factor = rows[i]![column]! / rows[column]![column]!;
      rows[i] = rows[i]!.map((value, j) => value - factor * rows[column]![j]!);
    }
  }
  return rows.map((row, i) => row[n]! / row[i]!);
}

test("of one mask it is plain least squares on the kept channels, and leaves the others", async () => {
  const masks = [maskOf("one")];
  const sequences = sequencesOf(1);
  const { weights } = await reconstructDown(model, sequences, masks, quiet);
  for (let layer = 0; layer < L; layer++) {
    const before = model.weights.get(nameOf(layer))!.data;
    const after = weights.get(nameOf(layer))!.data;
    const channels = [...masks[0]!.layers[layer]!];
    const tokens = tokensOf(model, layer, sequences, masks);
    const sum = (f: (token: (typeof tokens)[number]) => number) => tokens.reduce((all, token) => all + f(token), 0);
    const gram = channels.map((i) => channels.map((j) => sum(({ kept }) => kept[i]! * kept[j]!)));
    const ridge = (0.2 * gram.reduce((all, row, i) => all + row[i]!, 0)) / tokens.length;
    const held = gram.map((row, i) => row.map((value, j) => value + (i === j ? ridge : 0)));
    for (let d = 0; d < D; d += 5) {
      const row = before.subarray(d * F, (d + 1) * F);
      const target = channels.map((i) => sum(({ kept, output }) => kept[i]! * output[d]!) + ridge * row[i]!);
      const wanted = row.slice();
      for (const [i, value] of eliminate(held, target).entries()) wanted[channels[i]!] = value;
      expect(difference(after.subarray(d * F, (d + 1) * F), wanted)).toBeLessThan(1e-3);
      for (let channel = 0; channel < F; channel++)
        if (!channels.includes(channel)) expect(after[d * F + channel]).toBe(row[channel]);
    }
  }
});

test.each([1, 2, 3])(
  "under %i masks outputs come closer to the dense model's, by as much as it says",
  async (count) => {
    const masks = ["a", "b", "c"].slice(0, count).map((label) => maskOf(label));
    const sequences = sequencesOf(count);
    const { weights, error } = await reconstructDown(model, sequences, masks, quiet);
    const of = (some: typeof weights) => errorOf((layer) => some.get(nameOf(layer))!.data, sequences, masks);
    expect(error.before).toBeCloseTo(of(model.weights), 4);
    expect(error.after).toBeCloseTo(of(weights), 4);
    expect(error.after).toBeLessThan(0.9 * error.before);
    for (const [name, weight] of weights) if (!name.includes("down_proj")) expect(weight).toBe(model.weights.get(name)); // shared, not copied
  },
);

test("fewer tokens than channels, and channels that are silent, are fitted too", async () => {
  const silent = new Map(model.weights);
  for (let layer = 0; layer < L; layer++) {
    const name = `model.layers.${layer}.mlp.up_proj.weight`;
    silent.set(name, {
      shape: [F, D],
      data: model.weights
        .get(name)!
        .data.slice()
        .fill(0, 0, layer === 0 ? F * D : D),
    });
  }
  const few = [{ ids: Int32Array.of(5, 6), mask: 0 }];
  const { weights, error } = await reconstructDown({ ...model, weights: silent }, few, [maskOf("one")], quiet);
  expect(weights.get(nameOf(0))).toEqual(model.weights.get(nameOf(0))); // nothing to go by
  expect(weights.get(nameOf(1))!.data.every(Number.isFinite)).toBe(true);
  expect(error.after).toBeLessThan(error.before);
});

test("a model whose masks keep everything stays as it is, bit for bit", async () => {
  const { weights, error } = await reconstructDown(model, sequencesOf(1), [fullMask(L, F)], quiet);
  expect(weights).toEqual(model.weights);
  expect(error).toEqual({ before: 0, after: 0 });
});
