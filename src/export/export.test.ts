/**
 * A sub-network on its way out: as a bundle's own, as an exported GGUF in llama.cpp, as an exported Hugging Face folder, and in the float64
 * reference under its mask. All are to be the same model.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { channelWeights, forward, greedy } from "../../test/reference/decoder.ts";
import { goldenModel, randomMask, randomModel, temporaryFolder, writeCheckpoint } from "../../test/support/models.ts";
import { Bundle } from "../bundle/bundle.ts";
import { importModel } from "../bundle/importModel.ts";
import { packBundle } from "../bundle/packBundle.ts";
import { openSubnetwork } from "../bundle/subnetworkCache.ts";
import { llamaCpp } from "../engine/llamaCpp.ts";
import { FileError, OptionError, ShapeError } from "../errors.ts";
import { GgufFile } from "../formats/gguf.ts";
import { GgufModel } from "../formats/ggufModel.ts";
import { type Model, readModelFolder } from "../formats/huggingface.ts";
import type { WeightType } from "../formats/quantize.ts";
import { describeFiles } from "../manifest.ts";
import { fullMask, type Mask } from "../mask/mask.ts";
import { familyOf, MODEL_FAMILIES, type ModelFamily } from "../model/families.ts";
import { exportSubnetwork } from "./export.ts";
import { exportManifestName, readExportManifest } from "./exportManifest.ts";
import { verifyExport } from "./verify.ts";

const exact = { contextLength: 64, threads: 1, kvType: "F32" } as const;
const ids = [5, 9, 8, 7, 20, 31];
const K = 32;

const modelOf = (family: ModelFamily): Model =>
  family === "gemma2" || family === "gemma3" ? randomModel({ family }, 1) : goldenModel(family);
const maskOf = ({ config }: Model, kind: "soft" | "hard" = "soft") =>
  randomMask(config.numLayers, config.ffnWidth, K, kind, 3);

async function bundleOf(model: Model, type: WeightType = "F32"): Promise<Bundle> {
  const folder = join(temporaryFolder(), "bundle");
  await packBundle(await writeCheckpoint(temporaryFolder(), model), folder, { type });
  return new Bundle(folder);
}

/** llama.cpp looks Gemma's GELU up in a table in half precision. */
const rounding = (family: ModelFamily) => (familyOf({ family }).overflowsF16 ? 5e-3 : 1e-4);

const newFolder = () => join(temporaryFolder(), "export");

async function run(path: string, count = 8): Promise<{ logits: Float32Array[]; tokens: number[] }> {
  await using engine = await llamaCpp.open(path, exact);
  const logits = await engine.logits(Int32Array.from(ids));
  const tokens: number[] = [];
  for await (const token of engine.generate(Int32Array.from(ids), { maxTokens: count })) tokens.push(token);
  return { logits, tokens };
}

/** Largest difference, over all positions and tokens. */
function worst(got: readonly ArrayLike<number>[], wanted: readonly ArrayLike<number>[]): number {
  return Math.max(...wanted.flatMap((row, t) => Array.from(row, (value, i) => Math.abs(value - got[t]![i]!))));
}

