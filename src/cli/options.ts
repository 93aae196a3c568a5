/** What several commands share: option parsers, the default model, masks and how they are made, interruption. */
import { type Command, InvalidArgumentError, Option } from "commander";
import { DEFAULT_MODEL, type MaskOptions } from "../answer/instructionModel.ts";
import { type ChosenMask, SOURCE_NAMES, type SourceName } from "../answer/maskSource.ts";
import { readJson, readText } from "../files.ts";
import type { Mask } from "../mask/mask.ts";
import { maskFromJson } from "../mask/maskFile.ts";
import { Progress } from "./progress.ts";

export { DEFAULT_MODEL };
export const MODEL_HELP = "bundle folder (default: the model in this package)";

export function integer(min: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() === "" || !Number.isInteger(value) || value < min)
      throw new InvalidArgumentError(`Wanted an integer of at least ${min}.`);
    return value;
  };
}

export function numberFrom(min: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() === "" || !Number.isFinite(value) || value < min)
      throw new InvalidArgumentError(`Wanted a number of at least ${min}.`);
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

/** How a prompt's mask is made, from the command line. */
export interface MaskFlags {
  source?: SourceName;
  tFfn?: number;
  text?: string;
}

/** Adds the options of {@link MaskFlags}; none goes with a mask that is given (`--mask`, `--dense`). */
export function addMaskFlags(command: Command): Command {
  const sources = SOURCE_NAMES.join(", ");
  const flags = [
    new Option(
      "--source <name>",
      `what makes the mask: ${sources} (default: predictor, or griffin in a model without one). griffin: channels most active when the dense model reads the prompt; static: those that contribute most to a text`,
    ).argParser(oneOf(SOURCE_NAMES)),
    new Option(
      "--t-ffn <n>",
      "channels that the mask keeps per layer (default: as the predictor was trained, else about half)",
    ).argParser(integer(1)),
    new Option("--text <file>", "text that --source static takes activations from"),
  ];
  for (const flag of flags) command.addOption(flag.conflicts(["dense", "mask"]));
  return command;
}

/** Makes masks as the flags say, and shows the progress of scores that take long. */
export async function withMaskFlags<T>(
  { source, tFfn, text }: MaskFlags,
  work: (options: Pick<MaskOptions, "source" | "tFfn" | "text" | "onProgress">) => Promise<T>,
): Promise<T> {
  let progress: Progress | undefined;
  const onProgress = (done: number, total: number) => {
    if (!process.stderr.isTTY) return;
    progress ??= new Progress({ label: "scores", total });
    progress.update(done);
  };
  try {
    return await work({ source, tFfn, text: text === undefined ? undefined : readText(text), onProgress });
  } finally {
    progress?.finish();
  }
}

/** `griffin 120 ms`, `griffin 0.4 ms (cached)` */
export function scoresLine({ source, cached }: Omit<ChosenMask, "mask">, ms: number): string {
  return `${milliseconds(source, ms)}${cached ? " (cached)" : ""}`;
}

export function milliseconds(what: string, ms: number): string {
  return `${what} ${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
}

/** Aborts at the first Ctrl-C or SIGTERM; the second ends the process at once. */
export function interruption(): AbortSignal {
  const controller = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      if (controller.signal.aborted) process.exit(130);
      controller.abort();
    });
  }
  return controller.signal;
}

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}
