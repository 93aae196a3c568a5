/** Runs cases of a target, one after the other, each in an empty folder, and says what became of them. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { IfpruneError } from "../../src/errors.ts";
import { type Prepared, Scratch, type Target } from "./targets.ts";

export interface Summary {
  cases: number;
  accepted: number;
  /** By the code of the error. */
  refused: Record<string, number>;
  /** Processor time of the slowest case. */
  slowestMs: number;
  /** What the hungriest case took beyond what was there before it. */
  largestBytes: number;
}

export function emptySummary(): Summary {
  return { cases: 0, accepted: 0, refused: {}, slowestMs: 0, largestBytes: 0 };
}

/** Longest processor time of a case: a chat template alone may take its time limit twice. */
const maxMs = 8000;
/** Beyond a multiple of the bytes that are really there; a header in a sparse file may be as long as its format's limit. */
const maxBytes = 700 << 20;
const maxFactor = 40;

/** A target with its valid files, and a folder for the cases. */
export class Fuzzer implements Disposable {
  readonly summary = emptySummary();
  readonly #root: string;
  readonly #prepared: Prepared<unknown>;

  private constructor(root: string, prepared: Prepared<unknown>) {
    this.#root = root;
    this.#prepared = prepared;
  }

  static async open(target: Target): Promise<Fuzzer> {
    const root = mkdtempSync(join(tmpdir(), "ifprune-fuzz-"));
    mkdirSync(join(root, "base"));
    return new Fuzzer(root, await target(join(root, "base")));
  }

  /** Holds the files of the case that runs, or ran last. */
  get folder(): string {
    return join(this.#root, "case");
  }

  /** @returns what went wrong, with the smallest case that fails alike; undefined if nothing did */
  async check(seed: number, cases: number, before: () => void = () => {}): Promise<string | undefined> {
    const property = fc.asyncProperty(this.#prepared.cases, async (input) => {
      before();
      await this.#run(input);
    });
    const details = await fc.check(property, { seed, numRuns: cases, endOnFailure: false });
    if (!details.failed) return undefined;
    const error = details.errorInstance as Error;
    return `seed ${seed}, path ${details.counterexamplePath}: ${error?.stack}\n${fc.stringify(details.counterexample?.[0])}`;
  }

  async #run(input: unknown): Promise<void> {
    rmSync(this.folder, { recursive: true, force: true });
    mkdirSync(this.folder);
    const scratch = new Scratch(this.folder);
    const { summary } = this;
    summary.cases++;
    const memory = peakMemory();
    const start = process.cpuUsage();
    try {
      await this.#prepared.run(input, scratch);
      summary.accepted++;
    } catch (error) {
      if (!(error instanceof IfpruneError)) throw error;
      summary.refused[error.code] = (summary.refused[error.code] ?? 0) + 1;
    }
    const { user, system } = process.cpuUsage(start);
    const ms = (user + system) / 1000;
    const bytes = memory();
    summary.slowestMs = Math.max(summary.slowestMs, ms);
    summary.largestBytes = Math.max(summary.largestBytes, bytes);
    if (ms > maxMs) throw new Error(`${ms} ms`);
    if (bytes > maxBytes + maxFactor * scratch.bytes) throw new Error(`${bytes} bytes of memory for ${scratch.bytes}`);
  }

  [Symbol.dispose](): void {
    rmSync(this.#root, { recursive: true, force: true });
  }
}

/** @returns a function that gives the peak of the resident set, or the growth of buffers, since this call */
function peakMemory(): () => number {
  const buffers = process.memoryUsage().arrayBuffers;
  const start = residentPeak(true);
  return () => Math.max(residentPeak(false) - start, process.memoryUsage().arrayBuffers - buffers);
}

/** Linux alone tells it, and lets it be reset. */
function residentPeak(reset: boolean): number {
  if (process.platform !== "linux") return 0;
  if (reset) writeFileSync("/proc/self/clear_refs", "5");
  return 1024 * Number(/VmHWM:\s*(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))![1]);
}
