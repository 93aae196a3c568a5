/**
 * Recipes: JSON files that say everything about a training run. Reading one checks it whole, fills in every default, and
 * leaves its paths as written: they are relative to the recipe's folder, so that a run can move with its recipe.
 */
import { existsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import { FileError, type IfpruneError, OptionError } from "../errors.ts";
import { readModelConfig } from "../formats/huggingface.ts";
import { checkModelConfig, MODEL_FAMILIES, type ModelConfig } from "../model/config.ts";
import type { PredictorConfig } from "../model/predictorConfig.ts";
import { checkpointFolders } from "./checkpoint.ts";
import { readRecipeJson } from "./recipeFile.ts";

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
  /** D */
  width: integer(1),
  numLayers: integer(1),
  numHeads: integer(1),
  numKvHeads: integer(1),
  /** Even. */
  headWidth: integer(2),
  /** F */
  ffnWidth: integer(1),
};

const llmSchema = section({
  family: oneOf(MODEL_FAMILIES).default("llama"),
  ...blockShape,
  contextLength: integer(2),
  tieEmbeddings: flag.default(true),
  normEps: positive.default(1e-5),
  ropeTheta: positive.default(10_000),
  // The rest is for imported models.
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
    .optional(),
  attentionScale: positive.optional(),
  slidingWindow: integer(1).optional(),
  localRopeTheta: positive.optional(),
  attentionSoftCap: positive.optional(),
  logitSoftCap: positive.optional(),
});

const softTopKShape = {
  tFfn: integer(1),
  /** Neighbouring channels that are kept or dropped together; divides tFfn and llm.ffnWidth. */
  block: integer(1).default(1),
  /** Temperature of SoftTopK. */
  epsilon: positive.default(0.3),
};

const dataSchema = section({
  /** What batches are balanced over. Rows of instruction data that name their own task count under that. */
  domain: text,
  path,
  licence: text,
  /** Share of the domain in the batches, relative to the others. */
  weight: positive.default(1),
});

const stageShape = {
  name: text,
  /** Optimiser steps. */
  steps: integer(1),
  data: list(dataSchema, "a list of at least one {domain, path, licence}"),
  /** JSON file with the wordings of each task's instruction. Absent: the rows carry their own. */
  instructions: path.optional(),
  /** Of a micro-batch, padding included. */
  tokensPerBatch: integer(2),
  /** Micro-batches per step. */
  accumulate: integer(1).default(1),
  /**
   * What learns: the LLM, what makes its masks (the predictor, or the scores of the static mask), or both. By default all
   * that the recipe has, and the LLM alone in a pre-training stage. Pre-training the predictor means its backbone, as an LM.
   */
  train: oneOf(["llm", "predictor", "both"]).optional(),
  /** Peaks; one for each that learns. */
  learningRate: section({
    llm: positive.optional(),
    predictor: positive.optional(),
    /**
     * Of the down projections of the LLM that learns (the backbone, where that is pre-trained), as a share of its rate. A step of Adam
     * moves each weight alike, so the sum over a wide FFN moves far: inversely to its (active) width is the usual rule (muP,
     * arXiv:2203.03466).
     */
    downShare: positive.default(1),
  }),
  warmupSteps: integer(0).default(0),
  /** Learning rate of the last step, as a share of the peak. */
  minLearningRateShare: share.default(0.1),
  weightDecay: notNegative.default(0.1),
  beta1: belowOne.default(0.9),
  beta2: belowOne.default(0.95),
  /** Largest global gradient norm. */
  clipNorm: positive.default(1),
  evaluate: section({
    /** Steps. */
    every: integer(1),
    path,
    /** At most so many, spread evenly over the file. */
    examples: integer(1).optional(),
  }).optional(),
};

