import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { ggufParts, writeParts } from "../../test/support/gguf.ts";
import { randomModel, temporaryFolder } from "../../test/support/models.ts";
import { FileError, OptionError } from "../errors.ts";
import type { ModelConfig } from "../model/config.ts";
import type { GgufValue } from "./gguf.ts";
import { GgufFile } from "./gguf.ts";
import { encodeParameter, GgufModel, modelMetadata, readGgufConfig, splitMetadata, storedType } from "./ggufModel.ts";
import { float32, string, uint32 } from "./ggufValues.ts";
import { encodeWeights } from "./quantize.ts";

// That llama.cpp computes what the config says, and that files read back, is tested in test/llamaCpp.test.ts.

const llama3 = { kind: "llama3", factor: 8, lowFactor: 1, highFactor: 4, originalContextLength: 8192 } as const;
const yarn = { kind: "yarn", factor: 4, originalContextLength: 16, betaFast: 32, betaSlow: 1 } as const;

test("block types fall back to F16 for rows of part blocks, and vectors stay F32", () => {
  expect([storedType([4, 64], "Q8_0"), storedType([64, 172], "Q4_0"), storedType([64], "BF16")]).toEqual([
    "Q8_0",
    "F16",
    "F32",
  ]);
});

test("q is encoded alike whole and head by head", () => {
  const { config, weights } = randomModel({ family: "llama" }, 1);
  const name = "model.layers.0.self_attn.q_proj.weight";
  const { data } = weights.get(name)!;
  const part = (head: number) => {
    const rows = data.subarray(head * 16 * 64, (head + 1) * 16 * 64);
    return encodeParameter(config, name, { shape: [16, 64], data: rows }, "Q8_0");
  };
  const whole = encodeParameter(config, name, weights.get(name)!, "Q8_0");
  expect(Buffer.concat([0, 1, 2, 3].map(part))).toEqual(Buffer.from(whole));
});

describe("refuses to write what llama.cpp would compute otherwise:", () => {
  test.each<[string, Parameters<typeof randomModel>[0], RegExp]>([
    ["llama3 scaling in Qwen", { family: "qwen3", ropeScaling: llama3 }, /llama3/],
    [
      "llama3 scaling with other numbers",
      { family: "llama", ropeScaling: { ...llama3, originalContextLength: 4096 } },
      /"originalContextLength":8192/,
    ],
    ["YaRN with other betas", { family: "llama", ropeScaling: { ...yarn, betaFast: 16 } }, /betas 32 and 1/],
    ["another scale of attention", { family: "gemma3", attentionScale: 0.3 }, /attention scaled by 0.25/],
    ["a Llama with a scale of its own", { family: "llama", attentionScale: 0.3 }, /attention scaled/],
    [
      "the usual scale in 46 layers of gemma2",
      { family: "gemma2", headWidth: 32, numLayers: 46 },
      /attention scaled by 0.25/,
    ],
    ["a window in Qwen", { family: "qwen2", slidingWindow: 8 }, /no sliding window/],
    ["a gemma2 without caps", { family: "gemma2", attentionSoftCap: undefined }, /soft cap of/],
    ["a gemma2 with an output matrix", { family: "gemma2", tieEmbeddings: false }, /tied/],
    ["a cap of attention in gemma3", { family: "gemma3", attentionSoftCap: 50 }, /no cap of attention/],
    ["capped logits in Llama", { family: "llama", logitSoftCap: 30 }, /no cap of logits/],
    ["heads wider than a qwen2", { family: "qwen2", headWidth: 32 }, /64 wide together/],
  ])("%s", (_, changes, message) => {
    const { config } = randomModel(changes, 1);
    expect(() => modelMetadata(config)).toThrow(OptionError);
    expect(() => modelMetadata(config)).toThrow(message);
  });
});

/** A model file with metadata changed (null: left out). */
async function changed(
  changes: Record<string, GgufValue | null>,
  of: Parameters<typeof randomModel>[0] = { family: "llama" },
) {
  const parts = ggufParts(randomModel(of, 1));
  for (const [key, value] of Object.entries(changes)) {
    if (value) parts.metadata.set(key, value);
    else parts.metadata.delete(key);
  }
  return writeParts(temporaryFolder(), parts);
}

async function configOf(...args: Parameters<typeof changed>): Promise<ModelConfig> {
  using model = new GgufModel(await changed(...args));
  return model.config;
}

