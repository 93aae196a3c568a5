/**
 * Learning from a teacher: rows that stay the same, the teacher's states of them, the masks that they run under, and held-out questions with the teacher's
 * states of those.
 */
import { dirname, join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { OptionError } from "../errors.ts";
import type { SessionOptions } from "../graph/session.ts";
import { readJson } from "../json.ts";
import { randomMask } from "../mask/baselines.ts";
import { type Mask, maskFromScores } from "../mask/mask.ts";
import { channelScores } from "../mask/standardize.ts";
import type { PredictorConfig } from "../model/predictorConfig.ts";
import { Evaluator } from "../net/evaluator.ts";
import { type Parts, parameterArrays } from "../net/parameters.ts";
import type { PromptFormat } from "../text/prompt.ts";
import type { SftData } from "./data.ts";
import { type HeldOutExample, heldOutExamples } from "./heldOut.ts";
import type { RecipeFile } from "./recipe/read.ts";
import { hasFixedMasks, llmConfig } from "./recipe/schema.ts";
import { packRows, questionRows, RowStream, type TextRow } from "./rows.ts";
import { loadInit } from "./runStart.ts";
import { tokenizerPath } from "./runState.ts";
import type { DistilStage, FixedMasks, StageMasks } from "./stage.ts";
import { type StageOf, stageQuestions, stageSeed } from "./stageData.ts";
import { predictorMasks, stageMasks } from "./stageMasks.ts";
import { type TaughtRow, Teacher } from "./teacher.ts";

/** What is particular to a stage that learns from a teacher. */
export interface PreparedDistil {
  config: Pick<DistilStage, "masks" | "fixed" | "teacher" | "states" | "heldOut">;
  stream: RowStream;
  numTooLong: number;
}

/** Order and wordings of rows: the same for all seeds, so that their runs share the teacher's states. */
const ROWS_SEED = "rows";

/**
 * Reads the stage's data, and makes the masks of all rows if they do not change.
 *
 * @param runDir folder of the run
 * @throws {OptionError} if the teacher has another tokenizer, or rows that pad its embedding to another size
 */
export async function prepareDistil(
  stage: StageOf<"distil">,
  {
    file,
    format,
    parts,
    session,
    runDir,
  }: { file: RecipeFile; format: PromptFormat; parts: Parts; session: SessionOptions; runDir: string },
): Promise<PreparedDistil> {
  const { recipe, pathOf } = file;
  const { sequenceLength, tokensPerBatch } = stage;
  const data = await stageQuestions(file, stage, format);
  const run = pathOf((stage.teacher ?? recipe.init!).run);
  const teacher = await loadInit(run);
  if (!isDeepStrictEqual(JSON.parse(new TextDecoder().decode(teacher.tokenizer)), readJson(tokenizerPath(runDir))))
    throw new OptionError(
      `stage "${stage.name}": wanted a teacher with the tokenizer of the model that learns, got another in "${run}". Its tokens would not be the same.`,
    );
  const { vocabSize } = format.tokenizer;
  if (teacher.llm.config.vocabSize !== vocabSize)
    throw new OptionError(
      `stage "${stage.name}": wanted a teacher with ${vocabSize} rows of its embedding, as the model that learns, got ${teacher.llm.config.vocabSize} in "${run}": its logits are of other tokens.`,
    );
  const folder = stage.states === undefined ? join(dirname(runDir), "teacher-states") : pathOf(stage.states);
  const statesOf = (rows: readonly TaughtRow[]) => new Teacher(teacher.llm, rows, { folder, sequenceLength, session });

  const seed = stageSeed(file, stage);
  const fixed = hasFixedMasks(recipe, stage.train)
    ? await fixedMasks(stage, { file, format, parts, session, data })
    : undefined;
  const questions = questionRows(data, ROWS_SEED);
  const entries = await fixed?.entriesOf(questions);
  const asked = entries ? questions.map((row, i) => ({ ...row, mask: entries[i]! })) : questions;
  const rows = packRows(asked, sequenceLength);
  const states = statesOf(rows);
  const masks: StageMasks = fixed ? { kind: "none" } : stageMasks(recipe, stage, vocabSize, data.domains);
  const stream = new RowStream(data, rows, { seed, tokensPerBatch, sequenceLength });
  return {
    config: {
      masks,
      fixed: fixed && { masks: fixed.masks, budgets: fixed.budgets, seed, tFfn: recipe.mask!.tFfn },
      teacher: states.head,
      states,
      heldOut: await heldOut(stage, file, format, fixed, statesOf),
    },
    stream,
    numTooLong: data.numTooLong,
  };
}

async function heldOut(
  { evaluate, sequenceLength }: StageOf<"distil">,
  { pathOf }: RecipeFile,
  format: PromptFormat,
  fixed: ChosenMasks | undefined,
  statesOf: (rows: readonly TaughtRow[]) => Teacher,
): Promise<DistilStage["heldOut"]> {
  if (!evaluate) return undefined;
  const examples = await heldOutExamples([evaluate.path].flat().map(pathOf), format, sequenceLength, evaluate.examples);
  return {
    every: evaluate.every,
    examples,
    states: statesOf(examples),
    entryOf: fixed && (await fixed.entriesOfExamples(examples)),
  };
}

/** Masks that do not change in a stage, and which of them a row runs under. */
interface ChosenMasks extends Pick<FixedMasks, "masks" | "budgets"> {
  entriesOf(rows: readonly TextRow[]): Promise<readonly number[]>;
  entriesOfExamples(examples: readonly HeldOutExample[]): Promise<readonly number[]>;
}

async function fixedMasks(
  stage: StageOf<"distil">,
  {
    file,
    format,
    parts,
    session,
    data,
  }: { file: RecipeFile; format: PromptFormat; parts: Parts; session: SessionOptions; data: SftData },
): Promise<ChosenMasks> {
  const { recipe } = file;
  const { mask } = recipe;
  if (!mask) throw new Error(`internal: stage "${stage.name}" has no masks to fix`);
  const { vocabSize } = format.tokenizer;
  const { numLayers, ffnWidth: dFfn } = recipe.llm;
  const budgets = stage.budgets ?? [mask.tFfn];
  const atAll = (make: (tFfn: number) => Mask) => new Map([...budgets, mask.tFfn].map((tFfn) => [tFfn, make(tFfn)]));
  if (mask.kind === "random-per-domain") {
    const { block } = mask;
    const masks = data.domains.map((domain) =>
      atAll((tFfn) => randomMask({ numLayers, dFfn, tFfn, block }, recipe.seed, domain)),
    );
    const entryOf = (domain: string) => {
      const entry = data.domains.indexOf(domain);
      if (entry < 0)
        throw new OptionError(
          `stage "${stage.name}": wanted held-out questions of its own domains (${data.domains.join(", ")}), as each domain has a mask, got "${domain}".`,
        );
      return entry;
    };
    return {
      masks,
      budgets,
      entriesOf: async (rows) => rows.map(({ domain }) => domain),
      entriesOfExamples: async (examples) => examples.map(({ domain }) => entryOf(domain)),
    };
  }
  const { predictor, softTopK, input } = predictorMasks(recipe, stage, vocabSize);
  const masks = Array.from({ length: predictor.rank }, (_, entry) => {
    const scores = entryScores(predictor, parts, entry);
    return atAll((tFfn) => maskFromScores(scores, { dFfn, tFfn }));
  });
  const chosen = async (instructions: readonly Int32Array[]) => {
    const evaluator = new Evaluator(
      { llm: llmConfig(recipe, vocabSize), predictor, softTopK, parameters: parameterArrays(parts) },
      session,
    );
    try {
      const predictions = await evaluator.predict(instructions);
      return predictions.map(({ inner }) =>
        inner.reduce((best, logit, entry) => (logit > inner[best]! ? entry : best), 0),
      );
    } finally {
      await evaluator.release();
    }
  };
  return {
    masks,
    budgets,
    entriesOf: (rows) => chosen(rows.map(({ predictorIds }) => predictorIds!)),
    entriesOfExamples: (examples) =>
      chosen(examples.map((one) => (input === "instruction" ? one.predictorInstruction : one.predictorPrompt))),
  };
}

/** Scores [L, F] of a codebook's entry, as the predictor's graph makes them. */
function entryScores(predictor: PredictorConfig, { predictor: own }: Parts, entry: number): Float32Array {
  const { rank, block, ffnWidth } = predictor;
  const codebook = own!.head.get("codebook.weight")!.data;
  const column = Float32Array.from({ length: codebook.length / rank }, (_, i) => codebook[i * rank + entry]!);
  return channelScores(column, { ffnWidth, block, importance: own!.head.get("importance")?.data });
}
