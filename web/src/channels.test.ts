/** Masks as the page decodes them are those of the server, and its overlap is `src/mask/overlap.ts`'s. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { randomMask } from "../../src/mask/baselines.ts";
import { overlap } from "../../src/mask/overlap.ts";
import {
  binSize,
  binsOf,
  blockOf,
  decodeLayers,
  fits,
  keptBlocks,
  keptChannels,
  overlapPerLayer,
  shareKeeping,
} from "./channels.ts";

const encode = (mask: ReturnType<typeof randomMask>): string[] =>
  mask.layers.map((kept) => {
    const bytes = new Uint8Array(Math.ceil(mask.dFfn / 8));
    for (const c of kept) bytes[c >> 3]! |= 1 << (c & 7);
    return Buffer.from(bytes).toString("base64");
  });

const shapes = fc
  .record({ numLayers: fc.integer({ min: 1, max: 4 }), dFfn: fc.integer({ min: 1, max: 70 }), seed: fc.nat() })
  .chain((shape) => fc.record({ ...constants(shape), tFfn: fc.integer({ min: 1, max: shape.dFfn }) }));

function constants<T extends object>(values: T): { [K in keyof T]: fc.Arbitrary<T[K]> } {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, fc.constant(value)])) as never;
}

test("two masks: kept channels, overlap and shares", () => {
  fc.assert(
    fc.property(shapes, ({ seed, ...shape }) => {
      const masks = ["a", "b"].map((label) => randomMask(shape, seed, label));
      const [a, b] = masks.map((mask) => decodeLayers(encode(mask)));
      expect(a!.map(keptChannels)).toEqual(masks[0]!.layers.map((kept) => [...kept]));
      expect(fits(a!, shape.numLayers, shape.dFfn)).toBe(true);
      expect(fits(a!, shape.numLayers, shape.dFfn + 8)).toBe(false);
      expect(overlapPerLayer(a!, b!)).toEqual(overlap(masks[0]!, masks[1]!));
      const shares = shareKeeping([a!, b!], shape.numLayers, shape.dFfn);
      for (const [layer, row] of shares.entries()) {
        const expected = Array.from({ length: shape.dFfn }, (_, c) =>
          masks.reduce((sum, mask) => sum + (mask.layers[layer]!.includes(c) ? 0.5 : 0), 0),
        );
        expect([...row]).toEqual(expected);
      }
    }),
  );
});

test("a mask made of blocks is seen as such, and free channels are not", () => {
  const layers = (...rows: string[]) =>
    rows.map((row) => {
      const bits = new Uint8Array(Math.ceil(row.length / 8));
      for (let c = 0; c < row.length; c++) if (row[c] === "#") bits[c >> 3]! |= 1 << (c & 7);
      return bits;
    });
  const blocks = layers("####....####", "........####");
  expect(blockOf(blocks, 12)).toBe(4);
  expect(blocks.map((bits) => keptBlocks(bits, 4))).toEqual([[0, 2], [2]]);
  expect(blockOf(layers("####....####", "......######"), 12)).toBe(2); // one layer has smaller ones
  expect(blockOf(layers("####....####", ".#......####"), 12)).toBe(1);
  expect(blockOf(layers("###...", "...###"), 6)).toBe(1); // three are no power of two
  expect(blockOf(layers("########"), 8)).toBe(1); // nothing is left out
});

test("bins hold every channel once, with what is kept of them and how common that is", () => {
  fc.assert(
    fc.property(shapes, fc.integer({ min: 1, max: 80 }), ({ seed, ...shape }, most) => {
      const [a, b] = ["a", "b"].map((label) => decodeLayers(encode(randomMask(shape, seed, label))));
      const size = binSize(shape.dFfn, 1, most);
      const common = shareKeeping([b!], shape.numLayers, shape.dFfn);
      const overlap = overlapPerLayer(a!, b!);
      for (const [layer, bits] of a!.entries()) {
        const bins = binsOf(bits, shape.dFfn, size, common[layer]);
        expect(bins.length).toBeLessThanOrEqual(most);
        expect(bins.map(({ from }) => from)).toEqual([0, ...bins.slice(0, -1).map(({ end }) => end)]);
        expect(bins.at(-1)!.end).toBe(shape.dFfn);
        expect(bins.reduce((sum, { kept }) => sum + kept, 0)).toBe(shape.tFfn);
        const shared = bins.reduce((sum, { kept, common }) => sum + (kept > 0 ? kept * common : 0), 0);
        expect(shared / shape.tFfn).toBeCloseTo(overlap[layer]!, 9);
      }
    }),
  );
});

test("bins are whole blocks", () => {
  expect(binSize(1536, 64, 100)).toBe(64);
  expect(binSize(1536, 64, 10)).toBe(256);
  expect(binSize(1536, 1, 100)).toBe(16);
  expect(binSize(3, 1, 1)).toBe(4); // one, shorter than its size
});