describe("what a file leaves out", () => {
  const { config } = randomModel({ family: "llama" }, 1);

  test("is as in llama.cpp: old files of Llama have few keys", async () => {
    const absent = [
      "vocab_size",
      "rope.dimension_count",
      "attention.key_length",
      "attention.value_length",
      "rope.freq_base",
    ];
    const keys = Object.fromEntries(absent.map((key) => [`llama.${key}`, null]));
    expect(await configOf(keys)).toEqual(config);
    expect(await configOf({ "tokenizer.ggml.tokens": null })).toEqual(config);
    const heads = await configOf({ "llama.attention.head_count_kv": null }, { family: "llama", numKvHeads: 4 });
    expect(heads.numKvHeads).toBe(4);
  });

  test("in Gemma too: caps, windows, the base of local layers", async () => {
    const gemma2 = {
      "gemma2.attn_logit_softcapping": null,
      "gemma2.final_logit_softcapping": null,
      "gemma2.attention.sliding_window": null,
    };
    expect(await configOf(gemma2, { family: "gemma2" })).toMatchObject({
      attentionSoftCap: 50,
      logitSoftCap: 30,
      slidingWindow: 4096,
    });
    expect(await configOf({ "gemma3.rope.freq_base_swa": null }, { family: "gemma3" })).toMatchObject({
      localRopeTheta: 10_000,
    });
  });

  test("RoPE scaling: an older key, a factor of 1, a kind of none, YaRN's context", async () => {
    expect((await configOf({ "llama.rope.scale_linear": float32(2) })).ropeScaling).toEqual({
      kind: "linear",
      factor: 2,
    });
    expect((await configOf({ "llama.rope.scaling.factor": float32(1) })).ropeScaling).toBeUndefined();
    const none = { "llama.rope.scaling.type": string("none"), "llama.rope.scaling.factor": float32(4) };
    expect((await configOf(none)).ropeScaling).toBeUndefined();
    const scaled = { "llama.rope.scaling.type": string("yarn"), "llama.rope.scaling.factor": float32(4) };
    expect((await configOf(scaled)).ropeScaling).toEqual({ ...yarn, originalContextLength: config.contextLength });
  });

  test("Mistral's window bounds the context", async () => {
    expect((await configOf({ "llama.attention.sliding_window": uint32(40) })).contextLength).toBe(40);
  });
});

describe("refuses a file, naming the cause:", () => {
  test.each<[string, Record<string, GgufValue | null>, Parameters<typeof randomModel>[0] | undefined, RegExp]>([
    ["another architecture", { "general.architecture": string("mamba") }, undefined, /got "mamba"/],
    ["a mixture of experts", { "llama.expert_count": uint32(8) }, undefined, /mixture of experts/],
    ["values of another length", { "llama.attention.value_length": uint32(8) }, undefined, /value_length 16/],
    ["RoPE of a part of each head", { "llama.rope.dimension_count": uint32(8) }, undefined, /rope.dimension_count/],
    ["LongRoPE", { "llama.rope.scaling.type": string("longrope") }, undefined, /longrope/],
    ["a factor of attention", { "llama.rope.scaling.attn_factor": float32(2) }, undefined, /factor of its own/],
    [
      "scaling of two kinds",
      { "llama.rope.scaling.factor": float32(2) },
      { family: "llama", ropeScaling: llama3 },
      /one kind/,
    ],
    [
      "another pattern of layers",
      { "gemma3.attention.sliding_window_pattern": uint32(4) },
      { family: "gemma3" },
      /layer 3/,
    ],
    ["a gemma3 without a window", { "gemma3.attention.sliding_window": null }, { family: "gemma3" }, /sliding_window/],
    ["no layers' count", { "llama.block_count": null }, undefined, /llama.block_count/],
    ["a layer too many", { "llama.block_count": uint32(3) }, undefined, /missing: blk.2.attn_norm.weight.*\(9\)/],
    ["a layer too few", { "llama.block_count": uint32(1) }, undefined, /extra: blk.1.attn_norm.weight/],
    [
      "another width",
      { "llama.feed_forward_length": uint32(32) },
      undefined,
      /"blk.0.ffn_gate.weight": wanted weights \[32, 64\], got F32 \[96, 64\]/,
    ],
  ])("%s", async (_, changes, of, message) => {
    const path = await changed(changes, of);
    expect(() => new GgufModel(path)).toThrow(FileError);
    expect(() => new GgufModel(path)).toThrow(message);
  });

  test.each([1e9, 0, 2 ** 32 - 1])("%i layers, before anything is made of them", async (layers) => {
    const path = await changed({ "llama.block_count": uint32(layers) });
    expect(() => new GgufModel(path)).toThrow(OptionError);
  });

  test("divisors of RoPE that are not llama3's", async () => {
    const parts = ggufParts(randomModel({ family: "llama", ropeScaling: llama3 }, 1));
    const divisors = parts.tensors.find(({ name }) => name === "rope_freqs.weight")!;
    divisors.bytes = new Uint8Array(Float32Array.from({ length: divisors.bytes.length / 4 }, (_, i) => 1 + i).buffer);
    const path = await writeParts(temporaryFolder(), parts);
    expect(() => new GgufModel(path)).toThrow(FileError);
    expect(() => new GgufModel(path)).toThrow(/rope_freqs/);
  });

  test("parameters as bytes without a type", async () => {
    const parts = ggufParts(randomModel({ family: "llama" }, 1));
    const norm = parts.tensors.find(({ name }) => name === "output_norm.weight")!;
    Object.assign(norm, { type: "I8", bytes: new Uint8Array(64) });
    const path = await writeParts(temporaryFolder(), parts);
    expect(() => new GgufModel(path)).toThrow(/got I8/);
  });
});

