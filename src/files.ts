/**
 * Positioned reads from files that may be hostile, and whole writes. Both are synchronous: a gather makes thousands of small
 * reads, which the page cache serves faster than the thread pool hands them over.
 */
import { closeSync, existsSync, fstatSync, mkdirSync, readSync, renameSync, rmSync, writeSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { FileError, MemoryError, OptionError } from "./errors.ts";
import { openToRead } from "./json.ts";

export { readJson, readText } from "./json.ts";

/** Node takes at most 2^31 - 1 bytes in a call; tensors may be larger. */
const maxCallBytes = 1 << 30;

/** An open file. Every read is checked against the size at opening, so no header can make us allocate more than that. */
export class ReadableFile implements Disposable {
  readonly size: number;
  readonly #descriptor: number;

  /** @throws {FileError} if `path` is not a file that can be read */
  constructor(readonly path: string) {
    try {
      this.#descriptor = openToRead(path);
    } catch (cause) {
      throw new FileError(path, `wanted a readable file, got ${(cause as NodeJS.ErrnoException).code}.`, { cause });
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

  /** Fills `target` from `offset`. @throws {FileError} if the file ends before */
  readInto(target: Uint8Array, offset: number, what: string): void {
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

/** @param operation for the message @throws {OptionError} if there is something of that name, or nothing to make it in */
export function checkNewFolder(path: string, operation: string): void {
  if (existsSync(path)) {
    throw new OptionError(`${operation}: wanted a new folder, got "${path}", which exists. Remove it first.`);
  }
  if (!existsSync(dirname(resolve(path))))
    throw new OptionError(
      `${operation}: wanted a new folder in one that exists, got "${path}". Make the outer one first.`,
    );
}

/**
 * Makes a folder that appears whole or not at all.
 *
 * @param write fills a folder of another name, which is then renamed; if it throws, nothing is left
 * @throws {OptionError} as {@link checkNewFolder}
 * @throws {FileError} if the disk is full
 */
export async function makeFolder(
  path: string,
  operation: string,
  write: (partial: string) => Promise<void>,
): Promise<void> {
  checkNewFolder(path, operation);
  const partial = `${resolve(path)}.partial-${process.pid}`; // not in it, should the path end in a slash
  rmSync(partial, { recursive: true, force: true });
  try {
    mkdirSync(partial); // its parent must exist: a recursive mkdir spins for ever where the system refuses new folders (/proc)
    await write(partial);
    renameSync(partial, path);
  } catch (error) {
    rmSync(partial, { recursive: true, force: true });
    if (isDiskFull(error))
      throw new FileError(path, "wanted room on its disk, got no more. Make room. Nothing of it is left.", {
        cause: error,
      });
    throw error;
  }
}

/** Whether the system refused to write for want of room. */
export function isDiskFull(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === "ENOSPC" || code === "EDQUOT";
}
