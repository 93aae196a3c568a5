/**
 * Jobs that a server does, one at a time, each in a process of its own: begun, gone on with, stopped, removed. All of a job lies in a folder of its name, so that
 * what was stopped, or whose server was, goes on later:
 *
 *     NAME/asked.json   what was asked
 *     NAME/prompts.txt  prompts, as they were given
 *     NAME/events.json  what it has told
 *     NAME/NAME.job     what is being made; in the end NAME/NAME
 */
import { existsSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { dataRoot } from "../bundle/cacheFolder.ts";
import { BusyError, FileError, IfpruneError, InputError } from "../errors.ts";
import { makeFile, makeFolders, writing } from "../files.ts";
import { readJson } from "../json.ts";
import type { ProcessMark } from "../processes.ts";
import { lockHolder, lockName } from "../runLock.ts";
import { zodWords } from "../words.ts";
import { jobApart } from "./jobApart.ts";
import {
  askedSchema,
  isKept,
  type JobAsked,
  type JobEvent,
  type JobPause,
  type JobProgress,
  jobState,
  type SpecializeJob,
} from "./jobState.ts";
import type { Specialization, SpecializeEvent } from "./specialization.ts";
import type { SpecializeOptions } from "./specialize.ts";

/** What the process of a job is given. */
export interface JobTask {
  /** As `specialize` takes it. */
  model: string;
  out: string;
  options: SpecializeOptions;
  /** Event after which it ends. */
  until?: JobPause | undefined;
}

/** Does a job. Aborted, it ends once what was done is safe. */
export type JobWork = (task: JobTask, signal: AbortSignal) => AsyncIterable<SpecializeEvent>;

/** How {@link SpecializeJobs} works. */
export interface SpecializeJobsOptions {
  /** Folder of all jobs. Default: `$XDG_DATA_HOME/ifprune/specialized`. */
  root?: string | undefined;
  threads?: number | undefined;
  /** Default: a process that calls `specialize`. */
  work?: JobWork | undefined;
}

/** Names of jobs, and of the models that they make: none is a path. */
export const jobName = /^[A-Za-z0-9][\w.-]{0,63}$/;
export const jobNameWords = "up to 64 letters, digits, dots, hyphens and underscores, a letter or digit first";

const storedSchema = askedSchema.extend({ source: askedSchema.shape.name });
const eventsSchema = z.array(z.looseObject({ kind: z.string() }));

interface Job {
  asked: JobAsked;
  /** What stands for the whole model on this machine. */
  source: string;
  events: JobEvent[];
  result: Specialization | undefined;
  /** Why it cannot be gone on with: a file of it is damaged. */
  damage?: string;
  /** Of its files, when they were read: another server may have written others since. */
  stamp?: string;
}

/** The one that runs. */
interface Running {
  job: Job;
  stop: AbortController;
  ended: Promise<void>;
  part?: Part;
}

/** Of a job, with what its speed follows from. */
interface Part {
  progress: JobProgress;
  doneAtStart: number;
  /** By `performance.now`. */
  start: number;
}

/** Jobs of a server, which `createApp` takes. */
export class SpecializeJobs implements AsyncDisposable {
  readonly #root: string;
  readonly #threads: number | undefined;
  readonly #work: JobWork;
  readonly #jobs = new Map<string, Job>();
  #running: Running | undefined;

  constructor({ root = dataRoot("specialized"), threads, work = jobApart }: SpecializeJobsOptions = {}) {
    this.#root = root;
    this.#threads = threads;
    this.#work = work;
  }

  /** In the order in which they were begun; those of another server on the same folder too. */
  list(): SpecializeJob[] {
    this.#readChanged();
    return [...this.#jobs.values()].sort((a, b) => begunAt(a) - begunAt(b)).map((job) => this.#stateOf(job));
  }

  #stateOf(job: Job): SpecializeJob {
    const { asked, events, result, damage } = job;
    const running = this.#running?.job === job ? this.#running : undefined;
    const isElsewhere = !running && this.#holder(asked.name) !== undefined;
    return {
      asked,
      ...jobState(events, running !== undefined || isElsewhere, Date.now()),
      progress: running?.part?.progress,
      ...(running?.stop.signal.aborted && { state: "stopping" }),
      ...(isElsewhere && { state: "elsewhere" }),
      ...(damage !== undefined && { state: "failed", error: damage }),
      ...(result && { state: "done", result }),
    };
  }

  /**
   * Begins a job, which runs up to its estimate. One of the same name that has made nothing makes way for it.
   *
   * @param source what stands for the whole model on this machine
   * @param rows text of prompts or examples
   * @throws {BusyError} if another runs, or another process has a job of the name at work @throws {InputError} if the name is none, or another job's
   */
  begin(asked: JobAsked, source: string, rows?: string): void {
    const { name } = asked;
    if (!jobName.test(name))
      throw new InputError(`specialize: wanted a name of ${jobNameWords}, got ${JSON.stringify(name.slice(0, 100))}.`);
    this.#checkIdle();
    this.#checkFree(name);
    if (existsSync(this.#at(name, `${name}.job`)))
      throw new InputError(
        `specialize: wanted a new name, got "${name}", a job that is there. Go on with it, delete it, or take another name.`,
      );
    if (existsSync(this.out(name)))
      throw new InputError(`specialize: wanted a new name, got "${name}", a model that is there.`);
    makeFolders(this.#at(name));
    if (rows !== undefined) this.#write(name, "prompts.txt", rows);
    const job: Job = { asked, source, events: [], result: undefined };
    this.#write(name, "asked.json", `${JSON.stringify({ ...asked, source })}\n`);
    this.#jobs.set(name, job);
    this.#run(job);
  }

  /**
   * Goes on with a job: with what it waits for an answer to, or where it was stopped.
   *
   * @throws {BusyError} if one runs, or another process has it at work @throws {InputError} if there is none of the name, or it is done or damaged
   */
  goOn(name: string): void {
    const job = this.#find(name);
    this.#checkIdle();
    this.#checkFree(name);
    if (job.result) throw new InputError(`specialize: wanted a job to go on with, got "${name}", which is done.`);
    if (job.damage !== undefined) throw new InputError(job.damage);
    this.#run(job);
  }

  /**
   * Stops a job, if it runs; what it has made stays. Resolves once that is safe.
   *
   * @throws {BusyError} if another process has it at work @throws {InputError} if there is none of the name
   */
  async stop(name: string): Promise<void> {
    const job = this.#find(name);
    if (this.#running?.job === job) await this.#stopRunning(this.#running);
    else this.#checkFree(name);
  }

  /** Removes a job and all that it has made. @throws {BusyError} if it runs, here or in another process @throws {InputError} if there is none of the name */
  remove(name: string): void {
    const job = this.#find(name);
    if (this.#running?.job === job) this.#checkIdle();
    this.#checkFree(name);
    const folder = this.#at(name);
    writing(folder, () => rmSync(folder, { recursive: true, force: true }));
    this.#jobs.delete(name);
  }

  /** Folder of the model that a job makes. */
  out(name: string): string {
    return this.#at(name, name);
  }

  /** Stops what runs; it can be gone on with. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#running) await this.#stopRunning(this.#running);
  }

  async #stopRunning({ stop, ended }: Running): Promise<void> {
    stop.abort();
    await ended;
  }

  #checkIdle(): void {
    if (this.#running)
      throw new BusyError(
        `specialize: wanted one job at a time, got another while "${this.#running.job.asked.name}" runs. Wait for it, or stop it.`,
        RETRY_SECONDS,
      );
  }

  /** Another server may have the same folder, or a process still end whose server was killed. */
  #checkFree(name: string): void {
    const holder = this.#holder(name);
    if (holder)
      throw new BusyError(
        `specialize: wanted a job that no other process runs, got "${name}", at which process ${holder.pid} on ${holder.host} is. Wait for it, or stop it where it was begun; if it is surely gone, delete ${name}/${name}.job/${lockName} in the folder of jobs.`,
        RETRY_SECONDS,
      );
  }

  #holder(name: string): ProcessMark | undefined {
    return lockHolder(this.#at(name, `${name}.job`));
  }

  #find(name: string): Job {
    this.#readChanged();
    const job = this.#jobs.get(name);
    if (!job) throw new InputError(`unknown job: "${name.slice(0, 100)}".`);
    return job;
  }

  #run(job: Job): void {
    const stop = new AbortController();
    this.#keep(job, { kind: "begun", at: Date.now() });
    const running: Running = { job, stop, ended: Promise.resolve() };
    this.#running = running;
    running.ended = this.#follow(running).then((end) => {
      this.#running = undefined;
      job.result ??= this.#made(job.asked.name);
      const event = { kind: "ended", at: Date.now(), ...end } as const;
      try {
        this.#keep(job, job.result ? { ...event, reason: "done" } : event);
      } catch {
        job.events = [...job.events, event]; // a full disk: it is told until the server ends
        job.stamp = this.#stampOf(job.asked.name); // rather than what the files say
      }
    });
  }

  /** How a job ended. */
  async #follow({ job, stop }: Running): Promise<Pick<JobEvent & { kind: "ended" }, "reason" | "error">> {
    const task = this.#taskOf(job);
    let asks = false;
    try {
      for await (const event of this.#work(task, stop.signal)) {
        this.#hear(job, event);
        asks ||= event.kind === task.until;
      }
      if (job.result) return { reason: "done" };
      if (stop.signal.aborted) return { reason: "stopped" };
      if (asks) return { reason: "asks" };
      throw new Error("The job's process ended early.");
    } catch (error) {
      if (stop.signal.aborted) return { reason: "stopped" };
      return { reason: "failed", error: this.#words(job, error as Error) };
    }
  }

  #taskOf({ asked: { name, model: _, rows, ...options }, source, events }: Job): JobTask {
    const { estimate, drafts } = jobState(events, false, 0);
    const asksOfDrafts = drafts === undefined && (rows === undefined || options.draft !== undefined);
    return {
      model: source,
      out: this.out(name),
      options: {
        ...options,
        ...(rows && { [rows]: this.#at(name, "prompts.txt") }),
        ...(this.#threads !== undefined && { threads: this.#threads }),
      },
      until: estimate === undefined ? "estimate" : asksOfDrafts ? "drafted" : undefined,
    };
  }

  #hear(job: Job, event: SpecializeEvent): void {
    const running = this.#running!;
    if (event.kind === "result") job.result = event.result;
    else if (event.kind === "progress") running.part = partOf(running.part, event);
    else if (event.kind === "row" && event.row.kind === "train") {
      const { step, loss } = event.row;
      const progress = { phase: "heal", detail: event.run, done: step, total: event.totalSteps, loss } as const;
      running.part = partOf(running.part, progress);
    } else if (isKept(event)) this.#keep(job, event);
  }

  #keep(job: Job, event: JobEvent): void {
    const events = [...job.events, event];
    this.#write(job.asked.name, "events.json", `${JSON.stringify(events)}\n`);
    job.events = events;
  }

  /** Who asks knows the job's and the model's names, not where they lie. */
  #words({ asked: { name, model }, source }: Job, { message }: Error): string {
    return message.replaceAll(`${this.#at(name)}/`, "").replaceAll(source, model);
  }

  #at(...names: string[]): string {
    return join(this.#root, ...names);
  }

  #write(name: string, file: string, text: string): void {
    makeFile(this.#at(name, file), (partial) => writeFileSync(partial, text, { flush: true }));
  }

  /** Takes in what other servers on the folder have begun, written and removed. */
  #readChanged(): void {
    const names = existsSync(this.#root) ? readdirSync(this.#root) : [];
    const own = this.#running?.job.asked.name;
    const there = new Set(names.filter((name) => jobName.test(name) && existsSync(this.#at(name, "asked.json"))));
    for (const name of this.#jobs.keys()) if (name !== own && !there.has(name)) this.#jobs.delete(name);
    for (const name of there) {
      if (name === own) continue;
      const stamp = this.#stampOf(name);
      if (this.#jobs.get(name)?.stamp !== stamp) this.#jobs.set(name, { ...this.#read(name), stamp });
    }
  }

  #stampOf(name: string): string {
    return [this.#at(name, "asked.json"), this.#at(name, "events.json"), this.#madeAt(name)].map(stampOf).join(" ");
  }

  /** A damaged one can be looked at and removed. */
  #read(name: string): Job {
    const job: Job = { asked: { name, model: "unknown model" }, source: this.out(name), events: [], result: undefined };
    try {
      const path = this.#at(name, "asked.json");
      const { source, ...asked } = checked(storedSchema, path);
      Object.assign(job, { asked, source });
      const events = this.#at(name, "events.json");
      if (existsSync(events)) job.events = checked(eventsSchema, events) as unknown as JobEvent[];
      job.result = this.#made(name);
    } catch (error) {
      if (!(error instanceof IfpruneError)) throw error;
      job.damage = `${this.#words(job, error)} Delete the job, and begin it anew.`;
    }
    return job;
  }

  /** What a job has found, once its model is there. */
  #made(name: string): Specialization | undefined {
    const path = this.#madeAt(name);
    return existsSync(path) ? (readJson(path) as Specialization) : undefined;
  }

  #madeAt(name: string): string {
    return join(this.out(name), "specialize.json");
  }
}

/** Tells a file from one that took its place. */
function stampOf(path: string): string {
  const file = statSync(path, { throwIfNoEntry: false });
  return file === undefined ? "" : `${file.ino}-${file.mtimeMs}-${file.size}`;
}

function checked<T>(schema: z.ZodType<T>, path: string): T {
  const parsed = schema.safeParse(readJson(path));
  if (!parsed.success) throw new FileError(path, `wanted what a job has written, got: ${zodWords(parsed.error)}.`);
  return parsed.data;
}

function begunAt({ events: [first] }: Job): number {
  return first?.kind === "begun" ? first.at : 0;
}

/** A job takes minutes at least. */
const RETRY_SECONDS = 60;

/** A part that goes on, or the next. */
function partOf(before: Part | undefined, { phase, detail, done, total, loss }: JobProgress): Part {
  const isSame =
    before &&
    before.progress.phase === phase &&
    before.progress.detail === detail &&
    before.progress.total === total &&
    before.progress.done <= done;
  const { start, doneAtStart } = isSame ? before : { start: performance.now(), doneAtStart: done };
  const perUnit = (performance.now() - start) / 1000 / (done - doneAtStart);
  const secondsLeft = done > doneAtStart ? perUnit * (total - done) : undefined;
  return { start, doneAtStart, progress: { phase, detail, done, total, secondsLeft, loss } };
}
