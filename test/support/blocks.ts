/** Bundles and masks of blocks, for tests. */
import { join } from "node:path";
import { Bundle } from "../../src/bundle/bundle.ts";
import { packBundle } from "../../src/bundle/packBundle.ts";
import type { WeightType } from "../../src/formats/ggufModel.ts";
import type { Model } from "../../src/formats/huggingface.ts";
import type { Mask } from "../../src/mask/mask.ts";
import { Random } from "../../src/random.ts";
import { anyPredictor, temporaryFolder, writeCheckpoint } from "./models.ts";

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
