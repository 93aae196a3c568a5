/** What the system refuses, in words: to read a file, to write one, and the one place for a disk that is full, read-only, or beyond a quota. */
import { FileError } from "./errors.ts";

/**
 * What the system refused to write, in words; any other error as it is.
 *
 * @param hint what to do, or what is left
 */
export function refused(path: string, cause: unknown, hint?: string): unknown {
  const { code, syscall } = cause as NodeJS.ErrnoException;
  if (syscall === undefined) return cause;
  const words = noPlaces[code ?? ""] ?? `wanted to write it, got ${code}.`;
  const told = hint ?? (isNoPlace(cause) ? "" : "Check the path and its permissions.");
  return new FileError(path, `${words} ${told}`.trim(), { cause });
}

/** Why a disk takes nothing, whatever the path. */
const noPlaces: Readonly<Record<string, string>> = {
  ENOSPC: "wanted room on its disk, got no more. Make room.",
  EDQUOT: "wanted room on its disk, got no more than the user's quota. Make room, or have it raised.",
  EROFS: "wanted a disk that can be written, got a read-only one. Choose another place.",
};

/** Whether the system refused to write because of the disk: it is full, or read-only. */
export function isNoPlace(error: unknown): boolean {
  return Object.hasOwn(noPlaces, (error as NodeJS.ErrnoException | undefined)?.code ?? "");
}

/** What a file that the system does not let be read is told as. */
export function unreadable(path: string, cause: unknown): FileError {
  const { code } = cause as NodeJS.ErrnoException;
  return new FileError(path, `wanted a readable file, got ${code}. Check the path and its permissions.`, { cause });
}
