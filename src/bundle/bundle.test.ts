import {
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  anyPredictor,
  goldenModel,
  storiesCheckpoint,
  temporaryFolder,
  writeCheckpoint,
} from "../../test/support/models.ts";
import { FileError, OptionError } from "../errors.ts";
import { tensorBytes, writeGguf } from "../formats/gguf.ts";
import type { WeightType } from "../formats/quantize.ts";
import { manifestName } from "../manifest.ts";
import { Bundle } from "./bundle.ts";
import { channelMetadata, channelTensors } from "./channels.ts";
import { packBundle } from "./packBundle.ts";

const model = goldenModel("llama");
const predictor = anyPredictor(model, "soft");
const types = { gate: "F16", up: "F16", down: "F16" } as const;
const newFolder = () => join(temporaryFolder(), "bundle");

async function packed(type: WeightType = "F32"): Promise<string> {
  const folder = newFolder();
  await packBundle(await writeCheckpoint(temporaryFolder(), model, predictor), folder, { type });
  return folder;
}

test("a bundle carries the checkpoint's settings, its model's shape and its predictor", async () => {
  using bundle = new Bundle(await packed());
  expect(bundle).toMatchObject({ numLayers: 2, width: 32, ffnWidth: 48, contextLength: 128 });
  expect(bundle.manifest).toMatchObject({ tFfn: 32, epsilon: 0.3, lambda: "soft", bosId: 1 });
  expect(Object.values(bundle.predictor!).every(existsSync)).toBe(true);
  await bundle.verify();
});

test("packing twice gives the same bytes", async () => {
  const [one, two] = [await packed("Q8_0"), await packed("Q8_0")];
  for (const name of readdirSync(one)) expect(readFileSync(join(two, name))).toEqual(readFileSync(join(one, name)));
});

test.each<[WeightType, number]>([
  ["F32", 0],
  ["F16", 2 ** -11],
  ["BF16", 2 ** -8],
  ["Q8_0", 1 / 127],
  ["Q4_0", 1 / 7],
])("a bundle of %s gives its parameters back, each value within a share of its row's largest", async (type, share) => {
  using bundle = new Bundle(await packed(type));
  for (const [name, { shape, data }] of model.weights) {
    const got = bundle.read(name);
    expect(got.shape).toEqual(shape);
    const width = shape.at(-1)!;
    for (let row = 0; row < data.length / width; row++) {
      const wanted = data.subarray(row * width, (row + 1) * width);
      const bound = share * wanted.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
      for (const [i, value] of wanted.entries())
        expect(Math.abs(got.data[row * width + i]! - value)).toBeLessThanOrEqual(bound);
    }
    if (shape.length < 2) continue;
    const rows = { from: 3, to: 11 };
    expect(bundle.read(name, rows)).toEqual({
      shape: [8, width],
      data: got.data.slice(rows.from * width, rows.to * width),
    });
  }
});

test("gate and up may have a type of their own: the rest keeps the bundle's", async () => {
  const folder = newFolder();
  const checkpoint = await writeCheckpoint(temporaryFolder(), model, predictor);
  await packBundle(checkpoint, folder, { type: "F16", ffnType: "Q4_0" });
  using bundle = new Bundle(folder);
  expect(bundle.layouts.map(({ gate, up, down }) => [gate, up, down])).toEqual(Array(2).fill(["Q4_0", "Q4_0", "Q8_0"]));
  expect(bundle.base.tensor("blk.0.attn_q.weight").type).toBe("F16");
});

test("a checkpoint without a predictor makes a bundle without one", async () => {
  const folder = newFolder();
  await packBundle(await storiesCheckpoint(temporaryFolder()), folder, { type: "F16" });
  using bundle = new Bundle(folder);
  expect(bundle.predictor).toBeUndefined();
});

