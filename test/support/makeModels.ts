/** Checkpoints and bundles for tests: the golden families, with a tokenizer that only has to exist, and stories260K. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { importModel } from "../../src/bundle/importModel.ts";
import { type Model, readModelFolder, writeModelFolder } from "../../src/formats/huggingface.ts";
import { writeSafetensors } from "../../src/formats/safetensors.ts";
import { type CheckpointManifest, describeFiles, writeManifest } from "../../src/manifest.ts";
import type { Mask } from "../../src/mask/mask.ts";
import { checkModelConfig, type ModelConfig, parameterShapes, type Weights } from "../../src/model/config.ts";
import { familyOf, type ModelFamily } from "../../src/model/families.ts";
import { featureWidth, type Pooling } from "../../src/model/predictorConfig.ts";
import { Random } from "../../src/random.ts";

export const fixtures = fileURLToPath(new URL("../fixtures/", import.meta.url));
export const families = ["llama", "qwen2", "qwen3"] as const;

const provenance: CheckpointManifest["provenance"] = {
  recipe: "test",
  seed: 0,
  data: [],
  created: "2026-11-01T00:00:00Z",
};

export function goldenModel(family: (typeof families)[number]): Model {
  return readModelFolder(join(fixtures, "golden", family));
}

export interface Golden {
  /** [B][T] */
  ids: number[][];
  /** [B][L][F] */
  mask: number[][][];
  /** [B][T][V] */
  logits: number[][][];
}

export function goldenValues(family: (typeof families)[number]): Golden {
  return JSON.parse(gunzipSync(readFileSync(join(fixtures, "golden", family, "golden.json.gz"))).toString());
}

export interface StoriesReference {
  greedy_ids: number[];
  greedy_text: string;
  logits_after_bos_top10: [id: number, logit: number][];
  encode: { text: string; ids_with_bos: number[] }[];
}

/**
 * Each token of the greedy story is ahead of all others by `lead`, the first `sure` ones by `surely`: in float64, which
 * `test/subnetwork.test.ts` checks. Engines are held to as much of it as their rounding leaves.
 */
export const storyLeads = { lead: 0.003, sure: 114, surely: 0.05 } as const;

export const stories = join(fixtures, "stories260K");

export function storiesReference(): StoriesReference {
  return JSON.parse(readFileSync(join(stories, "reference.json"), "utf8"));
}

/** Imports stories260K as a checkpoint in `parent`. @returns its folder */
export async function storiesCheckpoint(parent: string): Promise<string> {
  const folder = join(parent, "stories260K");
  await importModel(join(stories, "stories260K.bin"), folder, {
    tokenizer: join(stories, "tok512.bin"),
    as: "checkpoint",
  });
  return folder;
}

export interface TestPredictor {
  /** Of no layers: the LLM's own embedding. */
  backbone: Model;
  pooling: Pooling;
  head: Weights;
  tFfn: number;
  epsilon: number;
  lambda: "soft" | "hard";
}

/** Writes a checkpoint of a model, and of a predictor if given. BOS is 1, EOS 2. */
export async function writeCheckpoint(folder: string, model: Model, predictor?: TestPredictor): Promise<string> {
  writeModelFolder(join(folder, "llm"), model);
  writeFileSync(join(folder, "llm/tokenizer.json"), JSON.stringify(anyTokenizer(model.config.vocabSize)));
  const names = ["llm/config.json", "llm/model.safetensors", "llm/tokenizer.json"];
  if (predictor) {
    mkdirSync(join(folder, "predictor"), { recursive: true });
    writeSafetensors(join(folder, "predictor/head.safetensors"), predictor.head);
    names.push("predictor/head.safetensors");
    if (predictor.backbone.config.numLayers > 0) {
      writeModelFolder(join(folder, "predictor"), predictor.backbone);
      names.push("predictor/config.json", "predictor/model.safetensors");
    }
  }
  writeManifest(folder, {
    format: "ifprune-checkpoint",
    version: 1,
    tFfn: predictor?.tFfn,
    epsilon: predictor?.epsilon,
    lambda: predictor?.lambda ?? "hard",
    predictorInput: "prompt",
    predictorPooling: predictor?.pooling ?? "last",
    promptTemplate: "{prompt}\n",
    bosId: 1,
    eosId: 2,
    provenance,
    files: await describeFiles(folder, names),
  });
  return folder;
}

