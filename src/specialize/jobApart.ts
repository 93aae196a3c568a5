/** Does a job in a process of its own: it takes gigabytes and hours, and those who ask the server wait for neither. */
import { fork } from "node:child_process";
import { on, once } from "node:events";
import { fileURLToPath } from "node:url";
import { ownModule } from "../processes.ts";
import type { JobTask } from "./jobs.ts";
import type { SpecializeEvent } from "./specialization.ts";

/** What the process says. */
export type JobMessage = { event: SpecializeEvent } | { error: string };

/** What `specialize` tells there. Whoever stops listening stops it. @throws {Error} with the words of what it throws */
export async function* jobApart(task: JobTask, signal: AbortSignal): AsyncGenerator<SpecializeEvent, void> {
  signal.throwIfAborted();
  const { url, execArgv } = ownModule("jobWorker", import.meta.url);
  const child = fork(fileURLToPath(url), { execArgv, stdio: ["ignore", "ignore", "inherit", "ipc"] });
  const exited = once(child, "exit");
  exited.catch(() => {}); // one that never was is told below
  const stop = () => {
    if (child.connected) child.disconnect(); // not ended: it saves what it has
  };
  signal.addEventListener("abort", stop);
  try {
    child.send(task);
    for await (const [message] of on(child, "message", { close: ["disconnect"] })) {
      const said = message as JobMessage;
      if ("error" in said) throw new Error(said.error);
      yield said.event;
    }
    const [code, by] = await exited;
    if (code !== 0 && !signal.aborted)
      throw new Error(`The job's process ended by ${by ?? `code ${code}`}. What it has made is kept: go on with it.`);
  } finally {
    signal.removeEventListener("abort", stop);
    stop();
    await exited;
  }
}
