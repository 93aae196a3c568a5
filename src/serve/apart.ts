/** Work in a thread of its own, which is asked to stop rather than ended: it removes what it has begun. */
import { parentPort, type Worker } from "node:worker_threads";
import { IfpruneError } from "../errors.ts";
import { startThread } from "../processes.ts";
import { fromPlain, type PlainError, toPlain } from "./threadErrors.ts";

/** What the thread says. */
type Message = { progress: unknown[] } | { result: unknown } | { error: PlainError } | "aborted";

/**
 * Runs a module that calls {@link workApart}.
 *
 * @param name of its file, beside this one and without its extension
 * @throws what it throws
 */
export function apart<Result, Progress extends unknown[] = []>(
  name: string,
  workerData: unknown,
  {
    signal,
    onProgress,
  }: { signal?: AbortSignal | undefined; onProgress?: ((...progress: Progress) => void) | undefined },
): Promise<Result> {
  signal?.throwIfAborted();
  return new Promise((resolve, reject) => {
    const worker: Worker = startThread(name, import.meta.url, { workerData });
    const abort = () => worker.postMessage("abort");
    const settle = (how: () => void) => {
      signal?.removeEventListener("abort", abort);
      how();
      void worker.terminate();
    };
    signal?.addEventListener("abort", abort);
    worker.on("message", (message: Message) => {
      if (message === "aborted") settle(() => reject(signal!.reason));
      else if ("progress" in message) onProgress?.(...(message.progress as Progress));
      else if ("error" in message) settle(() => reject(fromPlain(message.error)));
      else settle(() => resolve(message.result as Result));
    });
    worker.on("error", (error) => settle(() => reject(error)));
    worker.on("exit", () => settle(() => reject(new Error(`internal: the thread "${name}" ended`))));
  });
}

/** Does a thread's work and tells who started it. */
export async function workApart(
  work: (signal: AbortSignal, onProgress: (...progress: unknown[]) => void) => Promise<unknown>,
): Promise<void> {
  const say = (message: Message) => parentPort!.postMessage(message);
  const stop = new AbortController();
  parentPort!.once("message", () => stop.abort());
  try {
    say({ result: await work(stop.signal, (...progress) => say({ progress })) });
  } catch (error) {
    if (stop.signal.aborted) say("aborted");
    else if (error instanceof IfpruneError) say({ error: toPlain(error) });
    else throw error;
  }
}
