import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { families, fixtures, goldenModel, temporaryFolder } from "../../test/support/models.ts";
import { FileError, OptionError } from "../errors.ts";
import { readModelConfig, readModelFolder, writeModelFolder } from "./huggingface.ts";

/** The golden llama folder with its config changed. */
function withConfig(changes: object): string {
  const folder = temporaryFolder();
  const source = join(fixtures, "golden/llama");
  copyFileSync(join(source, "model.safetensors"), join(folder, "model.safetensors"));
  const config = JSON.parse(readFileSync(join(source, "config.json"), "utf8"));
  writeFileSync(join(folder, "config.json"), JSON.stringify({ ...config, ...changes }));
  return folder;
}

test.each(families)("a %s folder is written and read back the same", (family) => {
  const model = goldenModel(family);
  const folder = temporaryFolder();
  writeModelFolder(folder, model);
  expect(readModelFolder(folder)).toEqual(model);
});

test("keys that a config may leave out are derived", () => {
  const folder = withConfig({ head_dim: null, num_key_value_heads: undefined, rope_theta: undefined });
  expect(readModelConfig(folder)).toMatchObject({ headWidth: 8, numKvHeads: 4, ropeTheta: 10_000 });
});

test("a tied head stored beside the embedding is no extra tensor", () => {
  expect(readModelFolder(withConfig({ tie_word_embeddings: true })).weights.has("lm_head.weight")).toBe(false);
});

describe("refuses, naming the cause:", () => {
  test.each([
    [
      "a layer too many in the config",
      { num_hidden_layers: 3 },
      /missing: model\.layers\.2\.input_layernorm\.weight.*\(9\)/,
    ],
    ["a layer too few in the config", { num_hidden_layers: 1 }, /extra: model\.layers\.1\./],
    [
      "another width",
      { intermediate_size: 40 },
      /"model\.layers\.0\.mlp\.gate_proj\.weight": wanted \[40, 32\], got \[48, 32\]/,
    ],
    ["a missing key", { vocab_size: undefined }, /vocab_size/],
    ["another family", { model_type: "mamba" }, /model_type/],
    ["another activation", { hidden_act: "gelu" }, /hidden_act/],
    ["scaled RoPE", { rope_scaling: { factor: 8 } }, /rope_scaling/],
    ["an attention bias", { attention_bias: true }, /attention_bias/],
  ])("%s", (_, changes, message) => {
    const read = () => readModelFolder(withConfig(changes));
    expect(read).toThrow(FileError);
    expect(read).toThrow(message);
  });

  test("numbers that make no model", () => {
    expect(() => readModelConfig(withConfig({ num_key_value_heads: 3 }))).toThrow(OptionError);
    expect(() => readModelConfig(withConfig({ num_hidden_layers: 1e9 }))).toThrow(OptionError);
  });

  test("a config that is missing or no JSON", () => {
    const folder = withConfig({});
    writeFileSync(join(folder, "config.json"), "{");
    expect(() => readModelConfig(folder)).toThrow(/wanted JSON/);
    expect(() => readModelConfig(join(folder, "none"))).toThrow(/ENOENT/);
  });
});
