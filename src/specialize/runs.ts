/** Runs of a job: the model cut to a width and healed, a short one for each share that is tried, and the long one. */
import { rmSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { makeFolders } from "../files.ts";
import { readModelConfig } from "../formats/huggingfaceConfig.ts";
import { Evaluator } from "../net/evaluator.ts";
import { parameterArrays } from "../net/parameters.ts";
import { writeReport } from "../report/report.ts";
import { loadModel, saveModel } from "../train/checkpoint.ts";
import { summarize } from "../train/diagnose.ts";
import { heldOutExamples, measureDivergence } from "../train/heldOut.ts";
import type { RecipeFile } from "../train/recipe/read.ts";
import type { ReconstructionError } from "../train/reconstruct.ts";
import type { EvaluationRow } from "../train/runLog.ts";
import { Teacher } from "../train/teacher.ts";
import { cutModel } from "./cut.ts";
import { BEST, heal, healRecipe, tuneRecipe } from "./heal.ts";
import type { JobFolder } from "./jobFolder.ts";
import type { CurvePoint, Distance, SpecializeEvent, StepDistance, StepLoss } from "./specialization.ts";
import { openDense, type RowShape, taskData } from "./taskData.ts";
import { readRows } from "./taskPrompts.ts";
import { told } from "./told.ts";

/** What all runs of a job have. */
export interface RunSetting {
  job: JobFolder;
  /** Checkpoint of the whole model. */
  dense: string;
  data: { name: string; licence: string };
  rows: { train: string; heldOut: string };
  shape: RowShape;
  seed: number;
  threads: number | undefined;
  signal: AbortSignal | undefined;
}

interface RunLength {
  steps: number;
  every: number;
}

/** What was cut, before any training. */
interface Cut {
  reconstruction?: ReconstructionError | undefined;
  before: Distance;
}

/** Where a run begins: a checkpoint, and its loss. */
interface Start extends Omit<StepLoss, "step"> {
  path: string;
}

/** What came of a run: the first evaluation is of step 0, and where that is the best the model stays as it was. */
export interface TrainedRun {
  best: StepLoss;
  evaluations: readonly StepLoss[];
  /** That were taken. */
  steps: number;
}

/** The same of a model that was cut. */
export interface Ran {
  healed: TrainedRun;
  cut: Cut;
}

/** One run of a job: the cut model, what it loses, and the healed one, a checkpoint of this name. All else of it but its log goes from the disk. */
export async function* cutAndHeal(
  name: string,
  { tFfn, ...length }: { tFfn: number } & RunLength,
  setting: RunSetting,
  cutBy: typeof cutModel = cutModel,
): AsyncGenerator<SpecializeEvent, Ran> {
  const { job, dense, data, rows, shape, signal, threads, seed } = setting;
  const known = job.known<Ran>(`${name}.json`);
  if (known) return known;
  const session = { ...(threads !== undefined && { threads }), spinning: false };
  const cutName = `cut-${name}`;
  const cutPath = job.at(cutName);
  const cut = yield* told("cut", signal, ({ signal, onProgress }) =>
    job.madeJson<Cut>(`${cutName}.json`, async () => {
      const opened = await openDense(dense);
      const { data: encoded } = await taskData(job.at(rows.train), data.name, opened);
      makeFolders(job.at("importance"));
      const { model, reconstruction } = await cutBy(opened.model, encoded, {
        ...{ tFfn, seed, importance: job.at("importance"), threads, signal },
        onProgress: (phase, done, total) => onProgress(done, total, phase),
      });
      rmSync(cutPath, { recursive: true, force: true });
      await saveModel(cutPath, model);
      const examples = await heldOutExamples(job.at(rows.heldOut), opened.format, shape.T);
      await using teacher = new Teacher(opened.model.llm, examples, {
        ...{ folder: job.at("states"), sequenceLength: shape.T, session },
      });
      const { loss, tokenAccuracy } = await measureDivergence(model.llm, examples, teacher, session);
      return { reconstruction, before: { kl: loss, agreement: tokenAccuracy } };
    }),
  );
  const llm = readModelConfig(join(cutPath, "llm"));
  const plan = { ...planOf(name, length, setting), init: cutName, teacher: relative(job.path, dense), llm };
  const start = { path: cutPath, loss: cut.before.kl, accuracy: cut.before.agreement };
  const healed = yield* trained(healRecipe(plan, pathIn(job)), start, setting);
  await job.madeJson(`${name}.json`, async () => ({ healed, cut }));
  clear(job, name);
  rmSync(cutPath, { recursive: true, force: true });
  return { healed, cut };
}

/** The whole model after it has learned right answers: a checkpoint of this name. */
export async function* tune(
  name: string,
  length: RunLength,
  setting: RunSetting,
): AsyncGenerator<SpecializeEvent, TrainedRun> {
  const { job, dense, rows, threads, signal } = setting;
  const known = job.known<TrainedRun>(`${name}.json`);
  if (known) return known;
  const before = yield* told("answers", signal, ({ signal, onProgress }) =>
    job.madeJson<Omit<StepLoss, "step">>(`${name}-before.json`, async () => {
      const { model, format } = await openDense(dense);
      const { config, weights } = model.llm;
      const examples = await heldOutExamples(job.at(rows.heldOut), format, config.contextLength);
      const session = { ...(threads !== undefined && { threads }), spinning: false };
      const evaluator = new Evaluator({ llm: config, parameters: parameterArrays({ llm: weights }) }, session);
      onProgress(0, examples.length, "right answers");
      try {
        const { loss, tokenAccuracy: accuracy } = summarize(await evaluator.score(examples, undefined, signal));
        return { loss, accuracy };
      } finally {
        await evaluator.release();
      }
    }),
  );
  const llm = readModelConfig(join(dense, "llm"));
  const plan = { ...planOf(name, length, setting), init: relative(job.path, dense), llm };
  const tuned = yield* trained(tuneRecipe(plan, pathIn(job)), { path: dense, ...before }, setting);
  await job.madeJson(`${name}.json`, async () => tuned);
  clear(job, name);
  return tuned;
}

const pathIn = (job: JobFolder) => (relative: string) => resolve(job.path, relative);

function planOf(name: string, length: RunLength, { shape, rows, data, seed, threads }: RunSetting) {
  return { name, ...length, shape, rows, data, seed, threads };
}

const runFolder = (job: JobFolder, name: string) => job.at(`run-${name}`);

/** Leaves of a run its log alone. */
function clear(job: JobFolder, name: string): void {
  for (const part of ["checkpoints", BEST]) rmSync(join(runFolder(job, name), part), { recursive: true, force: true });
}

/** Runs a recipe to its best checkpoint, or to its start if that is none the worse, which then has the run's name in the job. */
async function* trained(
  file: RecipeFile,
  { path: startPath, ...start }: Start,
  { job, rows, signal, threads }: RunSetting,
): AsyncGenerator<SpecializeEvent, TrainedRun> {
  const { name } = file.recipe;
  const first = { step: 0, ...start };
  const [stage] = file.recipe.stages;
  const row: EvaluationRow = {
    ...{ kind: "evaluation", step: 0, stage: stage!.name, examples: readRows(job.at(rows.heldOut)).length },
    ...{ loss: { dense: first.loss }, accuracy: { dense: first.accuracy }, exactMatch: {} },
  };
  yield { kind: "row", run: name, row, totalSteps: stage!.steps };
  const runDir = runFolder(job, name);
  const events = heal(file, runDir, { signal, threads });
  for (;;) {
    const { value, done } = await events.next();
    if (done) {
      const { best: found, evaluations, steps } = value;
      const { path, ...best } = found && found.loss < first.loss ? found : { path: startPath, ...first };
      await job.made(name, async (partial) => {
        const { card, ...model } = await loadModel(path);
        await saveModel(partial, { ...model, card: { ...card, provenance: { ...card.provenance, recipe: job.name } } });
      });
      if (best.step === 0)
        yield {
          kind: "note",
          text: `${name}: training made it no better on held-out prompts, so it is taken as it was before, at step 0. More prompts would serve better.`,
        };
      return { best, evaluations: [first, ...evaluations], steps };
    }
    yield value;
    if (value.kind !== "row" || value.row.kind !== "evaluation") continue;
    writeReport([runDir], job.at("report.html"));
    job.keepTime();
  }
}

/** Steps that so many tokens are. */
export const stepsOf = (tokens: number, { T, B }: RowShape) => Math.max(1, Math.ceil(tokens / (T * B)));

/** What a run's loss is where it heals. */
export function distanceOf({ step, loss: kl, accuracy: agreement }: StepLoss): StepDistance {
  return { step, kl, agreement };
}

/** A short run of each width. @param widths the largest first */
export async function* shortRuns(
  widths: readonly number[],
  { tokens, dFfn }: { tokens: number; dFfn: number },
  setting: RunSetting,
): AsyncGenerator<SpecializeEvent, CurvePoint[]> {
  const steps = stepsOf(tokens, setting.shape);
  const curve: CurvePoint[] = [];
  for (const tFfn of widths) {
    const name = `short-${tFfn}`;
    const { healed } = yield* cutAndHeal(name, { tFfn, steps, every: steps }, setting);
    rmSync(setting.job.at(name), { recursive: true, force: true }); // its worth is known, and nobody reads it again
    const { kl, agreement } = distanceOf(healed.best);
    const point = { tFfn, keep: tFfn / dFfn, kl, agreement };
    curve.push(point);
    yield { kind: "point", point };
  }
  return curve;
}
