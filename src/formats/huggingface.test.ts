import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { families, fixtures, goldenModel, randomModel, temporaryFolder } from "../../test/support/models.ts";
import { FileError, OptionError } from "../errors.ts";
import type { ModelConfig, RopeScaling, Weights } from "../model/config.ts";
import { MODEL_FAMILIES } from "../model/families.ts";
import { ModelFolder, readModelFolder, writeModel, writeModelFolder } from "./huggingface.ts";
import { readGenerationConfig, readModelConfig, writeModelConfig } from "./huggingfaceConfig.ts";
import { decodeBlocks, encodeWeights } from "./quantize.ts";
import { writeSafetensors } from "./safetensors.ts";

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

test("refuses a context of one token, which has no room for an answer", () => {
  const folder = withConfig({ max_position_embeddings: 1 });
  expect(() => readModelConfig(folder)).toThrow(OptionError);
  expect(() => readModelConfig(folder)).toThrow(/"contextLength" must be an integer in 2\.\.16777216, got 1/);
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
    ["a family that is no text", { model_type: "gemma3", text_config: { model_type: { toString: 1 } } }, /model_type/],
    ["another activation", { hidden_act: "gelu" }, /hidden_act/],
    ["scaled RoPE of no kind", { rope_scaling: { factor: 8 } }, /rope_scaling/],
    ["dynamic RoPE", { rope_scaling: { type: "dynamic", factor: 8 } }, /"dynamic"/],
    ["LongRoPE", { rope_scaling: { rope_type: "longrope", long_factor: [1] } }, /"longrope"/],
    ["llama3 scaling without its numbers", { rope_scaling: { rope_type: "llama3", factor: 8 } }, /"low_freq_factor"/],
    ["a YaRN of its own", { rope_scaling: { rope_type: "yarn", factor: 4, attention_factor: 1 } }, /variant/],
    ["a YaRN of DeepSeek's", { rope_scaling: { rope_type: "yarn", factor: 4, mscale: 0.7 } }, /variant/],
    ["RoPE scaling twice", { rope_scaling: { type: "linear", factor: 2 }, rope_parameters: { rope_theta: 1 } }, /both/],
    ["RoPE of a part of each head", { partial_rotary_factor: 0.5 }, /partial_rotary_factor/],
    ["quantised weights", { quantization_config: { quant_method: "gptq" } }, /GPTQ, AWQ or bitsandbytes/],
    ["layers of another kind", { layer_types: ["full_attention", "sliding_attention"] }, /layer_types/],
    ["biases in the FFN", { mlp_bias: true }, /mlp_bias/],
    ["a window in Qwen", { model_type: "qwen2", use_sliding_window: true }, /use_sliding_window/],
    ["another GELU", { model_type: "gemma2", hidden_act: null, hidden_activation: "gelu" }, /hidden_activation/],
    ["attention both ways", { model_type: "gemma3_text", use_bidirectional_attention: true }, /bidirectional/],
    [
      "another pattern of Gemma's",
      { model_type: "gemma3_text", hidden_act: null, num_hidden_layers: 12, sliding_window_pattern: 4 },
      /pattern/,
    ],
    ["an attention bias", { attention_bias: true }, /attention_bias/],
  ])("%s", (_, changes, message) => {
    const read = () => readModelFolder(withConfig(changes));
    expect(read).toThrow(FileError);
    expect(read).toThrow(message);
  });

  test("numbers that make no model", () => {
    expect(() => readModelConfig(withConfig({ num_key_value_heads: 3 }))).toThrow(OptionError);
    expect(() => readModelConfig(withConfig({ num_hidden_layers: 1e9 }))).toThrow(OptionError);
    // not in float32, which GGUF has
    for (const rms_norm_eps of [1e308, 1e-60])
      expect(() => readModelConfig(withConfig({ rms_norm_eps }))).toThrow(OptionError);
    expect(() => readModelConfig(withConfig({ num_hidden_layers: 0 }))).toThrow(OptionError);
    expect(() => readModelConfig(withConfig({ head_dim: null, num_attention_heads: 5 }))).toThrow(OptionError);
    expect(() => readModelConfig(withConfig({ rms_norm_eps: -1 }))).toThrow(OptionError);
    expect(() => readModelConfig(withConfig({ vocab_size: "NaN" }))).toThrow(FileError);
  });

  test("a config that is missing or no JSON", () => {
    const folder = withConfig({});
    writeFileSync(join(folder, "config.json"), "{");
    expect(() => readModelConfig(folder)).toThrow(/wanted JSON/);
    expect(() => readModelConfig(join(folder, "none"))).toThrow(/ENOENT/);
  });
});

