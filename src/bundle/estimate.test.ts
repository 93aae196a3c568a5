import { readdirSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  anyPredictor,
  goldenModel,
  randomMask,
  randomModel,
  temporaryFolder,
  writeCheckpoint,
} from "../../test/support/models.ts";
import { llamaCpp } from "../engine/llamaCpp.ts";
import { FileError, MemoryError, OptionError } from "../errors.ts";
import { GgufFile } from "../formats/gguf.ts";
import type { WeightType } from "../formats/quantize.ts";
import { fullMask, type Mask } from "../mask/mask.ts";
import { Bundle } from "./bundle.ts";
import { estimate, readStoredModel } from "./estimate.ts";
import { importModel } from "./importModel.ts";
import { packBundle } from "./packBundle.ts";
import { openSubnetwork } from "./subnetworkCache.ts";

const model = randomModel({ family: "llama" }, 1);
const { numLayers: L, ffnWidth: F } = model.config;

async function packed(type: WeightType): Promise<string> {
  const folder = join(temporaryFolder(), "bundle");
  await packBundle(await writeCheckpoint(temporaryFolder(), model), folder, { type });
  return folder;
}

/** The first file of a mask's sub-network, and the bytes of all tensors in its files. */
async function built(folder: string, mask: Mask): Promise<{ path: string; bytes: number }> {
  using bundle = new Bundle(folder);
  const { path } = await openSubnetwork(bundle, mask, { root: temporaryFolder() });
  const files = readdirSync(dirname(path)).filter((name) => name.endsWith(".gguf"));
  const bytes = files.reduce((sum, name) => {
    using file = new GgufFile(join(dirname(path), name));
    return sum + [...file.tensors.values()].reduce((own, tensor) => own + tensor.bytes, 0);
  }, 0);
  return { path, bytes };
}

test.each(["F32", "F16", "Q8_0", "Q4_0"] as const)(
  "weights are those that llama.cpp loads, dense and pruned: %s",
  async (type) => {
    const folder = await packed(type);
    const { dense, subnetwork } = estimate(readStoredModel(folder), { tFfn: 32 });
    expect(dense.shared + dense.ffn).toBe((await built(folder, fullMask(L, F))).bytes);
    expect(subnetwork.shared + subnetwork.ffn).toBe((await built(folder, randomMask(L, F, 32, "hard", 1))).bytes);
  },
);

test("the predictor is its two files, and gives t_ffn", async () => {
  const folder = join(temporaryFolder(), "bundle");
  const golden = goldenModel("llama");
  const checkpoint = await writeCheckpoint(temporaryFolder(), golden, anyPredictor(golden, "hard"));
  await packBundle(checkpoint, folder, { type: "F16" });
  const { predictor, tFfn } = estimate(readStoredModel(folder));
  const [backbone, head] = ["predictor.gguf", "head.safetensors"].map((name) => statSync(join(folder, name)).size);
  expect({ predictor, tFfn }).toEqual({ predictor: backbone! + head!, tFfn: 32 });
});

describe("before an import", () => {
  const shape = (stored: ReturnType<typeof readStoredModel>) => {
    const { dense, subnetwork } = estimate(stored, { tFfn: 32 });
    return { dense, subnetwork };
  };

  test("a folder is estimated as the bundle that it would become", async () => {
    const folder = join(await writeCheckpoint(temporaryFolder(), model), "llm");
    expect(shape(readStoredModel(folder))).toEqual(shape(readStoredModel(await packed("Q8_0"))));
  });

  test("also where the width of its FFN is no whole blocks", async () => {
    const odd = randomModel({ family: "llama", ffnWidth: 40 }, 1);
    const folder = join(await writeCheckpoint(temporaryFolder(), odd), "llm");
    writeFileSync(join(folder, "generation_config.json"), '{"bos_token_id": 1, "eos_token_id": 2}');
    const bundle = join(temporaryFolder(), "bundle");
    await importModel(folder, bundle);
    const [before, after] = [folder, bundle].map((path) => estimate(readStoredModel(path), { tFfn: 20 }));
    expect(before!.dense).toEqual(after!.dense);
  });

  test("so is a GGUF file", async () => {
    const folder = await packed("Q8_0");
    const { path } = await built(folder, fullMask(L, F));
    expect(shape(readStoredModel(path))).toEqual(shape(readStoredModel(folder)));
  });
});

test("per token every weight is read once but the table of embeddings, which is looked up, and half the cache", async () => {
  const { dense } = estimate(readStoredModel(await packed("F32")), { contextLength: 64 });
  const { vocabSize: V, width: D } = model.config;
  expect(model.config.tieEmbeddings).toBe(false);
  expect(dense.perToken).toBe(dense.shared + dense.ffn - 4 * V * D + dense.kvCache); // 64 and 32 tokens are both one block of cells
});

test("what is out of range, or no model, is refused", async () => {
  const stored = readStoredModel(await packed("Q8_0"));
  for (const options of [{ tFfn: 0 }, { tFfn: F + 32 }, { tFfn: 33 }, { contextLength: 1 }, { contextLength: 65 }])
    expect(() => estimate(stored, options)).toThrow(OptionError);
  expect(() => readStoredModel(join(temporaryFolder(), "none"))).toThrow(FileError);
  expect(() => readStoredModel(temporaryFolder())).toThrow(FileError);
});

test("loading refuses a context that cannot fit, and says so before llama.cpp starts", async () => {
  const { path } = await built(await packed("F32"), fullMask(L, F));
  const loading = llamaCpp.open(path, { contextLength: 2 ** 40, threads: 1 });
  await expect(loading).rejects.toThrow(MemoryError);
  await expect(loading).rejects.toThrow(/^load: wanted .* GB for .*, got .* GB available\. Use a smaller/);
});
