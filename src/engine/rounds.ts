/**
 * Steps of several sequences of one context, in rounds: each may take one step in a round, and all of a round are computed in one batch.
 *
 * node-llama-cpp would let each go on at once. Then one sequence queues its next token while another's is still being drawn, so batches fall apart into
 * single tokens, and as the context is locked for as long as anything is queued, whoever is to begin waits until all others are done.
 */
export class Rounds {
  #running = 0;
  #isScheduled = false;
  readonly #waiting: (() => void)[] = [];

  /** Runs `work` in the next round. */
  async step<T>(work: () => Promise<T>): Promise<T> {
    await new Promise<void>((resolve) => {
      this.#waiting.push(resolve);
      this.#schedule();
    });
    try {
      return await work();
    } finally {
      this.#running--;
      this.#schedule();
    }
  }

  /** Once a round is over, its users have until the event loop comes around to ask for their next step. */
  #schedule(): void {
    if (this.#running > 0 || this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.#running = this.#waiting.length;
      for (const start of this.#waiting.splice(0)) start();
    });
  }
}
