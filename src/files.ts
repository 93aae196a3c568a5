/**
 * Positioned reads from files that may be hostile, and whole writes. Both are synchronous: a gather makes thousands of small
 * reads, which the page cache serves faster than the thread pool hands them over.
 */
import { randomUUID } from "node:crypto";
import {
  closeSync,
  existsSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { basename, dirname, join, resolve, sep } from "node:path";
import { FileError, MemoryError, OptionError } from "./errors.ts";
import { openToRead } from "./json.ts";
import { isLeftBy, ownTag } from "./processes.ts";
import { isNoPlace, refused, unreadable } from "./refusals.ts";

/** Node takes at most 2^31 - 1 bytes in a call; tensors may be larger. */
const maxCallBytes = 1 << 30;

/** An open file. Every read is checked against the size at opening, so no header can make us allocate more than that. */
export class ReadableFile implements Disposable {
  readonly size: number;
  readonly #descriptor: number;
  #isClosed = false;

  /** @throws {FileError} if `path` is not a file that can be read */
  constructor(readonly path: string) {
    try {
      this.#descriptor = openToRead(path);
    } catch (cause) {
      throw unreadable(path, cause);
    }
    const stat = fstatSync(this.#descriptor);
    if (!stat.isFile()) {
      this[Symbol.dispose]();
      throw new FileError(path, "wanted a file, got something else. Was a folder given?");
    }
    this.size = stat.size;
  }

  /**
   * `length` bytes from `offset`; `what` names them in errors.
   *
   * @throws {FileError} if they do not lie within the file
   */
  read(offset: number, length: number, what: string): Buffer<ArrayBuffer> {
    if (!(offset >= 0 && length >= 0 && offset + length <= this.size)) {
      throw new FileError(
        this.path,
        `wanted ${length} bytes of ${what} at ${offset}, got a file of ${this.size} bytes. Is the file truncated?`,
      );
    }
    const buffer = allocate(length, `${this.path}: ${what}`);
    this.readInto(buffer, offset, what);
    return buffer;
  }

  /** Fills `target` from `offset`. @throws {FileError} if the file ends before, or is closed: its descriptor may be another file's by now */
  readInto(target: Uint8Array, offset: number, what: string): void {
    if (this.#isClosed)
      throw new FileError(this.path, `wanted ${what} of a model that is open, got one that was disposed.`);
    for (let done = 0; done < target.length; ) {
      const count = readSync(
        this.#descriptor,
        target,
        done,
        Math.min(target.length - done, maxCallBytes),
        offset + done,
      );
      if (count === 0) throw new FileError(this.path, `the file ended inside ${what}. Is it being written?`);
      done += count;
    }
  }

  [Symbol.dispose](): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    closeSync(this.#descriptor);
  }
}

/** A file may well be larger than what a buffer can be, or than the memory. */
function allocate(length: number, what: string): Buffer<ArrayBuffer> {
  try {
    return Buffer.allocUnsafeSlow(length);
  } catch (cause) {
    throw new MemoryError(`${what}: wanted ${length} bytes of memory, got none. Is the file what it seems?`, { cause });
  }
}

/** The bytes of an array of numbers, not copied. */
export function asBytes({ buffer, byteOffset, byteLength }: Float32Array | Int32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** Writes all of `bytes`, at `position` or else at the current one: one write call may take only a part. */
export function writeFully(descriptor: number, bytes: Uint8Array, position?: number): void {
  for (let done = 0; done < bytes.length; ) {
    const length = Math.min(bytes.length - done, maxCallBytes);
    done += writeSync(descriptor, bytes, done, length, position === undefined ? null : position + done);
  }
}

/** As {@link writeFully}, in a thread beside this one. */
export async function writeBeside(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const length = Math.min(bytes.length - done, maxCallBytes);
    done += (await file.write(bytes, done, length, position + done)).bytesWritten;
  }
}

/** Whether there is something of that name, if only a link that leads nowhere. */
export function isTaken(path: string): boolean {
  if (existsSync(path)) return true;
  try {
    return lstatSync(path).isSymbolicLink();
  } catch {
    return false;
  }
}

/** @param operation for the message @throws {OptionError} if there is something of that name, or nothing to make it in */
export function checkNewFolder(path: string, operation: string): void {
  if (path === "") throw new OptionError(`${operation}: wanted the name of a new folder, got an empty one.`);
  if (isTaken(path)) {
    throw new OptionError(`${operation}: wanted a new folder, got "${path}", which exists. Remove it first.`);
  }
  if (!existsSync(dirname(resolve(path))))
    throw new OptionError(
      `${operation}: wanted a new folder in one that exists, got "${path}". Make the outer one first.`,
    );
}

/** Makes a folder and those around it, unless they are there. @throws {FileError} if the system refuses */
export function makeFolders(path: string, hint?: string): void {
  writing(path, () => makeMissing(resolve(path)), hint);
}

/** (Node's own recursion spins for ever where the system refuses new folders and says that there is none of that name, as `/proc` does.) */
function makeMissing(path: string, isSecondTry = false): void {
  try {
    mkdirSync(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EEXIST" && statSync(path).isDirectory()) return;
    if (code !== "ENOENT" || isSecondTry) throw error;
    const outer = dirname(path);
    if (!existsSync(outer)) makeMissing(outer); // else another process has just made it, or the system refuses
    makeMissing(path, true);
  }
}

/**
 * Makes a folder that appears whole or not at all. What processes that were killed have left of it goes first.
 *
 * @param write fills a folder of another name, which is then renamed; if it throws, nothing is left
 * @throws {OptionError} as {@link checkNewFolder}
 * @throws {FileError} if the disk is full or may not be written
 */
export async function makeFolder(
  path: string,
  operation: string,
  write: (partial: string) => Promise<void>,
): Promise<void> {
  checkNewFolder(path, operation);
  const whole = resolve(path); // should it end in a slash
  removePartials(dirname(whole), `${basename(whole)}.`);
  const partial = partialOf(whole);
  try {
    writing(path, () => mkdirSync(partial));
    await write(partial);
    writing(path, () => renameSync(partial, whole));
  } catch (error) {
    rmSync(partial, { recursive: true, force: true });
    throw isNoPlace(error) ? refused(path, error, "Nothing of it is left.") : error;
  }
}

/**
 * Makes a file that appears whole or not at all, as {@link makeFolder} makes folders. One that is there is replaced, a link too.
 *
 * @param write makes a file of another name, which is then renamed
 * @throws {FileError} if the system refuses
 */
export function makeFile(path: string, write: (partial: string) => void, hint?: string): void {
  removePartials(dirname(path), `${basename(path)}.`);
  const partial = partialOf(path);
  try {
    writing(
      path,
      () => {
        write(partial);
        renameSync(partial, path);
      },
      hint,
    );
  } finally {
    rmSync(partial, { force: true });
  }
}

/** Writes a text of the user's choice of place, as {@link makeFile}; through a link, and into what is no file, as `/dev/stdout`. @throws {FileError} if the system refuses */
export function writeWhole(path: string, text: string): void {
  const there = statSync(path, { throwIfNoEntry: false });
  if (there?.isFile() === false) writing(path, () => writeFileSync(path, text));
  else makeFile(there ? realpathSync(path) : path, (partial) => writeFileSync(partial, text));
}

const partialMark = "partial-";

/** The end of a name under which this process writes what is not whole yet. */
export const ownPartial = (): string => partialMark + ownTag();

/** A name for what is not whole yet, of this call alone: threads of a process may make the same. */
export const partialOf = (path: string): string => `${path}.${randomUUID()}.${ownPartial()}`;

/** Whether a name is one of those, of any process. */
export const isPartial = (name: string): boolean => partialTag(name) !== undefined;

/** What tells whose a half-written file or folder is. */
function partialTag(name: string): string | undefined {
  const at = name.lastIndexOf(partialMark);
  return at < 0 ? undefined : name.slice(at + partialMark.length);
}

/**
 * Removes from a folder what processes that have ended left half-written. What the system does not let go stays: another user's, or what another process removes at the moment.
 *
 * @param start of their names
 */
export function removePartials(folder: string, start = ""): void {
  try {
    for (const name of readdirSync(folder)) {
      const tag = partialTag(name);
      if (tag !== undefined && name.startsWith(start) && isLeftBy(tag))
        rmSync(join(folder, name), { recursive: true, force: true });
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).syscall === undefined) throw error;
  }
}

/** Runs what writes to `path`. @throws {FileError} if the system refuses */
export function writing<Result>(path: string, write: () => Result, hint?: string): Result {
  try {
    return write();
  } catch (cause) {
    throw refused(path, cause, hint);
  }
}

/** @throws {FileError} if a file that is there lies outside a folder, so that a link leads to it */
export function checkWithin(path: string, folder: string): void {
  if (existsSync(path) && !realpathSync(path).startsWith(realpathSync(folder) + sep))
    throw new FileError(path, `wanted a file in "${folder}", got a link to elsewhere. Put a copy in its place.`);
}

/** @throws {FileError} if there is a symbolic link: what is written there would be elsewhere */
export function refuseLink(path: string): void {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink())
    throw new FileError(path, "wanted to write here, got a link to elsewhere. Remove it.");
}
