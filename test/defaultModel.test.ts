/**
 * The model in this package: whole, small, of permissive data, and served as it was trained: llama.cpp's sub-network agrees with the
 * masked full model in the float64 reference, on the weights that the bundle holds.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { openEngine } from "../src/engine/engine.ts";
import { channelBytes, channelsName, downScaleName } from "../src/formats/bundle.ts";
import type { GgufFile } from "../src/formats/gguf.ts";
import { ggufName, modelNumber, storedType } from "../src/formats/ggufModel.ts";
import { decodeBlocks, fromHalf } from "../src/formats/quantize.ts";
import { pairsToHalves } from "../src/formats/rope.ts";
import { type ModelConfig, parameterShapes, type Weights } from "../src/model/config.ts";
import { InstructionModel } from "../src/serve/model.ts";
import { openSubnetwork } from "../src/subnet/cache.ts";
import { promptIds } from "../src/text/prompt.ts";
import { channelWeights, forward } from "./reference/decoder.ts";
import { temporaryFolder } from "./support/models.ts";

const model = new InstructionModel(fileURLToPath(new URL("../models/default", import.meta.url)));
const { bundle, tokenizer } = model;
afterAll(() => model[Symbol.dispose]());

test("is whole, at most 10 MB, and of permissive data", async () => {
  await bundle.verify();
  const bytes = Object.values(bundle.manifest.files).reduce((sum, file) => sum + file.bytes, 0);
  expect(bytes).toBeLessThan(10e6);
  const licences = new Set(bundle.manifest.provenance.data.map(({ licence }) => licence));
  expect([...licences].filter((name) => !/^(Apache-2\.0|MIT|BSD-3-Clause|public domain)$/.test(name))).toEqual([]);
});

/**
 * Logits are up to 20 in size. llama.cpp rounds the inputs of each product to 8 bits, the reference does not; measured: at most 0.21
 * over these prompts.
 */
const bound = 0.5;

test.each([
  "Write the plural form of the word Input: game",
  "Write the number in English words Input: 4711",
  "Write down the first letter in the following word Input: window",
])("%s: sub-network and masked model agree", { timeout: 60_000 }, async (prompt) => {
  const [mask] = await model.masks([prompt]);
  const ids = promptIds(tokenizer, prompt, bundle.manifest.promptTemplate);
  const { path } = await openSubnetwork(bundle, mask!, { root: temporaryFolder() });
  await using engine = await openEngine(path, { contextLength: 64, kvType: "F32" });
  const got = await engine.logits(ids);
  const { logits: wanted } = forward(dequantised(), ids, channelWeights(mask!));
  for (const [t, row] of wanted.entries()) {
    const difference = Math.max(...row.map((value, i) => Math.abs(value - got[t]![i]!)));
    expect(difference).toBeLessThan(bound);
    const best = row.indexOf(Math.max(...row));
    const runnerUp = Math.max(...row.filter((_, i) => i !== best));
    if (row[best]! - runnerUp > 2 * bound) expect(got[t]!.indexOf(Math.max(...got[t]!))).toBe(best);
  }
});

/** The bundle's weights as a plain model, read back from what is stored. */
function dequantised(): { config: ModelConfig; weights: Weights } {
  const number = (key: string) => modelNumber(bundle.base, key);
  const width = bundle.width;
  const numHeads = number("attention.head_count");
  const config: ModelConfig = {
    family: "llama",
    width,
    numLayers: bundle.numLayers,
    numHeads,
    numKvHeads: number("attention.head_count_kv"),
    headWidth: width / numHeads,
    ffnWidth: bundle.ffnWidth,
    vocabSize: tokenizer.vocabSize,
    contextLength: bundle.contextLength,
    normEps: number("attention.layer_norm_rms_epsilon"),
    ropeTheta: number("rope.freq_base"),
    tieEmbeddings: true,
  };
  const weights: Weights = new Map();
  for (const [name, shape] of parameterShapes(config)) {
    if (name.includes(".mlp.")) continue;
    const bytes = tensorBytes(bundle.base, ggufName(config, name));
    const data = storedType(shape, "Q8_0") === "Q8_0" ? decodeBlocks(bytes, "Q8_0") : new Float32Array(bytes.buffer);
    const weight = { shape, data };
    weights.set(name, /\.[qk]_proj\.weight$/.test(name) ? pairsToHalves(weight, config.headWidth) : weight);
  }
  const { row, column } = channelBytes("Q8_0", width);
  const F = bundle.ffnWidth;
  for (let layer = 0; layer < bundle.numLayers; layer++) {
    const records = tensorBytes(bundle.ffn, channelsName(layer));
    const scales = new Uint16Array(tensorBytes(bundle.ffn, downScaleName(layer)).buffer);
    const [gate, up, down] = [new Float32Array(F * width), new Float32Array(F * width), new Float32Array(width * F)];
    for (let channel = 0; channel < F; channel++) {
      const record = records.subarray(channel * (2 * row + column), (channel + 1) * (2 * row + column));
      gate.set(decodeBlocks(record.slice(0, row), "Q8_0"), channel * width);
      up.set(decodeBlocks(record.slice(row, 2 * row), "Q8_0"), channel * width);
      const quants = new Int8Array(record.slice(2 * row).buffer);
      for (let output = 0; output < width; output++)
        down[output * F + channel] = quants[output]! * fromHalf(scales[output]!);
    }
    const at = `model.layers.${layer}.mlp`;
    weights.set(`${at}.gate_proj.weight`, { shape: [F, width], data: gate });
    weights.set(`${at}.up_proj.weight`, { shape: [F, width], data: up });
    weights.set(`${at}.down_proj.weight`, { shape: [width, F], data: down });
  }
  return { config, weights };
}

function tensorBytes(file: GgufFile, name: string): Uint8Array<ArrayBuffer> {
  const tensor = file.tensor(name);
  const bytes = new Uint8Array(tensor.bytes);
  file.readInto(bytes, tensor, 0);
  return bytes;
}

test("its card names the recipe that made it", () => {
  const card = readFileSync(join(bundle.path, "README.md"), "utf8");
  expect(card).toContain(bundle.manifest.provenance.recipe);
});
