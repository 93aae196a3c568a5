/**
 * Bring your own model, whole: for each kind of checkpoint that people have, folder → bundle → llama.cpp is the float64 reference of the
 * folder's weights, and so is folder → checkpoint → graph; and a sub-network that is exported and imported again says the same.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { InstructionModel } from "../src/answer/instructionModel.ts";
import { Bundle } from "../src/bundle/bundle.ts";
import { importModel } from "../src/bundle/importModel.ts";
import { openSubnetwork } from "../src/bundle/subnetworkCache.ts";
import type { ScoredToken } from "../src/engine/engine.ts";
import { llamaCpp } from "../src/engine/llamaCpp.ts";
import { openModel } from "../src/eval/load.ts";
import { exportSubnetwork } from "../src/export/export.ts";
import { GgufModel } from "../src/formats/ggufModel.ts";
import { tokenizerMetadata } from "../src/formats/ggufTokenizer.ts";
import { type Model, readModelFolder } from "../src/formats/huggingface.ts";
import type { BlockType } from "../src/formats/quantize.ts";
import { fullMask, type Mask } from "../src/mask/mask.ts";
import { parameterShapes } from "../src/model/config.ts";
import { channelWeights, forward } from "./reference/decoder.ts";
import { shapes, writeCheckpointFolder } from "./support/checkpoints.ts";
import { ggufParts, randomBlocks, writeParts } from "./support/gguf.ts";
import { quiet } from "./support/graphs.ts";
import { randomMask, randomModel } from "./support/models.ts";
import { sureTokens } from "./support/sure.ts";

const folder = mkdtempSync(join(tmpdir(), "import-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Logits after each token, and a greedy answer with its two likeliest tokens in each place, of a bundle under a mask. */
async function run(bundle: Bundle, mask: Mask, ids: Int32Array) {
  const { path } = await openSubnetwork(bundle, mask, { root: join(folder, "cache") });
  await using engine = await llamaCpp.open(path, { contextLength: 64, threads: 1, kvType: "F32" });
  const logits = await engine.logits(ids);
  const answer: ScoredToken[] = [];
  for await (const token of engine.generateScored(ids, { maxTokens: 8, top: 2 })) answer.push(token);
  return { logits, answer };
}

function worst(got: readonly ArrayLike<number>[], wanted: readonly ArrayLike<number>[]): number {
  return Math.max(...wanted.flatMap((row, t) => Array.from(row, (value, i) => Math.abs(value - got[t]![i]!))));
}

describe.each(Object.entries(shapes))("%s", (name, shape) => {
  const at = (what: string) => join(folder, name.replaceAll(" ", "-"), what);
  let model: Model;
  beforeAll(async () => {
    await writeCheckpointFolder(at("source"), shape);
    model = readModelFolder(at("source"));
    await importModel(at("source"), at("bundle"), { type: "F32" });
  });

  test("the bundle in llama.cpp is the reference, dense and under a mask, on the prompt as its template has it", async () => {
    using opened = new InstructionModel(at("bundle"));
    const { bundle, tokenizer } = opened;
    const ids = opened.promptIds("abc");
    expect([...ids].filter((id) => id === 1)).toHaveLength(shape.addsBos ? 1 : 0);
    expect(ids[0] === 1).toBe(shape.addsBos);
    expect(tokenizer.eosId).toBe(2);
    const { numLayers, ffnWidth } = bundle;
    const dense = await run(bundle, fullMask(numLayers, ffnWidth), ids);
    expect(worst(dense.logits, forward(model, ids).logits)).toBeLessThan(1e-4);
    const mask = randomMask(numLayers, ffnWidth, 32, "soft", 5);
    const masked = await run(bundle, mask, ids);
    expect(worst(masked.logits, forward(model, ids, channelWeights(mask)).logits)).toBeLessThan(1e-4);
  });

  test("the graph on an imported checkpoint says what llama.cpp says", async () => {
    await importModel(at("source"), at("checkpoint"), { as: "checkpoint" });
    await using opened = await openModel(at("checkpoint"), quiet);
    const ids = Int32Array.from({ length: 24 }, (_, t) => (37 * t + 11) % 256);
    const labels = ids.map((_, t) => ids[t + 1] ?? -100);
    using bundle = new Bundle(at("bundle"));
    const { logits } = await run(bundle, fullMask(bundle.numLayers, bundle.ffnWidth), ids);
    const nll = logits.slice(0, -1).reduce((sum, row, t) => {
      const largest = row.reduce((a, b) => Math.max(a, b));
      const norm = row.reduce((total, x) => total + Math.exp(x - largest), 0);
      return sum + largest + Math.log(norm) - row[labels[t]!]!;
    }, 0);
    const [score] = await opened.evaluator.score([{ ids, labels }]);
    expect(score!.tokens).toBe(23);
    expect(Math.abs(score!.nll - nll)).toBeLessThan(2e-3);
  });

  test("an exported sub-network, imported again from either form, says the same", async () => {
    using opened = new InstructionModel(at("bundle"));
    const { bundle } = opened;
    const mask = randomMask(bundle.numLayers, bundle.ffnWidth, 32, "soft", 6);
    const ids = opened.promptIds("a bad cab");
    const wanted = await run(bundle, mask, ids);
    const sure = sureTokens(wanted.answer, 1e-3, 4);
    await exportSubnetwork(bundle, mask, at("export"), {});
    for (const [what, source] of [
      ["again-gguf", join(at("export"), "model-keep.gguf")],
      ["again-folder", at("export")],
    ] as const) {
      await importModel(source, at(what), { type: "F32" });
      using again = new InstructionModel(at(what));
      expect(again.promptIds("a bad cab")).toEqual(ids);
      const got = await run(again.bundle, fullMask(bundle.numLayers, 32), ids);
      expect(worst(got.logits, wanted.logits)).toBeLessThan(1e-4);
      expect(got.answer.slice(0, sure.length).map(({ id }) => id)).toEqual(sure);
    }
  });
});

