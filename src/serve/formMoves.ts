/** What is lost for want of a form, and the moves to it in the background, one at a time. */

/** Keys that are remembered. */
const maxKeys = 10_000;

export class FormMoves implements AsyncDisposable {
  readonly #stop = new AbortController();
  /** Milliseconds, by what was missing. */
  readonly #lost = new Map<string, number>();
  readonly #waiting = new Set<string>();
  #moving: Promise<void> = Promise.resolve();

  /** Whether something moves or is about to. */
  get isMoving(): boolean {
    return this.#waiting.size > 0;
  }

  /**
   * Tells of a request that would have taken less in a form that was not there. Once all that was lost so is as much as making it takes, it is made.
   *
   * @param lost milliseconds
   * @param price of making it; 0 where it is there
   */
  lose(key: string, lost: number, price: number, move: (stop: AbortSignal) => Promise<void>): void {
    if (price <= 0 || this.#waiting.has(key)) return;
    const sum = (this.#lost.get(key) ?? 0) + lost;
    this.#lost.delete(key); // to the end of the line
    if (sum >= price) {
      this.start(key, move);
      return;
    }
    this.#lost.set(key, sum);
    if (this.#lost.size > maxKeys) this.#lost.delete(this.#lost.keys().next().value!);
  }

  /** Makes a form, unless that goes on already. What fails is warned of: whoever needs the form will be told why it is not there. */
  start(key: string, move: (stop: AbortSignal) => Promise<void>): void {
    const { signal } = this.#stop;
    if (this.#waiting.has(key) || signal.aborted) return;
    this.#waiting.add(key);
    this.#moving = this.#moving.then(async () => {
      try {
        signal.throwIfAborted();
        await move(signal);
      } catch (error) {
        if (!signal.aborted) process.emitWarning(`moving a mask to another form: ${(error as Error).message}`);
      } finally {
        this.#waiting.delete(key);
      }
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#moving;
  }
}
