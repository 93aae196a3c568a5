/**
 * What llama.cpp computes of a GGUF file that we write, against the float64 reference: every family, every kind of RoPE scaling, every type of
 * weights. Sequences are longer than the sliding windows and than the context that RoPE was scaled from.
 */
import { describe, expect, test } from "vitest";
import { llamaCpp } from "../src/engine/llamaCpp.ts";
import { GgufModel } from "../src/formats/ggufModel.ts";
import { type BlockType, blockTypes, decodeBlocks } from "../src/formats/quantize.ts";
import type { ModelConfig } from "../src/model/config.ts";
import { familyOf, MODEL_FAMILIES, type ModelFamily } from "../src/model/families.ts";
import { forward } from "./reference/decoder.ts";
import { ggufParts, quietFfn, randomBlocks, writeParts } from "./support/gguf.ts";
import { randomModel, randomNumbers, temporaryFolder } from "./support/models.ts";

const tokens = 40;

const wide = { headWidth: 32 }; // heads that are together wider than the model
const llama = { family: "llama", ...wide } as const;
const gemma2 = { family: "gemma2", ...wide } as const;
const gemma3 = { family: "gemma3", ...wide } as const;
const linear = { kind: "linear", factor: 2.5 } as const;
const llama3 = { kind: "llama3", factor: 8, lowFactor: 1, highFactor: 4, originalContextLength: 8192 } as const;
const yarn = { kind: "yarn", factor: 4, originalContextLength: 16, betaFast: 32, betaSlow: 1 } as const;
const attentionScale = 1 / Math.sqrt(16); // of models of 27B: D / H, not C

const cases: Record<string, Partial<ModelConfig> & { family: ModelFamily }> = {
  llama,
  "llama, tied": { ...llama, tieEmbeddings: true },
  "llama, linear": { ...llama, ropeScaling: linear },
  "llama, llama3 by 8": { ...llama, ropeScaling: llama3 },
  "llama, llama3 by 32": { ...llama, ropeTheta: 500_000, ropeScaling: { ...llama3, factor: 32 } },
  "llama, yarn": { ...llama, ropeScaling: yarn },
  qwen2: { family: "qwen2" },
  "qwen2, yarn, tied": { family: "qwen2", tieEmbeddings: true, ropeScaling: yarn },
  qwen3: { family: "qwen3", ...wide },
  "qwen3, linear, tied": { family: "qwen3", ...wide, tieEmbeddings: true, ropeScaling: linear },
  gemma2,
  "gemma2, linear": { ...gemma2, ropeScaling: linear },
  "gemma2 of 27B": { ...gemma2, numLayers: 46, attentionScale },
  gemma3,
  "gemma3, linear": { ...gemma3, ropeScaling: linear },
  "gemma3, yarn": { ...gemma3, ropeScaling: yarn },
  "gemma3, another local theta": { ...gemma3, localRopeTheta: 300 },
  "gemma3, capped logits": { ...gemma3, logitSoftCap: 5 },
  "gemma3, untied": { ...gemma3, tieEmbeddings: false },
  "gemma3 of 27B": { ...gemma3, numLayers: 62, attentionScale },
};

const randomIds = (vocabSize: number, seed: number) => {
  const random = randomNumbers(seed);
  return Int32Array.from({ length: tokens }, () => Math.floor(random() * vocabSize));
};

async function llamaLogits(path: string, ids: Int32Array): Promise<Float32Array[]> {
  await using engine = await llamaCpp.open(path, { contextLength: 64, threads: 1, kvType: "F32" });
  return await engine.logits(ids);
}

/** Largest difference, over all positions and tokens. */
function worst(got: readonly ArrayLike<number>[], wanted: readonly ArrayLike<number>[]): number {
  return Math.max(...wanted.flatMap((row, t) => Array.from(row, (value, i) => Math.abs(value - got[t]![i]!))));
}

test("every family has a case", () => {
  expect(new Set(Object.values(cases).map(({ family }) => family))).toEqual(new Set(MODEL_FAMILIES));
});

describe.each(Object.entries(cases))("%s", (_, changes) => {
  const model = quietFfn(randomModel(changes, 1));
  const { config } = model;
  const ids = randomIds(config.vocabSize, 2);

  test("llama.cpp's logits are the reference's", async () => {
    const path = await writeParts(temporaryFolder(), ggufParts(model));
    expect(worst(await llamaLogits(path, ids), forward(model, ids).logits)).toBeLessThan(1e-4);
  });

  test("the file reads back: config, parameters, and some of their rows", async () => {
    using file = new GgufModel(await writeParts(temporaryFolder(), ggufParts(model)));
    expect(file.config).toEqual(config);
    for (const [name, { shape, data }] of model.weights) {
      const got = file.read(name);
      expect(got.shape).toEqual(shape);
      expect(worst([got.data], [data])).toBeLessThan(familyOf(config).gainOffset ? 1e-7 : 1e-30); // 1 + w rounds
      if (shape.length === 1) continue;
      const part = file.read(name, { from: 5, to: 27 });
      expect(part.shape).toEqual([22, shape[1]]);
      expect(part.data).toEqual(got.data.subarray(5 * shape[1]!, 27 * shape[1]!));
    }
  });
});

test.each([
  ["gemma2", { slidingWindow: 8 }],
  ["gemma2", { attentionSoftCap: 3.2 }],
  ["gemma2", { attentionScale: 0.18 }],
  ["gemma3", { slidingWindow: 8 }],
  ["gemma3", { localRopeTheta: 9000 }],
  ["gemma3", { logitSoftCap: 30 }],
  ["gemma3, linear", { ropeScaling: { kind: "linear", factor: 7 } }],
  ["llama, yarn", { ropeScaling: { ...yarn, originalContextLength: 20 } }],
  ["llama, llama3 by 8", { ropeScaling: { ...llama3, factor: 32 } }],
] as [string, Partial<ModelConfig>][])("these cases tell %s from %o", (name, change) => {
  const { config, weights } = quietFfn(randomModel(cases[name]!, 1));
  const ids = randomIds(config.vocabSize, 2);
  const changed = forward({ config: { ...config, ...change }, weights }, ids).logits;
  expect(worst(forward({ config, weights }, ids).logits, changed)).toBeGreaterThan(1e-3);
});

describe("weights as llama.cpp decodes them", () => {
  const model = randomModel({ family: "llama", width: 256 }, 4);
  const { config, weights } = model;
  const name = "model.embed_tokens.weight";

  // llama.cpp decodes rows of the embedding one by one, and exactly.
  test.each(Object.keys(blockTypes) as BlockType[])("%s", async (type) => {
    const bytes = randomBlocks(type, config.vocabSize * config.width, 0.5, 3);
    weights.set(name, { shape: [config.vocabSize, config.width], data: decodeBlocks(bytes, type) });
    const ids = randomIds(config.vocabSize, 5);
    const path = await writeParts(temporaryFolder(), ggufParts(model, new Map([[name, { type, bytes }]])));
    expect(worst(await llamaLogits(path, ids), forward(model, ids).logits)).toBeLessThan(1e-4);

    using file = new GgufModel(path);
    expect(file.read(name)).toEqual(weights.get(name));
    expect(Buffer.concat([...file.stored(name).chunks])).toEqual(Buffer.from(bytes));
    const row = bytes.length / config.vocabSize;
    expect(Buffer.from(file.rows(name, 3, 5))).toEqual(Buffer.from(bytes.subarray(3 * row, 5 * row)));
  });
});
