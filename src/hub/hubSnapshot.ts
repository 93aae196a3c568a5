/**
 * A model's repository at a commit, in the cache that the Hub's Python tools share: what one of them brought, the others find.
 *
 *     <cache>/models--OWNER--NAME/refs/REVISION          the commit of a branch or tag
 *     <cache>/models--OWNER--NAME/snapshots/COMMIT/PATH  a link to the file's bytes
 *     <cache>/models--OWNER--NAME/blobs/HASH             bytes; `.incomplete` while they come
 */
import { createHash } from "node:crypto";
import {
  closeSync,
  constants,
  createReadStream,
  existsSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, relative } from "node:path";
import { setTimeout } from "node:timers/promises";
import { FileError, HubError, OptionError } from "../errors.ts";
import { makeFile, makeFolders, refuseLink, writeFully, writing } from "../files.ts";
import { readText } from "../json.ts";
import { HubClient, type HubFile, type HubListing } from "./hubClient.ts";

/** How a {@link HubSnapshot} is opened. */
export interface SnapshotOptions {
  /** Branch, tag or commit. */
  revision: string;
  /** Ask nobody: what the cache has is all there is. */
  offline: boolean;
  signal?: AbortSignal | undefined;
}

/** `OWNER/NAME` as the Hub allows it: without "..", and without "--", which the cache has instead of "/". */
export function isHubId(text: string): boolean {
  return /^\w[\w.-]*\/\w[\w.-]*$/.test(text) && !/--|\.\./.test(text) && text.length <= 96;
}

const isCommit = (revision: string): boolean => /^[0-9a-f]{40}$/.test(revision);
/** A path that stays within its folder on every system. */
const isPlain = (path: string): boolean =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  path.split("/").every((part) => !["", ".", ".."].includes(part) && !/[\\:\0-\x1f]/.test(part));

/** Breaks in a row, without a byte between them, after which a download is given up. */
const mostBreaks = 4;

/** An open one. */
export class HubSnapshot {
  readonly id: string;
  /** 40 hexadecimal digits. */
  readonly commit: string;
  /** Where {@link HubSnapshot.bring} puts files. */
  readonly folder: string;
  /** Paths within the repository; offline, those that the cache has. */
  readonly names: ReadonlySet<string>;
  readonly #root: string;
  readonly #blobs: string;
  readonly #files: ReadonlyMap<string, HubFile>;
  /** Offline there is none. */
  readonly #client: HubClient | undefined;
  readonly #signal: AbortSignal | undefined;

  private constructor(
    id: string,
    root: string,
    client: HubClient | undefined,
    { commit, files }: HubListing,
    signal?: AbortSignal,
  ) {
    this.id = id;
    this.commit = commit;
    this.folder = join(root, "snapshots", commit);
    this.#root = root;
    this.#blobs = join(root, "blobs");
    this.#client = client;
    this.#files = files;
    this.names = new Set(client ? files.keys() : filesBelow(this.folder));
    this.#signal = signal;
  }

  /**
   * @param id `OWNER/NAME`
   * @throws {OptionError} if it is not an id, or the revision's name not one
   * @throws {HubError} if the Hub does not answer, or has no such model or revision; offline, if the cache has none of it
   * @throws {FileError} if the cache cannot be written
   */
  static async open(id: string, { revision, offline, signal }: SnapshotOptions): Promise<HubSnapshot> {
    if (!isHubId(id)) throw new OptionError(`pull: wanted a model of the Hub as OWNER/NAME, got "${id}".`);
    if (!isPlain(revision))
      throw new OptionError(`pull: wanted a branch, tag or commit as the revision, got "${revision}".`);
    const { getHFHubCachePath, getRepoFolderName } = await import("@huggingface/hub"); // no other command waits for it
    const root = join(getHFHubCachePath(), getRepoFolderName({ type: "model", name: id }));
    const ref = join(root, "refs", revision);
    if (offline) {
      const commit = isCommit(revision) ? revision : existsSync(ref) ? readText(ref, 1 << 10).trim() : "";
      if (!isCommit(commit) || !existsSync(join(root, "snapshots", commit))) {
        const words = `wanted the revision "${revision}" in the cache "${root}", got none`;
        throw new HubError(`${id}: ${words}. Pull it without --offline, and without HF_HUB_OFFLINE.`);
      }
      return new HubSnapshot(id, root, undefined, { commit, files: new Map() }, signal);
    }
    const client = new HubClient(id, signal);
    const listing = await client.list(revision);
    if (!isCommit(revision)) {
      refuseLinks(root, ref);
      makeFolders(dirname(ref), roomHint);
      makeFile(ref, (partial) => writeFileSync(partial, listing.commit), roomHint);
    }
    return new HubSnapshot(id, root, client, listing, signal);
  }

