import { existsSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { randomModel, temporaryFolder, writeCheckpoint } from "../../test/support/models.ts";
import { Random } from "../random.ts";
import { Bundle } from "./bundle.ts";
import { groupBundle } from "./groupBundle.ts";
import { packBundle } from "./packBundle.ts";

const model = randomModel({ family: "llama", ffnWidth: 128 }, 5);

async function bundleOf(type: "F32" | "Q8_0"): Promise<Bundle> {
  const folder = join(temporaryFolder(), "bundle");
  await packBundle(await writeCheckpoint(temporaryFolder(), model), folder, { type });
  return new Bundle(folder);
}

/** Columns of a matrix [D, F] in another order. */
const columns = (data: Float32Array, F: number, order: Int32Array) =>
  data.map((_, i) => data[i - (i % F) + order[i % F]!]!);
const rows = (data: Float32Array, D: number, order: Int32Array) =>
  data.map((_, i) => data[order[Math.floor(i / D)]! * D + (i % D)]!);

test.each(["F32", "Q8_0"] as const)("%s: the same channels at their new places, all else as it was", async (type) => {
  using bundle = await bundleOf(type);
  const order = [0, 1].map((layer) => Int32Array.from(new Random(`order ${layer}`).permutation(128)));
  const out = join(temporaryFolder(), "grouped");
  await groupBundle(bundle, order, 32, out);
  using grouped = new Bundle(out);
  await grouped.verify();
  expect([bundle.block, grouped.block]).toEqual([1, 32]);
  expect([bundle, grouped].map(({ layouts }) => layouts.map(({ block }) => block))).toEqual([
    [1, 1],
    [32, 32],
  ]); // in store, too
  for (const layer of [0, 1]) {
    const read = (from: Bundle, matrix: string) => from.read(`model.layers.${layer}.mlp.${matrix}_proj.weight`).data;
    for (const matrix of ["gate", "up"])
      expect(read(grouped, matrix)).toEqual(rows(read(bundle, matrix), bundle.width, order[layer]!));
    expect(read(grouped, "down")).toEqual(columns(read(bundle, "down"), 128, order[layer]!));
  }
  expect(grouped.read("model.embed_tokens.weight")).toEqual(bundle.read("model.embed_tokens.weight"));
});

test("stopped, nothing is left", async () => {
  using bundle = await bundleOf("F32");
  const out = join(temporaryFolder(), "grouped");
  const order = [0, 1].map(() => Int32Array.from({ length: 128 }, (_, i) => i));
  await expect(groupBundle(bundle, order, 32, out, AbortSignal.abort())).rejects.toThrow(/abort/i);
  expect(existsSync(out)).toBe(false);
});