test("llama.cpp's old buffers of RoPE are no parameters", async () => {
  const parts = ggufParts(randomModel({ family: "llama" }, 1));
  parts.tensors.push({ name: "blk.0.attn_rot_embd.weight", type: "F32", shape: [8], bytes: new Uint8Array(32) });
  using model = new GgufModel(await writeParts(temporaryFolder(), parts));
  expect(model.config.family).toBe("llama");
});

test("a file that llama.cpp's tool has merged is one file", async () => {
  const parts = ggufParts(randomModel({ family: "llama" }, 1));
  parts.metadata.set("split.count", { type: "uint16", value: 0 });
  using model = new GgufModel(await writeParts(temporaryFolder(), parts));
  expect(model.config.family).toBe("llama");
});

describe("a model in several files", () => {
  const { config, weights } = randomModel({ family: "llama", ropeScaling: llama3 }, 1);
  const name = (part: number, count = 3) => `m-0000${part}-of-0000${count}.gguf`;

  /** Metadata in the first part, tensors in the others, as one of llama.cpp's ways to split. */
  async function split(
    folder: string,
    change: (part: number) => Parameters<typeof splitMetadata> | undefined = () => undefined,
  ) {
    mkdirSync(folder, { recursive: true });
    const { metadata, tensors } = ggufParts({ config, weights });
    const half = Math.floor(tensors.length / 2);
    for (const [i, part] of [[], tensors.slice(0, half), tensors.slice(half)].entries()) {
      const marks = splitMetadata(...(change(i) ?? [i, 3, tensors.length]));
      await writeParts(
        folder,
        { metadata: new Map([...(i === 0 ? metadata : []), ...marks]), tensors: part },
        name(i + 1),
      );
    }
    return join(folder, name(1));
  }

  test("is read as one", async () => {
    using model = new GgufModel(await split(temporaryFolder()));
    expect(model.config).toEqual(config);
    for (const [parameter, weight] of weights) expect(model.read(parameter)).toEqual(weight);
  });

  test.each<[string, (folder: string) => Promise<string>, RegExp]>([
    [
      "a part is missing",
      async (folder) => {
        const path = await split(folder);
        mkdirSync(join(folder, "other"));
        for (const part of [1, 2]) copyFileSync(join(folder, name(part)), join(folder, "other", name(part)));
        return path.replace(name(1), `other/${name(1)}`);
      },
      /m-00003-of-00003.gguf: wanted a readable file, got ENOENT/,
    ],
    [
      "another than the first is given",
      async (folder) => (await split(folder)).replace(name(1), name(2)),
      /wanted the first of 3 files/,
    ],
    [
      "the name is another",
      async (folder) => {
        const path = await split(folder);
        copyFileSync(path, join(folder, "m.gguf"));
        return join(folder, "m.gguf");
      },
      /wanted the first of 3 files, named …-00001-of-00003.gguf/,
    ],
    [
      "a part has another's number",
      (folder) => split(folder, (part) => (part === 2 ? [1, 3, 0] : undefined)),
      /wanted part 2 of 3, got 1 of 3/,
    ],
    [
      "a part is of another number of parts",
      (folder) => split(folder, (part) => (part === 2 ? [2, 4, 0] : undefined)),
      /got 2 of 4/,
    ],
    [
      "the number of tensors is another",
      (folder) => split(folder, (part) => (part === 0 ? [0, 3, 99] : undefined)),
      /wanted 99 tensors in 3 files, got 22/,
    ],
    [
      "two parts have the same tensors",
      async (folder) => {
        const path = await split(folder, (part) => (part === 0 ? [0, 3, 20] : undefined));
        const { tensors } = ggufParts({ config, weights });
        for (const part of [2, 3])
          await writeParts(
            folder,
            { metadata: splitMetadata(part - 1, 3, 0), tensors: tensors.slice(0, 10) },
            name(part),
          );
        return path;
      },
      /wanted each tensor once, got "token_embd.weight" in two files/,
    ],
  ])("is refused where %s", async (_, make, message) => {
    const path = await make(temporaryFolder());
    expect(() => new GgufModel(path)).toThrow(FileError);
    expect(() => new GgufModel(path)).toThrow(message);
  });
});

test("a file of metadata and embeddings alone tells the config, and is no model", async () => {
  const { config, weights } = randomModel({ family: "qwen2" }, 1);
  const parts = ggufParts({ config, weights });
  const tensors = parts.tensors.filter(({ name }) => !name.includes("ffn_up"));
  const path = await writeParts(temporaryFolder(), { ...parts, tensors });
  using file = new GgufFile(path);
  expect(readGgufConfig(file)).toEqual(config);
  expect(() => new GgufModel(path)).toThrow(/missing: blk.0.ffn_up.weight/);
});

test("a file that is no GGUF is refused", () => {
  const path = join(temporaryFolder(), "m.gguf");
  writeFileSync(path, encodeWeights(new Float32Array(64), "F32"));
  expect(() => new GgufModel(path)).toThrow(FileError);
});
