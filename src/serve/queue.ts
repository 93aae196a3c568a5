/** Who runs now, who waits, and who is sent away. */
import { BusyError } from "../errors.ts";

export interface QueueOptions {
  /** Requests that run at a time. */
  maxRunning: number;
  /** Requests that wait. */
  maxQueued: number;
}

const [leastRetrySeconds, mostRetrySeconds] = [1, 60];
/** Weight of the latest request in the mean of how long they take. */
const recent = 0.2;

/** First come, first served. */
export class Queue {
  readonly #options: QueueOptions;
  readonly #waiting = new Set<() => void>();
  #running = 0;
  #meanSeconds = 1;
  #isDraining = false;
  readonly #whenEmpty: (() => void)[] = [];

  constructor(options: QueueOptions) {
    this.#options = options;
  }

  get running(): number {
    return this.#running;
  }

  get queued(): number {
    return this.#waiting.size;
  }

  /**
   * Waits for a turn, which lasts until the result is disposed.
   *
   * @throws {BusyError} if too many wait already, or nobody is let in any more
   * @throws the signal's reason when it aborts
   */
  async enter(signal: AbortSignal): Promise<Disposable> {
    signal.throwIfAborted();
    const { maxRunning, maxQueued } = this.#options;
    if (this.#isDraining) throw new BusyError("The server is shutting down.", leastRetrySeconds, true);
    if (this.#running >= maxRunning) {
      if (this.#waiting.size >= maxQueued) {
        const seconds = (this.#meanSeconds * (this.#waiting.size + 1)) / maxRunning;
        const retryAfter = Math.ceil(Math.min(mostRetrySeconds, Math.max(leastRetrySeconds, seconds)));
        throw new BusyError(
          `${this.#running} requests run and ${this.#waiting.size} wait. Try again later.`,
          retryAfter,
        );
      }
      await new Promise<void>((resolve, reject) => {
        const settle = () => {
          signal.removeEventListener("abort", leave);
          this.#waiting.delete(start);
        };
        const start = () => {
          settle();
          resolve();
        };
        const leave = () => {
          settle();
          reject(signal.reason);
          this.#tellIfEmpty();
        };
        signal.addEventListener("abort", leave);
        this.#waiting.add(start);
      }); // whoever leaves hands over its turn: the number that run stays
    } else this.#running++;
    const start = performance.now();
    let isHeld = true;
    return {
      [Symbol.dispose]: () => {
        if (!isHeld) return;
        isHeld = false;
        this.#meanSeconds += recent * ((performance.now() - start) / 1000 - this.#meanSeconds);
        const [next] = this.#waiting;
        if (next) next();
        else this.#running--;
        this.#tellIfEmpty();
      },
    };
  }

  /** Lets nobody in any more, and waits until all who are have left. */
  async drain(): Promise<void> {
    this.#isDraining = true;
    if (this.#running + this.#waiting.size > 0) await new Promise<void>((resolve) => this.#whenEmpty.push(resolve));
  }

  #tellIfEmpty(): void {
    if (this.#running + this.#waiting.size === 0) for (const tell of this.#whenEmpty.splice(0)) tell();
  }
}