describe("a GGUF file of several types, kept as they are", () => {
  const at = (what: string) => join(folder, "mixed", what);
  const types: Record<string, BlockType> = {
    "model.embed_tokens.weight": "Q6_K",
    "lm_head.weight": "Q6_K",
    "model.layers.0.self_attn.v_proj.weight": "Q5_K",
    "model.layers.0.mlp.gate_proj.weight": "Q4_K",
    "model.layers.0.mlp.up_proj.weight": "Q5_K",
    "model.layers.0.mlp.down_proj.weight": "Q6_K",
    "model.layers.1.mlp.gate_proj.weight": "Q4_0",
    "model.layers.1.mlp.up_proj.weight": "Q4_K",
    "model.layers.1.mlp.down_proj.weight": "BF16",
  };
  let source: GgufModel;
  beforeAll(async () => {
    mkdirSync(at("folder"), { recursive: true });
    await writeCheckpointFolder(at("folder"), shapes["Llama 3.1"]!);
    const model = randomModel({ family: "llama", width: 256, ffnWidth: 256, headWidth: 32, vocabSize: 320 }, 8);
    const stored = new Map(
      Object.entries(types).map(([name, type], seed) => {
        const size = { Q4_K: 3e-4, Q5_K: 1.5e-4, Q6_K: 6e-5, Q4_0: 0.02 }[type as string] ?? 0.1;
        return [name, { type, bytes: randomBlocks(type, model.weights.get(name)!.data.length, size, seed) }];
      }),
    );
    const { metadata, tensors } = ggufParts(model, stored);
    const tokenizer = tokenizerMetadata(join(at("folder"), "tokenizer.json"), model.config, {
      bosId: 1,
      eosIds: [2],
      addBos: true,
    });
    source = new GgufModel(await writeParts(at("folder"), { metadata: new Map([...metadata, ...tokenizer]), tensors }));
    await importModel(source.path, at("bundle"));
  });

  test("gate, up and all but the FFN are the file's own; down is within half a step of its row's scale", () => {
    using bundle = new Bundle(at("bundle"));
    expect(bundle.layouts).toMatchObject([
      { gate: "Q4_K", up: "Q5_K", down: "Q8_0" },
      { gate: "Q4_0", up: "Q4_K", down: "BF16" },
    ]);
    for (const name of parameterShapes(source.config).keys()) {
      const [wanted, got] = [source.read(name), bundle.read(name)];
      if (name !== "model.layers.0.mlp.down_proj.weight") {
        expect(got, name).toEqual(wanted);
        continue;
      }
      for (let row = 0; row < 256; row++) {
        const values = wanted.data.subarray(row * 256, (row + 1) * 256);
        // the scale is rounded up to half precision
        const step = (1 + 2 ** -10) * (values.reduce((a, b) => Math.max(a, Math.abs(b)), 0) / 127) + 2 ** -24;
        for (const [i, value] of values.entries())
          expect(Math.abs(got.data[row * 256 + i]! - value)).toBeLessThanOrEqual(step / 2);
      }
    }
  });

  test("its sub-network in llama.cpp is the masked model, but for rounded activations", async () => {
    using bundle = new Bundle(at("bundle"));
    const weights = new Map([...parameterShapes(bundle.config).keys()].map((name) => [name, bundle.read(name)]));
    const mask = randomMask(bundle.numLayers, bundle.ffnWidth, 64, "soft", 9);
    const ids = Int32Array.from({ length: 12 }, (_, t) => (29 * t + 5) % 256);
    const { logits } = await run(bundle, mask, ids);
    const wanted = forward({ config: bundle.config, weights }, ids, channelWeights(mask)).logits;
    const unmasked = forward({ config: bundle.config, weights }, ids).logits;
    // llama.cpp rounds what goes into a product to 8 bits, and λ is folded into half-precision scales.
    expect(worst(logits, wanted)).toBeLessThan(0.03 * worst(wanted, unmasked));
  });
});

