import { existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
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
import { Bundle, packBundle } from "./bundle.ts";
import type { WeightType } from "./ggufModel.ts";
import { manifestName } from "./manifest.ts";

const model = goldenModel("llama");
const predictor = anyPredictor(model, "soft");
const newFolder = () => join(temporaryFolder(), "bundle");

async function packed(type: WeightType = "F32"): Promise<string> {
  const folder = newFolder();
  await packBundle(await writeCheckpoint(temporaryFolder(), model, predictor), folder, { type });
  return folder;
}

test("a bundle carries the checkpoint's settings, its model's shape and its predictor", async () => {
  using bundle = new Bundle(await packed());
  expect(bundle).toMatchObject({ numLayers: 2, width: 32, ffnWidth: 48, contextLength: 128 });
  expect(bundle.manifest).toMatchObject({ tFfn: 32, epsilon: 0.3, lambda: "soft", weightType: "F32", bosId: 1 });
  expect(Object.values(bundle.predictor!).every(existsSync)).toBe(true);
  await bundle.verify();
});

test("packing twice gives the same bytes", async () => {
  const [one, two] = [await packed("Q8_0"), await packed("Q8_0")];
  for (const name of readdirSync(one)) expect(readFileSync(join(two, name))).toEqual(readFileSync(join(one, name)));
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
  test.each(["base.gguf", "ffn.gguf", "tokenizer.json", "predictor.gguf", "head.safetensors"])(
    "a truncated %s",
    async (name) => {
      const folder = await packed();
      truncateSync(join(folder, name), 10);
      expect(() => new Bundle(folder)).toThrow(FileError);
    },
  );

  test("a weight type that is not the files'", async () => {
    const folder = await packed();
    const path = join(folder, manifestName);
    writeFileSync(path, readFileSync(path, "utf8").replace('"F32"', '"F16"'));
    expect(() => new Bundle(folder)).toThrow(/blk\.0\.ffn_channels": wanted I8 \[48, 192\], got I8 \[48, 384\]/);
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

test("a changed byte is found when verifying", async () => {
  const folder = await packed();
  const bytes = readFileSync(join(folder, "ffn.gguf"));
  bytes[bytes.length - 1]! ^= 1;
  writeFileSync(join(folder, "ffn.gguf"), bytes);
  using bundle = new Bundle(folder);
  await expect(bundle.verify()).rejects.toThrow(FileError);
});
