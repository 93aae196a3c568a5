/** Stops a run whose loss has left the numbers or the neighbourhood of what it was. */
import { DivergenceError } from "../errors.ts";
import { median } from "../median.ts";
import type { TrainRow } from "./runLog.ts";

/** Losses that the running median is taken over. */
const WINDOW = 100;
/** Losses that are seen, with as many channels, before any is judged by the median: warm-up is noisy. */
const MIN_LOSSES = 20;
/** A loss of so many times the median has diverged. */
const FACTOR = 3;
/** Nats. A lower median counts as this: near zero, a hard batch is many times the median and harmless. */
const MIN_MEDIAN = 1;

/** The last losses, oldest first, by the channels that their steps kept ("all" where a stage keeps one number): masks of fewer lose more. */
export type LossHistory = Record<string, number[]>;

/** Watches the losses of one stage. */
export class DivergenceGuard {
  readonly #losses: Map<string, number[]>;

  /** @param losses `losses` of the guard that a resumed run goes on from; a list is of before they were kept by channels */
  constructor(losses: LossHistory | readonly number[] = {}) {
    const byBudget = Array.isArray(losses) ? { all: losses } : losses;
    this.#losses = new Map(Object.entries(byBudget).map(([budget, own]) => [budget, [...own]]));
  }

  /** What a checkpoint keeps. */
  get losses(): LossHistory {
    return Object.fromEntries([...this.#losses].map(([budget, own]) => [budget, [...own]]));
  }

  /**
   * Takes in a step.
   *
   * @param row with the loss, mean over labels in nats, and the global norm of its gradient
   * @param checkpoint the last good one, for the message
   * @throws {DivergenceError} if either is not finite, or the loss above 3 times the median of the last 100 with as many channels (at least 1 nat)
   */
  check(
    { step, loss, gradientNorm, tFfn }: Pick<TrainRow, "step" | "loss" | "gradientNorm" | "tFfn">,
    checkpoint: string | undefined,
  ): void {
    const budget = String(tFfn ?? "all");
    const losses = this.#losses.get(budget) ?? [];
    const limit = losses.length < MIN_LOSSES ? Number.POSITIVE_INFINITY : FACTOR * Math.max(MIN_MEDIAN, median(losses));
    const flaw = !Number.isFinite(loss)
      ? `a finite loss at step ${step}, got ${loss}`
      : loss > limit
        ? `a loss of at most ${limit.toPrecision(4)} nats at step ${step}, got ${loss}`
        : !Number.isFinite(gradientNorm)
          ? `a finite gradient at step ${step}, got norm ${gradientNorm}`
          : undefined;
    if (flaw) {
      const kept = checkpoint ? `The last good checkpoint is kept: ${checkpoint}.` : "There is no checkpoint yet.";
      throw new DivergenceError(`training: wanted ${flaw}. ${kept} Try a lower learning rate or a longer warm-up.`);
    }
    losses.push(loss);
    if (losses.length > WINDOW) losses.shift();
    this.#losses.set(budget, losses);
  }
}
