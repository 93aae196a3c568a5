/**
 * What a recipe may say: every key, its range, its default and, as its description, what it means. `recipe.schema.json` at the root
 * says the same to editors; a test keeps it so. Keys that must fit each other: `conflicts.ts`.
 */
import { z } from "zod";
import { IMPORT_RECIPE } from "../../manifest.ts";
import { firstLayersConfig } from "../../model/backbone.ts";
import type { ModelConfig } from "../../model/config.ts";
import { MODEL_FAMILIES } from "../../model/families.ts";
import type { PredictorConfig } from "../../model/predictorConfig.ts";

// Every leaf carries the words that follow "wanted" in its error.

function integer(min: number) {
  const wanted = `an integer of at least ${min}`;
  return z.int(wanted).min(min, wanted);
}

const positive = z.number("a number above 0").positive("a number above 0");
const notNegative = z.number("a number of at least 0").min(0, "a number of at least 0");
const belowOne = z
  .number("a number from 0 to below 1")
  .min(0, "a number from 0 to below 1")
  .lt(1, "a number from 0 to below 1");
const share = z.number("a number in 0..1").min(0, "a number in 0..1").max(1, "a number in 0..1");
const flag = z.boolean("true or false");
const text = z.string("text").min(1, "text");
const path = z.string("a path").min(1, "a path");

function oneOf<const T extends readonly string[]>(values: T) {
  return z.enum(values, `one of ${values.join(", ")}`);
}

function list<T extends z.ZodType>(item: T, wanted: string) {
  return z.array(item, wanted).min(1, wanted);
}

/** An object without other keys; a key that is not known is told the known ones. */
function section<S extends z.ZodRawShape>(shape: S) {
  return z.strictObject(shape, {
    error: (issue) =>
      issue.code === "unrecognized_keys"
        ? `no key ${issue.keys.map((key) => `"${key}"`).join(", ")} (known: ${Object.keys(shape).join(", ")})`
        : "an object",
  });
}

const blockShape = {
  width: integer(1).describe("D: width of the residual stream."),
  numLayers: integer(1),
  numHeads: integer(1),
  numKvHeads: integer(1),
  headWidth: integer(2).describe("Even."),
  ffnWidth: integer(1).describe("F: channels of each FFN (d_ffn)."),
};

/** What only imported models have. */
const importedShape = {
  ropeScaling: z
    .discriminatedUnion("kind", [
      section({ kind: z.literal("linear"), factor: positive }),
      section({
        kind: z.literal("llama3"),
        factor: positive,
        lowFactor: positive,
        highFactor: positive,
        originalContextLength: integer(1),
      }),
      section({
        kind: z.literal("yarn"),
        factor: positive,
        originalContextLength: integer(1),
        betaFast: positive,
        betaSlow: positive,
      }),
    ])
    .optional()
    .describe("Of imported models."),
  attentionScale: positive.optional().describe("Of imported models."),
  slidingWindow: integer(1).optional().describe("Of imported models."),
  localRopeTheta: positive.optional().describe("Of imported models."),
  attentionSoftCap: positive.optional().describe("Of imported models."),
  logitSoftCap: positive.optional().describe("Of imported models."),
};

const contextLength = integer(2).describe("Tokens.");

const llmSchema = section({
  family: oneOf(MODEL_FAMILIES).default("llama"),
  ...blockShape,
  contextLength,
  tieEmbeddings: flag.default(true),
  normEps: positive.default(1e-5),
  ropeTheta: positive.default(10_000),
  ...importedShape,
});

const backboneSchema = z.union(
  [
    section({
      llmLayers: integer(0).describe(
        "It is the first so many layers of the LLM that init names, as they are there, and does not learn. 0: the LLM's embedding alone, and no second model.",
      ),
    }),
    section({
      family: oneOf(MODEL_FAMILIES).optional().describe("Absent: llama."),
      ...blockShape,
      contextLength: contextLength.optional().describe("Absent: the LLM's."),
      tieEmbeddings: flag.optional().describe("Absent: true."),
      normEps: positive.optional().describe("Absent: the LLM's."),
      ropeTheta: positive.optional().describe("Absent: the LLM's."),
      ...importedShape,
    }),
  ],
  'a shape or {"llmLayers"}',
);

