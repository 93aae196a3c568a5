/** Stops a run whose loss has left the numbers or the neighbourhood of what it was. */
import { DivergenceError } from "../errors.ts";
import type { TrainRow } from "./runLog.ts";

/** Losses that the running median is taken over. */
const WINDOW = 100;
/** Losses that are seen before any is judged by the median: warm-up is noisy. */
const MIN_LOSSES = 20;
/** A loss of so many times the median has diverged. */
const FACTOR = 3;
/** Nats. A lower median counts as this: near zero, a hard batch is many times the median and harmless. */
const MIN_MEDIAN = 1;

/** Watches the losses of one stage. */
export class DivergenceGuard {
  readonly #losses: number[];

  /** @param losses `losses` of the guard that a resumed run goes on from */
  constructor(losses: readonly number[] = []) {
    this.#losses = [...losses];
  }

  /** The last losses, oldest first: what a checkpoint keeps. */
  get losses(): readonly number[] {
    return this.#losses;
  }

  /**
   * Takes in a step.
   *
   * @param row with the loss, mean over labels in nats, and the global norm of its gradient
   * @param checkpoint the last good one, for the message
   * @throws {DivergenceError} if either is not finite, or the loss above 3 times the median of the last 100 (at least 1 nat)
   */
  check(
    { step, loss, gradientNorm }: Pick<TrainRow, "step" | "loss" | "gradientNorm">,
    checkpoint: string | undefined,
  ): void {
    const limit =
      this.#losses.length < MIN_LOSSES ? Number.POSITIVE_INFINITY : FACTOR * Math.max(MIN_MEDIAN, median(this.#losses));
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
    this.#losses.push(loss);
    if (this.#losses.length > WINDOW) this.#losses.shift();
  }
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
