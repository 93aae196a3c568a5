/**
 * The comparison: three tasks, a model made smaller for each, and what it is held against. What is measured stays, what was interrupted goes on, so the command may be stopped at any time and
 * started again.
 *
 *     npx tsx experiments/specialize/suite.ts [--tasks sql,…] [--arms ours,…] [--keep 0.5,…] [--seeds 1,…] [--tokens 60000] [--model runs/smollm2/dense] [--threads 2]
 *
 * Without names the three tasks and all arms. Results: `results/TASK-ARM-….json`, of which `report.ts` makes the tables. Checkpoints go from the disk once they are measured.
 */
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { z } from "zod";
import { keptChannels } from "../../src/bundle/budget.ts";
import { OptionError } from "../../src/errors.ts";
import { readModelConfig } from "../../src/formats/huggingfaceConfig.ts";
import { Random } from "../../src/random.ts";
import { cutModel } from "../../src/specialize/cut.ts";
import { JobFolder } from "../../src/specialize/jobFolder.ts";
import { cutAndHeal, type RunSetting, stepsOf, tune } from "../../src/specialize/runs.ts";
import type { SpecializeEvent } from "../../src/specialize/specialization.ts";
import { openDense, taskData } from "../../src/specialize/taskData.ts";
import { distinct, jsonLines, partHeldOut, type TaskPrompt } from "../../src/specialize/taskPrompts.ts";
import { readJsonLines } from "../../src/text/jsonl.ts";
import { saveModel } from "../../src/train/checkpoint.ts";
import { cutByActivations } from "./activations.ts";
import { measure } from "./measure.ts";
import { ARMS, type Result, TASK_NAMES, WHOLE } from "./results.ts";

interface Task {
  /** Of `../smollm2/data`. */
  files: readonly string[];
  /** Of the rows' tasks; absent: all. */
  only?: readonly string[];
  /** At most. */
  prompts: number;
  /** Further rows that are neither learned nor measured by KL, but asked: of 60 answers a difference of two points cannot be seen. */
  asked?: number;
  /** Where these are from, if not of `files`: rows without an instruction, which get those of the rows of their task. */
  askedFrom?: string;
  /** Whether the rows' answers are right ones, which the whole model learns first; else they are its own, of before. */
  hasGold: boolean;
  licence: string;
}

const SQL: Task = { files: ["train/sql.jsonl.gz"], prompts: 1500, asked: 500, hasGold: true, licence: "BSD-3-Clause" };
const TASKS: Readonly<Record<Result["task"], Task>> = {
  sql: SQL,
  "sql-3500": { ...SQL, prompts: 3500 },
  rewriting: {
    files: ["train/rules.jsonl.gz"],
    only: ["active_to_passive", "negation"],
    prompts: 1500,
    asked: 400,
    askedFrom: "../../suite/data/train.jsonl.gz",
    hasGold: true,
    licence: "Apache-2.0",
  },
  answers: {
    files: ["train/plain.jsonl.gz", "train/plain-further.jsonl.gz"],
    prompts: 1500,
    hasGold: false,
    licence: "MIT and Apache-2.0",
  },
};
/** Text of many kinds, none of them a task's: what the arm `general` is cut for and heals on. */
const GENERAL = ["stories", "code", "math", "python", "roleplay", "tools"];
const GENERAL_ROWS = 250; // of each

/** Arms that heal, by how they cut. */
const CUTS: Partial<Readonly<Record<Result["arm"], typeof cutModel>>> = {
  ours: cutModel,
  general: cutModel,
  activations: cutByActivations,
  "no-least-squares": (dense, data, options) => cutModel(dense, data, { ...options, reconstruct: false }),
};
const EVALUATIONS = 8;