const predictorShape = {
  backbone: backboneSchema.describe("What reads the instruction: an LM of this shape, or the LLM's own first layers."),
  init: section({ run: path })
    .optional()
    .describe(
      "Finished run or checkpoint of an LM with the same tokenizer, which the backbone starts as; backbone need not repeat its shape.",
    ),
  pooling: oneOf(["last", "mean", "both"])
    .default("last")
    .describe(
      "What of the tokens is the feature: the last one's hidden state as in the paper, the mean of all, or both.",
    ),
  head: oneOf(["linear", "codebook"])
    .default("linear")
    .describe(
      "How the backbone's feature becomes scores: linear as in the paper, or codebook, the choice of one of `rank` masks.",
    ),
  rank: integer(1)
    .default(128)
    .describe("R: width between the linear layers (paper: 128), or entries of the codebook."),
  input: oneOf(["prompt", "instruction", "both"])
    .default("prompt")
    .describe("The part of a prompt that it reads; both: drawn per example."),
  importance: flag.default(false).describe("A bias of each channel's score that no prompt changes."),
  centred: flag
    .default(true)
    .describe(
      "Whether the feature is centred and scaled by running statistics. Off only to see what becomes of masks without.",
    ),
};
const predictorSchema = section(predictorShape);

const budgetShape = {
  tFfn: integer(1).describe("Channels that a mask keeps per layer (t_ffn); at most llm.ffnWidth."),
  block: integer(1)
    .default(1)
    .describe("Neighbouring channels that are kept or dropped together; divides tFfn and llm.ffnWidth."),
};
const softTopKShape = { ...budgetShape, epsilon: positive.default(0.3).describe("Temperature of SoftTopK.") };

const maskWords = "one of predictor, learned-static, random-per-domain";
const maskSchema = z.discriminatedUnion(
  "kind",
  [
    section({ kind: z.literal("predictor").describe("A predictor makes a mask of every prompt."), ...softTopKShape }),
    section({
      kind: z.literal("learned-static").describe("One mask for all prompts, whose scores are learned."),
      ...softTopKShape,
    }),
    section({
      kind: z
        .literal("random-per-domain")
        .describe("A fixed random set of channels for each domain, chosen by its label (a control)."),
      ...budgetShape,
    }),
  ],
  { error: (issue) => (issue.code === "invalid_union" ? maskWords : "an object") },
);

const dataSchema = section({
  domain: text.describe(
    "What batches are balanced over. Rows of instruction data that name their own task count under that.",
  ),
  path: path.describe("JSON Lines, .gz if need be."),
  licence: text,
  weight: positive.default(1).describe("Share of the domain in the batches, relative to the others."),
});

