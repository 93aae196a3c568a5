/** A recipe that names nothing which exists, for tests of what a recipe may say. */

const data = [{ domain: "plural", path: "data/train.jsonl.gz", licence: "Apache-2.0" }];
const backbone = { width: 32, numLayers: 2, numHeads: 2, numKvHeads: 1, headWidth: 16, ffnWidth: 96 };
const llm = { ...backbone, width: 64, ffnWidth: 256, contextLength: 128 };
export const dense = {
  name: "pretrain",
  kind: "pretrain",
  steps: 10,
  data,
  tokensPerBatch: 256,
  learningRate: { llm: 1e-3 },
  sequenceLength: 64,
};
const cpt = { ...dense, name: "cpt", kind: "cpt", chunks: 4, learningRate: { llm: 1e-3, predictor: 5e-4 } };
export const sft = {
  name: "sft",
  kind: "sft",
  steps: 10,
  data,
  tokensPerBatch: 256,
  learningRate: { llm: 1e-3, predictor: 5e-4 },
};
export const warmStart = { ...sft, kind: "warm-start", learningRate: { predictor: 1e-3 } };

/** A recipe with something of every kind in it. */
export const base = {
  name: "first",
  seed: 1,
  tokenizer: { vocabSize: 512, data: ["data/text.jsonl.gz"] },
  llm,
  predictor: { backbone },
  mask: { kind: "predictor", tFfn: 32 },
  stages: [dense, cpt, sft],
  checkpointEvery: 100,
};

/** `base` with the value at a path replaced, or removed if `undefined`. */
export function changed(path: readonly (string | number)[], value: unknown, from: unknown = base): unknown {
  const [key, ...rest] = path;
  if (key === undefined) return value;
  const copy = Array.isArray(from) ? [...from] : { ...(from as object) };
  (copy as Record<string | number, unknown>)[key] = changed(
    rest,
    value,
    (from as Record<string | number, unknown>)[key],
  );
  return JSON.parse(JSON.stringify(copy));
}
