import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { FileError, OptionError } from "../errors.ts";
import { checkSameRecipe, llmConfig, parseRecipe, predictorConfig, readRecipe } from "./recipe.ts";

const folder = mkdtempSync(join(tmpdir(), "recipe-"));
afterAll(() => rmSync(folder, { recursive: true }));

const data = [{ domain: "plural", path: "data/train.jsonl.gz", licence: "Apache-2.0" }];
const backbone = { width: 32, numLayers: 2, numHeads: 2, numKvHeads: 1, headWidth: 16, ffnWidth: 96 };
const llm = { ...backbone, width: 64, ffnWidth: 256, contextLength: 128 };
const dense = {
  name: "pretrain",
  kind: "pretrain",
  steps: 10,
  data,
  tokensPerBatch: 256,
  learningRate: { llm: 1e-3 },
  sequenceLength: 64,
};
const cpt = { ...dense, name: "cpt", kind: "cpt", chunks: 4, learningRate: { llm: 1e-3, predictor: 5e-4 } };
const sft = {
  name: "sft",
  kind: "sft",
  steps: 10,
  data,
  tokensPerBatch: 256,
  learningRate: { llm: 1e-3, predictor: 5e-4 },
};

const warmStart = { ...sft, kind: "warm-start", learningRate: { predictor: 1e-3 } };

