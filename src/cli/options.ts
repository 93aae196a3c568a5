/** What several commands share: option parsers, the default model, masks from files, interruption. */
import { fileURLToPath } from "node:url";
import { InvalidArgumentError } from "commander";
import { readJson } from "../formats/files.ts";
import type { Mask } from "../mask/mask.ts";
import { maskFromJson } from "../mask/maskFile.ts";

/** The bundle that comes with the package. */
export const DEFAULT_MODEL = fileURLToPath(new URL("../../models/default", import.meta.url));
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
