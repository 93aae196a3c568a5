/**
 * Sub-networks on disk: a folder per bundle and mask, `<root>/<bundle>/<mask>/`, with a model in three files that llama.cpp opens
 * as one: metadata with the sub-network's FFN width, the bundle's shared tensors (a link), the gathered FFN.
 *
 * Several processes may use one cache: an entry is built under a name of its own and renamed when it is whole. Entries unused for
 * the longest time go first when the cache outgrows its limit; those used within the last minute stay, as someone may be opening
 * them. (An opened one may go: the system keeps what is mapped.)
 */
import { createHash, randomUUID } from "node:crypto";
import {
  copyFileSync,
  existsSync,
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
import { basename, join, resolve } from "node:path";
import { z } from "zod";
import { FileError } from "../errors.ts";
import { readJson } from "../files.ts";
import { type GgufMetadata, writeGguf } from "../formats/gguf.ts";
import { feedForwardKey, splitMetadata } from "../formats/ggufModel.ts";
import type { Mask } from "../mask/mask.ts";
import { type Bundle, splitCount } from "./bundle.ts";
import { cacheRoot, makeCacheFolder } from "./cacheFolder.ts";
import { checkBundleMask, ffnTensors, writeFfn } from "./gather.ts";

/** Where sub-networks are kept. */
export interface CacheOptions {
  /** Folder of the cache. Default: `$XDG_CACHE_HOME/ifprune/subnetworks`, where unset `~/.cache/…`. */
  root?: string;
  /** Bytes that all entries together may take. Default: 8 GiB. */
  maxBytes?: number;
  /** Stops building; nothing is left. */
  signal?: AbortSignal;
}

/** A sub-network on disk. */
export interface SubnetworkFile {
  /** The first file of the model, for llama.cpp. */
  path: string;
  /** Whether it lay in the cache. */
  cached: boolean;
}

const defaultMaxBytes = 8 * 2 ** 30;
const graceMs = 60_000;
/** Builds that have not finished after this time were killed. */
const abandonedMs = 3_600_000;
const partialPrefix = "partial-";

const [metadataName, sharedName, ffnName] = Array.from(
  { length: splitCount },
  (_, i) => `model-${String(i + 1).padStart(5, "0")}-of-${String(splitCount).padStart(5, "0")}.gguf`,
) as [string, string, string];
/** Sizes of an entry's files, to recognise damaged ones. */
const sizesName = "sizes.json";
const sizesSchema = z.record(z.enum([metadataName, sharedName, ffnName]), z.number());

/**
 * The sub-network of a mask, from the cache or else built. A mask that keeps all channels gives the dense model.
 *
 * @throws {ShapeError | OptionError} if the mask does not fit the bundle
 * @throws {FileError} if the bundle is damaged
 */
export async function openSubnetwork(bundle: Bundle, mask: Mask, options: CacheOptions = {}): Promise<SubnetworkFile> {
  checkBundleMask(bundle, mask);
  const root = options.root ?? cacheRoot("subnetworks");
  const parent = join(root, bundle.hash.slice(0, 32));
  const entry = join(parent, maskHash(mask));
  const path = join(entry, metadataName);
  if (touch(entry)) return { path, cached: true };
  const partial = join(parent, partialPrefix + randomUUID());
  makeCacheFolder(partial);
  try {
    await build(bundle, mask, partial, options.signal);
    publish(partial, entry);
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
  evict(root, options.maxBytes ?? defaultMaxBytes);
  return { path, cached: false };
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

/** Whether the sub-network of a mask lies in the cache. */
export function hasSubnetwork(
  bundle: Bundle,
  mask: Mask,
  { root = cacheRoot("subnetworks") }: CacheOptions = {},
): boolean {
  return isWhole(join(root, bundle.hash.slice(0, 32), maskHash(mask)));
}

/** Identity of a mask within its bundle, 32 hexadecimal digits: kept channels and λ. */
export function maskHash({ tFfn, dFfn, layers, lambda }: Mask): string {
  const hash = createHash("sha256").update(JSON.stringify([tFfn, dFfn, layers.length, lambda ? "soft" : "hard"]));
  for (const values of [...layers, ...(lambda ?? [])])
    hash.update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  return hash.digest("hex").slice(0, 32);
}

async function build(bundle: Bundle, mask: Mask, folder: string, signal?: AbortSignal): Promise<void> {
  const architecture = bundle.base.string("general.architecture");
  const tensorCount = bundle.base.tensors.size + ffnTensors(bundle, mask.tFfn).length;
  const splits = (index: number): GgufMetadata => splitMetadata(index, splitCount, tensorCount);
  await writeGguf(
    join(folder, metadataName),
    new Map([
      ...bundle.base.metadata,
      [feedForwardKey(architecture), { type: "uint32", value: mask.tFfn }],
      ...splits(0),
    ]),
    [],
    [],
  );
  if (!existsSync(bundle.base.path))
    throw new FileError(bundle.base.path, "wanted the bundle's file, got none. Was it removed while in use?");
  linkOrCopy(resolve(bundle.base.path), join(folder, sharedName));
  const own: GgufMetadata = new Map([["general.architecture", { type: "string", value: architecture }]]);
  await writeFfn(join(folder, ffnName), new Map([...own, ...splits(2)]), bundle, mask, signal);
  const sizes = Object.fromEntries(
    [metadataName, sharedName, ffnName].map((name) => [name, statSync(join(folder, name)).size]),
  );
  await writeFile(join(folder, sizesName), JSON.stringify(sizes));
}

/** Some systems have no symbolic links for everybody, and hard links end at the file system's border. */
function linkOrCopy(target: string, path: string): void {
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

/** Folders in a folder, none if another process has just removed it. */
function folders(parent: string): string[] {
  try {
    return readdirSync(parent, { withFileTypes: true }).flatMap((entry) =>
      entry.isDirectory() ? [join(parent, entry.name)] : [],
    );
  } catch {
    return [];
  }
}

/** What removing an entry would free: its files, not what they link to. */
function ownBytes(entry: string): number {
  return [metadataName, sharedName, ffnName].reduce((sum, name) => {
    const stat = lstatSync(join(entry, name), { throwIfNoEntry: false });
    return sum + (stat?.isFile() && stat.nlink === 1 ? stat.size : 0);
  }, 0);
}
