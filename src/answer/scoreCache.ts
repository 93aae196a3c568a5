/**
 * Scores on disk, so that another budget of the same prompt or text needs no second pass: `<root>/<bundle>/<key>.scores` holds them,
 * [L, F] in float32, and a hash of them and of what they are of: what is half-written, damaged or another's is made again. Several processes may use one cache. Files unused
 * for the longest time go first when it outgrows its limit.
 */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cacheRoot, lastUsedMs, makeCacheFolder } from "../bundle/cacheFolder.ts";
import { FileError } from "../errors.ts";
import { asBytes, makeFile, removePartials } from "../files.ts";

/** Where scores are kept. */
export interface ScoreCacheOptions {
  /** Folder of the cache. Default: `$XDG_CACHE_HOME/ifprune/scores`, where unset `~/.cache/…`. */
  root?: string | undefined;
  /** Bytes that all files together may take. Default: 256 MiB. */
  maxBytes?: number | undefined;
}

const defaultMaxBytes = 2 ** 28;
const extension = ".scores";
const hashBytes = 32;

/**
 * Scores from the cache, or else made and kept there.
 *
 * @param model hash of the bundle, and its L and F
 * @param key of everything that the scores depend on beside the model, of letters and digits
 */
export async function cachedScores(
  model: { hash: string; numLayers: number; ffnWidth: number },
  key: string,
  { root = cacheRoot("scores"), maxBytes = defaultMaxBytes }: ScoreCacheOptions,
  make: () => Promise<Float32Array>,
): Promise<{ scores: Float32Array; cached: boolean }> {
  const folder = join(root, model.hash.slice(0, 32));
  const path = join(folder, key + extension);
  const of = [model.hash, key, model.numLayers, model.ffnWidth].join(" ");
  const known = readScores(path, of);
  if (known) return { scores: known, cached: true };
  const scores = await make();
  unlessRefused(() => {
    makeCacheFolder(folder);
    const bytes = asBytes(scores);
    makeFile(path, (partial) => writeFileSync(partial, Buffer.concat([bytes, hashOf(of, bytes)])));
    evict(root, maxBytes);
  });
  return { scores, cached: false };
}

const hashOf = (of: string, bytes: Uint8Array): Buffer => createHash("sha256").update(of).update(bytes).digest();

/** Scores from a file, marked as just used; undefined where there are none, or others than wanted. */
function readScores(path: string, of: string): Float32Array | undefined {
  const file = unlessRefused(() => readFileSync(path));
  if (!file) return undefined;
  const bytes = Uint8Array.from(file.subarray(0, -hashBytes)); // aligned
  if (!hashOf(of, bytes).equals(file.subarray(-hashBytes))) return undefined;
  const now = new Date();
  unlessRefused(() => utimesSync(path, now, now));
  return new Float32Array(bytes.buffer);
}

/** What the system refuses to a cache (its disk is full, read-only, …) costs time alone. */
function unlessRefused<T>(use: () => T): T | undefined {
  try {
    return use();
  } catch (error) {
    if (error instanceof FileError || (error as NodeJS.ErrnoException).syscall !== undefined) return undefined;
    throw error;
  }
}

/** Removes what killed processes left half-written, then the files that were unused for the longest time, until `maxBytes` suffice. */
function evict(root: string, maxBytes: number): void {
  const folders = list(root);
  for (const folder of folders) removePartials(folder);
  const files = folders
    .flatMap(list)
    .filter((path) => path.endsWith(extension))
    .flatMap((path) => {
      const [stat, usedMs] = [statSync(path, { throwIfNoEntry: false }), lastUsedMs(path)];
      return stat?.isFile() && usedMs !== undefined ? [{ path, usedMs, bytes: stat.size }] : [];
    })
    .sort((a, b) => b.usedMs - a.usedMs);
  let total = 0;
  for (const { path, bytes } of files) {
    total += bytes;
    if (total > maxBytes) rmSync(path, { force: true });
  }
}

/** What is in a folder, nothing if it is none. */
function list(folder: string): string[] {
  try {
    return readdirSync(folder).map((name) => join(folder, name));
  } catch {
    return [];
  }
}
