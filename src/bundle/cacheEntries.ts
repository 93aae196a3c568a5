/**
 * What is made of bundles and kept on disk: a folder per bundle, in it one per entry, `<root>/<bundle>/<entry>/`.
 *
 * An entry is of the content of its bundle, which is verified before anything is made or used, and carries checksums of its files, which are compared at every
 * opening: one that is half-written, damaged or another's is built again. So none waits for the disk: what a power cut leaves of one is told by its sums. It is
 * written under a name of its own and renamed when it is whole, as several processes may use one cache. Where the cache cannot be written, a folder of this process takes its place.
 *
 * Entries unused for the longest time go first when the cache outgrows its limit; those used within the last minute stay, as someone may be opening them. (An
 * opened one may go: engines keep what they have read.)
 */
import {
  copyFileSync,
  type Dirent,
  existsSync,
  linkSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { z } from "zod";
import { FileError } from "../errors.ts";
import { isPartial, partialOf, removePartials } from "../files.ts";
import { readJson } from "../json.ts";
import type { Bundle } from "./bundle.ts";
import { cacheRoot, lastUsedMs, makeCacheFolder } from "./cacheFolder.ts";
import { type FileSum, fileSumSchema, sumFile } from "./fletcher.ts";
import { verifyUnlessKnown } from "./verifiedFiles.ts";

/** Where sub-networks are kept. */
export interface CacheOptions {
  /** Folder of the cache. Default: `$XDG_CACHE_HOME/ifprune/subnetworks`, where unset `~/.cache/…`. */
  root?: string | undefined;
  /** Bytes that all entries together may take. Default: 8 GiB. */
  maxBytes?: number | undefined;
  /** Stops building; nothing is left. */
  signal?: AbortSignal | undefined;
}

/** An entry's folder, and whether it was there before. */
export interface CacheEntry {
  folder: string;
  cached: boolean;
}

/** Fills an entry's folder with files, and `sums` with the checksums of those, by name, that it knows. */
type Build = (folder: string, sums: Map<string, FileSum>) => Promise<void>;

/** What an entry is made of. */
type Origin = Pick<Bundle, "hash" | "manifest" | "verify">;

const defaultMaxBytes = 8 * 2 ** 30;
const graceMs = 60_000;

/** What an entry says of itself: what it is, and of each of its files a checksum, or `null` where it is a link to the bundle's. */
const aboutName = "entry.json";
const aboutSchema = z.strictObject({
  bundle: z.string(),
  entry: z.string(),
  files: z.record(z.string(), fileSumSchema.nullable()),
});
type About = z.infer<typeof aboutSchema>;

const rootOf = ({ root = cacheRoot("subnetworks") }: CacheOptions) => root;
const folderIn = (root: string, { hash }: Pick<Origin, "hash">, name = "") => join(root, hash.slice(0, 32), name);

/** The folder of a bundle's entries, which need not be there. */
export function cacheFolder(bundle: Pick<Origin, "hash">, options: CacheOptions = {}): string {
  return folderIn(rootOf(options), bundle);
}

/**
 * An entry of a bundle, from the cache or else built.
 *
 * @throws {FileError} if the bundle was changed or damaged, or there is no room on any disk
 * @throws what building it throws
 */
export async function openEntry(
  bundle: Origin,
  name: string,
  options: CacheOptions,
  build: Build,
): Promise<CacheEntry> {
  await bundle.verify();
  const root = rootOf(options);
  const { maxBytes = defaultMaxBytes } = options;
  const found = await findEntry(bundle, name, root);
  if (found !== undefined) return { folder: found, cached: true };
  const make = async (at: string) => ({ folder: await makeEntry(bundle, name, at, build, maxBytes), cached: false });
  try {
    if (!refusing.has(root)) return await make(root);
  } catch (error) {
    const code = refusal(error);
    if (code === undefined || !hasOwn) throw error;
    refusing.set(root, code);
    process.emitWarning(
      `sub-network cache: wanted to write to ${root}, got ${code}. This process keeps its sub-networks in a folder of its own, which goes when it ends.`,
    );
  }
  try {
    return await make(ownRoot());
  } catch (cause) {
    const code = refusal(cause);
    if (code === undefined) throw cause;
    throw new FileError(
      root,
      `wanted room for a sub-network, got ${refusing.get(root)}, and ${code} in ${tmpdir()}. Make room in one.`,
      { cause },
    );
  }
}

/** Whether an entry lies in the cache, by its name. */
export function hasEntry(bundle: Pick<Origin, "hash">, name: string, options: CacheOptions): boolean {
  return placesOf(rootOf(options)).some((root) => existsSync(join(folderIn(root, bundle, name), aboutName)));
}

/** Caches that this process could not write to, and why; … */
const refusing = new Map<string, string>();
/** … and the folder that it has instead. */
let own: string | undefined;
let hasOwn = true;

/** From now on what the cache refuses is thrown in this thread: a folder of its own would outlive a thread that is ended, and nobody else looks there. */
export function withoutOwnFolder(): void {
  hasOwn = false;
}

function ownRoot(): string {
  if (own !== undefined) return own;
  const made = mkdtempSync(join(tmpdir(), "ifprune-"));
  process.once("exit", () => rmSync(made, { recursive: true, force: true }));
  own = made;
  return made;
}

const placesOf = (root: string) => (own !== undefined && refusing.has(root) ? [root, own] : [root]);

/** The system's word for a cache that cannot be written, if an error is one. */
function refusal(error: unknown): string | undefined {
  const { code, cause } = error as NodeJS.ErrnoException;
  if (code !== undefined && ["EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT"].includes(code)) return code;
  return cause === undefined ? undefined : refusal(cause);
}

/** The folder of a whole entry, marked as just used, which keeps it from eviction. */
async function findEntry(bundle: Origin, name: string, root: string): Promise<string | undefined> {
  for (const place of placesOf(root)) {
    const folder = folderIn(place, bundle, name);
    const now = new Date();
    try {
      utimesSync(folder, now, now);
    } catch (error) {
      if (refusal(error) === undefined) continue; // it is not there
    }
    if (await isWhole(bundle, name, folder)) return folder;
  }
  return undefined;
}

async function makeEntry(bundle: Origin, name: string, root: string, build: Build, maxBytes: number): Promise<string> {
  const entry = folderIn(root, bundle, name);
  const partial = partialOf(entry);
  try {
    makeCacheFolder(partial);
    const sums = new Map<string, FileSum>();
    await build(partial, sums);
    const files: About["files"] = {};
    for (const file of readdirSync(partial)) {
      const path = join(partial, file);
      files[file] = lstatSync(path).isSymbolicLink() ? null : (sums.get(file) ?? (await sumFile(path)));
    }
    const about: About = { bundle: bundle.hash, entry: name, files };
    writeFileSync(join(partial, aboutName), JSON.stringify(about));
    await publish(bundle, name, partial, entry);
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
  evict(root, maxBytes);
  return entry;
}

/** Renames a whole entry into place, unless another process was faster; what is there and damaged goes. */
async function publish(bundle: Origin, name: string, partial: string, entry: string): Promise<void> {
  for (let left = 8; ; left--) {
    try {
      renameSync(partial, entry);
      return;
    } catch (error) {
      if (refusal(error) !== undefined || left === 0) throw error;
    }
    if (await isWhole(bundle, name, entry)) return;
    const damaged = partialOf(entry);
    try {
      renameSync(entry, damaged);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error; // another process has just done so
    }
    rmSync(damaged, { recursive: true, force: true });
  }
}

async function isWhole(bundle: Origin, name: string, folder: string): Promise<boolean> {
  try {
    const about = aboutSchema.parse(readJson(join(folder, aboutName)));
    if (about.bundle !== bundle.hash || about.entry !== name) return false;
    for (const [file, wanted] of Object.entries(about.files)) {
      const path = join(folder, file);
      if (wanted === null) await checkLink(bundle, path);
      else if (statSync(path).size !== wanted.bytes || (await sumFile(path)).fletcher !== wanted.fletcher) return false;
    }
    return true;
  } catch {
    return false;
  }
}

/** @throws {FileError} unless what a link leads to is a file of this bundle, or of another one of the same content, or of another entry of it */
async function checkLink({ hash, manifest }: Origin, path: string): Promise<void> {
  const target = readlinkSync(path);
  if (basename(dirname(dirname(target))) === hash.slice(0, 32)) return void statSync(target); // who links to an entry has opened it
  const name = basename(target);
  const about = manifest.files[name];
  if (!about) throw new FileError(path, `wanted a link to a file of the bundle, got one to "${target}".`);
  await verifyUnlessKnown(dirname(target), { files: { [name]: about } });
}

/** Some systems have no symbolic links for everybody, and hard links end at the file system's border. */
export function linkOrCopy(target: string, path: string): void {
  for (const make of [symlinkSync, linkSync, copyFileSync]) {
    try {
      make(target, path);
      return;
    } catch (error) {
      if (make === copyFileSync) throw error;
    }
  }
}

/** In the cache, which may lie among other things. */
const bundleFolder = /^[0-9a-f]{32}$/;

/** Removes what processes that have ended left half-built, then the entries that were unused for the longest time, until `maxBytes` suffice. */
function evict(root: string, maxBytes: number): void {
  const bundles = folders(root).filter((path) => bundleFolder.test(basename(path)));
  for (const folder of bundles) removePartials(folder);
  const entries = bundles
    .flatMap(folders)
    .filter((path) => existsSync(join(path, aboutName)) || isPartial(basename(path)))
    .flatMap((path) => {
      const usedMs = lastUsedMs(path);
      return usedMs === undefined ? [] : [{ path, idleMs: Date.now() - usedMs, bytes: ownBytes(path) }];
    })
    .sort((a, b) => b.idleMs - a.idleMs);
  let total = entries.reduce((sum, { bytes }) => sum + bytes, 0);
  for (const { path, idleMs, bytes } of entries) {
    if (total <= maxBytes || idleMs <= graceMs || isPartial(basename(path))) continue;
    try {
      rmSync(path, { recursive: true, force: true });
      total -= bytes;
    } catch {
      // Windows keeps files that someone has open: they go another time.
    }
  }
}

/** Folders in a folder. */
function folders(parent: string): string[] {
  return entriesOf(parent).flatMap((entry) => (entry.isDirectory() ? [join(parent, entry.name)] : []));
}

/** What removing an entry would free: its files, not what they link to. */
function ownBytes(entry: string): number {
  return entriesOf(entry).reduce((sum, { name }) => {
    const stat = lstatSync(join(entry, name), { throwIfNoEntry: false });
    return sum + (stat?.isFile() && stat.nlink === 1 ? stat.size : 0);
  }, 0);
}

/** What is in a folder: nothing if another process has just removed it. */
function entriesOf(folder: string): Dirent[] {
  try {
    return readdirSync(folder, { withFileTypes: true });
  } catch {
    return [];
  }
}