test.each([
  ["chat_template.jinja", "{{ if .System }}{{ .System }}{{ end }}"],
  ["chat_template.json", '{"chat_template": [{"name": "tool_use", "template": "{{ messages[0].content }}"}]}'],
])("a chat template that is none, in %s, is left out, and that is said", async (name, text) => {
  const [source, bundle] = [join(folder, `no-template-${name}`), join(folder, `no-template-${name}-bundle`)];
  await writeCheckpointFolder(source, shapes.SmolLM2!);
  writeFileSync(join(source, name), text);
  const { notes } = await importModel(source, bundle, { type: "F16" });
  expect(notes.join()).toContain("The chat template is left out");
  using model = new InstructionModel(bundle);
  expect(model.promptIds("abc").length).toBeGreaterThan(0);
});

test("null in a config is what is absent", async () => {
  const source = join(folder, "nulls");
  const nulls = {
    mlp_bias: null,
    attention_bias: null,
    tie_word_embeddings: null,
    rope_scaling: null,
    rope_theta: null,
  };
  const rope = { rope_type: "llama3", factor: 8, low_freq_factor: 1, high_freq_factor: 4, attention_factor: null };
  const file = { ...nulls, rope_parameters: { ...rope, original_max_position_embeddings: 8192, rope_theta: 5e5 } };
  await writeCheckpointFolder(source, { ...shapes["Llama 3.1"]!, file });
  await importModel(source, join(folder, "nulls-bundle"), { type: "F16" });
  using model = new InstructionModel(join(folder, "nulls-bundle"));
  const { ropeTheta, ropeScaling, tieEmbeddings } = model.bundle.config;
  expect([ropeTheta, ropeScaling?.kind, tieEmbeddings]).toEqual([5e5, "llama3", false]);
});

test("ids between tokens, which the model has rows for, stand for nothing", async () => {
  const [source, bundle] = [join(folder, "hole"), join(folder, "hole-bundle")];
  await writeCheckpointFolder(source, shapes.SmolLM2!);
  const path = join(source, "tokenizer.json");
  const json = JSON.parse(readFileSync(path, "utf8"));
  const last = Math.max(...Object.values<number>(json.model.vocab));
  json.added_tokens.push({ ...json.added_tokens[0], id: last + 3, content: "<|far|>" });
  writeFileSync(path, JSON.stringify(json));
  await importModel(source, bundle, { type: "F16" });
  using model = new InstructionModel(bundle);
  expect(model.tokenizer.decode([last + 1, ...model.tokenizer.encode("ab"), last + 2])).toBe("ab");
  const { numLayers, ffnWidth } = model.bundle;
  const { logits } = await run(model.bundle, fullMask(numLayers, ffnWidth), model.promptIds("ab"));
  expect(logits[0]!.length).toBe(model.bundle.config.vocabSize);
});

test("code that a checkpoint would have transformers run is left out, and that is said", async () => {
  const source = join(folder, "auto-map");
  await writeCheckpointFolder(source, shapes.Qwen3!);
  const path = join(source, "config.json");
  const autoMap = { auto_map: { AutoModelForCausalLM: "modeling_evil.Evil" } };
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, "utf8")), ...autoMap }));
  const { notes } = await importModel(source, join(folder, "auto-map-bundle"), { type: "F16" });
  expect(notes.join()).toContain("auto_map");
});
