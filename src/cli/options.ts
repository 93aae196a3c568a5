/** What several commands share: option parsers, the default model, masks and how they are made, interruption. */
import { existsSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { type Command, InvalidArgumentError, Option } from "commander";
import type { MaskOptions } from "../answer/instructionModel.ts";
import { type ChosenMask, type MaskQuality, maskQuality, SOURCE_NAMES, type SourceName } from "../answer/maskSource.ts";
import type { Bundle } from "../bundle/bundle.ts";
import { type Budget, KEEP, keptChannels, MAX_LOSS, parseShare, T_FFN } from "../bundle/estimate.ts";
import { DEFAULT_MODEL } from "../bundle/pulledModels.ts";
import { OptionError } from "../errors.ts";
import { readJson, readText } from "../files.ts";
import type { Quality } from "../manifest.ts";
import type { Mask } from "../mask/mask.ts";
import { maskFromJson } from "../mask/maskFile.ts";
import { readExamples } from "../text/examples.ts";
import { numberFlag } from "./numberFlag.ts";
import { Progress } from "./progress.ts";

export { DEFAULT_MODEL };
/** What stands for a model. */
export const MODEL_NAME = "bundle folder, or id or name of a model that was pulled";
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

/** What `--mask` names: a file, or as `task:NAME` what a server or a chat of this machine saved of this model. @throws as {@link readMask}; {InputError} if there is no such task */
export async function readNamedMask(name: string, bundle: Bundle): Promise<Mask> {
  if (!name.startsWith("task:")) return readMask(name);
  const { TaskStore } = await import("../serve/masks.ts");
  return new TaskStore(bundle).get(name.slice("task:".length)).mask;
}

/** How masks are made, from the command line. */
export interface MaskFlags extends Budget {
  source?: SourceName;
  text?: string;
  examples?: string;
}

/** Adds the options of {@link MaskFlags}; what makes a mask does not go with one that is given (`--mask`, `--dense`). */
export function addMaskFlags(
  command: Command,
  defaultSource = "predictor; griffin for --keep or --t-ffn in a model without one",
): Command {
  const flags = [
    new Option(
      "--source <name>",
      `what makes masks: ${SOURCE_NAMES.join(", ")} (default: ${defaultSource}). griffin: channels most active when the dense model reads the prompt; glass: on the prompt and on --text, by the mean of ranks; text: those that contribute most to --text; weights: those of the largest weights`,
    ).argParser(oneOf(SOURCE_NAMES)),
    ...budgetFlags(),
    new Option("--text <file>", "text that --source glass and text take activations from"),
  ];
  for (const flag of flags) command.addOption(flag.conflicts(["dense", "mask"]));
  return command.option(
    "--examples <file>",
    'solved cases that the instruction shows: JSON Lines of {"input", "output"}, or rows of training data',
  );
}

/** `--keep` with `--max-loss`, and `--t-ffn`, of which one is given at most. */
export function budgetFlags(): Option[] {
  const keep = numberFlag("--keep <share>", KEEP, parseShare).conflicts("tFfn");
  const share = keep.parseArg!;
  keep.argParser((text) => (text === "auto" ? text : share(text, undefined)));
  const { fallback, ...maxLoss } = MAX_LOSS;
  return [
    keep,
    numberFlag("--max-loss <nats>", { ...maxLoss, otherwise: String(fallback) }),
    numberFlag("--t-ffn <n>", T_FFN),
  ];
}

type MaskFlagOptions = Pick<MaskOptions, "source" | keyof Budget | "text" | "onProgress"> & {
  examples: Awaited<ReturnType<typeof readExamples>> | undefined;
};

/** Makes masks as the flags say, and shows the progress of scores that take long. */
export async function withMaskFlags<T>(
  { source, keep, maxLoss, tFfn, text, examples }: MaskFlags,
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
      keep,
      maxLoss,
      tFfn,
      text: text === undefined ? undefined : readText(text),
      examples: examples === undefined ? undefined : await readExamples(examples),
      onProgress,
    });
  } finally {
    progress?.finish();
  }
}

/** What made a mask, and whether it was trained to. */
export function sourceWords(source: string): string {
  if (source === "predictor") return `${source} (trained)`;
  return SOURCE_NAMES.some((name) => name === source) ? `${source} (untrained)` : source; // a saved task, the dense model
}

/** `predictor (trained) 12 ms`, `griffin (untrained) 0.4 ms, cached` */
export function scoresLine({ source, cached }: Omit<ChosenMask, "mask">, ms: number): string {
  return `${milliseconds(sourceWords(source), ms)}${cached ? ", cached" : ""}`;
}

/** Of a model without trained masks that is not told how to make some: what answers, and what else there is, with its measured cost. */
export function denseNote({ dFfn, quality }: { dFfn: number; quality?: Quality | undefined }): string {
  const cost = maskQuality({ manifest: { quality } }, "griffin", keptChannels(0.75, dFfn));
  return `No trained masks: the whole model answers. Train some (\`ifprune prune\`, then \`ifprune train\`), or try masks that need no training: --keep 75%${qualityWords(cost)}.\n`;
}

/** `75 % of the FFN (1152 of 1536 channels)` */
export function keptLine(mask: Pick<Mask, "tFfn" | "dFfn">, asked: Budget = {}): string {
  const { tFfn, dFfn } = mask;
  return `${percent(tFfn / dFfn)} of the FFN (${tFfn} of ${dFfn} channels${askedShare(mask, asked)})`;
}

/** What was asked, where it is not the very share. */
export function askedShare({ tFfn, dFfn }: Pick<Mask, "tFfn" | "dFfn">, { keep, maxLoss }: Budget): string {
  if (keep === "auto")
    return `, the fewest that were measured to lose at most ${maxLoss ?? MAX_LOSS.fallback} nats a token`;
  return keep === undefined || Math.round(keep * dFfn) === tFfn ? "" : `, the whole blocks nearest to ${percent(keep)}`;
}

/** `, measured: 0.21 nats lost a token, 87 % agree` */
export function qualityWords(quality: MaskQuality | undefined): string {
  return quality ? `, measured: ${quality.loss.toFixed(2)} nats lost a token, ${percent(quality.agreement)} agree` : "";
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
