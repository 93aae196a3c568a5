/** From a stage of a recipe to what the trainer runs: its configuration and its stream of batches. */
import { OptionError } from "../errors.ts";
import type { SessionOptions } from "../graph/session.ts";
import type { ModelConfig } from "../model/config.ts";
import { Evaluator } from "../net/evaluator.ts";
import { type Parts, parameterArrays } from "../net/parameters.ts";
import type { PromptFormat } from "../text/prompt.ts";
import { type BatchStream, SftStream } from "./batches.ts";
import { prepareDistil } from "./distil.ts";
import { heldOutExamples } from "./heldOut.ts";
import type { RecipeFile } from "./recipe/read.ts";
import type { Recipe, Stage } from "./recipe/schema.ts";
import type { ClusterRow } from "./runLog.ts";
import type { AnyStage, StageConfig, StageMasks } from "./stage.ts";
import { nextTokenBatches, type StageOf, stageQuestions, stageSeed } from "./stageData.ts";
import { predictorMasks, stageMasks, stageModel, trainsBackbone } from "./stageMasks.ts";
import { prepareWarmStart, sampleQuestions } from "./warmStart.ts";

/** The parts that a stage sees. */
export function partsOf(parts: Parts, recipe: Recipe, stage: Stage): Parts {
  return parts.predictor && trainsBackbone(recipe, stage) ? { llm: parts.predictor.backbone } : parts;
}

export interface PreparedStage {
  config: StageConfig;
  stream: BatchStream;
  /** Examples left out as longer than `sequenceLength`, or the context. */
  numTooLong: number;
  /** For the warm start of a codebook: what was found in the LLM's activations, and how its entries are set where the stage begins. */
  clusters?: { row: Omit<ClusterRow, "stage" | "step">; setEntries(): void };
  /** What the stage holds open. */
  held?: readonly AsyncDisposable[];
}

/** Where a stage comes from, and what it finds. */
export interface StageSetting {
  file: RecipeFile;
  /** How the LLM is prompted. */
  format: PromptFormat;
  /** As the stage finds them, or in its middle. */
  parts: Parts;
  session: SessionOptions;
  /** Folder of the run. */
  runDir: string;
}

/** Reads a stage's data and builds its configuration. */
export function prepareStage(stage: Stage, setting: StageSetting): Promise<PreparedStage> {
  switch (stage.kind) {
    case "warm-start":
      return prepareForTargets(stage, setting);
    case "distil":
      return prepareForTeacher(stage, setting);
    default:
      return prepareForTokens(stage, setting);
  }
}

async function prepareForTokens(
  stage: StageOf<"pretrain" | "cpt" | "sft">,
  { file, format }: StageSetting,
): Promise<PreparedStage> {
  const { recipe } = file;
  const { stream, domains, numTooLong } = await nextTokenBatches(file, stage, format);
  const masks = stageMasks(recipe, stage, format.tokenizer.vocabSize, domains);
  const config: StageConfig = {
    kind: "next-token",
    ...settingsOf(recipe, stage),
    llm: stageModel(recipe, stage, format.tokenizer.vocabSize),
    masks,
    chunks: stage.kind === "cpt" ? stage.chunks : 1,
    distil: stage.kind === "sft" ? stage.distil : undefined,
    trains: trainsBackbone(recipe, stage) ? { llm: true, predictor: false } : learners(stage),
    freezesEmbedding: stage.embedding === "frozen" && !trainsBackbone(recipe, stage),
    evaluation: await evaluationOf(file, stage, format, masks),
  };
  return { config, stream, numTooLong };
}

async function prepareForTeacher(stage: StageOf<"distil">, setting: StageSetting): Promise<PreparedStage> {
  const { recipe } = setting.file;
  const { config, stream, numTooLong } = await prepareDistil(stage, setting);
  return {
    config: {
      kind: "distil",
      ...settingsOf(recipe, stage),
      llm: stageModel(recipe, stage, setting.format.tokenizer.vocabSize),
      ...config,
      trains: learners(stage),
      freezesEmbedding: stage.embedding === "frozen",
    },
    stream,
    numTooLong,
    held: config.heldOut ? [config.states, config.heldOut.states] : [config.states],
  };
}