const here = import.meta.dirname;
const root = join(here, "../..");
const { values } = parseArgs({
  options: {
    tasks: { type: "string", default: "sql,rewriting,answers" },
    arms: { type: "string", default: ARMS.join(",") },
    keep: { type: "string", default: "0.5" },
    seeds: { type: "string", default: "1" },
    tokens: { type: "string", default: "60000" },
    model: { type: "string", default: join(root, "runs/smollm2/dense") },
    work: { type: "string", default: join(root, "runs/specialize") },
    results: { type: "string", default: join(here, "results") },
    threads: { type: "string", default: "2" },
  },
});
const named = <Name extends string>(text: string, known: readonly Name[]): Name[] =>
  text.split(",").map((wanted) => {
    const name = known.find((one) => one === wanted);
    if (name === undefined) throw new OptionError(`suite.ts: wanted some of ${known.join(", ")}, got "${wanted}".`);
    return name;
  });
const tasks = named(values.tasks, TASK_NAMES);
const arms = named(values.arms, ARMS);
const [keeps, seeds] = [values.keep, values.seeds].map((text) => text.split(",").map(Number)) as [number[], number[]];
const [tokens, threads] = [Number(values.tokens), Number(values.threads)];
const model = resolve(values.model);

/** Of `../smollm2/data`; other keys are of no matter. */
const dataRow = z.object({
  task: z.string().optional(),
  instruction: z.string(),
  input: z.string().optional(),
  output: z.string().optional(),
});

/** Of `../suite/data`. */
const bareRow = z.object({ task: z.string(), input: z.string().optional(), answers: z.array(z.string()).min(1) });

mkdirSync(values.results, { recursive: true });
mkdirSync(values.work, { recursive: true });
for (const name of tasks) {
  using job = new JobFolder(join(resolve(values.work), name), { task: name, model });
  const task = TASKS[name];
  await prepareRows(task, job);
  const opened = await openDense(model);
  const { shape } = await taskData(job.at("train.jsonl"), name, opened);
  const steps = stepsOf(tokens, shape);
  const length = { steps, every: Math.max(1, Math.round(steps / EVALUATIONS)) };
  const rows = { train: "train.jsonl", heldOut: "heldout.jsonl" };
  const untuned: RunSetting = {
    ...{ job, dense: model, data: { name, licence: task.licence }, rows, shape, seed: 1, threads, signal: undefined },
  };
  const tuned = `tuned-${tokens}`;
  if (task.hasGold) await finish(tune(tuned, length, untuned));
  const teacher = task.hasGold ? job.at(tuned) : model;
  const F = readModelConfig(join(model, "llm")).ffnWidth;

  for (const seed of seeds)
    for (const keep of keeps)
      for (const arm of arms) {
        if (arm === "tuned" && !task.hasGold) continue;
        const isWhole = WHOLE.includes(arm);
        const own = isWhole ? [name, arm, tokens] : [name, arm, keep, tokens, `s${seed}`];
        const path = join(values.results, `${own.join("-")}.json`);
        if (existsSync(path)) continue;
        console.error(`\n${own.join(" ")}`);
        const start = performance.now();
        const setting: RunSetting = { ...untuned, dense: teacher, seed };
        const tFfn = keptChannels(keep, F);
        const made = isWhole || arm === "griffin" ? undefined : own.slice(1).join("-");
        if (made !== undefined) await makeModel(arm, made, { tFfn, ...length }, setting);
        const measured = await measure(made === undefined ? (arm === "dense" ? model : teacher) : job.at(made), {
          ...{ teacher, heldOut: job.at(rows.heldOut), maxTokens: shape.T, states: job.at("states"), threads },
          bundle: job.at("measured.making"),
          asked: task.hasGold ? job.at(arm === "griffin" ? rows.heldOut : "asked.jsonl") : undefined, // a sub-network for each prompt takes its time
          griffin: arm === "griffin" ? { tFfn, cache: job.at("cache") } : undefined,
        });
        const minutes = (performance.now() - start) / 60_000;
        const result: Result = { task: name, arm, keep: isWhole ? 1 : keep, seed, tokens, ...measured, minutes };
        writeFileSync(path, `${JSON.stringify(result, null, 2)}\n`);
        if (made !== undefined)
          for (const left of [made, `${made}.json`, `cut-${made}.json`])
            rmSync(job.at(left), { recursive: true, force: true });
      }
}

