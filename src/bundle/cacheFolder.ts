/** Where caches, and what is kept for good, lie on this machine. */
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
