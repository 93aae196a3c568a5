/** Jobs of a server: one at a time, each up to where someone is asked; what was stopped, failed or outlived its server goes on. The work itself is a stub's. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { expect, test, vi } from "vitest";
import { temporaryFolder } from "../../test/support/models.ts";
import { BusyError, InputError } from "../errors.ts";
import { lockRun } from "../runLock.ts";
import type { JobAsked } from "./jobState.ts";
import { type JobTask, type JobWork, SpecializeJobs } from "./jobs.ts";
import type { JobEstimate, SpecializeEvent } from "./specialization.ts";

const estimate: JobEstimate = {
  seconds: { answers: 1, tuning: 0, pruning: 2, healing: 3, compare: 4 },
  ...{ totalSeconds: 10, memoryBytes: 1, memoryAvailable: 2, diskBytes: 3, diskAvailable: 4 },
};
const evaluation = (step: number, kl: number): SpecializeEvent => ({
  kind: "row",
  run: "healed",
  totalSteps: 8,
  row: {
    ...{ kind: "evaluation", step, stage: "heal", examples: 8 },
    ...{ loss: { dense: kl }, accuracy: { dense: 0.5 }, exactMatch: { dense: 0 } },
  },
});
const asked = (name = "sql"): JobAsked => ({ name, model: "whole", task: "Into SQL", rows: "prompts" });

/** As `specialize` goes: an estimate, then training, which "endless" never ends. */
async function* usual({ out, options, until }: JobTask, signal: AbortSignal): AsyncGenerator<SpecializeEvent> {
  if (options.task === "broken") throw new Error(`${out}.job/x: wanted better, got /models/whole.`);
  yield { kind: "progress", phase: "import", done: 1, total: 2 };
  yield { kind: "note", text: "told at every call" };
  yield { kind: "estimate", estimate };
  if (until === "estimate") return;
  yield { kind: "drafted", prompts: ["a", "b"] };
  if (until === "drafted") return;
  yield evaluation(4, 0.5);
  if (options.task === "endless") await wait(1e6, undefined, { signal });
  if (options.task === "early") return;
  yield evaluation(8, 0.25);
  mkdirSync(out, { recursive: true });
  writeFileSync(join(out, "specialize.json"), JSON.stringify({ format: "ifprune-specialization" }));
}

function open(root: string, work: JobWork = usual) {
  const tasks: JobTask[] = [];
  const jobs = new SpecializeJobs({
    root,
    threads: 2,
    work: (task, signal) => {
      tasks.push(task);
      return work(task, signal);
    },
  });
  const becomes = (state: string) => vi.waitFor(() => expect(jobs.list()[0]!.state).toBe(state));
  return { jobs, tasks, becomes };
}

test("a job waits for a yes to its estimate, then makes a model; what it told counts once, and is there for the next server", async () => {
  const root = temporaryFolder();
  const { jobs, tasks, becomes } = open(root);
  jobs.begin(asked(), "/models/whole", "one\ntwo\n");
  await becomes("asks");
  expect(tasks[0]).toEqual({
    model: "/models/whole",
    out: join(root, "sql/sql"),
    options: { task: "Into SQL", prompts: join(root, "sql/prompts.txt"), threads: 2 },
    until: "estimate",
  });
  expect(readFileSync(join(root, "sql/prompts.txt"), "utf8")).toBe("one\ntwo\n");
  expect(jobs.list()[0]).toMatchObject({ asked: asked(), estimate, evaluations: [], notes: ["told at every call"] });

  jobs.goOn("sql");
  await becomes("done");
  expect(tasks[1]!.until).toBeUndefined(); // with prompts nothing is drafted
  const [done] = jobs.list();
  expect(done).toMatchObject({ notes: ["told at every call"], result: { format: "ifprune-specialization" } });
  expect(done!.evaluations.map(({ step, loss }) => [step, loss])).toEqual([
    [4, 0.5],
    [8, 0.25],
  ]);
  expect(JSON.parse(JSON.stringify(open(root).jobs.list()))).toEqual(JSON.parse(JSON.stringify(jobs.list())));
  expect(() => jobs.goOn("sql")).toThrow(InputError);
  jobs.remove("sql");
  expect([jobs.list(), readdirSync(root)]).toEqual([[], []]);
});