describe("config.json", () => {
  const required = [
    "family",
    "width",
    "numLayers",
    "numHeads",
    "numKvHeads",
    "headWidth",
    "ffnWidth",
    "vocabSize",
    "contextLength",
    "normEps",
    "ropeTheta",
    "tieEmbeddings",
  ];
  const positive = (max: number) => fc.integer({ min: 1, max });
  const scaling: fc.Arbitrary<RopeScaling> = fc.oneof(
    fc.record({ kind: fc.constant("linear" as const), factor: positive(64) }),
    fc.record({
      kind: fc.constant("llama3" as const),
      factor: positive(64),
      lowFactor: positive(3),
      highFactor: fc.integer({ min: 4, max: 9 }),
      originalContextLength: positive(8192),
    }),
    fc.record({
      kind: fc.constant("yarn" as const),
      factor: positive(64),
      originalContextLength: positive(8192),
      betaFast: fc.integer({ min: 2, max: 64 }),
      betaSlow: positive(2),
    }),
  );
  const gemma = {
    attentionScale: positive(1000).map((n) => 1 / Math.sqrt(n)),
    slidingWindow: positive(5000),
    attentionSoftCap: positive(60),
    logitSoftCap: positive(60),
  };

  test.each(MODEL_FAMILIES)("of any %s says its shape (seed 7)", (family) => {
    const folder = temporaryFolder();
    const isGemma = family.startsWith("gemma");
    const config = fc.record(
      {
        family: fc.constant(family),
        width: positive(8192),
        numLayers: positive(100),
        numHeads: positive(16).map((n) => 4 * n),
        numKvHeads: fc.constantFrom(1, 2, 4),
        headWidth: positive(128).map((n) => 2 * n),
        ffnWidth: positive(30_000),
        vocabSize: positive(300_000),
        contextLength: positive(200_000).map((n) => n + 1),
        normEps: fc.constantFrom(1e-5, 1e-6),
        ropeTheta: positive(1e7),
        tieEmbeddings: fc.boolean(),
        ropeScaling: scaling,
        ...(isGemma && gemma),
        ...(family === "gemma3" && { localRopeTheta: positive(1e6) }),
      },
      {
        noNullPrototype: true,
        requiredKeys: [
          ...required,
          ...(isGemma ? ["slidingWindow" as const] : []),
          ...(family === "gemma3" ? ["localRopeTheta" as const] : []),
        ] as never,
      },
    ) as fc.Arbitrary<ModelConfig>;
    fc.assert(
      fc.property(config, (config) => {
        fc.pre(config.attentionScale !== 1 / Math.sqrt(config.headWidth)); // which is the same as none
        writeModelConfig(folder, config, "float32");
        expect(readModelConfig(folder)).toEqual(config);
      }),
      { seed: 7, numRuns: 100 },
    );
  });

  const written = (config: object) => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, "config.json"), JSON.stringify(config));
    return readModelConfig(folder);
  };

  // Written by hand from the published configs of these models.
  test("of Llama 3.2 1B", () => {
    const rope_scaling = {
      factor: 32,
      high_freq_factor: 4,
      low_freq_factor: 1,
      original_max_position_embeddings: 8192,
      rope_type: "llama3",
    };
    const config = {
      model_type: "llama",
      attention_bias: false,
      attention_dropout: 0,
      head_dim: 64,
      hidden_act: "silu",
      hidden_size: 2048,
      intermediate_size: 8192,
      max_position_embeddings: 131072,
      mlp_bias: false,
      num_attention_heads: 32,
      num_hidden_layers: 16,
      num_key_value_heads: 8,
      pretraining_tp: 1,
      rms_norm_eps: 1e-5,
      rope_scaling,
      rope_theta: 500000,
      tie_word_embeddings: true,
      vocab_size: 128256,
    };
    const wanted = {
      family: "llama",
      headWidth: 64,
      numKvHeads: 8,
      ropeTheta: 500_000,
      tieEmbeddings: true,
      ropeScaling: { kind: "llama3", factor: 32, lowFactor: 1, highFactor: 4, originalContextLength: 8192 },
    };
    expect(written(config)).toMatchObject(wanted);
    const { rope_theta, ...newer } = config;
    expect(
      written({ ...newer, rope_scaling: undefined, rope_parameters: { ...rope_scaling, rope_theta } }),
    ).toMatchObject(wanted);
    expect(written({ ...newer, rope_parameters: { ...rope_scaling, rope_theta } })).toMatchObject(wanted); // said twice
  });

  test("of Mistral 7B, whose window bounds the context", () => {
    const config = {
      model_type: "mistral",
      hidden_size: 4096,
      intermediate_size: 14336,
      max_position_embeddings: 32768,
      num_attention_heads: 32,
      num_hidden_layers: 32,
      num_key_value_heads: 8,
      rms_norm_eps: 1e-5,
      rope_theta: 10000,
      sliding_window: 4096,
      tie_word_embeddings: false,
      vocab_size: 32000,
    };
    expect(written(config)).toMatchObject({ family: "llama", contextLength: 4096, headWidth: 128 });
    expect(written({ ...config, sliding_window: null }).contextLength).toBe(32_768);
  });

  test("of Qwen2.5, with YaRN as its model card says", () => {
    const config = {
      model_type: "qwen2",
      hidden_act: "silu",
      hidden_size: 896,
      intermediate_size: 4864,
      max_position_embeddings: 32768,
      max_window_layers: 21,
      num_attention_heads: 14,
      num_hidden_layers: 24,
      num_key_value_heads: 2,
      rms_norm_eps: 1e-6,
      rope_theta: 1000000,
      sliding_window: 32768,
      tie_word_embeddings: true,
      use_sliding_window: false,
      vocab_size: 151936,
      rope_scaling: { factor: 4, original_max_position_embeddings: 32768, type: "yarn" },
    };
    expect(written(config)).toMatchObject({
      family: "qwen2",
      headWidth: 64,
      contextLength: 32_768,
      ropeScaling: { kind: "yarn", factor: 4, originalContextLength: 32_768, betaFast: 32, betaSlow: 1 },
    });
  });

  test("of Gemma 2 2B", () => {
    const config = {
      model_type: "gemma2",
      attn_logit_softcapping: 50,
      final_logit_softcapping: 30,
      head_dim: 256,
      hidden_act: "gelu_pytorch_tanh",
      hidden_activation: "gelu_pytorch_tanh",
      hidden_size: 2304,
      intermediate_size: 9216,
      max_position_embeddings: 8192,
      num_attention_heads: 8,
      num_hidden_layers: 26,
      num_key_value_heads: 4,
      query_pre_attn_scalar: 256,
      rms_norm_eps: 1e-6,
      rope_theta: 10000,
      sliding_window: 4096,
      vocab_size: 256000,
    };
    const got = written(config);
    expect(got).toMatchObject({
      family: "gemma2",
      attentionSoftCap: 50,
      logitSoftCap: 30,
      slidingWindow: 4096,
      tieEmbeddings: true,
    });
    expect(got.attentionScale).toBeUndefined();
  });

  test("of Gemma 3 4B, which says only what is unusual", () => {
    const text_config = {
      hidden_size: 2560,
      intermediate_size: 10240,
      model_type: "gemma3_text",
      num_hidden_layers: 34,
      rope_scaling: { factor: 8, rope_type: "linear" },
      sliding_window: 1024,
    };
    const got = written({
      model_type: "gemma3",
      eos_token_id: [1, 106],
      mm_tokens_per_image: 256,
      text_config,
      vision_config: { hidden_size: 1152 },
    });
    expect(got).toEqual({
      family: "gemma3",
      width: 2560,
      numLayers: 34,
      numHeads: 8,
      numKvHeads: 4,
      headWidth: 256,
      ffnWidth: 10240,
      vocabSize: 262208,
      contextLength: 131072,
      normEps: 1e-6,
      ropeTheta: 1e6,
      ropeScaling: { kind: "linear", factor: 8 },
      tieEmbeddings: true,
      slidingWindow: 1024,
      localRopeTheta: 10_000,
    });
    const rope_parameters = {
      full_attention: { rope_type: "linear", factor: 8, rope_theta: 1e6 },
      sliding_attention: { rope_type: "default", rope_theta: 10_000 },
    };
    expect(
      written({ model_type: "gemma3", text_config: { ...text_config, rope_scaling: undefined, rope_parameters } }),
    ).toEqual(got);
  });
});

