/** What several commands share: option parsers, the default model, masks and how they are made, interruption. */
import { existsSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { type Command, InvalidArgumentError, Option } from "commander";
import { DEFAULT_MODEL, type MaskOptions } from "../answer/instructionModel.ts";
import { type ChosenMask, SOURCE_NAMES, type SourceName } from "../answer/maskSource.ts";
import { T_FFN } from "../bundle/estimate.ts";
import { OptionError } from "../errors.ts";
import { readJson, readText } from "../files.ts";
import type { Mask } from "../mask/mask.ts";
import { maskFromJson } from "../mask/maskFile.ts";
import { readExamples } from "../text/examples.ts";
import { numberFlag } from "./numberFlag.ts";
import { Progress } from "./progress.ts";

export { DEFAULT_MODEL };
/** What stands for a model. */
export const MODEL_NAME = "bundle folder, or id of a model that was pulled";
export const MODEL_HELP = `${MODEL_NAME} (default: the model in this package)`;

export function integer(min: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() === "" || !Number.isInteger(value) || value < min)
      throw new InvalidArgumentError(`Wanted an integer of at least ${min}.`);
    return value;
  };
}

export function oneOf<const T extends string>(values: readonly T[]): (text: string) => T {
  return (text) => {
    if (!values.includes(text as T)) throw new InvalidArgumentError(`Wanted one of ${values.join(", ")}.`);
    return text as T;
  };
}

/** @throws {FileError} if the file is not a mask */
export function readMask(path: string): Mask {
  return maskFromJson(readJson(path), path);
}

/** How masks are made, from the command line. */
export interface MaskFlags {
  source?: SourceName;
  tFfn?: number;
  text?: string;
  examples?: string;
}

/** Adds the options of {@link MaskFlags}; what makes a mask does not go with one that is given (`--mask`, `--dense`). */
export function addMaskFlags(
  command: Command,
  defaultSource = "predictor, or griffin in a model without one",
): Command {
  const flags = [
    new Option(
      "--source <name>",
      `what makes masks: ${SOURCE_NAMES.join(", ")} (default: ${defaultSource}). griffin: channels most active when the dense model reads the prompt; glass: on the prompt and on --text, by the mean of ranks; text: those that contribute most to --text; weights: those of the largest weights`,
    ).argParser(oneOf(SOURCE_NAMES)),
    numberFlag("--t-ffn <n>", T_FFN),
    new Option("--text <file>", "text that --source glass and text take activations from"),
  ];
  for (const flag of flags) command.addOption(flag.conflicts(["dense", "mask"]));
  return command.option(
    "--examples <file>",
    'solved cases that the instruction shows: JSON Lines of {"input", "output"}, or rows of training data',
  );
}

type MaskFlagOptions = Pick<MaskOptions, "source" | "tFfn" | "text" | "onProgress"> & {
  examples: Awaited<ReturnType<typeof readExamples>> | undefined;
};

/** Makes masks as the flags say, and shows the progress of scores that take long. */
export async function withMaskFlags<T>(
  { source, tFfn, text, examples }: MaskFlags,
  work: (options: MaskFlagOptions) => Promise<T>,
): Promise<T> {
  let progress: Progress | undefined;
  const onProgress = (done: number, total: number) => {
    if (!process.stderr.isTTY) return;
    progress ??= new Progress({ label: "scores", total });
    progress.update(done);
  };
  try {
    return await work({
      source,
      tFfn,
      text: text === undefined ? undefined : readText(text),
      examples: examples === undefined ? undefined : await readExamples(examples),
      onProgress,
    });
  } finally {
    progress?.finish();
  }
}

/** `griffin 120 ms`, `griffin 0.4 ms (cached)` */
export function scoresLine({ source, cached }: Omit<ChosenMask, "mask">, ms: number): string {
  return `${milliseconds(source, ms)}${cached ? " (cached)" : ""}`;
}

/** `50 %`, `6.3 %` */
export function percent(share: number): string {
  return `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
}

export function milliseconds(what: string, ms: number): string {
  return `${what} ${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
}

/**
 * Aborts at the first Ctrl-C or SIGTERM; the second ends the process at once.
 *
 * @param words what to say then
 */
export function interruption(words = "This operation was aborted"): AbortSignal {
  const controller = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      if (controller.signal.aborted) process.exit(130);
      controller.abort(new DOMException(words, "AbortError"));
    });
  }
  return controller.signal;
}

/** A file to write at the end must have a folder: better to say so before the work. @throws {OptionError} if it has none */
export function checkOut(out: string | undefined): void {
  if (out !== undefined && !existsSync(dirname(resolve(out))))
    throw new OptionError(`--out: wanted a file in a folder that exists, got "${out}". Make the folder first.`);
}

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}
