/** The thread that pulls a model, see `pullApart.ts`. */
import { parentPort, workerData } from "node:worker_threads";
import { pullModel } from "../bundle/pullModel.ts";
import { IfpruneError } from "../errors.ts";
import type { PullMessage } from "./pullApart.ts";
import { toPlain } from "./threadErrors.ts";

const say = (message: PullMessage) => parentPort!.postMessage(message);
const stop = new AbortController();
parentPort!.once("message", () => stop.abort());
try {
  say({ pulled: await pullModel(workerData, { signal: stop.signal, onProgress: (...progress) => say({ progress }) }) });
} catch (error) {
  if (stop.signal.aborted) say("aborted");
  else if (error instanceof IfpruneError) say({ error: toPlain(error) });
  else throw error;
}