test("drafts are shown before they are used", async () => {
  const { jobs, tasks, becomes } = open(temporaryFolder());
  jobs.begin({ name: "drafted", model: "whole", task: "Spell it." }, "/models/whole");
  await becomes("asks");
  jobs.goOn("drafted");
  await vi.waitFor(() => expect(jobs.list()[0]!.drafts).toEqual(["a", "b"]));
  await becomes("asks");
  jobs.goOn("drafted");
  await becomes("done");
  expect(tasks.map(({ until }) => until)).toEqual(["estimate", "drafted", undefined]);
});

test("those beside prompts are, too", async () => {
  const { jobs, tasks, becomes } = open(temporaryFolder());
  jobs.begin({ ...asked(), draft: 40 }, "/models/whole", "one");
  await becomes("asks");
  jobs.goOn("sql");
  await vi.waitFor(() => expect(jobs.list()[0]!.drafts).toEqual(["a", "b"]));
  await becomes("asks");
  expect(tasks.map(({ until, options: { draft } }) => [until, draft])).toEqual([
    ["estimate", 40],
    ["drafted", 40],
  ]);
});

test("one at a time; stopped, or with its server, it goes on with what it has", async () => {
  const root = temporaryFolder();
  const { jobs, becomes } = open(root);
  jobs.begin({ ...asked(), task: "endless" }, "/models/whole", "one");
  await becomes("asks");
  jobs.goOn("sql");
  await vi.waitFor(() => expect(jobs.list()[0]!.evaluations.length).toBe(1));
  expect(() => jobs.begin(asked("other"), "/models/whole", "one")).toThrow(BusyError);
  expect(() => jobs.goOn("sql")).toThrow(BusyError);
  expect(() => jobs.remove("sql")).toThrow(BusyError);
  const stopped = jobs.stop("sql");
  expect(jobs.list()[0]!.state).toBe("stopping");
  await stopped;
  await jobs.stop("sql"); // once more says nothing
  expect(jobs.list()[0]).toMatchObject({ state: "stopped", error: undefined });
  jobs.goOn("sql");
  const killed = open(root); // as if the first had ended without a word
  expect(killed.jobs.list()[0]).toMatchObject({ state: "stopped", estimate, evaluations: [{ step: 4 }] });
  await jobs[Symbol.asyncDispose]();
  expect(jobs.list()[0]!.state).toBe("stopped");
});

test("what fails says why without saying where; its name is free unless something was made", async () => {
  const root = temporaryFolder();
  const { jobs, becomes } = open(root);
  jobs.begin({ ...asked(), task: "broken" }, "/models/whole", "one");
  await becomes("failed");
  expect(jobs.list()[0]!.error).toBe("sql.job/x: wanted better, got whole.");
  jobs.begin({ ...asked(), task: "early" }, "/models/whole", "one");
  await becomes("asks");
  jobs.goOn("sql");
  await becomes("failed");
  expect(jobs.list()[0]!.error).toBe("The job's process ended early.");
  mkdirSync(join(root, "sql/sql.job"));
  expect(() => jobs.begin(asked(), "/models/whole", "one")).toThrow(/Go on with it/);
});

test("what another server on the same folder has begun or runs is neither written over, gone on with, stopped nor removed", async () => {
  const root = temporaryFolder();
  const before = open(root);
  const { jobs, becomes } = open(root);
  jobs.begin({ ...asked(), task: "endless" }, "/models/whole", "one");
  await becomes("asks");
  const after = open(root);
  jobs.goOn("sql");
  const path = join(root, "sql/sql.job");
  mkdirSync(path);
  {
    using _ = lockRun(path);
    expect(after.jobs.list()[0]!.state).toBe("elsewhere");
    await expect(after.jobs.stop("sql")).rejects.toThrow(/delete sql\/sql\.job\/trainer\.lock/);
    for (const attempt of [
      () => before.jobs.begin(asked(), "/models/whole", "two"),
      () => after.jobs.goOn("sql"),
      () => after.jobs.remove("sql"),
    ]) {
      expect(attempt).toThrow(BusyError);
      expect(attempt).toThrow(`no other process runs, got "sql", at which process ${process.pid} `);
    }
  }
  expect(() => before.jobs.begin(asked(), "/models/whole", "two")).toThrow(/a job that is there/);
  expect(readFileSync(join(root, "sql/prompts.txt"), "utf8")).toBe("one");
  await jobs.stop("sql");
  after.jobs.remove("sql");
  expect(existsSync(path)).toBe(false);
});

