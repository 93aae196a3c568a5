/** Things on their way from who makes them to who reads them, who may be slower. */
export class EventBuffer<T> {
  readonly #waiting: T[] = [];
  #outcome: { error?: unknown } | undefined;
  #wake: (() => void) | undefined;

  push(item: T): void {
    this.#waiting.push(item);
    this.#wake?.();
  }

  end(): void {
    this.#outcome = {};
    this.#wake?.();
  }

  /** What is waiting is read first, then the error is thrown. */
  fail(error: unknown): void {
    this.#outcome = { error };
    this.#wake?.();
  }

  /** Once. */
  async *read(): AsyncGenerator<T, void, void> {
    for (;;) {
      while (this.#waiting.length > 0) yield this.#waiting.shift()!;
      if (this.#outcome) {
        if ("error" in this.#outcome) throw this.#outcome.error;
        return;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}