  get isOffline(): boolean {
    return this.#client === undefined;
  }

  /**
   * Brings files into the folder, unless they are there. What an earlier call began is gone on with; every byte is hashed.
   *
   * @param names of {@link HubSnapshot.names}
   * @param onProgress bytes that are there, and all; first what was there before
   * @throws {HubError} if the Hub does not give one, or its name would lie outside the folder
   * @throws {FileError} if what came is not what was listed, or the disk is full
   */
  async bring(names: readonly string[], onProgress?: (done: number, total: number) => void): Promise<void> {
    for (const name of names) {
      if (!isPlain(name))
        throw new HubError(`${this.id}: wanted names of files, got "${name}", which may lie outside their folder.`);
      if (!this.names.has(name)) throw this.lacks(`the file "${name}"`);
    }
    if (this.isOffline) return;
    const missing = names.filter((name) => sizeOf(join(this.folder, name)) !== this.#file(name).bytes);
    const bytes = (of: readonly string[]) => of.reduce((sum, name) => sum + this.#file(name).bytes, 0);
    const left = bytes(missing) - missing.reduce((sum, name) => sum + this.#begun(name), 0);
    const total = bytes(names);
    let done = total - left;
    onProgress?.(done, total);
    this.#checkSpace(left);
    for (const name of missing) {
      await this.#download(name, (bytes) => {
        done += bytes;
        onProgress?.(done, total);
      });
    }
  }

  /** Removes files of the folder that are not what they should be, so that they come anew. @param names as {@link HubSnapshot.bring} takes them */
  drop(names: readonly string[]): void {
    for (const name of names) {
      rmSync(join(this.#blobs, this.#file(name).hash), { force: true });
      rmSync(join(this.folder, name), { force: true });
    }
  }

  /** An error that says what the repository has not, or offline the cache. */
  lacks(wanted: string): HubError {
    const got = this.isOffline
      ? `got none in the cache "${this.folder}". Pull it without --offline, and without HF_HUB_OFFLINE.`
      : "got none in the repository.";
    return new HubError(`${this.id}: wanted ${wanted}, ${got}`);
  }

  #file(name: string): HubFile {
    return this.#files.get(name)!;
  }

  #incomplete(name: string): string {
    return join(this.#blobs, `${this.#file(name).hash}.incomplete`);
  }

  #checkSpace(bytes: number): void {
    makeFolders(this.#blobs, roomHint);
    const { bavail, bsize } = statfsSync(this.#blobs);
    if (bavail * bsize >= bytes) return;
    const words = `wanted ${megabytes(bytes)} on its disk, got ${megabytes(bavail * bsize)}. Make room.`;
    throw new FileError(this.#blobs, `${words} ${roomHint}`);
  }

  /** Bytes of a file that came before, perhaps with another commit. */
  #begun(name: string): number {
    const { bytes, hash } = this.#file(name);
    if (sizeOf(join(this.#blobs, hash)) === bytes) return bytes;
    const size = sizeOf(this.#incomplete(name)) ?? 0;
    if (size <= bytes) return size;
    rmSync(this.#incomplete(name)); // of no use
    return 0;
  }

  /** @param onBytes bytes that came; below 0 where what came before was of no use */
  async #download(name: string, onBytes: (bytes: number) => void): Promise<void> {
    const { bytes, hash } = this.#file(name);
    const blob = join(this.#blobs, hash);
    if (sizeOf(blob) !== bytes) await this.#complete(name, blob, onBytes);
    const path = join(this.folder, name);
    refuseLinks(this.#root, dirname(path));
    makeFolders(dirname(path), roomHint);
    written(path, () => {
      rmSync(path, { force: true });
      try {
        symlinkSync(relative(dirname(path), blob), path);
      } catch (error) {
        const { code = "" } = error as NodeJS.ErrnoException;
        if (code === "EEXIST") return; // another process was faster
        if (!noLinks.includes(code)) throw error;
        renameSync(blob, path);
      }
    });
  }

  async #complete(name: string, blob: string, onBytes: (bytes: number) => void): Promise<void> {
    const { bytes, hash } = this.#file(name);
    const incomplete = this.#incomplete(name);
    for (let breaks = 0; sizeOf(blob) !== bytes; ) {
      const start = this.#begun(name);
      try {
        await this.#stream(name, start, onBytes);
      } catch (error) {
        if (!(error instanceof HubError && error.isTransient)) throw error;
        breaks = this.#begun(name) > start ? 1 : breaks + 1;
        if (breaks === mostBreaks) throw error;
        await setTimeout(250 * 4 ** breaks, undefined, { signal: this.#signal });
        continue;
      }
      const got = await hashOf(incomplete, hash, bytes, this.#signal);
      if (got === hash) rename(incomplete, blob);
      if (got === hash || got === undefined) continue; // undefined: another process was faster
      rmSync(incomplete, { force: true });
      onBytes(-bytes);
      if (start > 0) continue; // what came before may have been of something else
      const words = `wanted the hash ${hash}, got ${got}. The download was damaged and is removed: pull again.`;
      throw new FileError(incomplete, words);
    }
  }

  /** Writes what is missing of a file from `start` on. Two processes that do write the same bytes to the same places. */
  async #stream(name: string, start: number, onBytes: (bytes: number) => void): Promise<void> {
    const file = this.#file(name);
    const path = this.#incomplete(name);
    if (start === file.bytes && start > 0) return;
    const { from, body } = await this.#client!.open(name, this.commit, start);
    onBytes(from - start);
    refuseLinks(this.#root, path);
    const descriptor = written(path, () => openSync(path, constants.O_RDWR | constants.O_CREAT));
    try {
      let at = from;
      for await (const chunk of body) {
        if (at + chunk.length > file.bytes)
          throw new HubError(`${this.id}: wanted ${file.bytes} bytes of "${name}", got more. Is HF_ENDPOINT a Hub?`);
        written(path, () => writeFully(descriptor, chunk, at));
        at += chunk.length;
        onBytes(chunk.length);
      }
      if (at === file.bytes) return;
      const words = `wanted ${file.bytes} bytes of "${name}", got ${at}. Run it again: it goes on where it stopped.`;
      throw new HubError(`${this.id}: ${words}`, { isTransient: true });
    } finally {
      closeSync(descriptor);
    }
  }
}

/** @throws {FileError} if a path, or a folder of the repository that it lies in, is a link: what is written there would be elsewhere */
function refuseLinks(root: string, path: string): void {
  if (path === root) return;
  refuseLinks(root, dirname(path));
  refuseLink(path);
}

/** Bytes of a file, also behind a link; undefined where there is none. */
const sizeOf = (path: string): number | undefined => statSync(path, { throwIfNoEntry: false })?.size;

/** Paths of the files below a folder, with "/" between their parts. */
function filesBelow(folder: string): string[] {
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" });
  return names
    .filter((name) => statSync(join(folder, name), { throwIfNoEntry: false })?.isFile())
    .map((name) => name.replaceAll("\\", "/"));
}

/** The hash of a file, of the kind of `like`: SHA-256, or that of a blob of git. Undefined where there is no such file. */
async function hashOf(
  path: string,
  like: string,
  bytes: number,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  const hash = like.length === 64 ? createHash("sha256") : createHash("sha1").update(`blob ${bytes}\0`);
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) {
      signal?.throwIfAborted();
      hash.update(chunk as Buffer);
    }
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
  return hash.digest("hex");
}

/** Renames a file, unless another process did. */
function rename(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
}

const isMissing = (error: unknown): boolean => (error as NodeJS.ErrnoException).code === "ENOENT";

/** What a system says that has no symbolic links: Windows has them for some users only, some disks not at all (there EISDIR on Windows). */
const noLinks = ["EPERM", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EISDIR"];

const roomHint = "If need be, set HF_HUB_CACHE to a folder elsewhere. What came stays.";

/** Writes into the cache. @throws {FileError} if the system refuses */
function written<Result>(path: string, write: () => Result): Result {
  return writing(path, write, roomHint);
}

const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(0)} MB`;
