import { expect, test } from "vitest";
import { blockBundle, blockMask } from "../../test/support/blocks.ts";
import { randomMask, randomModel, temporaryFolder } from "../../test/support/models.ts";
import { OptionError, ShapeError } from "../errors.ts";
import { GgufFile } from "../formats/gguf.ts";
import { openResident, residentFlaw, residentMaskFlaw } from "./residentModel.ts";

const model = randomModel({ family: "llama", ffnWidth: 128, vocabSize: 64 }, 5);

test("weights are written once for all masks, metadata once for all that keep as many blocks; each mask has its adapter", async () => {
  using bundle = await blockBundle(model, 16, "F32");
  const root = temporaryFolder();
  const open = (k: number, seed: number) => openResident(bundle, blockMask(model.config, 16, k, seed), { root });
  const first = await open(2, 1);
  expect(first.cached).toBe(false);
  expect(await open(2, 1)).toEqual({ ...first, cached: true });
  const other = await open(2, 2);
  expect([other.path, other.cached]).toEqual([first.path, true]);
  expect(other.adapter).not.toEqual(first.adapter);
  const more = await open(3, 1);
  expect([more.path === first.path, more.cached]).toEqual([false, true]);
});

test("the model is a mixture of experts whose types are the bundle's", async () => {
  using bundle = await blockBundle(model, 32, "Q8_0");
  const { path } = await openResident(bundle, blockMask(model.config, 32, 3, 1), { root: temporaryFolder() });
  using metadata = new GgufFile(path);
  const number = (key: string) => metadata.number(`llama.${key}`);
  expect(["expert_count", "expert_used_count", "feed_forward_length", "embedding_length"].map(number)).toEqual([
    4, 3, 32, 96,
  ]);
  using experts = new GgufFile(path.replace("00001-of", "00003-of"));
  expect(experts.tensor("blk.1.ffn_down_exps.weight")).toMatchObject({ type: "Q8_0", shape: [4, 96, 32] });
});

test("what has no resident form is refused, with the reason", async () => {
  using blocks = await blockBundle(model, 16, "F32");
  expect(residentFlaw(blocks)).toBeUndefined();
  const hard = blockMask(model.config, 16, 2, 1);
  expect(residentMaskFlaw(blocks, hard)).toBeUndefined();
  const soft = { ...hard, lambda: hard.layers.map((layer) => new Float32Array(layer.length).fill(0.5)) };
  expect(residentMaskFlaw(blocks, soft)).toMatch(/hard mask/);
  const free = randomMask(2, 128, 32, "hard", 1);
  expect(residentMaskFlaw(blocks, free)).toMatch(/whole blocks of 16/);
  for (const mask of [soft, free]) await expect(openResident(blocks, mask)).rejects.toThrow(OptionError);
  await expect(openResident(blocks, { ...hard, layers: hard.layers.slice(1) })).rejects.toThrow(ShapeError);

  using qwen3 = await blockBundle(randomModel({ family: "qwen3", ffnWidth: 128, vocabSize: 64 }, 5), 16, "F32");
  expect(residentFlaw(qwen3)).toMatch(/got qwen3/);
  await expect(openResident(qwen3, hard)).rejects.toThrow(/qwen3/);
  using narrow = await blockBundle(model, 16, "Q8_0");
  expect(residentFlaw(narrow)).toMatch(/multiples of 32/);
  using single = await blockBundle(randomModel({ family: "llama", ffnWidth: 1024, vocabSize: 64 }, 5), 1, "F32");
  expect(residentFlaw(single)).toMatch(/blocks of at least 2 channels, got single channels/);
});

test("stopped while it is written, nothing is left that a next call would take", async () => {
  using bundle = await blockBundle(model, 16, "F32");
  const root = temporaryFolder();
  const mask = blockMask(model.config, 16, 2, 1);
  await expect(openResident(bundle, mask, { root, signal: AbortSignal.abort() })).rejects.toThrow(/abort/i);
  expect((await openResident(bundle, mask, { root })).cached).toBe(false);
});
