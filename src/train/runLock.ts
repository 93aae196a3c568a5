/** A lock file that keeps two trainers out of one run's folder, and that a trainer killed in any way does not leave locked. */
import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { FileError } from "../errors.ts";

const lockName = "trainer.lock";

const holderSchema = z.object({
  pid: z.number().int().positive(),
  host: z.string(),
  /** Start of the process in the kernel's own count: tells a process from a later one with its number. Linux only. */
  processStart: z.string().optional(),
});
type Holder = z.infer<typeof holderSchema>;

/**
 * Locks a run's folder for this process until disposed. A lock whose process is gone is taken over.
 *
 * @throws {FileError} if another process holds it, or this one already does
 */
export function lockRun(runDir: string): Disposable {
  const path = join(runDir, lockName);
  const self = JSON.stringify({
    pid: process.pid,
    host: hostname(),
    processStart: processStart(process.pid),
  } satisfies Holder);
  const own = `${path}.${process.pid}`;
  writeFileSync(own, self);
  try {
    while (!linkIfAbsent(own, path)) removeIfStale(path);
  } finally {
    rmSync(own);
  }
  return { [Symbol.dispose]: () => rmSync(path, { force: true }) };
}

/** Puts a whole file at `path` in one step. @returns false if there is one */
function linkIfAbsent(file: string, path: string): boolean {
  try {
    linkSync(file, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw error;
  }
}

function removeIfStale(path: string): void {
  const stale = readIfPresent(path);
  if (stale === undefined) return;
  const holder = parseHolder(stale);
  if (holder && isAlive(holder)) {
    throw new FileError(
      path,
      `wanted a run that nobody trains, got one held by process ${holder.pid} on ${holder.host}. ` +
        "Wait for it or stop it; if it is surely gone, delete this file.",
    );
  }
  // Between reading and removing, another trainer may have taken the stale lock over: move it, look, and give back what lives.
  const moved = `${path}.stale.${process.pid}`;
  try {
    renameSync(path, moved);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  if (readFileSync(moved, "utf8") !== stale) linkIfAbsent(moved, path);
  rmSync(moved);
}

function readIfPresent(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/** Nothing for a file that no trainer wrote: locks appear whole, so it is not one being written. */
function parseHolder(text: string): Holder | undefined {
  try {
    return holderSchema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** A process of another host counts as alive: it cannot be asked. */
function isAlive({ pid, host, processStart: start }: Holder): boolean {
  if (host !== hostname()) return true;
  try {
    process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"; // alive, but another user's
  }
  return processStart(pid) === start;
}

/**
 * Field 22 of /proc/PID/stat; fields are counted from the end of the name (field 2), which may hold brackets and spaces.
 * Nothing for a process that has ended and only waits to be noticed by its parent.
 */
function processStart(pid: number): string | undefined {
  const stat = process.platform === "linux" ? readIfPresent(`/proc/${pid}/stat`) : undefined;
  const fields = stat?.slice(stat.lastIndexOf(")") + 2).split(" ");
  return fields?.[0] === "Z" ? undefined : fields?.[19];
}
