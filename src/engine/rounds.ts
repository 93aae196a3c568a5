import type { StepThreads } from "./threads.ts";

/**
 * Steps of several sequences of one context, in rounds: each may take one step in a round, and all of a round are computed in one batch.
 *
 * node-llama-cpp would let each go on at once. Then one sequence queues its next token while another's is still being drawn, so batches fall apart into
 * single tokens, and as the context is locked for as long as anything is queued, whoever is to begin waits until all others are done.
 *
 * The steps of a round begin and end in the order of their sequences. llama.cpp computes sequences together only where their numbers follow each other in a
 * batch; and as the last bits of logits depend on what is computed together, the same calls give the same tokens only if they meet in the same batches.
 */
export class Rounds {
  readonly #compute: StepThreads["step"];
  #isRunning = false;
  #waiting: { sequence: number; numTokens: number; begin: () => Promise<() => void> }[] = [];

  /** @param compute does the work of a round, given the tokens that each of its sequences reads */
  constructor(compute: StepThreads["step"]) {
    this.#compute = compute;
  }

  /** Runs `work`, which reads `numTokens`, in the next round. */
  step<T>(sequence: number, numTokens: number, work: () => Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const begin = async () => {
        try {
          const result = await work();
          return () => resolve(result);
        } catch (error) {
          return () => reject(error);
        }
      };
      this.#waiting.push({ sequence, numTokens, begin });
      this.#schedule();
    });
  }

  /** Once a round is over, its users have until the event loop comes around to ask for their next step. */
  #schedule(): void {
    if (this.#isRunning || this.#waiting.length === 0) return;
    this.#isRunning = true;
    setImmediate(async () => {
      const round = this.#waiting.sort((a, b) => a.sequence - b.sequence);
      this.#waiting = [];
      const numTokens = round.map((step) => step.numTokens);
      const ends = await this.#compute(numTokens, () => Promise.all(round.map(({ begin }) => begin())));
      for (const end of ends) end();
      this.#isRunning = false;
      this.#schedule();
    });
  }
}