/** A recipe with something of every kind in it. */
const base = {
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
function changed(path: readonly (string | number)[], value: unknown, from: unknown = base): unknown {
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

test("defaults are filled in, and filling them in again changes nothing", () => {
  const recipe = parseRecipe(base, "first.json");
  expect(recipe.llm).toMatchObject({ family: "llama", normEps: 1e-5, ropeTheta: 10_000, tieEmbeddings: true });
  expect(recipe.predictor).toMatchObject({ rank: 128, input: "prompt", importance: false });
  expect(recipe.mask).toEqual({ kind: "predictor", tFfn: 32, block: 1, epsilon: 0.3 });
  expect(recipe.stages.map(({ train }) => train)).toEqual(["llm", "both", "both"]);
  expect(recipe.stages[0]).toMatchObject({ accumulate: 1, weightDecay: 0.1, beta1: 0.9, beta2: 0.95, clipNorm: 1 });
  expect(recipe.stages[0]!.data[0]!.weight).toBe(1);
  expect(parseRecipe(JSON.parse(JSON.stringify(recipe)), "first.json")).toEqual(recipe);
});

test("models take their vocabulary from the tokenizer, the predictor its context and constants from the LLM", () => {
  const recipe = parseRecipe(base, "first.json");
  expect(llmConfig(recipe, 512)).toMatchObject({ width: 64, vocabSize: 512 });
  expect(predictorConfig(recipe, 512)).toMatchObject({
    numLayers: 2,
    ffnWidth: 256,
    backbone: { width: 32, ffnWidth: 96, vocabSize: 512, contextLength: 128, tieEmbeddings: true },
  });
});

test("a static, a random and a dense recipe need no predictor", () => {
  const plain = changed(["predictor"], undefined);
  const rates = { llm: 1e-3 };
  for (const [mask, learningRate, train] of [
    [{ kind: "learned-static", tFfn: 32 }, { llm: 1e-3, predictor: 1e-3 }, "both"],
    [{ kind: "random-per-domain", tFfn: 32 }, rates, "llm"],
    [undefined, rates, "llm"],
  ] as const) {
    const recipe = changed(["stages"], [{ ...sft, learningRate }], changed(["mask"], mask, plain));
    expect(parseRecipe(recipe, "r.json").stages[0]!.train).toBe(train);
  }
});

test("conversations of a warm start may be longer than its batches, which hold single questions", () => {
  const stage = { ...warmStart, sequenceLength: 128, tokensPerBatch: 64 };
  expect(parseRecipe(changed(["stages", 2], stage), "r.json").stages[2]!.train).toBe("predictor");
});

test("a backbone is pre-trained by a dense recipe with a predictor", () => {
  const stage = { ...dense, train: "predictor", learningRate: { predictor: 1e-3 } };
  expect(parseRecipe(changed(["stages"], [stage], changed(["mask"], undefined)), "r.json").stages[0]!.train).toBe(
    "predictor",
  );
});

for (const [what, recipe, message] of [
  [
    "an unknown key lists the known ones",
    changed(["mask", "tffn"], 3),
    /"mask": wanted no key "tffn" \(known: kind, tFfn, block, epsilon/,
  ],
  [
    "a wrong type",
    changed(["stages", 1, "steps"], "10"),
    /"stages\[1\]\.steps": wanted an integer of at least 1, got "10"/,
  ],
  ["a missing key", changed(["llm", "width"], undefined), /"llm\.width": wanted an integer of at least 1, got nothing/],
  [
    "a wrong choice",
    changed(["llm", "family"], "gpt2"),
    /"llm\.family": wanted one of llama, qwen2, qwen3, gemma2, gemma3, got "gpt2"/,
  ],
  [
    "a wrong kind of stage",
    changed(["stages", 0, "kind"], "rl"),
    /"stages\[0\]\.kind": wanted one of pretrain, cpt, warm-start, sft, got "rl"/,
  ],
  [
    "a wrong kind of mask",
    changed(["mask", "kind"], 1),
    /"mask\.kind": wanted one of predictor, learned-static, .*, got 1/,
  ],
  ["a name that is a path", changed(["name"], "../x"), /"name": wanted a name of letters.*got "\.\.\/x"/],
  ["not an object", [1, 2], /"recipe": wanted an object, got \[1,2\]/],
  ["no stages", changed(["stages"], []), /"stages": wanted a list of at least one stage, got \[\]/],
  ["half a tokenizer", changed(["tokenizer"], { vocabSize: 512 }), /"tokenizer": wanted either \{"path"\} or/],
  ["a tokenizer beside init", changed(["init"], { run: "runs/x" }), /"tokenizer": wanted none beside "init"/],
  ["no tokenizer", changed(["tokenizer"], undefined), /"tokenizer": wanted one, or "init"/],
  [
    "t_ffn > d_ffn",
    changed(["mask", "tFfn"], 257),
    /"mask\.tFfn": wanted at most llm\.ffnWidth = 256 channels, got 257/,
  ],
  [
    "a mask without its predictor",
    changed(["predictor"], undefined),
    /"predictor": wanted one for "mask\.kind" = "predictor"/,
  ],
  [
    "a predictor that nobody asks",
    changed(["mask", "kind"], "learned-static"),
    /"predictor": wanted none for "mask\.kind" = "learned-static"/,
  ],
  [
    "rows beyond the context",
    changed(["stages", 0, "sequenceLength"], 129),
    /wanted at most llm\.contextLength = 128, got 129/,
  ],
  ["rows beyond the batch", changed(["stages", 0, "tokensPerBatch"], 63), /wanted at most tokensPerBatch = 63, got 64/],
  [
    "later turns without conversations",
    changed(["stages", 2, "laterTurns"], "both"),
    /"stages\[2\]\.laterTurns": wanted "sequenceLength"/,
  ],
  [
    "a contrast without conversations",
    changed(["stages", 2, "contrast"], 0.1),
    /"stages\[2\]\.contrast": wanted "sequenceLength"/,
  ],
  [
    "a contrast that nobody learns from",
    changed(["stages", 2, "contrast"], 0.1, changed(["stages", 2, "train"], "llm")),
    /"stages\[2\]\.contrast": wanted a predictor that learns, got "train": "llm"/,
  ],
  [
    "a contrast of masks that do not differ",
    changed(["stages", 2, "contrast"], 0.1, changed(["mask", "kind"], "learned-static")),
    /"stages\[2\]\.contrast": wanted "mask\.kind" = "predictor", whose masks differ, got "learned-static"/,
  ],
  [
    "uneven chunks",
    changed(["stages", 1, "chunks"], 5),
    /"stages\[1\]\.chunks": wanted a divisor of sequenceLength = 64, got 5/,
  ],
  [
    "warm-up beyond the stage",
    changed(["stages", 2, "warmupSteps"], 11),
    /"stages\[2\]\.warmupSteps": wanted at most steps = 10/,
  ],
  [
    "a stage's name again",
    changed(["stages", 2, "name"], "cpt"),
    /"stages\[2\]\.name": wanted a new name, got "cpt" again/,
  ],
  [
    "cpt without a predictor's masks",
    changed(["mask"], undefined),
    /"stages\[1\]\.kind": wanted "mask\.kind" = "predictor" for cpt, got no mask/,
  ],
  [
    "no rate for what learns",
    changed(["stages", 2, "learningRate", "predictor"], undefined),
    /learningRate\.predictor": wanted a number above 0/,
  ],
  [
    "a rate for what does not learn",
    changed(["stages", 2, "train"], "llm"),
    /learningRate\.predictor": wanted nothing, as only the llm learns/,
  ],
  [
    "entries of a predictor that has none",
    changed(["stages", 2], { ...warmStart, entries: "statistics", clusters: "k-means", core: 0.5 }),
    /"stages\[2\]\.entries": wanted nothing, as "predictor\.head" = "linear" has no entries, got "statistics"[\s\S]*\.clusters": wanted nothing.*got "k-means"[\s\S]*\.core": wanted nothing.*got 0\.5/,
  ],
  [
    "fewer examples than entries",
    changed(["stages", 2], { ...warmStart, examples: 100 }, changed(["predictor", "head"], "codebook")),
    /"stages\[2\]\.examples": wanted at least predictor\.rank = 128, .*got 100/,
  ],
  [
    "a rate of the down projections where the LLM does not learn",
    changed(["stages", 2], { ...warmStart, learningRate: { predictor: 1e-3, downShare: 0.5 } }),
    /learningRate\.downShare": wanted nothing, as the LLM does not learn, got 0\.5/,
  ],
  ["two LMs at once", changed(["stages", 0, "train"], "both"), /"stages\[0\]\.train": wanted llm or predictor/],
] as const) {
  test(`refused: ${what}`, () => {
    expect(() => parseRecipe(recipe, "first.json")).toThrow(FileError);
    expect(() => parseRecipe(recipe, "first.json")).toThrow(message);
    expect(() => parseRecipe(recipe, "first.json")).toThrow(/^first\.json: /);
  });
}

test("every wrong key is named at once", () => {
  const twice = changed(["seed"], -1, changed(["llm", "width"], 0));
  expect(() => parseRecipe(twice, "r.json")).toThrow(/"seed"[\s\S]*"llm\.width"/);
});

test("a shape that makes no model names its section", () => {
  const recipe = changed(["predictor", "backbone", "numKvHeads"], 3);
  expect(() => parseRecipe(recipe, "r.json")).toThrow(/r\.json: "predictor\.backbone": key\/value heads must divide/);
});

test("paths are relative to the recipe's file", () => {
  const file = join(folder, "first.json");
  writeFileSync(file, JSON.stringify(base));
  const { recipe, pathOf } = readRecipe(file);
  expect(recipe.stages[0]!.data[0]!.path).toBe("data/train.jsonl.gz");
  expect(pathOf("data/train.jsonl.gz")).toBe(join(folder, "data/train.jsonl.gz"));
  expect(pathOf("/abs")).toBe("/abs");
  expect(() => readRecipe(join(folder, "none.json"))).toThrow(FileError);
  writeFileSync(file, "{");
  expect(() => readRecipe(file)).toThrow(/wanted JSON/);
});

test("a run goes on under the recipe it began with, or says what changed", () => {
  const saved = JSON.parse(JSON.stringify(parseRecipe(base, "r.json")));
  checkSameRecipe(saved, parseRecipe(base, "r.json"));
  checkSameRecipe(saved, parseRecipe(changed(["checkpointEvery"], 7, changed(["threads"], 2)), "r.json"));
  const other = parseRecipe(changed(["stages", 1, "steps"], 11, changed(["mask", "epsilon"], 0.1)), "r.json");
  expect(() => checkSameRecipe(saved, other)).toThrow(OptionError);
  expect(() => checkSameRecipe(saved, other)).toThrow(
    /changes of mask\.epsilon \(0\.3 → 0\.1\), stages\[1\]\.steps \(10 → 11\)\./,
  );
});

test("any value anywhere is either a recipe or a FileError, seed 1", () => {
  const paths: (string | number)[][] = [];
  const walk = (value: unknown, path: (string | number)[]): void => {
    paths.push(path);
    if (typeof value !== "object" || value === null) return;
    for (const key of Object.keys(value)) {
      walk((value as Record<string, unknown>)[key], [...path, Array.isArray(value) ? Number(key) : key]);
    }
  };
  walk(base, []);
  fc.assert(
    fc.property(fc.constantFrom(...paths), fc.jsonValue(), (path, value) => {
      try {
        parseRecipe(changed(path, value), "r.json");
      } catch (error) {
        expect(error instanceof FileError || error instanceof OptionError, String(error)).toBe(true);
      }
    }),
    { seed: 1, numRuns: 500 },
  );
});
