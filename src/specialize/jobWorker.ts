/** The process of a job, see `jobApart.ts`. It ends when its server does, and leaves what can be gone on with. */
import { constants, setPriority } from "node:os";
import { IfpruneError } from "../errors.ts";
import type { JobMessage } from "./jobApart.ts";
import type { JobTask } from "./jobs.ts";
import { specialize } from "./specialize.ts";

const stop = new AbortController();
process.once("disconnect", () => stop.abort());
process.on("SIGINT", () => {}); // a terminal sends it to all: the server says when to stop
for (const signal of ["SIGTERM", "SIGHUP"] as const) process.on(signal, () => stop.abort()); // a system that ends the server sends it to all, and means it
process.once("message", (task: JobTask) => void work(task));

/** Answers go first. */
function makeWay(): void {
  try {
    setPriority(constants.priority.PRIORITY_BELOW_NORMAL);
  } catch {
    // some systems allow none; it works as well
  }
}

async function work({ model, out, options, until }: JobTask): Promise<void> {
  if (!process.connected) return; // the server went away, or changed its mind, while this was being loaded
  makeWay();
  try {
    for await (const event of specialize(model, out, { ...options, signal: stop.signal })) {
      await say({ event });
      if (event.kind === until) break;
    }
  } catch (error) {
    if (!stop.signal.aborted) {
      if (!(error instanceof IfpruneError)) process.stderr.write(`${(error as Error).stack}\n`);
      await say({ error: (error as Error).message });
    }
  }
  if (process.connected) process.disconnect();
}

/** Resolves once it is on its way. */
function say(message: JobMessage): Promise<void> {
  return new Promise((resolve) => {
    if (process.connected) process.send!(message, undefined, undefined, () => resolve());
    else resolve();
  });
}