const stageSchema = z.discriminatedUnion(
  "kind",
  [
    /** Next-token loss on packed text, dense or under the recipe's static or random masks. */
    section({ kind: z.literal("pretrain"), ...stageShape, sequenceLength: integer(1) }),
    /** The same in chunks: each chunk but the last makes the mask of the next. */
    section({ kind: z.literal("cpt"), ...stageShape, sequenceLength: integer(1), chunks: integer(2) }),
    /** The predictor learns what the dense LLM activates when it answers an instruction, before it makes masks (`warmStart.ts`). */
    section({
      kind: z.literal("warm-start"),
      ...stageShape,
      /** Training prompts whose activations are taken. */
      examples: integer(1).default(3000),
      /** Taken over a conversation of so many tokens that the prompt begins, which says more of its kind. Absent: over its own answer. */
      sequenceLength: integer(1).optional(),
      /** First entries of a codebook: random scores, or what is special about the cluster's activations. */
      entries: oneOf(["random", "statistics"]).default("random"),
      /** How a codebook's prompts are grouped: Ward's clusters, at most one for each entry and fewer where that is clear, or k-means. */
      clusters: oneOf(["ward", "k-means"]).default("ward"),
      /** Share of tFfn that all entries of a codebook keep at first. */
      core: share.default(0),
    }),
    /** Loss on answers to instructions. */
    section({
      kind: z.literal("sft"),
      ...stageShape,
      /** Share of the loss that is the divergence from the model that `init` names, dense; the rest is the loss on the answers. */
      distil: share.optional(),
      /**
       * Weight, per label, of a term that makes the masks of two wordings of a question alike, and unlike those of the other rows of a
       * batch (`contrastLoss` in `src/joint/step.ts`).
       */
      contrast: positive.optional(),
      /** Rows are conversations of so many tokens: a question, then others of its domain under the same mask. Absent: single questions. */
      sequenceLength: integer(1).optional(),
      /** What asks in them after the first question: its input alone, a whole prompt in one of its wordings, or each half of the time. */
      laterTurns: oneOf(["input", "prompt", "both"]).default("input"),
    }),
  ],
  { error: (issue) => (issue.code === "invalid_union" ? "one of pretrain, cpt, warm-start, sft" : "an object") },
);

const maskWords = "one of predictor, learned-static, random-per-domain";
const tokenizerWords = 'either {"path"} or {"vocabSize", "data": [paths]}';

const recipeSchema = section({
  /** Also the name of the run's folder. */
  name: z.string("a name").regex(/^[A-Za-z0-9][\w.-]*$/, 'a name of letters, digits, ".", "_" and "-"'),
  seed: integer(0),
  /** Finished run or checkpoint to start from: its LLM, whose shape "llm" need not repeat, its tokenizer and, if it has one, its predictor. */
  init: section({ run: path }).optional(),
  /** A tokenizer file, or how to train one. Absent with `init`. */
  tokenizer: z
    .union(
      [
        section({ path }),
        section({ vocabSize: integer(1), data: list(path, "a list of paths"), instructions: path.optional() }),
      ],
      tokenizerWords,
    )
    .optional(),
  llm: llmSchema,
  predictor: section({
    backbone: section(blockShape),
    /**
     * How its feature becomes scores: `linear` as in the paper, or `codebook`, the choice of one of `rank` masks.
     */
    head: oneOf(["linear", "codebook"]).default("linear"),
    /** R: width between the linear layers (paper: 128), or entries of the codebook. */
    rank: integer(1).default(128),
    /** The part of a prompt that it reads; `both`: drawn per example. */
    input: oneOf(["prompt", "instruction", "both"]).default("prompt"),
    importance: flag.default(false),
    /** Whether the feature is centred and scaled by running statistics. Off only to see what becomes of masks without. */
    centred: flag.default(true),
  }).optional(),
  /** Absent: dense training. */
  mask: z
    .discriminatedUnion(
      "kind",
      [
        section({ kind: z.literal("predictor"), ...softTopKShape }),
        section({ kind: z.literal("learned-static"), ...softTopKShape }),
        /** A fixed random set of channels for each domain, chosen by its label (a control). */
        section({ kind: z.literal("random-per-domain"), tFfn: integer(1), block: integer(1).default(1) }),
      ],
      { error: (issue) => (issue.code === "invalid_union" ? maskWords : "an object") },
    )
    .optional(),
  stages: list(stageSchema, "a list of at least one stage"),
  /** Steps. */
  checkpointEvery: integer(1),
  /** Threads of the tensor library. Absent: its own choice. */
  threads: integer(1).optional(),
});

type ParsedRecipe = z.infer<typeof recipeSchema>;
type ParsedStage = ParsedRecipe["stages"][number];

/** One stage with all defaults. */
export type Stage = ParsedStage & { train: "llm" | "predictor" | "both" };
export type StageKind = Stage["kind"];
export type PretrainStage = Extract<Stage, { kind: "pretrain" }>;
export type CptStage = Extract<Stage, { kind: "cpt" }>;
export type WarmStartStage = Extract<Stage, { kind: "warm-start" }>;
export type SftStage = Extract<Stage, { kind: "sft" }>;