describe("a folder in shards", () => {
  const model = randomModel({ family: "gemma2" }, 1);
  const read = (name: string) => model.weights.get(name)!;
  const indexName = "model.safetensors.index.json";

  async function sharded(change: (map: Record<string, unknown>, folder: string) => void = () => {}): Promise<string> {
    const folder = temporaryFolder();
    await writeModel(folder, model.config, read, { type: "F32", maxShardBytes: 100_000 });
    const path = join(folder, indexName);
    const file = JSON.parse(readFileSync(path, "utf8"));
    change(file.weight_map, folder);
    writeFileSync(path, JSON.stringify(file));
    return folder;
  }

  test("reads as one, row by row too, and no file is larger than said", async () => {
    const folder = await sharded();
    expect(readModelFolder(folder)).toEqual(model);
    const sizes = readdirSync(folder).map((name) => readFileSync(join(folder, name)).length);
    expect(sizes.length).toBeGreaterThan(4);
    expect(Math.max(...sizes)).toBeLessThan(104_000);
    using file = new ModelFolder(folder);
    const { data } = read("model.layers.1.mlp.down_proj.weight");
    expect(file.read("model.layers.1.mlp.down_proj.weight", { from: 3, to: 9 })).toEqual({
      shape: [6, 96],
      data: data.subarray(3 * 96, 9 * 96),
    });
  });

  test.each(["F16", "BF16"] as const)("is written as %s", async (type) => {
    const folder = temporaryFolder();
    const names = await writeModel(folder, model.config, read, { type });
    expect(names.sort()).toEqual(readdirSync(folder).sort());
    for (const [name, { data }] of readModelFolder(folder).weights)
      expect(data).toEqual(decodeBlocks(encodeWeights(read(name).data, type), type));
  });

  const names = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [i, "a.safetensors"]));
  const name = "model.norm.weight";
  test.each<[string, (map: Record<string, unknown>, folder: string) => void, RegExp]>([
    [
      "it names hundreds of thousands of tensors",
      (map) => Object.assign(map, names(2e5)),
      /wanted a text of at most \d+ bytes/,
    ],
    ["a shard is missing", (map, folder) => rmSync(join(folder, map[name] as string)), /ENOENT/],
    [
      "a tensor is in another shard",
      (map) => Object.assign(map, { [name]: map["model.embed_tokens.weight"] }),
      /as model.safetensors.index.json says/,
    ],
    [
      "a shard is outside",
      (map) => Object.assign(map, { [name]: "../x.safetensors" }),
      /wanted a .safetensors file of this folder, got "..\/x/,
    ],
    [
      "a shard is outside, in Windows' way",
      (map) => Object.assign(map, { [name]: "..\\x.safetensors" }),
      /of this folder/,
    ],
    ["a shard is a pickle", (map) => Object.assign(map, { [name]: "pytorch_model.bin" }), /of this folder/],
    ["a shard's name is no name", (map) => Object.assign(map, { [name]: 3 }), /weight_map/],
    ["a tensor is not in the index", (map) => delete map[name], /missing: model.norm.weight/],
    [
      "a name is hostile",
      (map) => Object.defineProperty(map, "__proto__", { value: "x.safetensors", enumerable: true }),
      /weight_map/,
    ],
  ])("is refused where %s", async (_, change, message) => {
    const folder = await sharded(change);
    expect(() => new ModelFolder(folder)).toThrow(FileError);
    expect(() => new ModelFolder(folder)).toThrow(message);
  });
});

