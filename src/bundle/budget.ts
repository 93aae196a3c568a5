/**
 * How much of the FFN masks keep: a share, a count, or what was measured to be enough.
 *
 * Shapes: F FFN width · K kept FFN width (t_ffn)
 */
import { OptionError } from "../errors.ts";
import { blockLength } from "../formats/quantize.ts";
import type { Quality } from "../manifest.ts";
import { checkNumber, type NumberOption } from "../options.ts";

/** K, which must be at most F too. */
export const T_FFN = {
  words: "channels kept per layer",
  isInteger: true,
  min: 1,
  otherwise: "as the predictor was trained; without one about half where a source is named",
} as const satisfies NumberOption;

/** The same as a share of the model's FFN. */
export const KEEP = {
  words: "share of the FFN that masks keep, as 75% or 0.75; in whole blocks of channels",
  example: "75% or 0.75",
  min: 0,
  isAboveMin: true,
  max: 1,
} as const satisfies NumberOption;

/** What "auto" takes for {@link Budget.keep}. */
export const MAX_LOSS = {
  words: "of --keep auto: nats that a token of the model's own answers may lose, as import measured it",
  min: 0,
  fallback: 0.1,
} as const satisfies NumberOption;

/** How much of the FFN masks keep, in one of two ways. */
export interface Budget {
  /** Share of the channels, above 0 and at most 1, in whole blocks. "auto": the smallest that was measured to lose at most `maxLoss`, else all. */
  keep?: number | "auto" | undefined;
  /** Of "auto": nats that a token may lose. Default: 0.1. */
  maxLoss?: number | undefined;
  /** Channels per layer, exactly. Default: as the predictor was trained, else about half. */
  tFfn?: number | undefined;
}

/** Whether one was asked for. */
export const hasBudget = ({ keep, maxLoss, tFfn }: Budget): boolean =>
  [keep, maxLoss, tFfn].some((option) => option !== undefined);

/** A share as someone writes it: "75%", "0.75"; NaN of all else. */
export function parseShare(text: string): number {
  const [, digits, percent] = /^(\d+\.?\d*|\.\d+) ?(%?)$/.exec(text.trim()) ?? [];
  return Number(digits) / (percent ? 100 : 1);
}

/**
 * t_ffn of a share: the nearest number of whole blocks of channels, at least one, at most F. Files have blocks of {@link blockLength}, where F has room
 * for one; a predictor's blocks are kept or dropped together.
 *
 * @param block of the predictor, which divides F; 1 without
 * @throws {OptionError} if the share is out of range
 */
export function keptChannels(keep: number, F: number, block = 1): number {
  checkNumber("mask", "keep", keep, KEEP);
  if (keep === 1) return F;
  const stored = F < blockLength ? 1 : blockLength;
  const both = (stored * block) / greatestCommonDivisor(stored, block);
  const step = both > F ? block : both;
  return Math.min(F, Math.max(1, Math.round((keep * F) / step)) * step);
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

/** What t_ffn of a budget follows from. */
interface Budgeted {
  ffnWidth: number;
  /** Of the predictor; 1 without. */
  block?: number | undefined;
  quality?: Quality | undefined;
  /** What makes the masks. */
  source?: string | undefined;
}

/**
 * t_ffn of a budget, if it is one.
 *
 * @throws {OptionError} if share and count are both given, the share is out of range, or is to be found without having been measured
 */
export function budgetTFfn(budget: Budget, { ffnWidth: F, block, quality, source }: Budgeted): number | undefined {
  const { keep, tFfn, maxLoss } = budget;
  if (keep !== "auto" && maxLoss !== undefined)
    throw new OptionError(`mask: wanted a largest loss beside keep = "auto" only, got ${maxLoss}.`);
  if (keep === undefined) return tFfn;
  if (tFfn !== undefined) throw new OptionError(`mask: wanted keep or t_ffn, got both (${keep}, ${tFfn}).`);
  if (keep !== "auto") return keptChannels(keep, F, block);
  const most = maxLoss ?? MAX_LOSS.fallback;
  checkNumber("mask", "maxLoss", most, MAX_LOSS);
  const rows = quality?.rows.filter((row) => row.source === source) ?? [];
  if (rows.length === 0)
    throw new OptionError(
      source === "predictor"
        ? 'mask: wanted a share, as masks that were trained are not measured at several, got keep = "auto". Give one, as 75%.'
        : `mask: wanted a model that was measured under ${source} for keep = "auto", got one that was not. \`ifprune measure\` does that; or give a share.`,
    );
  return Math.min(F, ...rows.filter(({ loss }) => loss <= most).map((row) => row.tFfn));
}

/** t_ffn of a model without a predictor, unless told: half of F, the nearest whole blocks. */
export function defaultTFfn(F: number, block = 1): number {
  if (block > 1) return keptChannels(0.5, F, block);
  const half = Math.max(1, Math.floor(F / 2));
  return half < blockLength ? half : Math.round(half / blockLength) * blockLength;
}