/** A recipe with all defaults; JSON. Paths are relative to its file. */
export type Recipe = Omit<ParsedRecipe, "stages"> & { stages: Stage[] };

export interface RecipeFile {
  recipe: Recipe;
  /** A path of the recipe, relative to its file, as one that can be opened. */
  pathOf(relative: string): string;
}

/**
 * Reads a recipe, what it extends, and its `{seed}`s.
 *
 * @param options.seed instead of the recipe's own
 * @throws {FileError} if a file is missing, not JSON, or not a recipe; the message names every wrong key
 */
export function readRecipe(file: string, options: { seed?: number | undefined } = {}): RecipeFile {
  const pathOf = (relative: string) => resolve(dirname(file), relative);
  return { recipe: parseRecipe(withInitialShape(readRecipeJson(file, options), pathOf), file), pathOf };
}

/** @throws {OptionError} if there is nothing to start from */
export function checkInit(path: string): void {
  if (!existsSync(path))
    throw new OptionError(
      `recipe "init": wanted a run or a checkpoint, got nothing at "${path}". Train or import it first.`,
    );
}

const startsElsewhere = z.looseObject({ init: z.object({ run: path }), llm: z.undefined().optional() });

/** A recipe's JSON with the shape of the model that it starts from, where it does not state its own. */
function withInitialShape(json: unknown, pathOf: (relative: string) => string): unknown {
  const { data } = startsElsewhere.safeParse(json);
  if (!data) return json;
  const run = pathOf(data.init.run);
  checkInit(run);
  const { vocabSize: _, ...llm } = readModelConfig(join(checkpointFolders(run)[0] ?? run, "llm"));
  return { ...data, llm };
}

/**
 * Checks a recipe and fills in its defaults.
 *
 * @param where its origin, for messages
 * @throws {FileError} that names every wrong key, what was wanted and what came
 */
export function parseRecipe(json: unknown, where: string): Recipe {
  const parsed = recipeSchema.safeParse(json);
  if (!parsed.success) {
    const problems = parsed.error.issues.map(({ path, message }) => problem(path, message, valueAt(json, path)));
    throw recipeError(where, [...new Set(problems)]);
  }
  const recipe: Recipe = {
    ...parsed.data,
    stages: parsed.data.stages.map((stage) => ({
      ...stage,
      train: stage.train ?? learnersOf(parsed.data, stage.kind),
    })),
  };
  const problems = [...conflicts(recipe)];
  if (problems.length > 0) throw recipeError(where, problems);
  // Shapes that cannot make a model. The vocabulary is not known yet; any size shows what is wrong with the rest.
  for (const [key, config] of [
    ["llm", llmConfig(recipe, 1)],
    ["predictor.backbone", predictorConfig(recipe, 1)?.backbone],
  ] as const) {
    if (config) checkModelConfig(config, `${where}: "${key}"`);
  }
  return recipe;
}

function recipeError(where: string, problems: readonly string[]): IfpruneError {
  return new FileError(where, `not a recipe that can be trained:\n${problems.map((line) => `  ${line}`).join("\n")}`);
}

