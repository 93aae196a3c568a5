import { expect, test } from "vitest";
import { changed, dense, sft, warmStart } from "../../../test/support/recipe.ts";
import { FileError } from "../../errors.ts";
import { parseRecipe } from "./read.ts";

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

const distil = { ...dense, name: "distil", kind: "distil", train: "llm", teacher: { run: "runs/x" } };
const distilling = (changes: object, from?: unknown) => changed(["stages"], [{ ...distil, ...changes }], from);
const codebook = changed(["predictor", "head"], "codebook");
const onDomains = changed(["mask", "kind"], "random-per-domain", changed(["predictor"], undefined));

test("a distil stage draws budgets where masks stay as they are; its embedding is frozen unless it says otherwise", () => {
  for (const from of [codebook, onDomains])
    expect(parseRecipe(distilling({ budgets: [16, 256] }, from), "r.json").stages[0]).toMatchObject({
      budgets: [16, 256],
    });
  const embeddingOf = (changes: object) => parseRecipe(distilling(changes), "r.json").stages[0]!.embedding;
  expect([embeddingOf({}), embeddingOf({ embedding: "trained" })]).toEqual(["frozen", "trained"]);
  const ofInit = changed(
    ["init"],
    { run: "runs/x" },
    changed(["tokenizer"], undefined, distilling({ teacher: undefined })),
  );
  expect(parseRecipe(ofInit, "r.json").stages[0]).not.toHaveProperty("teacher");
});

for (const [what, recipe, message] of [
  [
    "to learn from nobody",
    distilling({ teacher: undefined }),
    /"stages\[0\]\.teacher": wanted one, or "init", whose model then teaches, got neither/,
  ],
  [
    "budgets without masks",
    distilling({ budgets: [32] }, changed(["mask"], undefined, changed(["predictor"], undefined))),
    /"stages\[0\]\.budgets": wanted nothing, as the recipe has no mask, got \[32\]/,
  ],
  [
    "budgets of masks that learn",
    distilling({ budgets: [32] }),
    /"stages\[0\]\.budgets": wanted masks that stay as they are .*, got masks that learn/,
  ],
  [
    "budgets of a codebook whose router learns",
    distilling({ budgets: [32], train: "both", learningRate: { llm: 1e-3, predictor: 1e-3 } }, codebook),
    /"stages\[0\]\.budgets": wanted masks that stay as they are .*, got masks that learn/,
  ],
  [
    "budgets above all channels",
    distilling({ budgets: [32, 264] }, codebook),
    /"stages\[0\]\.budgets": wanted multiples of mask\.block = 1 up to llm\.ffnWidth = 256, got 264/,
  ],
  [
    "budgets of parts of blocks",
    distilling({ budgets: [24] }, changed(["mask", "block"], 16, codebook)),
    /"stages\[0\]\.budgets": wanted multiples of mask\.block = 16 up to llm\.ffnWidth = 256, got 24/,
  ],
  ["a budget of no channels", distilling({ budgets: [0] }, codebook), /budgets\[0\]": wanted an integer of at least 1/],
  ["no budget at all", distilling({ budgets: [] }, codebook), /budgets": wanted a list of at least one t_ffn/],
  [
    "rows of a teacher longer than a batch",
    distilling({ tokensPerBatch: 63 }),
    /"stages\[0\]\.sequenceLength": wanted at most tokensPerBatch = 63, got 64/,
  ],
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
    "the name that says a model was not trained here",
    changed(["name"], "import"),
    /"name": .*another name than "import"/,
  ],
  [
    "a contrast of one conversation",
    changed(
      ["stages", 2, "contrast"],
      0.1,
      changed(["stages", 2, "sequenceLength"], 64, changed(["stages", 2, "tokensPerBatch"], 100)),
    ),
    /"stages\[2\]\.contrast": wanted a batch of two conversations or more, "tokensPerBatch" of at least 128/,
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
  [
    "the LLM's layers without a model that has them",
    changed(["predictor", "backbone"], { llmLayers: 1 }),
    /"predictor\.backbone\.llmLayers": wanted "init", the run whose model has the layers, got none/,
  ],
  [
    "more layers than there are, and an LM beside them",
    changed(["predictor"], { backbone: { llmLayers: 3 }, init: { run: "x" } }),
    /"predictor\.init": wanted none beside "predictor\.backbone\.llmLayers", got one[\s\S]*at most llm\.numLayers = 2, got 3/,
  ],
  [
    "to pre-train the LLM's layers in the predictor",
    changed(["stages", 0, "train"], "predictor", changed(["predictor", "backbone"], { llmLayers: 1 })),
    /"stages\[0\]\.train": wanted llm, as the LLM's own layers do not learn in the predictor, got "predictor"/,
  ],
  [
    "an embedding that learns while the predictor reads it",
    changed(["predictor", "backbone"], { llmLayers: 0 }),
    /"stages\[2\]\.embedding": wanted frozen, as the predictor reads it, got "trained"/,
  ],
  ["two LMs at once", changed(["stages", 0, "train"], "both"), /"stages\[0\]\.train": wanted llm or predictor/],
] as const) {
  test(`refused: ${what}`, () => {
    expect(() => parseRecipe(recipe, "first.json")).toThrow(FileError);
    expect(() => parseRecipe(recipe, "first.json")).toThrow(message);
    expect(() => parseRecipe(recipe, "first.json")).toThrow(/^first\.json: /);
  });
}

test("a shape that makes no model names its section", () => {
  const recipe = changed(["predictor", "backbone", "numKvHeads"], 3);
  expect(() => parseRecipe(recipe, "r.json")).toThrow(/r\.json: "predictor\.backbone": key\/value heads must divide/);
});
