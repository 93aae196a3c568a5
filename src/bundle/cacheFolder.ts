/** Where caches lie on this machine. */
import { mkdirSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { FileError } from "../errors.ts";

/** `$XDG_CACHE_HOME/ifprune/<name>`, where unset `~/.cache/…`. */
export function cacheRoot(name: string): string {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "ifprune", name);
}

/** Makes a folder within a cache, unless it is there. @throws {FileError} if the system refuses */
export function makeCacheFolder(path: string): void {
  try {
    mkdirSync(path, { recursive: true });
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new FileError(path, `wanted to make a cache folder, got ${code}. Set XDG_CACHE_HOME to a writable folder.`, {
      cause,
    });
  }
}
