/**
 * Processes: which one made something, so that what one that has ended left behind is told from what a living one is at (times of files, which clocks move, say
 * nothing), and how further ones are started.
 */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { hostname } from "node:os";
import { extname } from "node:path";
import { pathToFileURL } from "node:url";
import { SHARE_ENV, Worker, type WorkerOptions } from "node:worker_threads";
import { z } from "zod";

export const processSchema = z.object({
  pid: z.number().int().positive(),
  host: z.string(),
  /** Start of the process in the kernel's own count: tells a process from a later one with its number. Linux only. */
  processStart: z.string().optional(),
});
export type ProcessMark = z.infer<typeof processSchema>;

/** This process. */
export function ownProcess(): ProcessMark {
  return { pid: process.pid, host: hostname(), processStart: processStart(process.pid) };
}

/** Whether a process lives. One of another host counts as alive: it cannot be asked. */
export function isAlive({ pid, host, processStart: start }: ProcessMark): boolean {
  if (host !== hostname()) return true;
  try {
    process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"; // alive, but another user's
  }
  return processStart(pid) === start;
}

/** This process as a part of a file's name, which {@link isLeftBy} reads. */
export function ownTag(): string {
  const { pid, host, processStart: start = "0" } = ownProcess();
  return `${pid}-${start}-${host}`;
}

/** Whether a part of a file's name is the tag of a process that has ended. */
export function isLeftBy(tag: string): boolean {
  const [, pid, start, host] = /^(\d+)-(\d+)-(.+)$/.exec(tag) ?? [];
  return host !== undefined && !isAlive({ pid: Number(pid), host, processStart: start === "0" ? undefined : start });
}

/**
 * A module of ours that runs in a process or thread of its own, and what Node needs for it: the sources go through tsx, the build as it is.
 *
 * @param name of its file, beside that of `importer` and without its extension
 */
export function ownModule(name: string, importer: string): { url: URL; execArgv: string[] } {
  const extension = extname(importer);
  const tsx = () => pathToFileURL(createRequire(importer).resolve("tsx")).href;
  return { url: new URL(`./${name}${extension}`, importer), execArgv: extension === ".ts" ? ["--import", tsx()] : [] };
}

/**
 * A thread that runs a module of ours, as {@link ownModule} names it. (Of tsx it takes a call: threads do not heed `--import`.) Its environment is the process's, as native
 * code sees no other.
 */
export function startThread(name: string, importer: string, given: Omit<WorkerOptions, "env">): Worker {
  const options: WorkerOptions = { ...given, env: SHARE_ENV };
  const { url, execArgv } = ownModule(name, importer);
  if (execArgv.length === 0) return new Worker(url, options);
  const tsx = pathToFileURL(
    createRequire(importer)
      .resolve("tsx/esm/api")
      .replace(/\.cjs$/, ".mjs"),
  ).href;
  const code = `import("${tsx}").then(({ register }) => { register(); return import("${url}"); })`;
  return new Worker(code, { ...options, eval: true });
}

/**
 * Field 22 of /proc/PID/stat; fields are counted from the end of the name (field 2), which may hold brackets and spaces.
 * Nothing for a process that has ended and only waits to be noticed by its parent.
 */
function processStart(pid: number): string | undefined {
  if (process.platform !== "linux") return undefined;
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  } catch (error) {
    if (["ENOENT", "ESRCH"].includes((error as NodeJS.ErrnoException).code ?? "")) return undefined;
    throw error;
  }
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return fields[0] === "Z" ? undefined : fields[19];
}
