/**
 * The small model in this package: whole, small, of permissive data, and served as it was trained: llama.cpp's sub-network agrees with the
 * masked full model in the float64 reference, on the weights that the bundle holds.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { InstructionModel } from "../src/answer/instructionModel.ts";
import { TINY_MODEL } from "../src/bundle/pulledModels.ts";
import { openSubnetwork } from "../src/bundle/subnetworkCache.ts";
import { llamaCpp } from "../src/engine/llamaCpp.ts";
import { exportSubnetwork } from "../src/export/export.ts";
import type { Model } from "../src/formats/huggingface.ts";
import { parameterShapes } from "../src/model/config.ts";
import { ChatTemplate, chatIds } from "../src/text/chatTemplate.ts";
import { channelWeights, forward } from "./reference/decoder.ts";
import { temporaryFolder } from "./support/models.ts";

const model = new InstructionModel(TINY_MODEL);
const { bundle } = model;
afterAll(() => model[Symbol.dispose]());

test("is whole, at most 10 MB, and of permissive data", async () => {
  await bundle.verify();
  const bytes = Object.values(bundle.manifest.files).reduce((sum, file) => sum + file.bytes, 0);
  expect(bytes).toBeLessThan(10e6);
  const licences = new Set(bundle.manifest.provenance.data.map(({ licence }) => licence));
  expect([...licences].filter((name) => !/^(Apache-2\.0|MIT|BSD-3-Clause|public domain)$/.test(name))).toEqual([]);
});

test("exported, its chat template writes what it was trained to read: BOS too, which transformers leaves to templates", async () => {
  const out = join(temporaryFolder(), "export");
  const prompt = "Write the plural form of the word";
  await exportSubnetwork(bundle, (await model.mask(prompt)).mask, out, { instruction: prompt, formats: ["hf"] });
  const path = join(out, "chat_template.jinja");
  const template = new ChatTemplate(readFileSync(path, "utf8"), path);
  const ids = chatIds(model.tokenizer, template, [{ role: "user", content: prompt }]);
  expect(ids).toEqual(model.promptIds(prompt));
  expect(ids[0]).toBe(bundle.manifest.bosId);
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
])("%s: sub-network and masked model agree", async (prompt) => {
  const { mask } = await model.mask(prompt);
  const ids = model.promptIds(prompt);
  const { path } = await openSubnetwork(bundle, mask, { root: temporaryFolder() });
  await using engine = await llamaCpp.open(path, { contextLength: 64, kvType: "F32" });
  const got = await engine.logits(ids);
  const { logits: wanted } = forward(dequantised(), ids, channelWeights(mask));
  for (const [t, row] of wanted.entries()) {
    const difference = Math.max(...row.map((value, i) => Math.abs(value - got[t]![i]!)));
    expect(difference).toBeLessThan(bound);
    const best = row.indexOf(Math.max(...row));
    const runnerUp = Math.max(...row.filter((_, i) => i !== best));
    if (row[best]! - runnerUp > 2 * bound) expect(got[t]!.indexOf(Math.max(...got[t]!))).toBe(best);
  }
});

/** The bundle's weights as a plain model, read back from what is stored. */
function dequantised(): Model {
  return {
    config: bundle.config,
    weights: new Map([...parameterShapes(bundle.config).keys()].map((name) => [name, bundle.read(name)])),
  };
}

test("its card names the recipe that made it", () => {
  const card = readFileSync(join(bundle.path, "README.md"), "utf8");
  expect(card).toContain(bundle.manifest.provenance.recipe);
});
