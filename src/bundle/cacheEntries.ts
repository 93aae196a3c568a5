/**
 * What is made of bundles and kept on disk: a folder per bundle, in it one per entry, `<root>/<bundle>/<entry>/`.
 *
 * Several processes may use one cache: an entry is built under a name of its own and renamed when it is whole. Entries unused for
 * the longest time go first when the cache outgrows its limit; those used within the last minute stay, as someone may be opening
 * them. (An opened one may go: the system keeps what is mapped.)
 */
import { randomUUID } from "node:crypto";
import {
  copyFileSync,
  type Dirent,
  linkSync,
  lstatSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
} from "node:fs";
import { writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { z } from "zod";
import { readJson } from "../files.ts";
import { cacheRoot, makeCacheFolder } from "./cacheFolder.ts";

/** Where sub-networks are kept. */
export interface CacheOptions {
  /** Folder of the cache. Default: `$XDG_CACHE_HOME/ifprune/subnetworks`, where unset `~/.cache/…`. */
  root?: string;
  /** Bytes that all entries together may take. Default: 8 GiB. */
  maxBytes?: number;
  /** Stops building; nothing is left. */
  signal?: AbortSignal;
}

/** An entry's folder, and whether it was there before. */
export interface CacheEntry {
  folder: string;
  cached: boolean;
}

const defaultMaxBytes = 8 * 2 ** 30;
const graceMs = 60_000;
/** Builds that have not finished after this time were killed. */
const abandonedMs = 3_600_000;
const partialPrefix = "partial-";
/** Sizes of an entry's files, to recognise damaged ones. */
const sizesName = "sizes.json";
const sizesSchema = z.record(z.string(), z.number());

const rootOf = ({ root = cacheRoot("subnetworks") }: CacheOptions) => root;
const folderOf = (bundle: { hash: string }, options: CacheOptions) => join(rootOf(options), bundle.hash.slice(0, 32));

/**
 * An entry of a bundle, from the cache or else built.
 *
 * @param build fills a folder with files
 * @throws what building it throws
 */
export async function openEntry(
  bundle: { hash: string },
  name: string,
  options: CacheOptions,
  build: (folder: string) => Promise<void>,
): Promise<CacheEntry> {
  const parent = folderOf(bundle, options);
  const entry = join(parent, name);
  if (touch(entry)) return { folder: entry, cached: true };
  const partial = join(parent, partialPrefix + randomUUID());
  makeCacheFolder(partial);
  try {
    await build(partial);
    const sizes = Object.fromEntries(readdirSync(partial).map((file) => [file, statSync(join(partial, file)).size]));
    await writeFile(join(partial, sizesName), JSON.stringify(sizes));
    publish(partial, entry);
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
  evict(rootOf(options), options.maxBytes ?? defaultMaxBytes);
  return { folder: entry, cached: false };
}

/** Whether an entry lies in the cache. */
export function hasEntry(bundle: { hash: string }, name: string, options: CacheOptions): boolean {
  return isWhole(join(folderOf(bundle, options), name));
}

/** Renames a whole entry into place, unless another process was faster; what is there and damaged goes. */
function publish(partial: string, entry: string): void {
  try {
    renameSync(partial, entry);
  } catch {
    if (isWhole(entry)) return;
    rmSync(entry, { recursive: true, force: true });
    renameSync(partial, entry);
  }
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

/** Marks an entry as just used, which keeps it from eviction, and then says whether it is whole. */
function touch(entry: string): boolean {
  const now = new Date();
  try {
    utimesSync(entry, now, now);
  } catch {
    return false;
  }
  return isWhole(entry);
}

function isWhole(entry: string): boolean {
  try {
    const sizes = Object.entries(sizesSchema.parse(readJson(join(entry, sizesName))));
    return sizes.every(([name, size]) => statSync(join(entry, name)).size === size);
  } catch {
    return false;
  }
}

/** Removes abandoned builds, then the entries that were unused for the longest time, until `maxBytes` suffice. */
function evict(root: string, maxBytes: number): void {
  const entries = folders(root)
    .flatMap(folders)
    .flatMap((path) => {
      const usedMs = statSync(path, { throwIfNoEntry: false })?.mtimeMs;
      return usedMs === undefined ? [] : [{ path, idleMs: Date.now() - usedMs, bytes: ownBytes(path) }];
    })
    .sort((a, b) => b.idleMs - a.idleMs);
  let total = entries.reduce((sum, { bytes }) => sum + bytes, 0);
  for (const { path, idleMs, bytes } of entries) {
    const isPartial = basename(path).startsWith(partialPrefix);
    const goes = isPartial ? idleMs > abandonedMs : total > maxBytes && idleMs > graceMs;
    if (!goes) continue;
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