/** A predictor of random weights that keeps 32 channels; the backbone is of another family, unless it is given. */
export function anyPredictor(
  { config }: Model,
  lambda: "soft" | "hard",
  { backbone = goldenModel("qwen3"), pooling = "last" }: Partial<Pick<TestPredictor, "backbone" | "pooling">> = {},
): TestPredictor {
  const Dp = featureWidth({ backbone: backbone.config, pooling });
  const random = randomNumbers(11);
  const tensor = (...shape: number[]) => {
    const length = shape.reduce((product, n) => product * n, 1);
    return { shape, data: Float32Array.from({ length }, () => 2 * random() - 1) };
  };
  const head: Weights = new Map([
    ["feature.mean", tensor(Dp)],
    ["feature.std", { shape: [Dp], data: Float32Array.from({ length: Dp }, () => 0.5 + random()) }],
    ["w1.weight", tensor(8, Dp)],
    ["w2.weight", tensor(config.numLayers * config.ffnWidth, 8)],
  ]);
  return { backbone, pooling, head, tFfn: 32, epsilon: 0.3, lambda };
}

/** Byte-level BPE of V tokens without merges. */
function anyTokenizer(vocabSize: number): object {
  const names = ["<|pad|>", "<|bos|>", "<|eos|>"];
  const vocab = Object.fromEntries(
    Array.from({ length: vocabSize }, (_, id) => [names[id] ?? String.fromCodePoint(0x4e00 + id), id]),
  );
  return {
    added_tokens: names.map((content, id) => ({ id, content, special: true })),
    normalizer: null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        { type: "Digits", individual_digits: true },
        { type: "ByteLevel", add_prefix_space: false, use_regex: true },
      ],
    },
    model: { type: "BPE", vocab, merges: [] },
  };
}

/** Numbers in [0, 1) that depend on the seed alone (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * A small model of random weights, the same for the same seed: logits of order 1 to 4, and norm gains and biases that matter. Caps and windows are small
 * enough to show within 16 tokens.
 */
export function randomModel(changes: Partial<ModelConfig> & { family: ModelFamily }, seed: number): Model {
  const { family } = changes;
  const { gainOffset, globalEvery = 0, hasLocalTheta, gguf } = familyOf(changes);
  const gemma = family.startsWith("gemma");
  const config: ModelConfig = {
    width: 64,
    numLayers: globalEvery > 2 ? globalEvery + 1 : 2, // a local one after a global one
    numHeads: 4,
    numKvHeads: 2,
    headWidth: 16,
    ffnWidth: 96,
    vocabSize: 96,
    contextLength: 64,
    normEps: gemma ? 1e-6 : 1e-5,
    ropeTheta: 10_000,
    tieEmbeddings: gemma,
    ...(globalEvery > 0 && { slidingWindow: 5 }),
    ...(gguf.softCaps.attention && { attentionSoftCap: 2, logitSoftCap: 4 }),
    ...(hasLocalTheta && { ropeTheta: 1_000_000, localRopeTheta: 10_000 }),
    ...changes,
  };
  checkModelConfig(config, "randomModel");
  const weights: Weights = new Map();
  for (const [name, shape] of parameterShapes(config)) {
    const random = new Random(`${seed}/${name}`);
    const isTable = name === "model.embed_tokens.weight" || name === "lm_head.weight";
    const [mean, std] = name.endsWith("norm.weight")
      ? [1 - gainOffset, 0.2]
      : name.endsWith(".bias")
        ? [0, 0.5]
        : [0, (isTable ? 1.5 : 1) / Math.sqrt(shape[1]!)];
    const length = shape.reduce((product, n) => product * n, 1);
    weights.set(name, { shape, data: Float32Array.from({ length }, () => mean + std * random.normal()) });
  }
  return { config, weights };
}

/** A mask of random channels, with random λ in (0.1, 1] if soft. */
export function randomMask(numLayers: number, dFfn: number, tFfn: number, kind: "soft" | "hard", seed: number): Mask {
  const random = randomNumbers(seed);
  const layers = Array.from({ length: numLayers }, () => {
    const shuffled = Array.from({ length: dFfn }, (_, channel) => ({ channel, key: random() })).sort(
      (a, b) => a.key - b.key,
    );
    return Int32Array.from(shuffled.slice(0, tFfn).map(({ channel }) => channel)).sort();
  });
  const lambda = layers.map((kept) => Float32Array.from(kept, () => 1 - 0.9 * random()));
  return { tFfn, dFfn, layers, ...(kind === "soft" && { lambda }) };
}
