/** A whole training run: recipe → stages → checkpoints, log and progress. Resumes by itself from its newest checkpoint. */
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type FileError, OptionError } from "../errors.ts";
import { ReadableFile } from "../files.ts";
import type { SessionOptions } from "../graph/session.ts";
import type { Weights } from "../model/config.ts";
import type { Parts } from "../net/parameters.ts";
import { DEFAULT_PROMPT_TEMPLATE } from "../text/prompt.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import {
  type Checkpoint,
  checkpointFolder,
  formatOf,
  loadLatestCheckpoint,
  loadModel,
  type ModelCard,
  removeLeftovers,
  type SavedModel,
  saveCheckpoint,
} from "./checkpoint.ts";
import { DivergenceGuard } from "./divergence.ts";
import { checkInit, parseRecipe, type RecipeFile } from "./recipe/read.ts";
import { checkSameRecipe } from "./recipe/resume.ts";
import { dataFiles, llmConfig, predictorConfig, type Recipe } from "./recipe/schema.ts";
import { lockRun } from "./runLock.ts";
import { type MetricsRow, RunLog, type TrainRow } from "./runLog.ts";
import { initialParts, makeTokenizer, partsOf, prepareStage } from "./stages.ts";
import { newStageState, runStage, type StageState } from "./trainer.ts";

/** What a run tells while it goes. */
export type RunEvent =
  | { kind: "resumed"; step: number }
  | { kind: "damaged"; error: FileError }
  | { kind: "stage"; name: string; steps: number; numTooLong: number }
  | { kind: "row"; row: MetricsRow; totalSteps: number }
  | { kind: "saved"; folder: string; step: number };

export interface RunOptions extends SessionOptions {
  /** Folder of the run; made if need be. */
  runDir: string;
  /** Aborting saves a checkpoint after the step in progress and ends the run. */
  signal?: AbortSignal;
}

/**
 * Trains a recipe to its end, or goes on with a run that was interrupted.
 *
 * @returns events; the run advances as they are read
 * @throws {OptionError} if the run's folder was begun with another recipe
 * @throws {FileError} if a file that the recipe names is missing, the run's folder is held by another trainer, or all of its
 *   checkpoints are damaged
 * @throws {DivergenceError} on a loss that is not finite or has left its range; the last good checkpoint stays
 */
export async function* trainRecipe(file: RecipeFile, options: RunOptions): AsyncGenerator<RunEvent> {
  const { recipe } = file;
  const { runDir, signal, ...session } = options;
  for (const path of dataFiles(recipe)) new ReadableFile(file.pathOf(path))[Symbol.dispose](); // not hours later, when a stage begins
  const initPath = recipe.init && file.pathOf(recipe.init.run);
  if (initPath !== undefined && !existsSync(runDir)) checkInit(initPath); // a run that has begun needs it no more
  mkdirSync(runDir, { recursive: true });
  using _lock = lockRun(runDir);
  removeLeftovers(runDir);

  const damaged: FileError[] = [];
  const saved = await loadLatestCheckpoint(runDir, (error) => damaged.push(error));
  for (const error of damaged) yield { kind: "damaged", error };
  if (saved) {
    checkSameRecipe(parseRecipe(saved.recipe, runDir), recipe); // keys that came later have their defaults
    yield { kind: "resumed", step: saved.step };
  }
  const tokenizerPath = join(runDir, "tokenizer.json");
  const init = initPath !== undefined && !saved ? await loadInit(initPath) : undefined;
  const tokenizer = await makeTokenizer(file, saved ?? init, tokenizerPath);
  const { chatTemplate } = saved ?? init ?? {};
  const format = formatOf({ card: { promptTemplate: DEFAULT_PROMPT_TEMPLATE }, chatTemplate }, tokenizer, runDir);
  const parts = saved ? savedParts(saved) : initialParts(recipe, init, tokenizer.vocabSize);
  if (recipe.stages.some((stage) => stage.kind === "sft" && stage.distil)) {
    const { llm } = await loadInit(initPath!); // its own copy: what is trained changes in place
    parts.teacher = llm.weights;
  }
  const inherited = (saved ?? init)?.card.provenance.data ?? [];
  using log = new RunLog(join(runDir, "metrics.jsonl"), saved?.metricsBytes ?? 0);
  const totalSteps = recipe.stages.reduce((sum, { steps }) => sum + steps, 0);
  if (!saved) log.append({ kind: "run", name: recipe.name, recipe, parameters: countParameters(parts) });

  const values = (saved?.values ?? { step: 0, losses: [] }) as { step: number; losses: number[] };
  let folder = saved && checkpointFolder(runDir, saved.step);
  for (let index = saved?.stage ?? 0; index < recipe.stages.length; index++) {
    const stage = recipe.stages[index]!;
    const stageParts = partsOf(parts, recipe, stage);
    const prepared = await prepareStage(file, stage, format, parts, session);
    const { config, stream, numTooLong, clusters } = prepared;
    yield { kind: "stage", name: stage.name, steps: stage.steps, numTooLong };
    const resumed = index === saved?.stage && values.step > 0; // else the stage begins here
    const stepsBefore = recipe.stages.slice(0, index).reduce((sum, { steps }) => sum + steps, 0);
    if (!resumed) {
      prepared.begin?.();
      if (clusters) {
        const row = { ...clusters, stage: stage.name, step: stepsBefore };
        log.append(row);
        yield { kind: "row", row, totalSteps };
      }
    }
    const state: StageState = resumed
      ? { step: values.step, m: saved!.tensors["adam-m"]!, v: saved!.tensors["adam-v"]! }
      : newStageState(stageParts, config);
    const guard = new DivergenceGuard(resumed ? values.losses : []);
    stream.skip(state.step * stage.accumulate);

    const save = async () => {
      log.sync();
      const isDone = state.step === stage.steps;
      const position = { step: stepsBefore + state.step, stage: isDone ? index + 1 : index, metricsBytes: log.bytes };
      const running = isDone ? { step: 0, losses: [] } : { step: state.step, losses: [...guard.losses] };
      const moments: Record<string, Weights> = isDone ? {} : { "adam-m": state.m, "adam-v": state.v };
      folder = await saveCheckpoint(runDir, {
        ...savedModel(recipe, parts, tokenizer, tokenizerPath, inherited),
        chatTemplate,
        ...position,
        recipe: JSON.parse(JSON.stringify(recipe)),
        values: running,
        tensors: { ...moments, ...(parts.static && { static: parts.static }) },
      });
      return { kind: "saved", folder, step: position.step } as const;
    };

    const check = (row: TrainRow) => guard.check(row, folder);
    for await (const rows of runStage(stageParts, config, state, stepsBefore, stream, session, check)) {
      for (const row of rows) {
        log.append(row);
        yield { kind: "row", row, totalSteps };
      }
      if (state.step === stage.steps || rows[0].step % recipe.checkpointEvery === 0 || signal?.aborted)
        yield await save();
      if (signal?.aborted) return;
    }
  }
}

