/** Pulls a model in a thread of its own: an import computes for seconds at a time, and what is in its files is anybody's. */
import type { Worker } from "node:worker_threads";
import type { Pulled, PullOptions } from "../bundle/pullModel.ts";
import { startThread } from "../processes.ts";
import { fromPlain, type PlainError } from "./threadErrors.ts";

/** What the thread says. */
export type PullMessage =
  | { progress: Parameters<NonNullable<PullOptions["onProgress"]>> }
  | { pulled: Pulled }
  | { error: PlainError }
  | "aborted";

/** {@link pullModel}, elsewhere. @throws as that */
export function pullApart(
  id: string,
  { signal, onProgress }: Pick<PullOptions, "signal" | "onProgress">,
): Promise<Pulled> {
  signal?.throwIfAborted();
  return new Promise((resolve, reject) => {
    const worker: Worker = startThread("pullWorker", import.meta.url, { workerData: id });
    const abort = () => worker.postMessage("abort"); // not ended: it removes what it has begun
    const settle = (how: () => void) => {
      signal?.removeEventListener("abort", abort);
      how();
      void worker.terminate();
    };
    signal?.addEventListener("abort", abort);
    worker.on("message", (message: PullMessage) => {
      if (message === "aborted") settle(() => reject(signal!.reason));
      else if ("progress" in message) onProgress?.(...message.progress);
      else if ("error" in message) settle(() => reject(fromPlain(message.error)));
      else settle(() => resolve(message.pulled));
    });
    worker.on("error", (error) => settle(() => reject(error)));
    worker.on("exit", () => settle(() => reject(new Error("internal: the thread that pulls ended"))));
  });
}