describe.each(MODEL_FAMILIES)("%s", (family) => {
  const model = modelOf(family);
  const mask = maskOf(model);
  const weights = channelWeights(mask);
  const wanted = forward(model, ids, weights).logits;

  test("exported in F32, both formats are the masked model; verify agrees", async () => {
    using bundle = await bundleOf(model);
    const out = newFolder();
    const progress: number[][] = [];
    await exportSubnetwork(bundle, mask, out, { task: "Count.", onProgress: (...at) => progress.push(at) });
    expect(progress.at(-1)![0]).toBe(progress.at(-1)![1]);

    const exported = await run(join(out, "model-keep.gguf"));
    const own = await run((await openSubnetwork(bundle, mask, { root: temporaryFolder() })).path);
    expect(exported).toEqual(own);
    expect(worst(exported.logits, wanted)).toBeLessThan(rounding(family));
    const reference = greedy(model, ids, 8, weights, 3 * rounding(family));
    expect(exported.tokens).toEqual(reference.slice(0, exported.tokens.length));
    expect(exported.tokens.length).toBeGreaterThan(0);

    const folder = readModelFolder(out);
    expect(folder.config).toEqual({ ...model.config, ffnWidth: K });
    expect(worst(forward(folder, ids).logits, wanted)).toBeLessThan(1e-5);

    const { source, ...checked } = await verifyExport(out);
    expect(checked).toEqual({ files: Object.keys(readExportManifest(out).files).length, models: ["hf", "gguf"] });
    using gguf = new GgufFile(join(out, "model-keep.gguf"));
    expect(source).toEqual({ path: bundle.path, tensors: folder.weights.size + gguf.tensors.size });
  });

  test("of a bundle in F16, the Hugging Face folder is in a type that its activations fit into", async () => {
    using bundle = await bundleOf(model, "F16");
    const out = newFolder();
    await exportSubnetwork(bundle, mask, out, { formats: ["hf"] });
    const { torch_dtype } = JSON.parse(readFileSync(join(out, "config.json"), "utf8"));
    expect(torch_dtype).toBe(family.startsWith("gemma") ? "bfloat16" : "float16");
  });

  test("the Hugging Face folder imported again is the same model, dense", async () => {
    using bundle = await bundleOf(model);
    const [out, again] = [newFolder(), newFolder()];
    await exportSubnetwork(bundle, mask, out, { formats: ["hf"] });
    await importModel(out, again, { type: "F32" });
    using imported = new Bundle(again);
    const { path } = await openSubnetwork(imported, fullMask(imported.numLayers, K), { root: temporaryFolder() });
    expect(worst((await run(path)).logits, wanted)).toBeLessThan(rounding(family));
  });

  // Logits are up to 4 (gemma3: 7). Beside the weights' own rounding there is llama.cpp's, which rounds the inputs of a matrix product to the
  // weights' type, or to Q8_0.
  test.each([
    ["F16", 0.01, 0.005],
    ["Q8_0", 0.2, 0.2],
    ["Q4_0", 2, 0.2],
  ] as const)("exported as %s: logits within %d of the float form's", async (type, bound, computing) => {
    using bundle = await bundleOf(model);
    const out = newFolder();
    await exportSubnetwork(bundle, mask, out, { formats: ["gguf"], type });
    const path = join(out, `model-${type}.gguf`);
    using file = new GgufModel(path);
    expect(file.stored("model.layers.0.mlp.down_proj.weight").type).toBe(type);
    expect(file.stored("model.embed_tokens.weight").type).toBe(type === "Q4_0" ? "Q8_0" : type);
    const rounded = new Map([...model.weights.keys()].map((name) => [name, file.read(name)]));
    const { logits } = await run(path);
    expect(worst(logits, wanted)).toBeLessThan(bound);
    expect(worst(logits, forward({ config: file.config, weights: rounded }, ids).logits)).toBeLessThan(computing);
    expect((await verifyExport(out)).models).toEqual(["gguf"]);
  });
});

const llama3 = { kind: "llama3", factor: 8, lowFactor: 1, highFactor: 4, originalContextLength: 8192 } as const;
const yarn = { kind: "yarn", factor: 4, originalContextLength: 32, betaFast: 32, betaSlow: 1 } as const;

// What an export holds has gone through GGUF, which has float32 and leaves some of it to llama.cpp.
test.each<Parameters<typeof randomModel>[0]>([
  { family: "llama", ropeScaling: llama3, ropeTheta: 500_000, tieEmbeddings: true },
  { family: "qwen2", ropeScaling: yarn },
  { family: "qwen3", ropeScaling: { kind: "linear", factor: 2.5 }, normEps: 1e-6 },
  { family: "gemma2", numLayers: 46, numHeads: 6, attentionScale: 1 / Math.sqrt(10) },
  { family: "gemma3", numLayers: 62, numHeads: 6, attentionScale: 1 / Math.sqrt(10) },
])("the shape survives, %j", async (changes) => {
  const model = randomModel(changes, 2);
  using bundle = await bundleOf(model);
  const out = newFolder();
  await exportSubnetwork(bundle, maskOf(model, "hard"), out);
  expect(readModelFolder(out).config).toMatchObject({ ...changes, ffnWidth: K });
  expect((await verifyExport(out)).source?.tensors).toBeGreaterThan(0);
});