const stageShape = {
  name: text.describe("One of its own in the recipe."),
  steps: integer(1).describe("Optimiser steps."),
  data: list(dataSchema, "a list of at least one {domain, path, licence}"),
  instructions: path
    .optional()
    .describe("JSON file with the wordings of each task's instruction. Absent: the rows carry their own."),
  tokensPerBatch: integer(2).describe("Of a micro-batch, padding included."),
  accumulate: integer(1)
    .default(1)
    .describe("Batches per step, whose gradients add up. Where masks do not change, each batch is of one mask."),
  train: oneOf(["llm", "predictor", "both"])
    .optional()
    .describe(
      "What learns: the LLM, what makes its masks (the predictor, or the scores of the static mask), or both. Absent: all that the recipe has, though of a recipe with a predictor pretrain trains the LLM alone, and warm-start the predictor. Pre-training the predictor means its backbone, as an LM.",
    ),
  embedding: oneOf(["trained", "frozen"])
    .default("trained")
    .describe(
      "Whether the LLM's embedding learns, and its output matrix, where the LLM does. Absent: frozen in distil, and where init is an imported model.",
    ),
  learningRate: section({
    llm: positive.optional(),
    predictor: positive.optional().describe("Of the predictor, or of the scores of the static mask."),
    // A step of Adam moves each weight alike, so the sum over a wide FFN moves far: inversely to its (active) width is the usual rule
    // (muP, arXiv:2203.03466).
    downShare: positive
      .default(1)
      .describe(
        "Rate of the down projections of the LLM that learns (the backbone, where that is pre-trained), as a share of its rate.",
      ),
  }).describe("Peaks; one for each that learns."),
  warmupSteps: integer(0).default(0).describe("At most steps."),
  minLearningRateShare: share.default(0.1).describe("Learning rate of the last step, as a share of the peak."),
  weightDecay: notNegative.default(0.1),
  beta1: belowOne.default(0.9),
  beta2: belowOne.default(0.95),
  clipNorm: positive.default(1).describe("Largest global gradient norm."),
  evaluate: section({
    every: integer(1).describe("Steps."),
    path: z
      .union([path, list(path, "a path, or a list of them")], "a path, or a list of them")
      .describe(
        "Questions, JSON Lines; one file or several. What a stage learns from a teacher is the mean over files, of one file over its tasks.",
      ),
    examples: integer(1).optional().describe("At most so many, spread evenly over the files."),
  })
    .optional()
    .describe("Held-out questions to be asked during the stage."),
};

const shots = integer(1)
  .optional()
  .describe("Other questions of its domain that the instruction of each question shows, answered. Absent: none.");

const rowLength = integer(1).describe("Tokens of a row; at most tokensPerBatch and llm.contextLength.");

const stageSchema = z.discriminatedUnion(
  "kind",
  [
    section({
      kind: z
        .literal("pretrain")
        .describe("Next-token loss on packed text, dense or under the recipe's static or random masks."),
      ...stageShape,
      sequenceLength: rowLength,
    }),
    section({
      kind: z
        .literal("cpt")
        .describe("Next-token loss on packed text in chunks: each chunk but the last makes the mask of the next."),
      ...stageShape,
      sequenceLength: rowLength,
      chunks: integer(2).describe("Divides sequenceLength."),
    }),
    section({
      kind: z
        .literal("warm-start")
        .describe(
          "The predictor learns what the dense LLM activates when it answers an instruction, before it makes masks.",
        ),
      ...stageShape,
      shots,
      examples: integer(1).default(3000).describe("Training prompts whose activations are taken."),
      sequenceLength: integer(1)
        .optional()
        .describe(
          "Activations are taken over a conversation of so many tokens that the prompt begins, which says more of its kind. Absent: over its own answer.",
        ),
      entries: oneOf(["random", "statistics"])
        .default("random")
        .describe("First entries of a codebook: random scores, or what is special about the cluster's activations."),
      clusters: oneOf(["ward", "k-means"])
        .default("ward")
        .describe(
          "How a codebook's prompts are grouped: Ward's clusters, at most one for each entry and fewer where that is clear, or k-means.",
        ),
      core: share.default(0).describe("Share of tFfn that all entries of a codebook keep at first."),
    }),
    section({
      kind: z.literal("sft").describe("Loss on answers to instructions."),
      ...stageShape,
      shots,
      distil: share
        .optional()
        .describe(
          "Share of the loss that is the divergence from the model that init names, dense; the rest is the loss on the answers.",
        ),
      // `contrastLoss` in `src/net/step.ts`
      contrast: positive
        .optional()
        .describe(
          "Weight, per label, of a term that makes the masks of two wordings of a question alike, and unlike those of the other rows of a batch.",
        ),
      sequenceLength: integer(1)
        .optional()
        .describe(
          "Rows are conversations of so many tokens: a question, then others of its domain under the same mask. Absent: single questions.",
        ),
      laterTurns: oneOf(["input", "prompt", "both"])
        .default("input")
        .describe(
          "What asks in them after the first question: its input alone, a whole prompt in one of its wordings, or each half of the time.",
        ),
    }),
    section({
      kind: z
        .literal("distil")
        .describe(
          "Divergence from a dense teacher after every token, KL(teacher, LLM) over the whole vocabulary: questions with their answers, packed to rows that stay the same, none of which sees another in its row, so that the teacher reads each once.",
        ),
      ...stageShape,
      embedding: stageShape.embedding.default("frozen"),
      sequenceLength: rowLength,
      teacher: section({ run: path })
        .optional()
        .describe(
          "Finished run or checkpoint that teaches, of any shape and the same tokenizer. Absent: that of init.",
        ),
      states: path
        .optional()
        .describe(
          "Folder where the teacher's hidden states are kept, for this run and others. Absent: teacher-states beside the run.",
        ),
      budgets: list(integer(1), "a list of at least one t_ffn")
        .optional()
        .describe(
          "Channels kept in each layer, drawn anew for every step, where masks do not learn: one model for all of them. Absent: mask.tFfn.",
        ),
    }),
  ],
  {
    error: (issue) => (issue.code === "invalid_union" ? "one of pretrain, cpt, warm-start, sft, distil" : "an object"),
  },
);

