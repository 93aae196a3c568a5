/**
 * A text that a long job writes in parts. Killed at any moment, it goes on after the last whole part: until the end the text is in `PATH.partial`, and
 * `PATH.progress.json` says which job it is of and how much of it counts.
 */
import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { z } from "zod";
import { FileError, OptionError } from "../errors.ts";
import { makeFile, writeFully, writing } from "../files.ts";
import { readJson } from "../json.ts";
import { lockBy } from "../runLock.ts";

/** All that the text depends on, by name. Long values are given by their hashes. */
type Job = Readonly<Record<string, string | number>>;

const progressSchema = z.strictObject({
  job: z.record(z.string(), z.union([z.string(), z.number()])),
  bytes: z.number().int().nonnegative(),
  counts: z.record(z.string(), z.number().int().nonnegative()),
});

/** An open one, which no other process writes meanwhile. */
export class ResumableFile<Counts extends Record<string, number>> implements Disposable {
  readonly #path: string;
  readonly #job: Job;
  readonly #lock: Disposable;
  readonly #descriptor: number;
  #bytes = 0;
  #counts: Counts;

  /**
   * @param counts of a job that begins; by them it knows where to go on
   * @throws {OptionError} if the file exists
   * @throws {FileError} if what is there is of another job or damaged, another process writes it, or the system refuses to write
   */
  constructor(path: string, job: Job, counts: Counts) {
    this.#path = path;
    this.#job = job;
    this.#counts = counts;
    if (existsSync(path))
      throw new OptionError(
        `write: wanted a new file, got "${path}", which exists. Remove it, or choose another name.`,
      );
    this.#lock = lockBy(`${path}.lock`, "a file that nobody writes");
    try {
      if (existsSync(this.#progressPath) && existsSync(this.#partialPath)) this.#readProgress();
      else rmSync(this.#progressPath, { force: true }); // of a text that was removed
      this.#descriptor = this.#written(() => openSync(this.#partialPath, this.#bytes === 0 ? "w" : "r+"));
    } catch (error) {
      this.#lock[Symbol.dispose]();
      throw error;
    }
    const { size } = fstatSync(this.#descriptor);
    if (size < this.#bytes) {
      this[Symbol.dispose]();
      throw this.#flaw(`wanted at least ${this.#bytes} bytes, got ${size}.`);
    }
    if (size > this.#bytes) ftruncateSync(this.#descriptor, this.#bytes); // of a part that was being written
  }

  /** Those of the last whole part. */
  get counts(): Readonly<Counts> {
    return this.#counts;
  }

  /** Writes a part: once this returns, it stays. @throws {FileError} if the system refuses, as when the disk is full */
  append(text: string, counts: Counts): void {
    const bytes = Buffer.from(text);
    this.#written(() => {
      writeFully(this.#descriptor, bytes, this.#bytes);
      fsyncSync(this.#descriptor);
      const next = { job: this.#job, bytes: this.#bytes + bytes.length, counts };
      makeFile(this.#progressPath, (partial) => writeFileSync(partial, `${JSON.stringify(next)}\n`, { flush: true }));
    });
    this.#bytes += bytes.length;
    this.#counts = counts;
  }

  /** Gives the whole text its name. */
  finish(): void {
    this.#written(() => renameSync(this.#partialPath, this.#path));
    rmSync(this.#progressPath, { force: true });
  }

  [Symbol.dispose](): void {
    closeSync(this.#descriptor);
    this.#lock[Symbol.dispose]();
  }

  get #partialPath(): string {
    return `${this.#path}.partial`;
  }

  get #progressPath(): string {
    return `${this.#path}.progress.json`;
  }

  #readProgress(): void {
    const parsed = progressSchema.safeParse(readJson(this.#progressPath));
    if (!parsed.success) throw this.#flaw("wanted the progress of a job, got something else.");
    const { job, bytes, counts } = parsed.data;
    const names = [...new Set([...Object.keys(job), ...Object.keys(this.#job)])];
    const changed = names.filter((name) => job[name] !== this.#job[name]);
    if (changed.length > 0) {
      const words = changed.map((name) => `${name} ${this.#job[name] ?? "none"} (before: ${job[name] ?? "none"})`);
      throw new FileError(
        this.#path,
        `wanted to go on with the same job, got another ${words.join(", ")}. Give what was given before, or remove "${this.#partialPath}" to begin anew.`,
      );
    }
    if (Object.keys(this.#counts).some((name) => counts[name] === undefined))
      throw this.#flaw(`wanted the counts ${Object.keys(this.#counts).join(", ")} in "${this.#progressPath}".`);
    this.#bytes = bytes;
    this.#counts = counts as Counts;
  }

  #flaw(wanted: string): FileError {
    return new FileError(this.#partialPath, `${wanted} Was it changed? Remove it to begin anew.`);
  }

  #written<Result>(write: () => Result): Result {
    return writing(this.#partialPath, write, "What is whole stays: run it again to go on.");
  }
}
