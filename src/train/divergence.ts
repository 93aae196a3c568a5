/** Stops a run whose loss has left the numbers or the neighbourhood of what it was. */
import { DivergenceError } from "../errors.ts";

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
   * Takes in the loss of a step.
   *
   * @param loss mean over labels, nats
   * @param checkpoint the last good one, for the message
   * @throws {DivergenceError} if it is not finite, or above 3 times the median of the last 100 (at least 1 nat)
   */
  check(step: number, loss: number, checkpoint: string | undefined): void {
    const limit =
      this.#losses.length < MIN_LOSSES ? Number.POSITIVE_INFINITY : FACTOR * Math.max(MIN_MEDIAN, median(this.#losses));
    if (!Number.isFinite(loss) || loss > limit) {
      const wanted =
        limit === Number.POSITIVE_INFINITY ? "a finite loss" : `a loss of at most ${limit.toPrecision(4)} nats`;
      const kept = checkpoint ? `The last good checkpoint is kept: ${checkpoint}.` : "There is no checkpoint yet.";
      throw new DivergenceError(
        `training: wanted ${wanted} at step ${step}, got ${loss}. ${kept} Try a lower learning rate or a longer warm-up.`,
      );
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
