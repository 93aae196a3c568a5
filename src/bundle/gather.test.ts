import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import {
  anyPredictor,
  goldenModel,
  randomMask,
  randomNumbers,
  temporaryFolder,
  writeCheckpoint,
} from "../../test/support/models.ts";
import { OptionError, ShapeError } from "../errors.ts";
import { GgufFile, writeGguf } from "../formats/gguf.ts";
import {
  type BlockType,
  blockTypes,
  decodeBlocks,
  encodeWeights,
  rowBytes,
  scaleBlocks,
  type WeightType,
} from "../formats/quantize.ts";
import { fullMask, type Mask } from "../mask/mask.ts";
import { Bundle } from "./bundle.ts";
import { type ChannelTypes, channelLayout, channelTensors, columnBytes, layerData } from "./channels.ts";
import { sumFile } from "./fletcher.ts";
import { type ChannelStore, checkBundleMask, ffnTensors, gatherFfn, writeFfn } from "./gather.ts";
import { packBundle } from "./packBundle.ts";

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
  test("gate and up are the model's rows", async () => {
    using bundle = await bundleOf(type);
    const mask = randomMask(L, F, K, "hard", 5);
    const parts = [...gatherFfn(bundle, mask)];
    for (const [layer, kept] of mask.layers.entries()) {
      expect(parts[3 * layer]).toEqual(encodeWeights(rows(layer, "gate", kept), type));
      expect(parts[3 * layer + 1]).toEqual(encodeWeights(rows(layer, "up", kept), type));
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
    const down = decodeBlocks(parts[3 * layer + 2]!, "Q8_0");
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

const rowTypes: BlockType[] = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K"];
const columnTypes: ChannelTypes["down"][] = ["F32", "F16", "BF16", "Q8_0"];

/** Layers of random finite weights, some stored in blocks, under a random mask, of whole blocks or not, with runs of neighbours; K is beyond what is read at a time in some. */
const gathers = fc
  .record({
    layers: fc.array(
      fc.record({
        gate: fc.constantFrom(...rowTypes),
        up: fc.constantFrom(...rowTypes),
        down: fc.constantFrom(...columnTypes),
      }),
      { minLength: 1, maxLength: 3 },
    ),
    units: fc.integer({ min: 1, max: 2 }),
    K: fc.integer({ min: 1, max: 130 }),
    block: fc.constantFrom(1, 32, 96),
    whole: fc.boolean(),
    dropped: fc.integer({ min: 0, max: 40 }),
    soft: fc.boolean(),
    seed: fc.integer(),
  })
  .map(({ layers, units, K, block, whole, dropped, soft, seed }) => {
    const elements = Math.max(...layers.flatMap(({ gate, up }) => [gate, up]).map((type) => blockTypes[type].elements));
    const D = elements === 1 ? 7 * units : elements * units;
    const step = Math.max(whole ? block : 1, layers.some(({ down }) => down === "Q8_0") ? 32 : 1);
    const kept = Math.ceil(K / step) * step;
    const F = Math.ceil((kept + dropped) / block) * block;
    const group = whole ? block : 1;
    const mask = randomMask(layers.length, F / group, kept / group, "hard", seed);
    const channels = mask.layers.map((groups) =>
      Int32Array.from({ length: kept }, (_, i) => groups[Math.floor(i / group)]! * group + (i % group)),
    );
    const lambda = soft ? channels.map((row) => Float32Array.from(row, (_, i) => 1 / (1 + i))) : undefined;
    return { layers, D, block, mask: { tFfn: kept, dFfn: F, layers: channels, lambda } };
  });

/** A file of random channels, and their bytes by layer: records, then the scales of down. */
async function randomChannels(layers: readonly ChannelTypes[], D: number, F: number, seed: number, block = 1) {
  const random = randomNumbers(seed);
  const path = join(temporaryFolder(), "ffn.gguf");
  const finite = (type: BlockType, count: number) => {
    const values = Float32Array.from({ length: count * blockTypes[type].elements }, () => 2 * random() - 1);
    if (type === "Q4_K")
      return Uint8Array.from({ length: count * 144 }, (_, i) =>
        i % 144 === 1 || i % 144 === 3 ? 0x2c : random() * 256,
      );
    return encodeWeights(values, type as WeightType);
  };
  const layouts = layers.map((types) => channelLayout(types, D, block));
  const bytes = layouts.map(({ gate, up, down }) => ({
    gate: Array.from({ length: F }, () => finite(gate, D / blockTypes[gate].elements)),
    up: Array.from({ length: F }, () => finite(up, D / blockTypes[up].elements)),
    down: Array.from({ length: F }, () =>
      down === "Q8_0" ? Uint8Array.from({ length: D }, () => random() * 256) : finite(down, D),
    ),
    scales: Uint16Array.from({ length: D }, () => 0x1000 + random() * 0x1000),
  }));
  await writeGguf(
    path,
    new Map(),
    channelTensors(layouts, D, F, block),
    bytes.flatMap(({ gate, up, down, scales }, layer) => {
      const records = Buffer.concat(gate.flatMap((row, channel) => [row, up[channel]!, down[channel]!]));
      return [...layerData(records, layouts[layer]!, D, layouts[layer]!.down === "Q8_0" ? scales : undefined)];
    }),
  );
  const ffn = new GgufFile(path);
  const store: ChannelStore = {
    width: D,
    ffnWidth: F,
    numLayers: layers.length,
    layouts,
    ffn,
    downScales: (layer) => bytes[layer]!.scales,
  };
  return { store, bytes };
}

test("every type, width and mask gives what the plain form gives", async () => {
  await fc.assert(
    fc.asyncProperty(gathers, fc.integer(), async ({ layers, D, block, mask }, seed) => {
      const { store, bytes } = await randomChannels(layers, D, mask.dFfn, seed, block);
      using _ = store.ffn;
      const wanted = layers.flatMap(({ up: type, down: columnType }, layer) => {
        const { gate, up, down, scales } = bytes[layer]!;
        const kept = [...mask.layers[layer]!];
        const scaled = kept.map((channel, i) => {
          const row = up[channel]!.slice();
          if (mask.lambda) scaleBlocks(row, type, mask.lambda[layer]![i]!);
          return row;
        });
        const size = columnBytes[columnType];
        const outputs = Array.from({ length: D }, (_, output) =>
          kept.flatMap((channel, i) => {
            const value = down[channel]!.subarray(output * size, (output + 1) * size);
            const scale = scales[output]!;
            return columnType === "Q8_0" && i % 32 === 0 ? [scale & 255, scale >> 8, ...value] : [...value];
          }),
        );
        return [
          Buffer.concat(kept.map((channel) => gate[channel]!)),
          Buffer.concat(scaled),
          Buffer.from(outputs.flat()),
        ];
      });
      const got = [...gatherFfn(store, mask)];
      expect(got.map((part) => part.length)).toEqual(
        ffnTensors(store, mask.tFfn).map(({ type, shape }) => shape[0]! * rowBytes(type as BlockType, shape[1]!)),
      );
      for (const [i, part] of wanted.entries())
        expect(Buffer.compare(got[i]!, part), ffnTensors(store, mask.tFfn)[i]!.name).toBe(0);

      const path = join(temporaryFolder(), "out.gguf");
      expect(await writeFfn(path, new Map(), store, mask)).toEqual(await sumFile(path));
      using file = new GgufFile(path);
      for (const [i, { name }] of ffnTensors(store, mask.tFfn).entries()) {
        const tensor = file.tensor(name);
        const written = new Uint8Array(tensor.bytes);
        file.readInto(written, tensor, 0);
        expect(Buffer.compare(written, wanted[i]!), name).toBe(0);
      }
    }),
    { numRuns: 60 },
  );
});

test("a stopped gather throws the signal's reason", async () => {
  const types: ChannelTypes = { gate: "F32", up: "F32", down: "F32" };
  const { store } = await randomChannels([types, types], 8, 8, 1);
  using _ = store.ffn;
  const reason = new Error("stopped");
  const mask = randomMask(2, 8, 4, "hard", 1);
  const path = join(temporaryFolder(), "out.gguf");
  await expect(writeFfn(path, new Map(), store, mask, AbortSignal.abort(reason))).rejects.toBe(reason);
});
