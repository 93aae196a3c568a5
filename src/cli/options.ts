/** What actions share: masks and how they are made, words about them, files that they write. */

import { accessSync, constants, existsSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import type { StageTimes } from "../answer/answer.ts";
import type { MaskOptions } from "../answer/instructionModel.ts";
import { type ChosenMask, type MaskQuality, maskQuality } from "../answer/maskSource.ts";
import { SOURCE_NAMES, type SourceName } from "../answer/sourceNames.ts";
import { type Budget, keptChannels, MAX_LOSS } from "../bundle/budget.ts";
import type { Bundle } from "../bundle/bundle.ts";
import type { MaskForm } from "../bundle/maskModel.ts";
import { DEFAULT_MODEL } from "../bundle/pulledModels.ts";
import { OptionError } from "../errors.ts";
import { writing } from "../files.ts";
import { readJson, readText } from "../json.ts";
import type { Quality } from "../manifest.ts";
import type { Mask } from "../mask/mask.ts";
import { maskFromJson } from "../mask/maskFile.ts";
import { readExamples } from "../text/examples.ts";
import type { Waiting } from "./progress.ts";

/** What is served, each by the last part of its name; `default`, where nothing is named. */
export function servedModels(names: readonly string[]): { id: string; path: string }[] {
  if (names.length === 0) return [{ id: "default", path: DEFAULT_MODEL }];
  return names.map((path) => ({ id: basename(resolve(path)), path }));
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

type MaskFlagOptions = Pick<MaskOptions, "source" | keyof Budget | "text" | "onProgress"> & {
  examples: Awaited<ReturnType<typeof readExamples>> | undefined;
};

/** How masks are made as the flags say; what takes long is said where one waits. */
export async function readMaskFlags(
  { source, keep, maxLoss, tFfn, text, examples }: MaskFlags,
  waiting?: Waiting,
): Promise<MaskFlagOptions> {
  return {
    source,
    keep,
    maxLoss,
    tFfn,
    text: text === undefined ? undefined : readText(text),
    examples: examples === undefined ? undefined : await readExamples(examples),
    onProgress: (done, total) => waiting?.say(`choosing channels, ${done} of ${total}`),
  };
}

/** What an answer waits for, in words. */
export const STAGES = {
  predict: "choosing channels",
  gather: "building the sub-network",
  load: "loading it",
  prefill: "reading the prompt",
  decode: "answering",
} as const satisfies Record<keyof StageTimes, string>;

const NO_ANSWER = "The model answered nothing.";
/** What to say of an empty answer under a mask. */
export const noAnswer = ({ tFfn, dFfn }: Pick<Mask, "tFfn" | "dFfn">): string =>
  tFfn < dFfn
    ? `${NO_ANSWER} With ${percent(tFfn / dFfn)} of its FFN that happens: keep more, or all of it.`
    : NO_ANSWER;

/** Nats lost a token from which wrong answers are to be expected: SmolLM2-135M at 0.94 answered five of eight plain questions wrongly. */
export const MUCH_LOST = 0.5;

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
  const cost = maskQuality({ manifest: { quality } }, "griffin", keptChannels(0.9, dFfn));
  return `No trained masks: the whole model answers. Train some (\`ifprune prune\`, then \`ifprune train\`), or try masks that need no training: --keep 90%${qualityWords(cost)}.\n`;
}

/** Whether an imported model answers with all that it has. One that was trained so is as it shall be. */
export function isWhole({
  trainedOn,
  tFfn,
  dFfn,
}: {
  trainedOn: readonly string[];
  tFfn: number;
  dFfn: number;
}): boolean {
  return trainedOn.length === 0 && tFfn === dFfn;
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
  if (!quality) return "";
  const { loss, agreement } = quality;
  return `, measured: ${loss.toFixed(2)} nats lost a token, ${percent(agreement)} agree${loss > MUCH_LOST ? ": expect wrong answers" : ""}`;
}

/** `50 %`, `6.3 %` */
export function percent(share: number): string {
  return `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
}

/** In which form a mask was run, and why. */
export function formLine({ form, formReason, formFlaw, formMs }: MaskForm): string {
  if (formFlaw !== undefined) return `Gathered, not resident: ${formFlaw}.\n`;
  const name = form === "resident" ? "Resident" : "Gathered";
  if (formReason === "told") return `${name}, as asked.\n`;
  if (formReason === "dense") return "Gathered: all channels are kept.\n";
  const other = form === "resident" ? "gathered" : "resident";
  return `${name}: expected to take ${formMs![form].toFixed(0)} ms, ${other} ${formMs![other].toFixed(0)}; it wins most by ${formReason}.\n`;
}

export function milliseconds(what: string, ms: number): string {
  return `${what} ${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
}

/**
 * A file to write at the end: better to say before the work that it cannot be.
 *
 * @param inputs files that are read, of which it is none
 * @throws {OptionError} if its folder is not there, or it is a folder itself, or an input
 * @throws {FileError} if the system would refuse it
 */
export function checkOut(out: string | undefined, inputs: readonly (string | undefined)[]): void {
  if (out === undefined) return;
  if (out === "") throw new OptionError("--out: wanted the name of a file, got an empty one.");
  const isOut = (path: string | undefined) =>
    path !== undefined && existsSync(path) && realpathSync(path) === realpathSync(out);
  if (existsSync(out) && inputs.some(isOut))
    throw new OptionError(`--out: wanted another file than those that are read, got "${out}". Name a new one.`);
  if (!isFolder(dirname(resolve(out))))
    throw new OptionError(`--out: wanted a file in a folder that exists, got "${out}". Make the folder first.`);
  if (isFolder(out)) throw new OptionError(`--out: wanted a file, got the folder "${out}". Name a file in it.`);
  writing(out, () => accessSync(existsSync(out) ? out : dirname(resolve(out)), constants.W_OK));
}

/**
 * The same of a folder to make at the end, and those around it.
 *
 * @throws {OptionError} if a file is in the way
 * @throws {FileError} if the system would refuse it
 */
export function checkOutFolder(out: string): void {
  if (out === "") throw new OptionError("--out: wanted the name of a folder, got an empty one.");
  let there = resolve(out);
  while (!existsSync(there)) there = dirname(there);
  if (!isFolder(there)) throw new OptionError(`--out: wanted a folder, got "${out}", where a file is in the way.`);
  writing(out, () => accessSync(there, constants.W_OK));
}

const isFolder = (path: string) => existsSync(path) && statSync(path).isDirectory();

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}