test("how a job ended is told though it cannot be written", async () => {
  const root = temporaryFolder();
  const { jobs, becomes } = open(root, async function* () {
    yield { kind: "note", text: "begins" };
    const events = join(root, "sql/events.json");
    rmSync(events);
    mkdirSync(join(events, "in the way"), { recursive: true });
    throw new Error("The disk is full.");
  });
  jobs.begin(asked(), "/models/whole", "one");
  await becomes("failed");
  expect(jobs.list()[0]!.error).toBe("The disk is full.");
});

test("two servers on a folder see what the other has done, and write nothing over it", async () => {
  const root = temporaryFolder();
  const [one, other] = [open(root), open(root)];
  one.jobs.begin(asked(), "/models/whole", "one");
  await one.becomes("asks");
  expect(other.jobs.list()).toMatchObject([{ asked: asked(), state: "asks" }]);
  other.jobs.goOn("sql");
  await other.becomes("done");
  expect(one.jobs.list()).toEqual(other.jobs.list());
  expect(one.jobs.list()[0]!.evaluations.length).toBe(2);
  one.jobs.remove("sql");
  expect(other.jobs.list()).toEqual([]);
});

test.each([
  ["asked.json", ""],
  ["asked.json", '{"name": "sql", "model": "whole", "source": "/models/whole", "newer": 1}'],
  ["events.json", '[{"kind": "begun", "at": 1}'],
  ["events.json", "{}"],
  ["sql/specialize.json", "{"],
])("a damaged %s (%j) takes its own job alone, which says so and can be removed", async (file, text) => {
  const root = temporaryFolder();
  const { jobs, becomes } = open(root);
  jobs.begin(asked(), "/models/whole", "one");
  await becomes("asks");
  jobs.begin(asked("whole"), "/models/whole", "one");
  await vi.waitFor(() => expect(jobs.list()[1]!.state).toBe("asks"));
  mkdirSync(join(root, "sql/sql"), { recursive: true });
  writeFileSync(join(root, "sql", file), text);
  const later = open(root).jobs;
  const damaged = later.list().find(({ asked: { name } }) => name === "sql");
  const words = expect.stringMatching(new RegExp(`^${file}: wanted .* Delete the job`, "s"));
  expect(damaged).toMatchObject({ state: "failed", error: words });
  expect(() => later.goOn("sql")).toThrow(InputError);
  later.remove("sql");
  expect(later.list()).toMatchObject([{ asked: asked("whole"), state: "asks" }]);
});

test.each(["", "../up", "a/b", ".hidden", "a".repeat(65)])("a name that is none: %j", (name) => {
  const root = temporaryFolder();
  expect(() => open(root).jobs.begin(asked(name), "/models/whole", "one")).toThrow(InputError);
  expect(existsSync(join(root, name, "asked.json"))).toBe(false);
});

test("progress tells what is left of a part by its own speed", async () => {
  let go = () => {};
  const { jobs } = open(temporaryFolder(), async function* (_, signal) {
    yield { kind: "progress", phase: "answers", done: 0, total: 10 };
    await wait(20);
    yield { kind: "progress", phase: "answers", done: 5, total: 10 };
    await new Promise<void>((resolve) => {
      go = resolve;
    });
    signal.throwIfAborted();
    yield { kind: "progress", phase: "cut", done: 3, total: 10 };
    await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
  });
  jobs.begin(asked(), "/models/whole", "one");
  const progress = () => jobs.list()[0]!.progress;
  await vi.waitFor(() => expect(progress()?.done).toBe(5));
  expect(progress()!.secondsLeft).toBeGreaterThan(0.01);
  go();
  await vi.waitFor(() => expect(progress()?.phase).toBe("cut"));
  expect(progress()!.secondsLeft).toBeUndefined();
  await jobs[Symbol.asyncDispose]();
});