/** What a recipe starts from: a checkpoint, or a run that has come to its end. */
async function loadInit(path: string): Promise<SavedModel> {
  const run = await loadLatestCheckpoint(path);
  if (!run) return loadModel(path);
  const { stages } = run.recipe as { stages: unknown[] };
  if (run.stage < stages.length)
    throw new OptionError(
      `recipe "init": wanted a run that has come to its end, got "${path}", which is at step ${run.step}. Train it to the end, or name one of its checkpoints.`,
    );
  return run;
}

function savedParts({ llm, predictor, tensors }: Checkpoint): Parts {
  return {
    llm: llm.weights,
    ...(predictor && { backbone: predictor.backbone.weights, head: predictor.head }),
    ...(tensors.static && { static: tensors.static }),
  };
}

type DataOrigin = ModelCard["provenance"]["data"][number];

/** @param inherited data that the model has already learned from */
function savedModel(
  recipe: Recipe,
  parts: Parts,
  tokenizer: Tokenizer,
  tokenizerPath: string,
  inherited: readonly DataOrigin[],
) {
  const own = recipe.stages.flatMap(({ data }) => data.map(({ domain, licence }) => ({ name: domain, licence })));
  const origins = new Map([...inherited, ...own].map((origin) => [JSON.stringify(origin), origin]));
  const predictor = predictorConfig(recipe, tokenizer.vocabSize);
  const { mask } = recipe;
  const card: ModelCard = {
    ...(mask?.kind === "predictor" && { tFfn: mask.tFfn, epsilon: mask.epsilon }),
    lambda: mask && mask.kind !== "random-per-domain" ? "soft" : "hard",
    predictorInput: recipe.predictor?.input ?? "prompt",
    promptTemplate: DEFAULT_PROMPT_TEMPLATE,
    bosId: tokenizer.bosId,
    eosId: tokenizer.eosId,
    provenance: {
      recipe: recipe.name,
      seed: recipe.seed,
      data: [...origins.values()],
      created: new Date().toISOString(),
    },
  };
  return {
    card,
    tokenizer: readFileSync(tokenizerPath),
    llm: { config: llmConfig(recipe, tokenizer.vocabSize), weights: parts.llm! },
    ...(predictor && {
      predictor: { backbone: { config: predictor.backbone, weights: parts.backbone! }, head: parts.head! },
    }),
  };
}

function countParameters(parts: Parts): Record<string, number> {
  const count = (weights: Weights) => [...weights.values()].reduce((sum, { data }) => sum + data.length, 0);
  return Object.fromEntries(Object.entries(parts).map(([part, weights]) => [part, count(weights)]));
}
