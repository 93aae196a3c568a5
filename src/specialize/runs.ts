/** Runs of a job: the model cut to a width and healed, a short one for each share that is tried, and the long one. */
import { rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { makeFolders } from "../files.ts";
import { readModelConfig } from "../formats/huggingface.ts";
import { writeReport } from "../report/report.ts";
import { loadModel, saveModel } from "../train/checkpoint.ts";
import { heldOutExamples, measureDivergence } from "../train/heldOut.ts";
import { Teacher } from "../train/teacher.ts";
import { cutModel } from "./cut.ts";
import { type Healed, heal, healRecipe } from "./heal.ts";
import type { JobFolder } from "./jobFolder.ts";
import type { CurvePoint, Distance, SpecializeEvent } from "./specialization.ts";
import { openDense, type RowShape, taskData } from "./taskData.ts";
import { told } from "./told.ts";

/** What all runs of a job have. */
export interface RunSetting {
  job: JobFolder;
  /** Checkpoint. */
  dense: string;
  data: { name: string; licence: string };
  rows: { train: string; heldOut: string };
  shape: RowShape;
  seed: number;
  threads: number | undefined;
  signal: AbortSignal | undefined;
}

/** What was cut, before any training. */
interface Cut {
  reconstruction: { before: number; after: number };
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
  { tFfn, steps, every }: { tFfn: number; steps: number; every: number },
  { job, dense, data, rows, shape, signal, threads, seed }: RunSetting,
): AsyncGenerator<SpecializeEvent, Ran> {
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
      const { model, report } = await cutModel(opened.model, encoded, {
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
      return { reconstruction: report.reconstruction!, before: { kl: loss, agreement: tokenAccuracy } };
    }),
  );
  const llm = readModelConfig(join(cutPath, "llm"));
  const file = healRecipe(
    { name, init: cutName, teacher: "dense", llm, shape, steps, every, rows, data, seed, threads },
    (relative) => resolve(job.path, relative),
  );
  const runDir = job.at(`run-${name}`);
  const events = heal(file, runDir, { signal, threads });
  for (;;) {
    const { value, done } = await events.next();
    if (done) {
      const { path: best, ...healed } = value;
      await job.made(name, async (partial) => {
        const { card, ...model } = await loadModel(best);
        await saveModel(partial, { ...model, card: { ...card, provenance: { ...card.provenance, recipe: job.name } } });
      });
      await job.madeJson(`${name}.json`, async () => ({ healed, cut }));
      for (const path of [cutPath, join(runDir, "checkpoints"), best]) rmSync(path, { recursive: true, force: true });
      return { healed, cut };
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