/** Files of a task's rows, those to learn from and those held out; and of general text. */
async function prepareRows(task: Task, job: JobFolder): Promise<void> {
  const { files, only, prompts, asked = 0, askedFrom, hasGold } = task;
  const all = (await Promise.all(files.map((file) => readTask(file, only)))).flat();
  const drawn = some(distinct(all.map(asPrompt)), askedFrom === undefined ? prompts + asked : prompts);
  const parts = partHeldOut(drawn.slice(0, prompts), 1);
  const further = askedFrom === undefined ? drawn.slice(prompts) : some(await instructed(askedFrom, all), asked);
  const named = {
    train: parts.train,
    heldout: parts.heldOut,
    ...(hasGold && { asked: [...parts.heldOut, ...further] }),
  };
  for (const [part, rows] of Object.entries(named))
    await job.made(`${part}.jsonl`, (partial) => writeFileSync(partial, jsonLines(rows)));
  await job.made("general.jsonl", async (partial) => {
    const rows = await Promise.all(GENERAL.map((kind) => readTask(`train/${kind}.jsonl.gz`)));
    writeFileSync(partial, jsonLines(rows.flatMap((own) => some(own.map(asPrompt), GENERAL_ROWS))));
  });
}

type Row = z.infer<typeof dataRow>;

/** Rows of `../smollm2/data`. @param tasks all, if absent */
async function readTask(file: string, tasks?: readonly string[]): Promise<Row[]> {
  const rows: Row[] = [];
  for await (const { row } of readJsonLines(join(here, "../smollm2/data", file), dataRow))
    if (!tasks || tasks.includes(row.task!)) rows.push(row);
  return rows;
}

function asPrompt({ task: _, ...prompt }: Row): TaskPrompt {
  return prompt;
}

/** Inputs that none of the rows has, under the rows' instructions in turn. */
async function instructed(file: string, rows: readonly Row[]): Promise<TaskPrompt[]> {
  const known = new Set(rows.map(({ input }) => input));
  const prompts: TaskPrompt[] = [];
  for await (const { row } of readJsonLines(join(here, "../smollm2/data", file), bareRow)) {
    const { task, input, answers } = row;
    const same = rows.filter((one) => one.task === task);
    if (same.length === 0 || known.has(input)) continue;
    prompts.push({ instruction: same[prompts.length % same.length]!.instruction, input, output: answers[0]! });
  }
  return prompts;
}

/** So many of them, the same at every call. */
function some<Item>(items: readonly Item[], count: number): Item[] {
  return Array.from(new Random("specialize/prompts").permutation(items.length).subarray(0, count), (i) => items[i]!);
}

/** A smaller model, a checkpoint of this name in the job. */
async function makeModel(
  arm: Result["arm"],
  name: string,
  how: { tFfn: number; steps: number; every: number },
  setting: RunSetting,
): Promise<void> {
  const { job, dense, rows, data, seed } = setting;
  if (arm === "unhealed") {
    const opened = await openDense(dense);
    const { data: encoded } = await taskData(job.at(rows.train), data.name, opened);
    mkdirSync(job.at("importance"), { recursive: true });
    const importance = job.at("importance");
    await job.made(name, async (partial) => {
      const { model } = await cutModel(opened.model, encoded, { tFfn: how.tFfn, seed, importance, threads });
      await saveModel(partial, model);
    });
    return;
  }
  const own = arm === "general" ? { ...setting, rows: { ...rows, train: "general.jsonl" } } : setting;
  await finish(cutAndHeal(name, how, own, CUTS[arm]!));
}

/** Reads a run's events to its end, and says what was evaluated. */
async function finish<T>(events: AsyncGenerator<SpecializeEvent, T>): Promise<T> {
  for (;;) {
    const { value, done } = await events.next();
    if (done) return value;
    if (value.kind !== "row" || value.row.kind !== "evaluation") continue;
    const { step, loss, accuracy } = value.row;
    console.error(`${value.run} step ${step}: ${loss.dense!.toFixed(3)}, ${accuracy.dense!.toFixed(3)}`);
  }
}
