import { cpSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { shapes, writeCheckpointFolder } from "../../test/support/checkpoints.ts";
import { ggufParts, randomBlocks, writeParts } from "../../test/support/gguf.ts";
import { randomModel, temporaryFolder, writeCheckpoint } from "../../test/support/models.ts";
import { InstructionModel } from "../answer/instructionModel.ts";
import { FileError, OptionError } from "../errors.ts";
import type { GgufValue } from "../formats/gguf.ts";
import { tokenizerMetadata } from "../formats/ggufTokenizer.ts";
import { array, uint32 } from "../formats/ggufValues.ts";
import { decodeBlocks, encodeWeights } from "../formats/quantize.ts";
import { predictorIds } from "../text/prompt.ts";
import { loadModel } from "../train/checkpoint.ts";
import { Bundle } from "./bundle.ts";
import { importModel } from "./importModel.ts";
import { TINY_MODEL } from "./pulledModels.ts";

// That imported models compute the same is tested in test/import.test.ts.

const model = randomModel({ family: "llama" }, 1);

/** A folder with a tokenizer whose specials are 0, 1 and 2. */
async function modelFolder(): Promise<string> {
  const folder = join(await writeCheckpoint(temporaryFolder(), model), "llm");
  writeFileSync(join(folder, "generation_config.json"), '{"bos_token_id": 1, "eos_token_id": 2}');
  return folder;
}

async function refused(source: string, message: RegExp): Promise<void> {
  const out = join(temporaryFolder(), "out");
  await expect(importModel(source, out)).rejects.toThrow(FileError);
  await expect(importModel(source, out)).rejects.toThrow(message);
  expect(readdirSync(dirname(out))).toEqual([]);
}

describe("a GGUF file is refused, and nothing is left, with", () => {
  test.each<[string, Record<string, GgufValue>, RegExp]>([
    ["an EOS beyond the tokens", { "tokenizer.ggml.eos_token_id": uint32(1e9) }, /special tokens, got id 1000000000/],
    ["an EOS that is a word", { "tokenizer.ggml.eos_token_id": uint32(5) }, /special tokens, got id 5/],
    ["merges of one word", { "tokenizer.ggml.merges": array("string", ["ab"]) }, /wanted merges/],
  ])("%s", async (_, changes, message) => {
    const tokenizer = join(await modelFolder(), "tokenizer.json");
    const metadata = tokenizerMetadata(tokenizer, model.config, { bosId: 1, eosIds: [2], addBos: true });
    const parts = ggufParts(model);
    for (const [key, value] of [...metadata, ...Object.entries(changes)]) parts.metadata.set(key, value);
    await refused(await writeParts(temporaryFolder(), parts), message);
  });
});

test("an added token that the model has no embedding for is left out, as Gemma 3's of images", async () => {
  const folder = await modelFolder();
  const path = join(folder, "tokenizer.json");
  const json = JSON.parse(readFileSync(path, "utf8"));
  const { vocabSize } = model.config;
  const beyond = { ...json.added_tokens[0], id: vocabSize, content: "<image_soft_token>" };
  const before = Object.keys(json.model.vocab).length;
  const gap = Array.from({ length: vocabSize - before }, (_, i) => ({
    ...beyond,
    id: before + i,
    content: `<gap${i}>`,
  }));
  writeFileSync(path, JSON.stringify({ ...json, added_tokens: [...json.added_tokens, ...gap, beyond] }));
  const out = join(temporaryFolder(), "out");
  await importModel(folder, out);
  using bundle = new Bundle(out);
  const tokens = bundle.metadata.get("tokenizer.ggml.tokens")!.value as string[];
  expect([tokens.length, tokens.includes(beyond.content)]).toEqual([vocabSize, false]);

  json.model.vocab["a token of its own"] = vocabSize;
  writeFileSync(path, JSON.stringify({ ...json, added_tokens: [...json.added_tokens, ...gap] }));
  await refused(folder, /wanted ids below the model's/);
});

test("a path that ends in a slash is that of the folder", async () => {
  const out = join(temporaryFolder(), "out");
  await importModel(await modelFolder(), `${out}/`);
  new Bundle(out)[Symbol.dispose]();
  expect(readdirSync(dirname(out))).toEqual(["out"]);
});

test("blocks that the bundle is to be put into, and that do not divide its channels, are refused before it is written", async () => {
  const out = join(temporaryFolder(), "out");
  const onProgress = vi.fn();
  const importing = importModel(await modelFolder(), out, { block: 7, onProgress });
  await expect(importing).rejects.toThrow(/wanted blocks that divide 96 channels \(d_ffn\), got blocks of 7/);
  expect(onProgress).not.toHaveBeenCalled();
});

test("a width of the FFN that is no whole blocks is kept in F16", async () => {
  const odd = randomModel({ family: "llama", ffnWidth: 40 }, 1);
  const folder = join(await writeCheckpoint(temporaryFolder(), odd), "llm");
  writeFileSync(join(folder, "generation_config.json"), '{"bos_token_id": 1, "eos_token_id": 2}');
  const out = join(temporaryFolder(), "out");
  await importModel(folder, out);
  using bundle = new Bundle(out);
  expect(bundle.layouts[0]!.gate).toBe("F16");
});

describe("a checkpoint", () => {
  test("tells its progress, and stops without a trace", async () => {
    const out = join(temporaryFolder(), "out");
    const stop = new AbortController();
    const onProgress = (done: number, total: number) => {
      if (done > total / 2) stop.abort(new Error("stopped"));
    };
    const options = { as: "checkpoint", signal: stop.signal, onProgress } as const;
    await expect(importModel(await modelFolder(), out, options)).rejects.toThrow("stopped");
    expect(readdirSync(dirname(out))).toEqual([]);
  });

  test("of a bundle has its weights and says where they are from; a bundle with a predictor is refused", async () => {
    const folder = temporaryFolder();
    const at = (name: string) => join(folder, name);
    await importModel(await modelFolder(), at("bundle"), { type: "F32", name: "small", licence: "MIT" });
    await importModel(at("bundle"), at("checkpoint"), { as: "checkpoint" });
    const { card, llm } = await loadModel(at("checkpoint"));
    expect(llm.weights).toEqual(model.weights);
    expect(card.provenance.data).toEqual([{ name: "small", licence: "MIT" }]);
    const again = importModel(at("bundle"), at("other"), { as: "checkpoint", licence: "CC0" });
    await expect(again).rejects.toThrow(OptionError);
    await expect(importModel(TINY_MODEL, at("tiny"), { as: "checkpoint" })).rejects.toThrow(/with a predictor/);
    expect(readdirSync(folder).sort()).toEqual(["bundle", "checkpoint"]);
  });

  test("is not made of a bundle that came to harm", async () => {
    const folder = temporaryFolder();
    const at = (name: string) => join(folder, name);
    await importModel(await modelFolder(), at("bundle"));
    const bytes = readFileSync(at("bundle/base.gguf"));
    bytes[bytes.length - 1000]! ^= 0x40;
    writeFileSync(at("bundle/base.gguf"), bytes);
    const importing = importModel(at("bundle"), at("checkpoint"), { as: "checkpoint" });
    await expect(importing).rejects.toThrow(/changed or damaged/);
    expect(readdirSync(folder)).toEqual(["bundle"]);
  });

  test("is what becomes of a model that llama.cpp does not compute, and the refusal of a bundle says so", async () => {
    const folder = await modelFolder();
    const path = join(folder, "config.json");
    const json = JSON.parse(readFileSync(path, "utf8"));
    const rope_scaling = { rope_type: "yarn", factor: 4, original_max_position_embeddings: 64, beta_fast: 16 };
    writeFileSync(path, JSON.stringify({ ...json, rope_scaling }));
    await refused(folder, /wanted a model that llama\.cpp computes\. .*YaRN with betas.* --checkpoint takes it/);
    await importModel(folder, join(temporaryFolder(), "out"), { as: "checkpoint" });
  });

  test("has no type to choose", async () => {
    const importing = importModel(await modelFolder(), join(temporaryFolder(), "out"), {
      as: "checkpoint",
      type: "F16",
    });
    await expect(importing).rejects.toThrow(OptionError);
  });
});

describe("a link in a model's folder", () => {
  const importing = (folder: string, out = join(temporaryFolder(), "out")) => importModel(folder, out);

  test("to elsewhere is not followed: it would bring any file of this machine along", async () => {
    const secret = join(temporaryFolder(), "secret.json");
    writeFileSync(secret, '{"key": "secret"}');
    for (const name of ["special_tokens_map.json", "tokenizer.json", "model.safetensors"]) {
      const folder = await modelFolder();
      rmSync(join(folder, name), { force: true });
      symlinkSync(secret, join(folder, name));
      await expect(importing(folder)).rejects.toThrow(/got a link to elsewhere\. Put a copy in its place/);
    }
  });

  test("is followed within what the Hub's cache has of one repository, not to another's", async () => {
    const hub = temporaryFolder();
    const [snapshot, blobs] = [join(hub, "models--a--b/snapshots/c0ffee"), join(hub, "models--a--b/blobs")];
    cpSync(await modelFolder(), blobs, { recursive: true });
    mkdirSync(snapshot, { recursive: true });
    for (const name of readdirSync(blobs)) symlinkSync(join("../../blobs", name), join(snapshot, name));
    await importing(snapshot);
    mkdirSync(join(hub, "models--a--c"));
    renameSync(blobs, join(hub, "models--a--c/blobs"));
    symlinkSync("../models--a--c/blobs", blobs);
    await expect(importing(snapshot)).rejects.toThrow(/got a link to elsewhere/);
  });
});

describe("weights that no training leaves", () => {
  /** The model with one of its values changed, as a folder. */
  async function withValue(name: string, index: number, value: number): Promise<string> {
    const { shape, data } = model.weights.get(name)!;
    const weights = new Map([...model.weights, [name, { shape, data: data.with(index, value) }]]);
    const folder = join(await writeCheckpoint(temporaryFolder(), { ...model, weights }), "llm");
    writeFileSync(join(folder, "generation_config.json"), '{"bos_token_id": 1, "eos_token_id": 2}');
    return folder;
  }
  const F = model.config.ffnWidth;

  test.each([
    ["model.layers.1.mlp.down_proj.weight", 2 * F + 3, Number.NaN, /wanted finite weights, got NaN at \[2, 3\]/],
    ["model.layers.0.mlp.up_proj.weight", 64, Number.NEGATIVE_INFINITY, /got -Infinity at \[1, 0\]/],
    ["model.embed_tokens.weight", 5 * 64 + 7, Number.POSITIVE_INFINITY, /got Infinity at \[5, 7\]/],
    ["model.norm.weight", 9, Number.NaN, /got NaN at \[9\]/],
  ])("that are not finite are named, and nothing is written: %s", async (name, index, value, message) => {
    const folder = await withValue(name, index, value);
    await refused(folder, message);
    await refused(folder, new RegExp(`tensor "${name.replaceAll(".", "\\.")}"`));
    const importing = importModel(folder, join(temporaryFolder(), "out"), { as: "checkpoint" });
    await expect(importing).rejects.toThrow(message);
  });

  test.each([
    ["F16", "model.layers.0.mlp.down_proj.weight", 1e5, 65504],
    ["F16", "model.layers.1.self_attn.q_proj.weight", -1e5, 65504],
    ["Q8_0", "model.layers.1.mlp.down_proj.weight", 1e7, 127 * 65504],
    ["Q8_0", "model.layers.0.self_attn.q_proj.weight", 1e7, 127 * 65504],
    ["Q4_0", "model.layers.0.mlp.gate_proj.weight", 1e6, 8 * 65504],
  ] as const)("that %s cannot hold are named, and nothing is written: %s", async (type, name, value, most) => {
    const folder = await withValue(name, 3, value);
    const out = join(temporaryFolder(), "out");
    const message = new RegExp(`"${name}": wanted weights of at most ${most}, which ${type} holds, got ${value} at`);
    await expect(importModel(folder, out, { type })).rejects.toThrow(message);
    expect(readdirSync(dirname(out))).toEqual([]);
    await importModel(folder, out, { type: "F32" });
  });

  test.each(["F16", "BF16", "Q8_0"] as const)(
    "of norms in %s, which llama.cpp does not add, become F32",
    async (type) => {
      const tokenizer = join(await modelFolder(), "tokenizer.json");
      const changed = ["model.norm.weight", "model.layers.0.input_layernorm.weight"].map((name) => {
        const { data } = model.weights.get(name)!;
        return [name, { type, bytes: encodeWeights(data, type) }] as const;
      });
      const parts = ggufParts(model, new Map(changed));
      for (const [key, value] of tokenizerMetadata(tokenizer, model.config, { bosId: 1, eosIds: [2], addBos: true }))
        parts.metadata.set(key, value);
      const out = join(temporaryFolder(), "out");
      await importModel(await writeParts(temporaryFolder(), parts), out);
      using bundle = new Bundle(out);
      for (const name of ["output_norm", "blk.0.attn_norm"])
        expect(bundle.base.tensor(`${name}.weight`).type).toBe("F32");
      for (const [name, stored] of changed)
        expect(bundle.read(name).data).toEqual(decodeBlocks(stored.bytes, stored.type));
    },
  );

  test("that are not finite are found in blocks that are kept as they are", async () => {
    const tokenizer = join(await modelFolder(), "tokenizer.json");
    const name = "model.layers.1.mlp.gate_proj.weight";
    const bytes = randomBlocks("Q8_0", F * 64, 0.01, 1);
    new DataView(bytes.buffer).setUint16(3 * 68, 0x7e00, true); // the scale of the fourth row's first block
    const parts = ggufParts(model, new Map([[name, { type: "Q8_0", bytes }]]));
    for (const [key, value] of tokenizerMetadata(tokenizer, model.config, { bosId: 1, eosIds: [2], addBos: true }))
      parts.metadata.set(key, value);
    await refused(
      await writeParts(temporaryFolder(), parts),
      /gate_proj\.weight": wanted finite weights, got NaN at \[3, 0\]/,
    );
  });

  test("a matrix of zeros is noted: there are layers that begin so; a bias of zeros is none", async () => {
    const zeros = randomModel({ family: "qwen2" }, 1);
    zeros.weights.get("model.layers.1.self_attn.o_proj.weight")!.data.fill(0);
    zeros.weights.get("model.layers.1.self_attn.q_proj.bias")!.data.fill(0);
    const folder = join(await writeCheckpoint(temporaryFolder(), zeros), "llm");
    writeFileSync(join(folder, "generation_config.json"), '{"bos_token_id": 1, "eos_token_id": 2}');
    for (const as of ["bundle", "checkpoint"] as const) {
      const { notes } = await importModel(folder, join(temporaryFolder(), "out"), { as });
      expect(notes).toEqual([
        expect.stringMatching(/^Nothing but zeros: model\.layers\.1\.self_attn\.o_proj\.weight\./),
      ]);
    }
    expect((await importModel(await modelFolder(), join(temporaryFolder(), "out"))).notes).toEqual([]);
  });
});

test("a post-processor that names what every object has is none", async () => {
  const folder = await modelFolder();
  const path = join(folder, "tokenizer.json");
  const single = [{ SpecialToken: { id: "constructor" } }];
  const json = { ...JSON.parse(readFileSync(path, "utf8")), post_processor: { single, special_tokens: {} } };
  writeFileSync(path, JSON.stringify(json));
  await importModel(folder, join(temporaryFolder(), "out"));
});

describe("BOS and EOS of a folder are those of its tokenizer:", () => {
  /** What chats and texts begin with, and the EOS that templates write. */
  async function tokensOf(
    shape: string,
    changes: Record<string, (json: Record<string, unknown>) => object>,
  ): Promise<[chat: number, text: number, eos: string]> {
    const folder = temporaryFolder();
    await writeCheckpointFolder(folder, shapes[shape]!);
    for (const [name, change] of Object.entries(changes))
      writeFileSync(join(folder, name), JSON.stringify(change(JSON.parse(readFileSync(join(folder, name), "utf8")))));
    const out = join(temporaryFolder(), "out");
    await importModel(folder, out);
    using imported = new InstructionModel(out);
    const { format } = imported;
    return [format.promptIds("hi")[0]!, predictorIds(format.tokenizer, "hi")[0]!, format.tokenizer.eosToken];
  }
  const without = ({ bos_token_id: _, ...json }: Record<string, unknown>) => json;

  test("a BOS that only the template writes is in every prompt", async () => {
    const silent = (json: object) => ({ ...json, add_bos_token: false });
    expect(await tokensOf("Gemma 2", { "tokenizer_config.json": silent })).toEqual([1, 1, "<eos>"]);
    expect((await tokensOf("Qwen3", {}))[0]).not.toBe(1);
  });

  test("a BOS that only the tokenizer names is read", async () => {
    const configs = { "config.json": without, "generation_config.json": without };
    expect(await tokensOf("Llama 2", configs)).toEqual([1, 1, "</s>"]);
  });

  test("a tokenizer that says it has no BOS has none, whatever the configs say", async () => {
    const chat_template = "{{ bos_token if bos_token is defined else '' }}{{ messages[0].content }}";
    const none = (json: object) => ({ ...json, bos_token: null, add_bos_token: false, chat_template });
    expect((await tokensOf("Qwen3", { "tokenizer_config.json": none }))[0]).not.toBe(1);
  });

  test("a tokenizer.json that is none is refused by its name", async () => {
    for (const text of ["[]", "null", "3"]) {
      const folder = await modelFolder();
      writeFileSync(join(folder, "tokenizer.json"), text);
      await refused(folder, /tokenizer\.json: wanted a BPE tokenizer\.json/);
    }
  });

  test("of several tokens that end answers, templates write the tokenizer's", async () => {
    const named = (json: object) => ({ ...json, eos_token: { content: "<|im_end|>" } });
    const [, , eos] = await tokensOf("SmolLM2", { "tokenizer_config.json": named });
    expect(eos).toBe("<|im_end|>");
    const other = (json: object) => ({ ...json, eos_token_id: 2 });
    const [, , unlisted] = await tokensOf("SmolLM2", {
      "tokenizer_config.json": named,
      "generation_config.json": other,
    });
    expect(unlisted).toBe("<|im_end|>");
  });
});