function learners({ train }: Stage): { llm: boolean; predictor: boolean } {
  return { llm: train !== "predictor", predictor: train !== "llm" };
}

async function prepareForTargets(
  stage: StageOf<"warm-start">,
  { file, format, parts, session }: StageSetting,
): Promise<PreparedStage> {
  const { recipe } = file;
  const seed = stageSeed(file, stage);
  const llm = stageModel(recipe, stage, format.tokenizer.vocabSize);
  const masks = predictorMasks(recipe, stage, format.tokenizer.vocabSize);
  const { predictor, softTopK } = masks;
  const data = sampleQuestions(await stageQuestions(file, stage, format), stage.examples, seed);
  const targets = await withDense(llm, parts, session, (evaluator) =>
    prepareWarmStart(data, evaluator, { ...stage, seed, predictor, tFfn: softTopK.tFfn }),
  );
  const settings = settingsOf(recipe, stage);
  const evaluation = await evaluationOf(file, stage, format, masks);
  const prepared: PreparedStage = {
    config: { kind: "warm-start", ...settings, llm, masks, targets, evaluation },
    stream: new SftStream(data, { seed, tokensPerBatch: stage.tokensPerBatch }),
    numTooLong: data.numTooLong,
  };
  if (targets.kind === "clusters") {
    const { clusterOf, numClusters, purity, codebook } = targets;
    const entries = parts.predictor?.head.get("codebook.weight");
    if (!entries) throw new Error(`internal: clusters without a codebook in stage "${stage.name}"`);
    prepared.clusters = {
      row: { kind: "clusters", examples: clusterOf.size, clusters: numClusters, purity },
      setEntries: () => entries.data.set(codebook),
    };
  }
  return prepared;
}

/** What of a stage's settings the trainer takes as they are. */
function settingsOf(
  recipe: Recipe,
  stage: Stage,
): Pick<AnyStage, "name" | "steps" | "accumulate" | "optimizer" | "schedule"> {
  const { name, steps, accumulate, beta1, beta2, weightDecay, clipNorm } = stage;
  const { warmupSteps, minLearningRateShare, learningRate } = stage;
  const { llm = 0, predictor = 0, downShare } = learningRate;
  return {
    name,
    steps,
    accumulate,
    optimizer: { beta1, beta2, weightDecay, clipNorm },
    schedule: {
      peaks: { llm: trainsBackbone(recipe, stage) ? predictor : llm, predictor },
      downShare,
      warmupSteps,
      minShare: minLearningRateShare,
    },
  };
}

/** @throws {OptionError} if questions are of domains that have no mask */
async function evaluationOf(
  { recipe, pathOf }: RecipeFile,
  { name, evaluate }: Stage,
  format: PromptFormat,
  masks: StageMasks,
): Promise<AnyStage["evaluation"]> {
  if (!evaluate) return undefined;
  const { every, path, examples: limit } = evaluate;
  const examples = await heldOutExamples([path].flat().map(pathOf), format, recipe.llm.contextLength, limit);
  if (masks.kind === "given") {
    const known = masks.domains.map(({ domain }) => domain);
    const stray = examples.find(({ domain }) => !known.includes(domain));
    if (stray)
      throw new OptionError(
        `stage "${name}": wanted questions of its own domains (${known.join(", ")}) in "${[path].flat().join(", ")}", as each domain has a mask, got "${stray.domain}".`,
      );
  }
  return { every, examples };
}

/** What `use` finds out with the LLM as it is, dense. */
async function withDense<T>(
  llm: ModelConfig,
  parts: Parts,
  session: SessionOptions,
  use: (evaluator: Evaluator) => Promise<T>,
): Promise<T> {
  const evaluator = new Evaluator({ llm, parameters: parameterArrays({ llm: parts.llm }) }, session);
  try {
    return await use(evaluator);
  } finally {
    await evaluator.release();
  }
}
