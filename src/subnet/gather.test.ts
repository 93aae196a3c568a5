import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { anyPredictor, goldenModel, randomMask, temporaryFolder, writeCheckpoint } from "../../test/support/models.ts";
import { OptionError, ShapeError } from "../errors.ts";
import { Bundle, packBundle } from "../formats/bundle.ts";
import { encodeWeights, type WeightType } from "../formats/ggufModel.ts";
import { decodeQ8, fromHalf, toHalf } from "../formats/quantize.ts";
import { fullMask, type Mask } from "../mask/mask.ts";
import { checkBundleMask, ffnTensors, gatherFfn } from "./gather.ts";

// D 32, F 48, L 2
const model = goldenModel("llama");
const { width: D, ffnWidth: F, numLayers: L } = model.config;
const K = 32;

async function bundleOf(type: WeightType): Promise<Bundle> {
  const folder = join(temporaryFolder(), "bundle");
  await packBundle(await writeCheckpoint(temporaryFolder(), model, anyPredictor(model, "soft")), folder, { type });
  return new Bundle(folder);
}

const weights = (layer: number, name: string) =>
  model.weights.get(`model.layers.${layer}.mlp.${name}_proj.weight`)!.data;

/** Kept rows of gate or up, [K, D]. */
const rows = (layer: number, name: string, kept: Int32Array) =>
  Float32Array.from([...kept].flatMap((channel) => [...weights(layer, name).subarray(channel * D, (channel + 1) * D)]));

/** Kept columns of down, [D, K]. */
const columns = (layer: number, kept: Int32Array) =>
  Float32Array.from({ length: D * K }, (_, i) => weights(layer, "down")[Math.floor(i / K) * F + kept[i % K]!]!);

describe.each(["F32", "F16", "Q8_0"] as const)("%s", (type) => {
  test.each(["hard", "soft"] as const)("gate and up are the model's rows, λ folded into up (%s mask)", async (kind) => {
    using bundle = await bundleOf(type);
    const mask = randomMask(L, F, K, kind, 5);
    const parts = [...gatherFfn(bundle, mask)];
    for (const [layer, kept] of mask.layers.entries()) {
      expect(parts[3 * layer]).toEqual(encodeWeights(rows(layer, "gate", kept), type));
      expect(parts[3 * layer + 1]).toEqual(
        fold(encodeWeights(rows(layer, "up", kept), type), mask.lambda?.[layer], type),
      );
    }
  });

  test("the parts have the sizes of their tensors, and only kept channels were read", async () => {
    using bundle = await bundleOf(type);
    const read = vi.spyOn(bundle.ffn, "readInto");
    const parts = [...gatherFfn(bundle, randomMask(L, F, K, "hard", 6))];
    const bytesRead = read.mock.calls.reduce((sum, [target]) => sum + target.length, 0);
    expect(parts.length).toBe(ffnTensors(bundle, K).length);
    expect(bytesRead).toBeLessThanOrEqual(parts.reduce((sum, part) => sum + part.length, 0));
  });
});

/** λ_i times row i of encoded rows: each value, or each block's scale, rounded to the type. */
function fold(encoded: Uint8Array, lambda: Float32Array | undefined, type: WeightType): Uint8Array {
  const view = new DataView(encoded.slice().buffer);
  const step = { F32: 4, F16: 2, Q8_0: 34 }[type];
  for (let at = 0; at < view.byteLength; at += step) {
    const factor = lambda?.[Math.floor((at * K) / view.byteLength)] ?? 1;
    if (type === "F32") view.setFloat32(at, view.getFloat32(at, true) * factor, true);
    else view.setUint16(at, toHalf(fromHalf(view.getUint16(at, true)) * factor), true);
  }
  return new Uint8Array(view.buffer);
}

test.each(["F32", "F16"] as const)("%s: down is the model's columns, transposed", async (type) => {
  using bundle = await bundleOf(type);
  const mask = randomMask(L, F, K, "soft", 7);
  const parts = [...gatherFfn(bundle, mask)];
  for (const [layer, kept] of mask.layers.entries())
    expect(parts[3 * layer + 2]).toEqual(encodeWeights(columns(layer, kept), type));
});

test("Q8_0: down is within half a step of its row's scale, max|row| / 127 rounded up to half precision", async () => {
  using bundle = await bundleOf("Q8_0");
  const mask = randomMask(L, F, K, "soft", 8);
  const parts = [...gatherFfn(bundle, mask)];
  for (const [layer, kept] of mask.layers.entries()) {
    const down = decodeQ8(parts[3 * layer + 2]!);
    for (const [i, value] of columns(layer, kept).entries()) {
      const output = Math.floor(i / K);
      const largest = Math.max(
        ...weights(layer, "down")
          .subarray(output * F, (output + 1) * F)
          .map(Math.abs),
      );
      expect(Math.abs(down[i]! - value)).toBeLessThanOrEqual((largest / 254) * (1 + 2 ** -10) + 1e-7);
    }
  }
});

test("a mask that does not fit is refused", async () => {
  using bundle = await bundleOf("Q8_0");
  const mask = randomMask(L, F, K, "soft", 9);
  const refuse = (changes: Partial<Mask>) => expect(() => checkBundleMask(bundle, { ...mask, ...changes }));
  checkBundleMask(bundle, mask);
  refuse({ layers: mask.layers.slice(1), lambda: undefined }).toThrow(ShapeError);
  refuse({ ...fullMask(L, F + 1), lambda: undefined }).toThrow(ShapeError);
  refuse({ layers: mask.layers.map((kept) => kept.toReversed()) }).toThrow(OptionError);
  refuse({ lambda: mask.lambda!.map((row) => row.map(() => 1.5)) }).toThrow(OptionError);
  refuse({ ...fullMask(L, F), lambda: undefined }).toThrow(/Q8_0 wants t_ffn in multiples of 32, got 48/);
});
