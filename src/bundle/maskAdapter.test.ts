import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../test/support/models.ts";
import { GgufFile } from "../formats/gguf.ts";
import { keptBlocks, maskAdapter } from "./maskAdapter.ts";

const maskOf = (...layers: number[][]) => ({
  tFfn: layers[0]!.length,
  dFfn: 12,
  layers: layers.map((layer) => Int32Array.from(layer)),
});

test("the kept blocks of each layer; soft weights, parts of blocks and blocks at other places are none", () => {
  const mask = maskOf([0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10, 11]);
  expect(keptBlocks(mask, 3)).toEqual([Int32Array.of(0, 2), Int32Array.of(1, 3)]);
  expect(keptBlocks(mask, 1)).toEqual(mask.layers);
  const weights = (value: number) => ({ ...mask, lambda: mask.layers.map(() => new Float32Array(6).fill(value)) });
  expect(keptBlocks(weights(1), 3)).toEqual(keptBlocks(mask, 3));
  expect(keptBlocks(weights(0.5), 3)).toMatch(/hard/);
  for (const parts of [maskOf([0, 1, 2, 3]), maskOf([1, 2, 3]), maskOf([0, 1, 3]), maskOf([2, 3, 4, 6, 7, 8])])
    expect(keptBlocks(parts, 3)).toMatch(/whole blocks of 3/);
});

test("the adapter picks the constant and tells each block's sign, at a scale of 1", () => {
  const shape = { architecture: "llama", width: 5, constant: 4, numBlocks: 4 };
  const path = join(temporaryFolder(), "adapter.gguf");
  writeFileSync(path, maskAdapter([Int32Array.of(0, 2), Int32Array.of(1, 3)], shape));
  using file = new GgufFile(path);
  expect([file.string("general.type"), file.string("adapter.type")]).toEqual(["adapter", "lora"]);
  const read = (name: string) => {
    const tensor = file.tensor(`blk.${name}`);
    const values = new Float32Array(tensor.bytes / 4);
    file.readInto(new Uint8Array(values.buffer), tensor, 0);
    return [tensor.shape, [...values]];
  };
  const router = "ffn_gate_inp.weight.lora";
  for (const layer of [0, 1])
    expect(read(`${layer}.${router}_a`)).toEqual([
      [1, 5],
      [0, 0, 0, 0, 1],
    ]);
  expect(read(`0.${router}_b`)).toEqual([
    [4, 1],
    [1, -1, 1, -1],
  ]);
  expect(read(`1.${router}_b`)).toEqual([
    [4, 1],
    [-1, 1, -1, 1],
  ]);
  expect(file.number("adapter.lora.alpha")).toBe(1);
});