const schemaPath = path.optional().describe("This schema, for editors. Not read.");

const recipeShape = {
  $schema: schemaPath,
  name: z
    .string("a name")
    .regex(/^[A-Za-z0-9][\w.-]*$/, 'a name of letters, digits, ".", "_" and "-"')
    .refine(
      (name) => name !== IMPORT_RECIPE,
      `another name than "${IMPORT_RECIPE}", which says that a model was not trained here`,
    )
    .describe("Also the name of the run's folder."),
  seed: integer(0).describe("Of everything random. {seed} in the recipe's strings stands for it."),
  init: section({ run: path })
    .optional()
    .describe(
      "Finished run or checkpoint to start from: its LLM, whose shape llm need not repeat, its tokenizer and, if it has one, its predictor.",
    ),
  tokenizer: z
    .union(
      [
        section({ path }),
        section({ vocabSize: integer(1), data: list(path, "a list of paths"), instructions: path.optional() }),
      ],
      'either {"path"} or {"vocabSize", "data": [paths]}',
    )
    .optional()
    .describe("A tokenizer file, or how to train one. Absent with init."),
  llm: llmSchema.describe("Shape of the LLM; its vocabulary is the tokenizer's."),
  predictor: predictorSchema
    .optional()
    .describe("What scores the LLM's FFN channels for a prompt; with a mask of its kind."),
  mask: maskSchema.optional().describe("Absent: dense training."),
  stages: list(stageSchema, "a list of at least one stage").describe("Trained one after the other."),
  checkpointEvery: integer(1).describe("Steps between checkpoints."),
  threads: integer(1).optional().describe("Threads of the tensor library. Absent: its own choice."),
};

/** A whole recipe, as JSON. */
export const recipeSchema = section(recipeShape);

/** A recipe that says how it differs from another. What its changes must be is checked once they are made: `changes.ts`. */
const changedRecipeSchema = section({
  ...Object.fromEntries(
    Object.entries(recipeShape).map(([key, value]) => [key, z.unknown().optional().describe(value.description!)]),
  ),
  $schema: schemaPath,
  extends: path.describe(
    "A recipe of the same folder, which this one changes: objects merge key by key, null removes a key, all else replaces; stages as an object changes the stages that it names.",
  ),
});

