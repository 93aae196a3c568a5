/** Where caches, and what is kept for good, lie on this machine. */
import { statSync, utimesSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { makeFolders } from "../files.ts";

/** `$XDG_CACHE_HOME/ifprune/<name>`, where unset `~/.cache/…`. */
export function cacheRoot(name: string): string {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "ifprune", name);
}

/** `$XDG_DATA_HOME/ifprune/<name>`, where unset `~/.local/share/…`. */
export function dataRoot(name: string): string {
  return join(process.env.XDG_DATA_HOME || join(homedir(), ".local/share"), "ifprune", name);
}

/** Makes a folder within a cache, unless it is there. @throws {FileError} if the system refuses */
export function makeCacheFolder(path: string): void {
  makeFolders(path, "Set XDG_CACHE_HOME to a folder that can be written.");
}

/** By so much the clocks of machines that share a cache may differ. */
const toleranceMs = 60_000;

/** When something in a cache was last used; undefined if it is gone. What is yet to come, by a clock that was wrong, becomes now: it would be the newest for ever. */
export function lastUsedMs(path: string): number | undefined {
  const stat = statSync(path, { throwIfNoEntry: false });
  const now = new Date();
  if (stat === undefined || stat.mtimeMs <= now.getTime() + toleranceMs) return stat?.mtimeMs;
  try {
    utimesSync(path, now, now);
  } catch {
    // Another's, or gone.
  }
  return now.getTime();
}
