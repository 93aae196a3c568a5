/**
 * The folder of a job, `OUT.job`: all that it makes lies there until it is whole. What a step makes appears under its name or not at all, so that the same
 * command goes on with the first that is not there.
 */
import { copyFileSync, existsSync, linkSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { z } from "zod";
import { FileError } from "../errors.ts";
import { makeFile, makeFolders, removePartials } from "../files.ts";
import { readJson } from "../json.ts";
import { isNoPlace, refused } from "../refusals.ts";
import { lockRun } from "../runLock.ts";
import { zodWords } from "../words.ts";

const jobName = "job.json";
const jobSchema = z.object({ job: z.record(z.string(), z.union([z.string(), z.number()])), seconds: z.number() });

/** What a job depends on. */
export type JobKey = Record<string, string | number>;

/** What is being made bears this in its name. */
const UNDER_WAY = ".making";
/** What a disk that is full leaves. */
export const GOES_ON = "The same command goes on here.";

export class JobFolder implements Disposable {
  readonly path: string;
  /** Whether this call has begun it. */
  readonly isNew: boolean;
  readonly #key: JobKey;
  readonly #lock: Disposable;
  readonly #start = performance.now();
  /** Of earlier calls. */
  readonly #secondsBefore: number;

  /**
   * Begins a job, or goes on with it.
   *
   * @throws {FileError} if the folder is another job's, or another process is at work in it
   */
  constructor(path: string, key: JobKey) {
    this.path = path;
    this.#key = key;
    this.isNew = !existsSync(join(path, jobName));
    if (this.isNew && existsSync(path) && readdirSync(path).length > 0)
      throw new FileError(path, `wanted the folder of a job, got one without ${jobName}. Remove it, or name another.`);
    makeFolders(path);
    removePartials(path);
    this.#lock = lockRun(path);
    try {
      this.#secondsBefore = this.isNew ? 0 : this.#goOn();
      this.#save();
      for (const name of readdirSync(path))
        if (name.includes(UNDER_WAY)) rmSync(join(path, name), { recursive: true, force: true });
    } catch (error) {
      this.#lock[Symbol.dispose]();
      throw error;
    }
  }

  /** Of what it makes. */
  get name(): string {
    return basename(this.path, ".job");
  }

  at(...names: string[]): string {
    return join(this.path, ...names);
  }

  has(name: string): boolean {
    return existsSync(this.at(name));
  }

  /** Makes a file or folder, unless it is there. @returns its path */
  async made(name: string, make: (partial: string) => unknown): Promise<string> {
    const path = this.at(name);
    if (existsSync(path)) return path;
    const partial = `${path}${UNDER_WAY}`;
    rmSync(partial, { recursive: true, force: true });
    try {
      await make(partial);
      renameSync(partial, path);
    } catch (error) {
      const cause = error instanceof FileError ? error.cause : error; // whoever made it says that nothing of it is left
      throw isNoPlace(cause) ? refused(path, cause, GOES_ON) : error;
    }
    this.#save();
    return path;
  }

  /** JSON that was made, if it was. */
  known<T>(name: string): T | undefined {
    return this.has(name) ? (readJson(this.at(name)) as T) : undefined;
  }

  /** JSON that is made once, and read from then on. */
  async madeJson<T>(name: string, make: () => Promise<T>): Promise<T> {
    await this.made(name, async (partial) => writeFileSync(partial, `${JSON.stringify(await make())}\n`));
    return this.known<T>(name)!;
  }

  /** All calls together. */
  get seconds(): number {
    return this.#secondsBefore + (performance.now() - this.#start) / 1000;
  }

  /** Writes down how long it took so far, in case it is killed. */
  keepTime(): void {
    this.#save();
  }

  remove(): void {
    rmSync(this.path, { recursive: true, force: true });
  }

  [Symbol.dispose](): void {
    try {
      if (existsSync(this.path)) this.#save();
    } catch {
      // a disk that is full, which whoever filled it has said: only this call's time is lost
    } finally {
      this.#lock[Symbol.dispose]();
    }
  }

  /** @returns seconds of the calls before */
  #goOn(): number {
    const file = this.at(jobName);
    const parsed = jobSchema.safeParse(readJson(file));
    if (!parsed.success)
      throw new FileError(file, `wanted a job, got: ${zodWords(parsed.error)}. Remove the folder to begin anew.`);
    const { job, seconds } = parsed.data;
    const names = [...new Set([...Object.keys(job), ...Object.keys(this.#key)])];
    const changed = names.filter((name) => job[name] !== this.#key[name]);
    if (changed.length > 0) {
      const words = changed.map((name) => changeWords(name, job[name], this.#key[name]));
      throw new FileError(
        this.path,
        `wanted to go on with the job that it is of, got another ${words.join(", ")}. Give what was given before, name another folder, or remove this one to begin anew.`,
      );
    }
    return seconds;
  }

  #save(): void {
    const text = `${JSON.stringify({ job: this.#key, seconds: this.seconds }, null, 2)}\n`;
    makeFile(this.at(jobName), (partial) => writeFileSync(partial, text), GOES_ON);
  }
}

/** `keep 0.25 (before: 0.5)`; of files, which are known by their hashes, the name alone. */
function changeWords(name: string, before: string | number | undefined, now: string | number | undefined): string {
  const isHash = [before, now].some((value) => /^[0-9a-f]{32}$/.test(String(value)));
  return isHash ? name : `${name} ${JSON.stringify(now ?? "none")} (before: ${JSON.stringify(before ?? "none")})`;
}

/** A second name for a folder of files that never change, for as good as no space; copies where the system has no links. */
export function linkFolder(from: string, to: string): void {
  makeFolders(to);
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) linkFolder(source, target);
    else
      try {
        linkSync(source, target);
      } catch {
        copyFileSync(source, target);
      }
  }
}