describe("other weights:", () => {
  test.each(["pytorch_model.bin", "consolidated.00.pth", "model.pt"])("%s is refused, with the reason", (name) => {
    const folder = withConfig({});
    rmSync(join(folder, "model.safetensors"));
    expect(() => new ModelFolder(folder)).toThrow(/wanted model.safetensors or .*, got neither/);
    writeFileSync(join(folder, name), "");
    expect(() => new ModelFolder(folder)).toThrow(new RegExp(`got "${name}".*can run code`));
  });

  test("of types that we do not read are refused by name", () => {
    const folder = withConfig({});
    const path = join(folder, "model.safetensors");
    const bytes = readFileSync(path);
    const at = bytes.indexOf('"F32"');
    bytes.write('"I32"', at);
    writeFileSync(path, bytes);
    expect(() => new ModelFolder(folder)).toThrow(/tensor "[a-z_.0-9]+": wanted type F32, F16, BF16, got I32/);
  });

  test("RoPE's frequencies in old checkpoints are no parameters", () => {
    const { config, weights } = randomModel({ family: "llama" }, 1);
    const folder = temporaryFolder();
    writeModelFolder(folder, { config, weights });
    const extra: Weights = new Map([
      ...weights,
      ["model.layers.0.self_attn.rotary_emb.inv_freq", { shape: [8], data: new Float32Array(8) }],
    ]);
    writeSafetensors(join(folder, "model.safetensors"), extra);
    expect(readModelFolder(folder)).toEqual({ config, weights });
  });

  test.each([
    ["older", "language_model.model.", "vision_tower.x"],
    ["newer", "model.language_model.", "model.multi_modal_projector.x"],
  ])("the text part of a Gemma 3 that sees, in its %s names, is read alone and that is said", (_, prefix, vision) => {
    const { config, weights } = randomModel({ family: "gemma3" }, 1);
    const folder = temporaryFolder();
    writeModelFolder(folder, { config, weights });
    const file = JSON.parse(readFileSync(join(folder, "config.json"), "utf8"));
    writeFileSync(join(folder, "config.json"), JSON.stringify({ model_type: "gemma3", text_config: file }));
    const renamed = [...weights].map(([name, weight]) => [name.replace(/^model\./, prefix), weight] as const);
    writeSafetensors(
      join(folder, "model.safetensors"),
      new Map([...renamed, [vision, { shape: [1], data: new Float32Array(1) }]]),
    );
    using model = new ModelFolder(folder);
    expect(model.config).toEqual(config);
    expect(model.notes).toEqual([expect.stringMatching(/^1 tensors that look at images/)]);
    for (const [name, weight] of weights) expect(model.read(name)).toEqual(weight);
  });

  test("code that a model brings is not run, and that is said", () => {
    using model = new ModelFolder(withConfig({ auto_map: { AutoModel: "evil.Model" } }));
    expect(model.notes).toEqual([expect.stringMatching(/auto_map.*never run/)]);
  });
});