test.each(["F16", "BF16", "Q8_0", "Q4_0"] as const)(
  "of a bundle in %s, a kept GGUF is what `run` runs",
  async (type) => {
    const model = modelOf("gemma2"); // D 64: whole blocks
    const mask = maskOf(model);
    using bundle = await bundleOf(model, type);
    const out = newFolder();
    await exportSubnetwork(bundle, mask, out);
    const { path } = await openSubnetwork(bundle, mask, { root: temporaryFolder() });
    expect(await run(join(out, "model-keep.gguf"))).toEqual(await run(path));
    expect(readExportManifest(out).hf).toBe("BF16");
    expect((await verifyExport(out)).source).toBeDefined();
  },
);

describe("an export", () => {
  const model = modelOf("llama");
  const mask = maskOf(model);
  const exported = async (bundle: Bundle, kept: Mask = mask) => {
    const out = newFolder();
    await exportSubnetwork(bundle, kept, out, { task: "Count | to <b>ten</b>.", maskSource: "predictor" });
    return out;
  };

  test("says what it is: model card, GGUF metadata, tokenizer with BOS first", async () => {
    using bundle = await bundleOf(model);
    const out = await exported(bundle);
    expect(readdirSync(out).sort()).toEqual([
      "README.md",
      "chat_template.jinja",
      "config.json",
      "generation_config.json",
      "ifprune-export.json",
      "mask.json",
      "model-keep.gguf",
      "model.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
    ]);
    const json = (name: string) => JSON.parse(readFileSync(join(out, name), "utf8"));
    expect(json("config.json").intermediate_size).toBe(K);
    expect(json("generation_config.json")).toEqual({ bos_token_id: 1, eos_token_id: 2 });
    expect(json("tokenizer_config.json")).toMatchObject({
      bos_token: "<|bos|>",
      eos_token: "<|eos|>",
      add_bos_token: true,
    });
    expect(json("tokenizer.json").post_processor.single[0]).toEqual({ SpecialToken: { id: "<|bos|>", type_id: 0 } });
    const card = readFileSync(join(out, "README.md"), "utf8");
    expect(card).toContain(`| FFN channels per layer | ${K} of ${model.config.ffnWidth} |`);
    expect(card).toContain("Count \\| to \\<b\\>ten\\</b\\>.");
    using gguf = new GgufFile(join(out, "model-keep.gguf"));
    expect(gguf.string("general.name")).toBe(`test, ${K} of ${model.config.ffnWidth} FFN channels`);
    expect(gguf.string("ifprune.source.sha256")).toBe(bundle.hash);
    expect(gguf.string("ifprune.task")).toBe("Count | to <b>ten</b>.");
    expect([...gguf.metadata.keys()].filter((key) => key.startsWith("split."))).toEqual([]);
  });

  test("of an imported model brings its small files along, without references to code", async () => {
    using trained = await bundleOf(model);
    const [folder, path, out] = [await exported(trained), newFolder(), newFolder()];
    const edit = (name: string, changes: object) => {
      const file = join(folder, name);
      writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, "utf8")), ...changes }));
    };
    const auto_map = { AutoTokenizer: ["theirs--code.Tokenizer", null] };
    edit("tokenizer_config.json", { auto_map, padding_side: "left" });
    edit("generation_config.json", { auto_map, eos_token_id: [2, 0] });
    writeFileSync(join(folder, "special_tokens_map.json"), '{"eos_token": "<|eos|>"}');
    writeFileSync(join(folder, "chat_template.jinja"), "{{ messages[0].content }}");
    writeFileSync(join(folder, "README.md"), "---\nlicense: apache-2.0\n---\n");
    await importModel(folder, path, { type: "F32" });
    using bundle = new Bundle(path);
    await exportSubnetwork(bundle, fullMask(model.config.numLayers, K), out, { instruction: "Count." });
    const text = (name: string) => readFileSync(join(out, name), "utf8");
    for (const name of ["tokenizer_config.json", "generation_config.json"])
      expect(text(name)).not.toContain("auto_map");
    expect(JSON.parse(text("tokenizer_config.json")).padding_side).toBe("left");
    expect(JSON.parse(text("generation_config.json")).eos_token_id).toEqual([2, 0]);
    for (const name of ["tokenizer.json", "special_tokens_map.json", "chat_template.jinja"])
      expect(text(name)).toBe(readFileSync(join(folder, name), "utf8"));
    expect(text("README.md")).toMatch(/^---\n[\s\S]*\nlicense: apache-2.0\n---\n/);
    expect((await verifyExport(out)).source?.tensors).toBeGreaterThan(0);
  });

  test("appears whole or not at all", async () => {
    using bundle = await bundleOf(model);
    const out = newFolder();
    const controller = new AbortController();
    const onProgress = (done: number, total: number) => done > total / 3 && controller.abort();
    await expect(exportSubnetwork(bundle, mask, out, { signal: controller.signal, onProgress })).rejects.toThrow(
      /abort/,
    );
    expect(readdirSync(join(out, ".."))).toEqual([]);
  });

  test("is refused where type, mask or folder do not fit", async () => {
    using bundle = await bundleOf(model);
    const narrow = randomMask(model.config.numLayers, model.config.ffnWidth, 20, "hard", 1);
    const refused = (kept: Mask, type: "Q8_0" | "F16", out = newFolder()) =>
      expect(exportSubnetwork(bundle, kept, out, { type })).rejects;
    await refused(narrow, "Q8_0").toThrow(/Q8_0 wants widths in multiples of 32, got 32 and t_ffn 20/);
    await refused(fullMask(9, 48), "F16").toThrow(ShapeError);
    await refused(mask, "F16", temporaryFolder()).toThrow(OptionError);
  });

  const flip = (path: string, at: number) => {
    const bytes = readFileSync(path);
    bytes[bytes.length - at]! ^= 1;
    writeFileSync(path, bytes);
  };

  test.each(["model.safetensors", "model-keep.gguf", "config.json", "mask.json"])(
    "a changed byte in %s is found",
    async (name) => {
      using bundle = await bundleOf(model);
      const out = await exported(bundle);
      flip(join(out, name), 5);
      await expect(verifyExport(out)).rejects.toThrow(new RegExp(`${name}: wanted sha256 .* The file was changed`));
    },
  );

  /** Makes the manifest agree with what is in the folder. */
  async function sign(out: string): Promise<void> {
    const path = join(out, exportManifestName);
    const manifest = JSON.parse(readFileSync(path, "utf8"));
    writeFileSync(path, JSON.stringify({ ...manifest, files: await describeFiles(out, Object.keys(manifest.files)) }));
  }

  test.each([
    ["model.safetensors", /tensor "(lm_head|model)\.\S+" as the source bundle and mask.json give it, got another byte/],
    ["model-keep.gguf", /model-keep.gguf: wanted tensor "blk.1.ffn_down.weight" as the source bundle/],
  ])("so is one in %s with a manifest to match, by its tensor", async (name, message) => {
    using bundle = await bundleOf(model);
    const out = await exported(bundle);
    flip(join(out, name), 5);
    await sign(out);
    await expect(verifyExport(out)).rejects.toThrow(message);
  });

  test("so are another config.json and another mask with a manifest to match", async () => {
    using bundle = await bundleOf(model);
    const out = await exported(bundle);
    const config = join(out, "config.json");
    const text = readFileSync(config, "utf8");
    writeFileSync(config, text.replace(/"rope_theta": \d+/, '"rope_theta": 77777'));
    await sign(out);
    await expect(verifyExport(out)).rejects.toThrow(/config.json: wanted "ropeTheta" \d+, got 77777/);
    writeFileSync(config, text);
    const path = join(out, "mask.json");
    const { lambda, ...hard } = JSON.parse(readFileSync(path, "utf8"));
    writeFileSync(path, JSON.stringify(hard));
    await sign(out);
    await expect(verifyExport(out)).rejects.toThrow(/tensor "model.layers.0.mlp.up_proj.weight"/);
  });

  test("another bundle in the source's place is found, and without one the weights are not compared", async () => {
    using bundle = await bundleOf(model);
    using other = await bundleOf(model, "F16");
    const out = await exported(bundle);
    await expect(verifyExport(out, { bundle: other.path })).rejects.toThrow(
      /wanted the bundle that the export was made of/,
    );
    await expect(verifyExport(out, { bundle: out })).rejects.toThrow(FileError);
    const moved = readExportManifest(out);
    writeFileSync(
      join(out, exportManifestName),
      JSON.stringify({ ...moved, source: { ...moved.source, path: "../nothing/here" } }),
    );
    expect((await verifyExport(out)).source).toBeUndefined();
    expect(existsSync(out)).toBe(true);
  });
});
