import { byteSize } from "../bundle/memory.ts";
import { OptionError } from "../errors.ts";
import {
  type JobEstimate,
  lossWords,
  type Specialization,
  type SpecializeEvent,
} from "../specialize/specialization.ts";
import { type SpecializeOptions, specialize } from "../specialize/specialize.ts";
import { shownPrompt } from "../specialize/taskCard.ts";
import { duration, shellWord } from "../words.ts";
import { isConfirmed } from "./confirmation.ts";
import { interruption } from "./interruption.ts";
import { percent, printJson } from "./options.ts";
import { Progress } from "./progress.ts";

interface Options extends Omit<SpecializeOptions, "confirm" | "signal"> {
  out: string;
  yes?: boolean;
  json?: boolean;
}

/** `ifprune specialize` */
export async function specializeAction(model: string, { out, yes, json, ...options }: Options): Promise<void> {
  const isDrafting = options.draft !== undefined || (options.prompts ?? options.examples) === undefined;
  const canAsk = process.stdin.isTTY && process.stderr.isTTY && !json;
  if (isDrafting && !yes && !canAsk && !options.dryRun)
    throw new OptionError(
      "specialize: wanted --yes where nobody can be asked about the prompts that the model drafts, got none. Give it, or --prompts alone.",
    );
  const signal = interruption(
    `specialize: stopped; ${options.dryRun ? "what the dry run made is gone" : "the same command goes on"}.`,
  );
  const screen = new Screen(json === true);
  try {
    const confirm = yes || !canAsk ? undefined : () => isConfirmed("Do these drafts belong to the task?", signal);
    for await (const event of specialize(model, out, { ...options, confirm, signal })) {
      if (json) printJson(event);
      screen.show(event);
    }
  } finally {
    screen.end();
  }
}

/** More than this are bytes. */
const MOST_STEPS = 1e5;

/** Drafts of a page. */
const SHOWN = 20;

/** Events as lines for people: one of progress for each phase, and what is said above it. */
class Screen {
  readonly #isQuiet: boolean;
  #shown: { phase: string; total: number; done: number; progress: Progress } | undefined;

  constructor(isQuiet: boolean) {
    this.#isQuiet = isQuiet;
  }

  show(event: SpecializeEvent): void {
    if (this.#isQuiet) return;
    switch (event.kind) {
      case "progress": {
        const { phase, done, total, detail } = event;
        this.#update(detail ?? phase, done, total);
        break;
      }
      case "row": {
        const { run, row, totalSteps } = event;
        const { loss, accuracy } = lossWords(run);
        if (row.kind === "train") this.#update(run, row.step, totalSteps, `${loss} ${row.loss.toFixed(3)}`);
        else if (row.kind === "evaluation")
          this.#say(
            `held out, step ${row.step}: ${loss} ${row.loss.dense!.toFixed(3)}, ${percent(row.accuracy.dense!)} ${accuracy}`,
          );
        break;
      }
      case "note":
        this.#say(event.text);
        break;
      case "estimate":
        this.#say(estimateLine(event.estimate));
        break;
      case "drafted":
        this.end();
        process.stderr.write(
          event.prompts
            .slice(0, SHOWN)
            .map((prompt) => `  ${prompt}\n`)
            .join(""),
        );
        process.stderr.write(
          `${event.prompts.length} prompts drafted; ${Math.min(SHOWN, event.prompts.length)} are shown.\n`,
        );
        break;
      case "point":
        this.#say(`${percent(event.point.keep)} of the FFN: KL ${event.point.kl.toFixed(3)} after a short run`);
        break;
      case "result":
        this.end();
        process.stderr.write(summary(event.result, event.path));
        break;
      default:
        event satisfies never;
    }
  }

  /** Leaves what is on the screen. */
  end(): void {
    this.#shown?.progress.finish();
    this.#shown = undefined;
  }

  #say(text: string): void {
    if (this.#shown) this.#shown.progress.note(text);
    else process.stderr.write(`${text}\n`);
  }

  #update(phase: string, done: number, total: number, detail?: string): void {
    // A phase may have several parts.
    if (this.#shown?.phase !== phase || this.#shown.total !== total || done < this.#shown.done) {
      this.end();
      const unit = total > MOST_STEPS ? "bytes" : "steps";
      this.#shown = { phase, total, done, progress: new Progress({ label: phase, total, done, unit }) };
    }
    this.#shown.done = done;
    this.#shown.progress.update(done, detail === undefined ? undefined : () => detail);
  }
}

function estimateLine({
  seconds,
  totalSeconds,
  memoryBytes,
  memoryAvailable,
  diskBytes,
  diskAvailable,
}: JobEstimate): string {
  const parts = Object.entries(seconds).flatMap(([phase, own]) => (own > 0 ? [`${phase} ${duration(own)}`] : []));
  return [
    `about ${duration(totalSeconds)} in all on this machine (${parts.join(", ")})`,
    `${byteSize(memoryBytes)} of memory (${byteSize(memoryAvailable)} free)`,
    `at most ${byteSize(diskBytes)} on disk (${byteSize(diskAvailable)} free)`,
  ].join("; ");
}

function summary(result: Specialization, path: string): string {
  const { tFfn, dFfn, before, after, bytes, speed, gold, seconds } = result;
  const faster =
    speed.dense.tokensPerSecond && speed.small.tokensPerSecond
      ? ` · ${(speed.small.tokensPerSecond / speed.dense.tokensPerSecond).toFixed(2)} × the tokens a second`
      : "";
  return [
    `${tFfn} of ${dFfn} FFN channels in ${duration(seconds)}: ${byteSize(bytes.dense)} → ${byteSize(bytes.small)}${faster}`,
    `held out: KL from the whole model ${before.kl.toFixed(3)} → ${after.kl.toFixed(3)}, the same token ${percent(before.agreement)} → ${percent(after.agreement)}, best at step ${after.step}`,
    ...(gold
      ? [`right answers: whole model ${percent(gold.dense.contains)}, this one ${percent(gold.small.contains)}`]
      : []),
    `${path}: card in README.md. Ask it: ifprune run --model ${shellWord(path)} "${shownPrompt(result)}"`,
    "",
  ].join("\n");
}