describe("generation_config.json", () => {
  const folderOf = (files: Record<string, unknown>) => {
    const folder = temporaryFolder();
    mkdirSync(folder, { recursive: true });
    for (const [name, value] of Object.entries(files)) writeFileSync(join(folder, name), JSON.stringify(value));
    return folder;
  };

  test("tells where answers end, by one id or several; config.json where it does not", () => {
    const generation = { bos_token_id: 1, eos_token_id: [2, 3], temperature: 0.6 };
    const config = { bos_token_id: 5, eos_token_id: 6 };
    const read = (files: Record<string, unknown>) => readGenerationConfig(folderOf(files));
    expect(read({ "generation_config.json": generation, "config.json": config })).toEqual({
      bosId: 1,
      eosIds: [2, 3],
    });
    expect(read({ "config.json": config })).toEqual({ bosId: 5, eosIds: [6] });
    expect(read({ "config.json": { text_config: config, eos_token_id: null } })).toEqual({
      bosId: 5,
      eosIds: [6],
    });
    expect(read({})).toEqual({ bosId: undefined, eosIds: [] });
  });

  test("with something else than ids is refused", () => {
    for (const eos_token_id of ["</s>", -1, 1.5, [[1]]])
      expect(() => readGenerationConfig(folderOf({ "generation_config.json": { eos_token_id } }))).toThrow(FileError);
    expect(() => readGenerationConfig(folderOf({ "generation_config.json": [] }))).toThrow(FileError);
  });
});