function problem(path: readonly PropertyKey[], wanted: string, got: unknown): string {
  const value = JSON.stringify(got) ?? "nothing";
  const keys = path.map((key) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`)).join("");
  return `"${keys.replace(/^\./, "") || "recipe"}": wanted ${wanted}, got ${value.length > 80 ? `${value.slice(0, 80)}…` : value}.`;
}

function valueAt(json: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key], json);
}

/** What can learn in a stage of this kind. */
function learnersOf({ mask }: Pick<ParsedRecipe, "mask">, kind: ParsedStage["kind"]): Stage["train"] {
  if (kind === "warm-start") return "predictor";
  const learnsMask = mask?.kind === "learned-static" || (mask?.kind === "predictor" && kind !== "pretrain");
  return learnsMask ? "both" : "llm";
}

/** Keys that are right by themselves but do not fit together. */
function* conflicts(recipe: Recipe): Generator<string> {
  const { init, tokenizer, llm, predictor, mask, stages } = recipe;
  if (init && tokenizer)
    yield '"tokenizer": wanted none beside "init", whose tokenizer is taken, got one. Remove either.';
  if (!init && !tokenizer) yield '"tokenizer": wanted one, or "init" to take it from, got neither.';
  if (mask && mask.tFfn > llm.ffnWidth) {
    yield `"mask.tFfn": wanted at most llm.ffnWidth = ${llm.ffnWidth} channels, got ${mask.tFfn}.`;
  }
  if (mask && (mask.tFfn % mask.block !== 0 || llm.ffnWidth % mask.block !== 0)) {
    yield `"mask.block": wanted a divisor of mask.tFfn = ${mask.tFfn} and llm.ffnWidth = ${llm.ffnWidth}, got ${mask.block}.`;
  }
  if (mask?.kind === "predictor" && !predictor)
    yield '"predictor": wanted one for "mask.kind" = "predictor", got nothing.';
  if (mask && mask.kind !== "predictor" && predictor) {
    yield `"predictor": wanted none for "mask.kind" = "${mask.kind}", got one. Remove either.`;
  }

  for (const [i, stage] of stages.entries()) {
    const at = `stages[${i}]`;
    if (stages.findIndex(({ name }) => name === stage.name) < i)
      yield `"${at}.name": wanted a new name, got "${stage.name}" again.`;
    if (stage.warmupSteps > stage.steps) {
      yield `"${at}.warmupSteps": wanted at most steps = ${stage.steps}, got ${stage.warmupSteps}.`;
    }
    if (stage.kind === "warm-start" && (mask?.kind !== "predictor" || stage.train !== "predictor")) {
      yield `"${at}.kind": wanted "mask.kind" = "predictor" and "train" = "predictor" for warm-start, got ${mask ? `"${mask.kind}"` : "no mask"} and "${stage.train}".`;
    }
    if (stage.sequenceLength !== undefined) {
      const { sequenceLength: T, tokensPerBatch } = stage;
      if (T > llm.contextLength)
        yield `"${at}.sequenceLength": wanted at most llm.contextLength = ${llm.contextLength}, got ${T}.`;
      // a warm start's batches hold single questions
      if (T > tokensPerBatch && stage.kind !== "warm-start")
        yield `"${at}.sequenceLength": wanted at most tokensPerBatch = ${tokensPerBatch}, got ${T}.`;
      if (stage.kind === "cpt" && T % stage.chunks !== 0) {
        yield `"${at}.chunks": wanted a divisor of sequenceLength = ${T}, got ${stage.chunks}.`;
      }
    }
    if (stage.kind === "cpt" && mask?.kind !== "predictor") {
      yield `"${at}.kind": wanted "mask.kind" = "predictor" for cpt, got ${mask ? `"${mask.kind}"` : "no mask"}. Use pretrain.`;
    }
    if (stage.kind === "sft" && stage.laterTurns !== "input" && stage.sequenceLength === undefined)
      yield `"${at}.laterTurns": wanted "sequenceLength", the length of a conversation, got none. Add it, or leave "laterTurns" out.`;
    if (stage.kind === "sft" && stage.contrast) {
      if (mask?.kind !== "predictor")
        yield `"${at}.contrast": wanted "mask.kind" = "predictor", whose masks differ, got ${mask ? `"${mask.kind}"` : "no mask"}.`;
      if (stage.train === "llm") yield `"${at}.contrast": wanted a predictor that learns, got "train": "llm".`;
      if (stage.sequenceLength === undefined)
        yield `"${at}.contrast": wanted "sequenceLength", the length of a conversation, got none. Add it, or leave "contrast" out.`;
    }
    if (stage.kind === "sft" && stage.distil && !init)
      yield `"${at}.distil": wanted "init", the run whose model teaches, got none. Add it, or leave "distil" out.`;
    if (stage.kind === "warm-start" && predictor) yield* warmStartConflicts(predictor, stage, at);
    yield* learnerConflicts(recipe, stage, at);
  }
}

function* warmStartConflicts(
  { head, rank }: NonNullable<Recipe["predictor"]>,
  { entries, clusters, core, examples }: WarmStartStage,
  at: string,
): Generator<string> {
  if (head === "codebook") {
    if (examples < rank)
      yield `"${at}.examples": wanted at least predictor.rank = ${rank}, one for each entry of the codebook, got ${examples}.`;
    return;
  }
  const hint = `as "predictor.head" = "${head}" has no entries`;
  if (entries !== "random") yield `"${at}.entries": wanted nothing, ${hint}, got "${entries}".`;
  if (clusters !== "ward") yield `"${at}.clusters": wanted nothing, ${hint}, got "${clusters}".`;
  if (core !== 0) yield `"${at}.core": wanted nothing, ${hint}, got ${core}.`;
}

function* learnerConflicts({ predictor, mask }: Recipe, stage: Stage, at: string): Generator<string> {
  if (stage.train !== "llm") {
    const isBackbone = stage.kind === "pretrain" && predictor !== undefined;
    if (isBackbone && stage.train === "both") {
      yield `"${at}.train": wanted llm or predictor, as pretrain trains one LM at a time, got "both".`;
    } else if (!isBackbone && mask?.kind !== "predictor" && mask?.kind !== "learned-static") {
      yield `"${at}.train": wanted llm, as this recipe has no mask that learns, got "${stage.train}".`;
    }
  }
  for (const part of ["llm", "predictor"] as const) {
    const rate = stage.learningRate[part];
    const learns = stage.train === part || stage.train === "both";
    if (learns && rate === undefined)
      yield `"${at}.learningRate.${part}": wanted a number above 0, as it learns, got nothing.`;
    if (!learns && rate !== undefined) {
      yield `"${at}.learningRate.${part}": wanted nothing, as only the ${stage.train} learns, got ${rate}.`;
    }
  }
  const { downShare } = stage.learningRate;
  if (downShare !== 1 && stage.train === "predictor" && stage.kind !== "pretrain")
    yield `"${at}.learningRate.downShare": wanted nothing, as the LLM does not learn, got ${downShare}.`;
}

/** Paths of all data, instructions and questions that the stages read. */
export function dataFiles({ stages }: Recipe): string[] {
  return stages.flatMap(({ data, instructions, evaluate }) => [
    ...data.map(({ path }) => path),
    ...(instructions === undefined ? [] : [instructions]),
    ...(evaluate ? [evaluate.path] : []),
  ]);
}

/** The LLM's shape, once the tokenizer has said how large the vocabulary is. */
export function llmConfig({ llm }: Recipe, vocabSize: number): ModelConfig {
  return { ...llm, vocabSize };
}

/** The predictor's shape, or nothing if the recipe has none. It shares tokenizer, context and constants with the LLM. */
export function predictorConfig({ llm, predictor, mask }: Recipe, vocabSize: number): PredictorConfig | undefined {
  if (!predictor) return undefined;
  const { normEps, ropeTheta, contextLength, numLayers, ffnWidth } = llm;
  return {
    backbone: {
      family: "llama",
      ...predictor.backbone,
      vocabSize,
      contextLength,
      normEps,
      ropeTheta,
      tieEmbeddings: true,
    },
    head: predictor.head,
    rank: predictor.rank,
    numLayers,
    ffnWidth,
    block: mask?.block ?? 1,
    importance: predictor.importance,
  };
}

/** Keys that may change in the middle of a run. `threads` does change the last bits of sums. */
const freeKeys: readonly string[] = ["checkpointEvery", "threads"] satisfies (keyof Recipe)[];

/**
 * Whether a run that was begun with `saved` can go on with `recipe`.
 *
 * @throws {OptionError} that names the keys that have changed
 */
export function checkSameRecipe(saved: unknown, recipe: Recipe): void {
  const changes = [...changedKeys(saved, recipe, "")].filter(({ key }) => !freeKeys.includes(key));
  if (changes.length === 0) return;
  const words = changes.map(
    ({ key, from, to }) => `${key} (${JSON.stringify(from) ?? "absent"} → ${JSON.stringify(to) ?? "absent"})`,
  );
  throw new OptionError(
    `resume: wanted the recipe that the run began with, got changes of ${words.join(", ")}. Undo them, or give the recipe a new name.`,
  );
}

function* changedKeys(from: unknown, to: unknown, key: string): Generator<{ key: string; from: unknown; to: unknown }> {
  if (isDeepStrictEqual(from, to)) return;
  if (!isContainer(from) || !isContainer(to)) {
    yield { key, from, to };
    return;
  }
  const separator = key === "" ? "" : ".";
  for (const name of new Set([...Object.keys(from), ...Object.keys(to)])) {
    yield* changedKeys(from[name], to[name], Array.isArray(to) ? `${key}[${name}]` : `${key}${separator}${name}`);
  }
}

function isContainer(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
