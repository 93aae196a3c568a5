/** A whole training run: recipe → stages → checkpoints, log and progress. Resumes by itself from its newest checkpoint. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { FileError } from "../errors.ts";
import { makeFolders, ReadableFile } from "../files.ts";
import type { SessionOptions } from "../graph/session.ts";
import type { Weights } from "../model/config.ts";
import { namedParts, type Parts } from "../net/parameters.ts";
import { lockRun } from "../runLock.ts";
import { loadLatestCheckpoint, removeLeftovers, removeOlder } from "./checkpoint.ts";
import { DivergenceGuard } from "./divergence.ts";
import { pinData } from "./pinnedData.ts";
import { checkInit, parseRecipe, type RecipeFile } from "./recipe/read.ts";
import { checkSameRecipe } from "./recipe/resume.ts";
import { dataFiles } from "./recipe/schema.ts";
import { type MetricsRow, RunLog, type TrainRow } from "./runLog.ts";
import { RunState, stepsBefore } from "./runState.ts";
import { newStageState } from "./stage.ts";
import { partsOf, prepareStage } from "./stages.ts";
import { runStage } from "./trainer.ts";

/** What a run tells while it goes. */
export type RunEvent =
  | { kind: "resumed"; step: number }
  | { kind: "damaged"; error: FileError }
  /** The log lacks rows of steps that the checkpoint has. */
  | { kind: "lost"; path: string; bytes: number }
  | { kind: "data"; changed: readonly string[] }
  | { kind: "stage"; name: string; steps: number; numTooLong: number }
  | { kind: "row"; row: MetricsRow; totalSteps: number }
  | { kind: "saved"; folder: string; step: number };

/** Where and how {@link trainRecipe} trains. */
export interface RunOptions extends SessionOptions {
  /** Folder of the run; made if need be. */
  runDir: string;
  /** Goes on with data files that are not those that the run began with. Default: false. */
  acceptChangedData?: boolean | undefined;
  /** Aborting saves a checkpoint after the step in progress and ends the run. */
  signal?: AbortSignal | undefined;
}

/**
 * Trains a recipe to its end, or goes on with a run that was interrupted.
 *
 * @returns events; the run advances as they are read
 * @throws {OptionError} if the run's folder was begun with another recipe
 * @throws {FileError} if a file that the recipe names is missing, or has changed since the run began, the run's folder is held by another trainer, or all of its
 *   checkpoints are damaged
 * @throws {DivergenceError} on a loss that is not finite or has left its range; the last good checkpoint stays
 */
export async function* trainRecipe(file: RecipeFile, options: RunOptions): AsyncGenerator<RunEvent> {
  const { recipe } = file;
  const { runDir, acceptChangedData = false, signal, ...session } = options;
  checkFiles(file, runDir);
  makeFolders(runDir);
  using _lock = lockRun(runDir);
  removeLeftovers(runDir);

  const damaged: FileError[] = [];
  const saved = await loadLatestCheckpoint(runDir, (error) => damaged.push(error));
  for (const error of damaged) yield { kind: "damaged", error };
  if (saved) {
    checkSameRecipe(parseRecipe(saved.recipe, runDir), recipe); // keys that came later have their defaults
    removeOlder(runDir, saved.step);
    yield { kind: "resumed", step: saved.step };
  }
  if (saved?.stage !== recipe.stages.length) {
    const changed = await pinData(file, runDir, { isNew: !saved, acceptChanged: acceptChangedData });
    if (changed.length > 0) yield { kind: "data", changed };
  }
  const run = await RunState.open(file, runDir, saved);
  using log = new RunLog(join(runDir, "metrics.jsonl"), saved?.metricsBytes ?? 0);
  if (log.lostBytes > 0) yield { kind: "lost", path: log.path, bytes: log.lostBytes };
  if (log.bytes === 0) log.append({ kind: "run", name: recipe.name, recipe, parameters: countParameters(run.parts) });

  for (let index = run.stage; index < recipe.stages.length; index++) {
    yield* trainStage(index, { file, run, log, session, runDir, signal });
    if (signal?.aborted) return;
  }
}

interface StageContext {
  file: RecipeFile;
  run: RunState;
  log: RunLog;
  session: SessionOptions;
  runDir: string;
  signal: AbortSignal | undefined;
}

/** One stage of a run, from its beginning or where it was interrupted, to its end or until aborted. */
async function* trainStage(
  index: number,
  { file, run, log, session, runDir, signal }: StageContext,
): AsyncGenerator<RunEvent, void> {
  const { recipe } = file;
  const stage = recipe.stages[index]!;
  const before = stepsBefore(recipe, index);
  const totalSteps = stepsBefore(recipe, recipe.stages.length);
  const logged = (row: MetricsRow): RunEvent => {
    log.append(row);
    return { kind: "row", row, totalSteps };
  };

  const { format, parts } = run;
  const prepared = await prepareStage(stage, { file, format, parts, session, runDir });
  await using _held = closedTogether(prepared.held);
  const { config, stream, numTooLong, clusters } = prepared;
  yield { kind: "stage", name: stage.name, steps: stage.steps, numTooLong };
  const stageParts = partsOf(parts, recipe, stage);
  const interrupted = index === run.stage ? run.progress : undefined;
  if (clusters && !interrupted) {
    clusters.setEntries();
    yield logged({ ...clusters.row, stage: stage.name, step: before });
  }
  const state = interrupted?.state ?? newStageState(config, stageParts);
  const guard = new DivergenceGuard(interrupted?.losses);
  stream.skip(state.step * stage.accumulate);

  const check = (row: TrainRow) => guard.check(row, run.checkpoint);
  for await (const rows of runStage(config, stageParts, state, stream, { stepsBefore: before, session, check })) {
    for (const row of rows) yield logged(row);
    if (state.step === stage.steps || rows[0].step % recipe.checkpointEvery === 0 || signal?.aborted) {
      log.sync();
      const folder = await run.save(index, { state, losses: guard.losses }, log.bytes);
      yield { kind: "saved", folder, step: rows[0].step };
    }
    if (signal?.aborted) return;
  }
}

function closedTogether(held: readonly AsyncDisposable[] = []): AsyncDisposable {
  return {
    async [Symbol.asyncDispose]() {
      for (const one of held) await one[Symbol.asyncDispose]();
    },
  };
}

/** Looks for what the run will read now, not hours later, when a stage begins. */
function checkFiles({ recipe, pathOf }: RecipeFile, runDir: string): void {
  for (const path of dataFiles(recipe)) new ReadableFile(pathOf(path))[Symbol.dispose]();
  if (existsSync(runDir)) return; // a run that has begun needs no more what it starts from
  if (recipe.init) checkInit(pathOf(recipe.init.run), "init");
  if (recipe.predictor?.init) checkInit(pathOf(recipe.predictor.init.run), "predictor.init");
}

/** By part. What two share is the first's. */
function countParameters(parts: Parts): Record<string, number> {
  const seen = new Set<Float32Array>();
  const count = (weights: Weights) => {
    const own = [...weights.values()].filter(({ data }) => !seen.has(data));
    for (const { data } of own) seen.add(data);
    return own.reduce((sum, { data }) => sum + data.length, 0);
  };
  return Object.fromEntries(namedParts(parts).map(([part, weights]) => [part, count(weights)]));
}
