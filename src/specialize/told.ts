/** Work that tells its progress by a callback, as a stream of events. */
import type { SpecializePhase, SpecializeProgress } from "./specialization.ts";

/** What work is given. */
export interface Hooks {
  signal: AbortSignal;
  onProgress(done: number, total: number, detail?: string): void;
}

/**
 * Yields the newest progress whenever it is asked; what came between is left out. Whoever stops listening stops the work.
 *
 * @returns what the work gave
 */
export async function* told<T>(
  phase: SpecializePhase,
  signal: AbortSignal | undefined,
  work: (hooks: Hooks) => Promise<T>,
): AsyncGenerator<SpecializeProgress, T> {
  const left = new AbortController();
  const stop = AbortSignal.any([left.signal, ...(signal ? [signal] : [])]);
  let newest: SpecializeProgress | undefined;
  let isDone = false;
  let wake = () => {};
  const onProgress = (done: number, total: number, detail?: string) => {
    newest = { kind: "progress", phase, done, total, detail };
    wake();
  };
  const working = work({ signal: stop, onProgress });
  const ended = working.then(
    () => {},
    () => {},
  );
  ended.then(() => {
    isDone = true;
    wake();
  });
  try {
    for (;;) {
      if (newest) {
        const event = newest;
        newest = undefined;
        yield event;
      } else if (isDone) return await working;
      else
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
    }
  } finally {
    if (!isDone) left.abort();
    await ended;
  }
}
