/**
 * Training of a job, until it gets no better on held-out rows. Healing of a cut model: divergence from the whole one, after every token of the task's rows. Tuning of
 * the whole model, where right answers are given: the loss on them, so that there is something to stay near to.
 */
import { existsSync, renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { DivergenceError } from "../errors.ts";
import { readJson } from "../json.ts";
import type { ModelConfig } from "../model/config.ts";
import { checkpointFolder } from "../train/checkpoint.ts";
import { parseRecipe, type RecipeFile } from "../train/recipe/read.ts";
import { trainRecipe } from "../train/run.ts";
import { readRunLog } from "../train/runLog.ts";
import { linkFolder } from "./jobFolder.ts";
import type { SpecializeEvent, StepLoss } from "./specialization.ts";
import type { RowShape } from "./taskData.ts";

/** A run of a job; paths are those of the job's folder. */
export interface TunePlan {
  /** Of the run. */
  name: string;
  /** Model that learns, and its shape. */
  init: string;
  llm: ModelConfig;
  shape: RowShape;
  steps: number;
  /** Steps between two evaluations. */
  every: number;
  /** Rows to learn from, and those held out. */
  rows: { train: string; heldOut?: string | undefined };
  data: { name: string; licence: string };
  seed: number;
  threads?: number | undefined;
}

/** The same of a cut model. */
export interface HealPlan extends TunePlan {
  /** The whole one. */
  teacher: string;
}

/** Evaluations of the long run. */
export const EVALUATIONS = 16;
/** Of them, without gain, after which a run ends; but not before this share of its steps, as the loss falls most where the rate comes down. */
export const PATIENCE = 3;
const EARLIEST_END = 0.75;

/** Of a model 576 wide, where it was found; Adam moves each weight alike, so a wider one is moved less. */
const RATE = { llm: 3e-4, width: 576, most: 3e-3 } as const;

/** @param pathOf a path of the job */
export function healRecipe(plan: HealPlan, pathOf: (relative: string) => string): RecipeFile {
  const { teacher, shape } = plan;
  const stage = { name: "heal", kind: "distil", teacher: { run: teacher }, states: "states", sequenceLength: shape.T };
  return recipeOf(plan, stage, pathOf);
}

/** Rows are single questions, as they will be asked. @param pathOf a path of the job */
export function tuneRecipe(plan: TunePlan, pathOf: (relative: string) => string): RecipeFile {
  return recipeOf(plan, { name: "tune", kind: "sft" }, pathOf);
}

function recipeOf(plan: TunePlan, stage: object, pathOf: (relative: string) => string): RecipeFile {
  const { name, init, llm, shape, steps, every, rows, data, seed, threads } = plan;
  const { vocabSize: _, ...own } = llm;
  const recipe = {
    name,
    seed,
    init: { run: init },
    llm: JSON.parse(JSON.stringify(own)), // without keys that are undefined
    stages: [
      {
        ...stage,
        steps,
        data: [{ domain: data.name, path: rows.train, licence: data.licence }],
        embedding: "frozen",
        tokensPerBatch: shape.T * shape.B,
        learningRate: { llm: Math.min(RATE.most, (RATE.llm * RATE.width) / llm.width) },
        warmupSteps: Math.min(10, steps),
        minLearningRateShare: 0.05,
        weightDecay: 0,
        beta2: 0.98,
        ...(rows.heldOut !== undefined && { evaluate: { every, path: rows.heldOut } }),
      },
    ],
    checkpointEvery: every,
    ...(threads !== undefined && { threads }),
  };
  return { recipe: parseRecipe(recipe, pathOf(name)), pathOf };
}

/** What came of a run. */
export interface Healed {
  /** With its checkpoint. Absent of a run that diverged before it was evaluated. */
  best?: (StepLoss & { path: string }) | undefined;
  evaluations: readonly StepLoss[];
  /** That were taken. */
  steps: number;
}

/**
 * Trains to the end of the plan, or until in its last quarter the held-out loss, which in healing is the divergence, has not fallen for {@link PATIENCE} evaluations, or training diverges. What it
 * gives is the checkpoint at which that loss was lowest.
 *
 * @throws as `trainRecipe`; the reason of the signal where that stopped it, after a checkpoint
 */
export async function* heal(
  file: RecipeFile,
  runDir: string,
  { signal, threads }: { signal?: AbortSignal | undefined; threads?: number | undefined },
): AsyncGenerator<SpecializeEvent, Healed> {
  const enough = new AbortController();
  const stop = AbortSignal.any([enough.signal, ...(signal ? [signal] : [])]);
  const { name, stages } = file.recipe;
  const steps = stages.reduce((sum, stage) => sum + stage.steps, 0);
  const session = { ...(threads !== undefined && { threads }), spinning: false };
  try {
    for await (const event of trainRecipe(file, { runDir, signal: stop, ...session })) {
      if (event.kind === "saved" || event.kind === "resumed") keepBest(runDir);
      if (event.kind === "resumed" && isStale(runDir, steps)) break;
      if (event.kind !== "row") continue;
      if (event.row.kind === "evaluation" && isStale(runDir, steps)) enough.abort();
      yield { kind: "row", run: name, row: event.row, totalSteps: event.totalSteps };
    }
  } catch (error) {
    if (!(error instanceof DivergenceError)) throw error;
    yield { kind: "note", text: `${name}: training diverged and ended; what was best before stays.` };
  }
  signal?.throwIfAborted();
  const evaluations = evaluationsOf(runDir);
  const best = bestOf(evaluations);
  return { best: best && { ...best, path: bestFolder(runDir) }, evaluations, steps: evaluations.at(-1)?.step ?? 0 };
}

function evaluationsOf(runDir: string): StepLoss[] {
  return readRunLog(join(runDir, "metrics.jsonl")).flatMap((row) =>
    row.kind === "evaluation" ? [{ step: row.step, loss: row.loss.dense!, accuracy: row.accuracy.dense! }] : [],
  );
}

const bestOf = (evaluations: readonly StepLoss[]): StepLoss | undefined =>
  evaluations.reduce<StepLoss | undefined>((best, one) => (best && best.loss <= one.loss ? best : one), undefined);

function isStale(runDir: string, steps: number): boolean {
  const evaluations = evaluationsOf(runDir);
  if ((evaluations.at(-1)?.step ?? 0) < EARLIEST_END * steps) return false;
  return evaluations.indexOf(bestOf(evaluations)!) < evaluations.length - PATIENCE;
}

/** Of a run's folder. */
export const BEST = "best";
const bestFolder = (runDir: string) => join(runDir, BEST);

/** A run keeps its last checkpoints alone: the best so far gets a second name as soon as it is there. */
function keepBest(runDir: string): void {
  const best = bestOf(evaluationsOf(runDir));
  if (!best) return;
  const [from, to] = [checkpointFolder(runDir, best.step), bestFolder(runDir)];
  if (!existsSync(from) || stepIn(to) === best.step) return;
  const partial = `${to}.making`;
  rmSync(partial, { recursive: true, force: true });
  linkFolder(from, partial);
  rmSync(to, { recursive: true, force: true });
  renameSync(partial, to);
}

function stepIn(folder: string): number | undefined {
  const path = join(folder, "state.json");
  return existsSync(path) ? (readJson(path) as { step: number }).step : undefined;
}
