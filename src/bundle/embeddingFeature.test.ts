/** The LLM's embedding as a predictor's feature: the rows that the bundle has, and no others. */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { featureOf } from "../../test/reference/predictor.ts";
import { anyPredictor, goldenModel, temporaryFolder, writeCheckpoint } from "../../test/support/models.ts";
import { InputError } from "../errors.ts";
import { firstLayers, firstLayersConfig } from "../model/backbone.ts";
import { Bundle } from "./bundle.ts";
import { embeddingFeature } from "./embeddingFeature.ts";
import { packBundle } from "./packBundle.ts";

const model = goldenModel("llama");
const { vocabSize: V, contextLength } = model.config;
const config = firstLayersConfig(model.config, 0);
const backbone = { config, weights: firstLayers(config, model.weights) };

async function pack(type: "F32" | "F16" | "Q8_0"): Promise<Bundle> {
  const folder = join(temporaryFolder(), "bundle");
  const checkpoint = await writeCheckpoint(temporaryFolder(), model, anyPredictor(model, "soft", { backbone }));
  await packBundle(checkpoint, folder, { type });
  return new Bundle(folder);
}

const texts = [[1, 9, 8, 7, 9, 9, 20], [5], [V - 1, 0]].map((ids) => Int32Array.from(ids));

/** Of values in 8 bits: half a step of the largest of 32, and what float16 leaves of the step. */
const largest = Math.max(...backbone.weights.get("model.embed_tokens.weight")!.data.map(Math.abs));

describe.each([
  ["F32", 1e-6],
  ["F16", largest * 2 ** -11],
  ["Q8_0", (largest / 254) * 1.2],
] as const)("%s", (type, bound) => {
  test.each(["last", "mean", "both"] as const)(
    "%s: within its type's rounding of the model's own rows",
    async (pooling) => {
      using bundle = await pack(type);
      const feature = embeddingFeature(bundle, pooling);
      for (const ids of texts) {
        const wanted = featureOf(backbone, ids, pooling);
        const got = feature(ids);
        expect(got.length).toBe(wanted.length);
        for (const [i, value] of wanted.entries()) expect(Math.abs(got[i]! - value)).toBeLessThanOrEqual(bound);
      }
    },
  );
});

test("a bundle without a second model has no file of one", async () => {
  using bundle = await pack("F32");
  expect(bundle.predictor).toEqual({ head: join(bundle.path, "head.safetensors") });
});

test("what the model cannot read is refused as an engine would", async () => {
  using bundle = await pack("F32");
  const feature = embeddingFeature(bundle, "mean");
  for (const [ids, message] of [
    [[], /wanted at least one token/],
    [[1, V], /wanted token ids below/],
    [[-1], /wanted token ids below/],
    [new Array<number>(contextLength).fill(1), /wanted fewer than/],
  ] as const) {
    expect(() => feature(Int32Array.from(ids))).toThrow(InputError);
    expect(() => feature(Int32Array.from(ids))).toThrow(message);
  }
});
