/** Bundles and masks of blocks, for tests. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { Bundle } from "../../src/bundle/bundle.ts";
import { packBundle } from "../../src/bundle/packBundle.ts";
import { type Model, readModelFolder } from "../../src/formats/huggingface.ts";
import type { WeightType } from "../../src/formats/quantize.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { describeFiles, readManifest, writeManifest } from "../../src/manifest.ts";
import type { Mask } from "../../src/mask/mask.ts";
import type { Weights } from "../../src/model/config.ts";
import { Random } from "../../src/random.ts";
import { anyPredictor, storiesCheckpoint, temporaryFolder, writeCheckpoint } from "./models.ts";

/** A bundle whose predictor scores blocks. */
export async function blockBundle(model: Model, block: number, type: WeightType): Promise<Bundle> {
  const predictor = anyPredictor(model, "hard");
  const { numLayers, ffnWidth } = model.config;
  const rows = (numLayers * ffnWidth) / block;
  predictor.head.set("w2.weight", { shape: [rows, 8], data: new Float32Array(rows * 8) });
  const folder = join(temporaryFolder(), "bundle");
  await packBundle(await writeCheckpoint(temporaryFolder(), model, { ...predictor, tFfn: 2 * block }), folder, {
    type,
  });
  return new Bundle(folder);
}

/** A hard mask of k whole blocks in each layer, other ones in each. */
export function blockMask(
  { numLayers, ffnWidth: dFfn }: { numLayers: number; ffnWidth: number },
  block: number,
  k: number,
  seed: number,
): Mask {
  const layers = Array.from({ length: numLayers }, (_, layer) => {
    const random = new Random(`${seed}/${layer}`);
    const order = Array.from({ length: dFfn / block }, (_, b) => ({ b, at: random.float() })).sort(
      (a, b) => a.at - b.at,
    );
    const kept = order
      .slice(0, k)
      .map(({ b }) => b)
      .sort((a, b) => a - b);
    return Int32Array.from(kept.flatMap((b) => Array.from({ length: block }, (_, i) => b * block + i)));
  });
  return { tFfn: k * block, dFfn, layers };
}

/** stories260K as a bundle whose predictor, of random weights, keeps 22 of 43 blocks of 4 channels. @returns its folder */
export async function storiesInBlocks(): Promise<string> {
  const folder = await storiesCheckpoint(temporaryFolder());
  const { files, ...manifest } = readManifest(folder, "ifprune-checkpoint");
  const { width: D, numLayers, ffnWidth } = readModelFolder(join(folder, "llm")).config;
  const random = new Random("head");
  const tensor = (...shape: [number, number]) => ({
    shape,
    data: Float32Array.from({ length: shape[0] * shape[1] }, () => 2 * random.float() - 1),
  });
  const head: Weights = new Map([
    ["feature.mean", { shape: [D], data: new Float32Array(D) }],
    ["feature.std", { shape: [D], data: new Float32Array(D).fill(1) }],
    ["w1.weight", tensor(8, D)],
    ["w2.weight", tensor((numLayers * ffnWidth) / 4, 8)],
  ]);
  const name = "predictor/head.safetensors";
  mkdirSync(join(folder, "predictor"));
  writeSafetensors(join(folder, name), head);
  const all = { ...files, ...(await describeFiles(folder, [name])) };
  const predictor = { tFfn: 88, epsilon: 0.3, lambda: "hard", predictorPooling: "mean" } as const;
  writeManifest(folder, { ...manifest, ...predictor, files: all });
  const bundle = join(temporaryFolder(), "bundle");
  await packBundle(folder, bundle, { type: "F32" });
  return bundle;
}
