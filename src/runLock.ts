/** A lock file that keeps two processes out of one job, as two trainers of a run's folder, and that a process killed in any way does not leave locked. */
import { constants, copyFileSync, linkSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { FileError } from "./errors.ts";
import { ownPartial, removePartials, writing } from "./files.ts";
import { isAlive, ownProcess, type ProcessMark, processSchema } from "./processes.ts";

/** Of the lock's file in the run's folder. */
export const lockName = "trainer.lock";

/**
 * Locks a run's folder for this process until disposed. A lock whose process is gone is taken over.
 *
 * @throws {FileError} if another process holds it, or this one already does
 */
export function lockRun(runDir: string): Disposable {
  return lockBy(join(runDir, lockName), "a run that nobody trains");
}

/**
 * The same by a file of any name.
 *
 * @param wanted what is wanted, for the message
 */
export function lockBy(path: string, wanted: string): Disposable {
  removePartials(dirname(path), `${basename(path)}.`);
  const own = `${path}.${ownPartial()}`;
  try {
    writing(own, () => writeFileSync(own, JSON.stringify(ownProcess()), { flag: "wx" }));
    while (!linkIfAbsent(own, path)) removeIfStale(path, wanted);
  } finally {
    rmSync(own, { force: true });
  }
  return { [Symbol.dispose]: () => rmSync(path, { force: true }) };
}

/** The living process that holds a run's lock, if one does. */
export function lockHolder(runDir: string): ProcessMark | undefined {
  const text = readIfPresent(join(runDir, lockName));
  const holder = text === undefined ? undefined : parseHolder(text);
  return holder && isAlive(holder) ? holder : undefined;
}

/** Puts a whole file at `path` in one step, or nearly so where the file system has no links (FAT, some of the network's). @returns false if there is one */
function linkIfAbsent(file: string, path: string): boolean {
  for (const put of [linkSync, copyIfAbsent])
    try {
      put(file, path);
      return true;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "EEXIST") return false;
      if (put === copyIfAbsent || !["EPERM", "ENOSYS", "ENOTSUP", "EOPNOTSUPP"].includes(code!)) throw error;
    }
  return true;
}

const copyIfAbsent = (file: string, path: string): void => copyFileSync(file, path, constants.COPYFILE_EXCL);

function removeIfStale(path: string, wanted: string): void {
  const stale = readIfPresent(path);
  if (stale === undefined) return;
  const holder = parseHolder(stale);
  if (holder && isAlive(holder)) {
    throw new FileError(
      path,
      `wanted ${wanted}, got one held by process ${holder.pid} on ${holder.host}. ` +
        "Wait for it or stop it; if it is surely gone, delete this file.",
    );
  }
  // Between reading and removing, another trainer may have taken the stale lock over: move it, look, and give back what lives.
  const moved = `${path}.stale.${ownPartial()}`;
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
function parseHolder(text: string): ProcessMark | undefined {
  try {
    return processSchema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}