describe("packing refuses, and leaves nothing behind:", () => {
  const refused = async (
    checkpoint: string,
    error: typeof FileError | typeof OptionError,
    type: WeightType = "F32",
  ) => {
    const folder = newFolder();
    await expect(packBundle(checkpoint, folder, { type })).rejects.toThrow(error);
    expect(readdirSync(dirname(folder))).toEqual([]);
  };

  test("a folder that exists", async () => {
    const existing = temporaryFolder();
    const checkpoint = await writeCheckpoint(temporaryFolder(), model);
    await expect(packBundle(checkpoint, existing, { type: "F32" })).rejects.toThrow(OptionError);
  });
  test("widths that are no whole blocks", async () =>
    refused(await storiesCheckpoint(temporaryFolder()), OptionError, "Q8_0"));
  test("no checkpoint", () => refused(temporaryFolder(), FileError));
  test("a damaged checkpoint", async () => {
    const checkpoint = await writeCheckpoint(temporaryFolder(), model);
    const path = join(checkpoint, "llm/model.safetensors");
    const bytes = readFileSync(path);
    bytes[bytes.length - 1]! ^= 1;
    writeFileSync(path, bytes);
    await refused(checkpoint, FileError);
  });
  test("t_ffn above d_ffn", async () =>
    refused(await writeCheckpoint(temporaryFolder(), model, { ...predictor, tFfn: 49 }), FileError));
  test("a head that scores another number of channels", async () => {
    const head = new Map(predictor.head).set("w2.weight", { shape: [90, 8], data: new Float32Array(720) });
    await refused(await writeCheckpoint(temporaryFolder(), model, { ...predictor, head }), FileError);
  });
});

describe("opening refuses", () => {
  test.each(["metadata.gguf", "base.gguf", "ffn.gguf", "tokenizer.json", "predictor.gguf", "head.safetensors"])(
    "a truncated %s",
    async (name) => {
      const folder = await packed();
      truncateSync(join(folder, name), 10);
      expect(() => new Bundle(folder)).toThrow(FileError);
    },
  );

  test.each([
    [64, 1, /blk\.0\.ffn_channels": wanted I8 \[48, 192\], got I8 \[64, 192\]/],
    [64, 32, /ifprune\.ffn_block": wanted 1, or a multiple of 32 that divides 48, got 32/],
  ])("channels of another model: %d in blocks of %d", async (F, block, message) => {
    const [folder, other] = [await packed(), await packed("F16")];
    const path = join(folder, manifestName);
    copyFileSync(join(other, "base.gguf"), join(folder, "base.gguf"));
    rmSync(join(folder, "ffn.gguf"));
    const layers = [types, types];
    const tensors = channelTensors(layers, 32, F, block);
    const data = tensors.map((tensor) => new Uint8Array(tensorBytes(tensor)!));
    await writeGguf(join(folder, "ffn.gguf"), channelMetadata("llama", layers, block), tensors, data);
    const manifest = JSON.parse(readFileSync(path, "utf8"));
    for (const name of ["base.gguf", "ffn.gguf"]) manifest.files[name].bytes = statSync(join(folder, name)).size;
    writeFileSync(path, JSON.stringify(manifest));
    expect(() => new Bundle(folder)).toThrow(message);
  });

  test("a manifest without a file that it needs", async () => {
    const folder = await packed();
    const path = join(folder, manifestName);
    const manifest = JSON.parse(readFileSync(path, "utf8"));
    delete manifest.files["ffn.gguf"];
    writeFileSync(path, JSON.stringify(manifest));
    expect(() => new Bundle(folder)).toThrow(/wanted the file "ffn\.gguf"/);
  });
});

test("whoever gives up verifying stops nobody else who waits for it", async () => {
  using bundle = new Bundle(await packed());
  const stop = new AbortController();
  const [first, second] = [bundle.verify({ signal: stop.signal }), bundle.verify()];
  stop.abort(new Error("the first gave up"));
  await expect(first).rejects.toThrow("the first gave up");
  await second;
  writeFileSync(
    join(bundle.path, "tokenizer.json"),
    readFileSync(join(bundle.path, "tokenizer.json"), "utf8").replace("{", "["),
  );
  await expect(bundle.verify({ signal: new AbortController().signal })).rejects.toThrow(/changed or damaged/);
});

test("a verification that is ended is so for all who wait for it", async () => {
  using bundle = new Bundle(await packed());
  const waiting = [bundle.verify(), bundle.verify({ signal: new AbortController().signal })];
  bundle.stopVerifying(new Error("closed"));
  const ends = await Promise.allSettled([...waiting, bundle.verify()]);
  const closed = { status: "rejected", reason: new Error("closed") };
  expect(ends).toEqual([closed, closed, closed]);
});

test("a changed byte is found when verifying", async () => {
  const folder = await packed();
  const bytes = readFileSync(join(folder, "ffn.gguf"));
  bytes[bytes.length - 1]! ^= 1;
  writeFileSync(join(folder, "ffn.gguf"), bytes);
  using bundle = new Bundle(folder);
  await expect(bundle.verify()).rejects.toThrow(FileError);
});