/** JSON Schema of recipe files: in their names `{seed}` still stands, and a shape may be left to `init`. */
export function recipeJsonSchema(): z.core.JSONSchema.BaseSchema {
  const name = z.string().regex(/^([A-Za-z0-9]|\{seed\})([\w.-]|\{seed\})*$/);
  const whole = section({
    ...recipeShape,
    name: name.describe(recipeShape.name.description!),
    llm: recipeShape.llm.optional().describe(recipeShape.llm.description!),
    predictor: section({
      ...predictorShape,
      backbone: backboneSchema.optional().describe(predictorShape.backbone.description!),
    })
      .optional()
      .describe(recipeShape.predictor.description!),
  });
  return z.toJSONSchema(z.union([whole, changedRecipeSchema]).describe("A recipe of `ifprune train`."), {
    target: "draft-7", // what editors know
    io: "input",
    override: ({ jsonSchema }) => {
      if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum; // of every integer in JavaScript
    },
  });
}

type ParsedRecipe = z.infer<typeof recipeSchema>;
type ParsedStage = ParsedRecipe["stages"][number];

/** One stage with all defaults. */
export type Stage = ParsedStage & { train: "llm" | "predictor" | "both" };

/** A recipe with all defaults; JSON. Paths are relative to its file. */
export type Recipe = Omit<ParsedRecipe, "$schema" | "stages"> & { stages: Stage[] };

/** With the defaults that depend on other keys. */
export function withDefaults({ $schema: _, ...recipe }: ParsedRecipe): Recipe {
  const stages = recipe.stages.map((stage) => ({ ...stage, train: stage.train ?? learnersOf(recipe, stage.kind) }));
  return { ...recipe, stages };
}

/** What can learn in a stage of this kind. */
function learnersOf({ mask }: Pick<ParsedRecipe, "mask">, kind: ParsedStage["kind"]): Stage["train"] {
  if (kind === "warm-start") return "predictor";
  const learnsMask = mask?.kind === "learned-static" || (mask?.kind === "predictor" && kind !== "pretrain");
  return learnsMask ? "both" : "llm";
}

/** Whether the masks of a distil stage stay as they are, and are few: of domains, or a codebook's whose router does not learn. */
export function hasFixedMasks({ mask, predictor }: Pick<Recipe, "mask" | "predictor">, train: Stage["train"]): boolean {
  return (
    mask?.kind === "random-per-domain" ||
    (mask?.kind === "predictor" && predictor?.head === "codebook" && train === "llm")
  );
}

/** Paths of all data, instructions and questions that the stages read. */
export function dataFiles({ stages }: Recipe): string[] {
  return stages.flatMap(({ data, instructions, evaluate }) => [
    ...data.map(({ path }) => path),
    ...(instructions === undefined ? [] : [instructions]),
    ...(evaluate ? [evaluate.path].flat() : []),
  ]);
}

/** Paths of the models that stages learn from. */
export function teacherRuns({ init, stages }: Recipe): string[] {
  return stages.flatMap((stage) => {
    if (stage.kind === "distil") return [(stage.teacher ?? init!).run];
    return stage.kind === "sft" && stage.distil ? [init!.run] : [];
  });
}

/** The LLM's shape, once the tokenizer has said how large the vocabulary is. */
export function llmConfig({ llm }: Recipe, vocabSize: number): ModelConfig {
  return { ...llm, vocabSize };
}

/** The predictor's shape, or nothing if the recipe has none. It shares the tokenizer with the LLM, and what it does not say of context and constants. */
export function predictorConfig(recipe: Recipe, vocabSize: number): PredictorConfig | undefined {
  const { llm, predictor, mask } = recipe;
  if (!predictor) return undefined;
  const { normEps, ropeTheta, contextLength, numLayers, ffnWidth } = llm;
  const { backbone: own } = predictor;
  const shared = { family: "llama", contextLength, normEps, ropeTheta, tieEmbeddings: true } as const;
  return {
    backbone:
      "llmLayers" in own
        ? firstLayersConfig(llmConfig(recipe, vocabSize), own.llmLayers)
        : { ...shared, ...own, vocabSize },
    pooling: predictor.pooling,
    head: predictor.head,
    rank: predictor.rank,
    numLayers,
    ffnWidth,
    block: mask?.block ?? 1,
    importance: predictor.importance,
  };
}
