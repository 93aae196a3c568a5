/** Runs of a job: the model cut to a width and healed, a short one for each share that is tried, and the long one. */
import { rmSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { makeFolders } from "../files.ts";
import { readModelConfig } from "../formats/huggingface.ts";
import { writeReport } from "../report/report.ts";
import { loadModel, saveModel } from "../train/checkpoint.ts";
import { heldOutExamples, measureDivergence } from "../train/heldOut.ts";
import type { RecipeFile } from "../train/recipe/read.ts";
import type { ReconstructionError } from "../train/reconstruct.ts";
import { Teacher } from "../train/teacher.ts";
import { cutModel } from "./cut.ts";
import { BEST, type Healed, heal, healRecipe, tuneRecipe } from "./heal.ts";
import type { JobFolder } from "./jobFolder.ts";
import type { CurvePoint, Distance, SpecializeEvent } from "./specialization.ts";
import { openDense, type RowShape, taskData } from "./taskData.ts";
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

/** What came of a run. */
export interface Ran {
  healed: Omit<Healed, "path">;
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
      await using teacher = new Teacher(
        opened.model.llm,
        examples.map(({ ids }) => ids),
        { folder: job.at("states"), sequenceLength: shape.T, session },
      );
      const { loss, tokenAccuracy } = await measureDivergence(model.llm, examples, teacher, session);
      return { reconstruction, before: { kl: loss, agreement: tokenAccuracy } };
    }),
  );
  const llm = readModelConfig(join(cutPath, "llm"));
  const plan = { ...planOf(name, length, setting), init: cutName, teacher: relative(job.path, dense), llm };
  const healed = yield* trained(healRecipe(plan, pathIn(job)), setting);
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
): AsyncGenerator<SpecializeEvent, Omit<Healed, "path">> {
  const { job, dense } = setting;
  const known = job.known<Omit<Healed, "path">>(`${name}.json`);
  if (known) return known;
  const llm = readModelConfig(join(dense, "llm"));
  const plan = { ...planOf(name, length, setting), init: relative(job.path, dense), llm };
  const tuned = yield* trained(tuneRecipe(plan, pathIn(job)), setting);
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

/** Runs a recipe to its best checkpoint, which then has the run's name in the job. */
async function* trained(
  file: RecipeFile,
  { job, signal, threads }: RunSetting,
): AsyncGenerator<SpecializeEvent, Omit<Healed, "path">> {
  const { name } = file.recipe;
  const runDir = runFolder(job, name);
  const events = heal(file, runDir, { signal, threads });
  for (;;) {
    const { value, done } = await events.next();
    if (done) {
      const { path: best, ...healed } = value;
      await job.made(name, async (partial) => {
        const { card, ...model } = await loadModel(best);
        await saveModel(partial, { ...model, card: { ...card, provenance: { ...card.provenance, recipe: job.name } } });
      });
      return healed;
    }
    yield value;
    if (value.kind === "row" && value.row.kind === "evaluation") writeReport([runDir], job.at("report.html"));
  }
}

/** Steps that so many tokens are. */
export const stepsOf = (tokens: number, { T, B }: RowShape) => Math.max(1, Math.ceil(tokens / (T * B)));

/** A short run of each width. @param widths the largest first */
export async function* shortRuns(
  widths: readonly number[],
  { tokens, dFfn }: { tokens: number; dFfn: number },
  setting: RunSetting,
): AsyncGenerator<SpecializeEvent, CurvePoint[]> {
  const steps = stepsOf(tokens, setting.shape);
  const curve: CurvePoint[] = [];
  for (const tFfn of widths) {
    const { healed } = yield* cutAndHeal(`short-${tFfn}`, { tFfn, steps, every: steps }, setting);
    const { kl, agreement } = healed.best;
    const point = { tFfn, keep: tFfn / dFfn, kl, agreement };
    curve.push(point);
    yield { kind: "point", point };
  }
  return curve;
}
