/**
 * Scores on disk, so that another budget of the same prompt or text needs no second pass: `<root>/<bundle>/<key>.safetensors` holds `scores`
 * [L, F] in float32. Several processes may use one cache. Files unused for the longest time go first when it outgrows its limit.
 */
import { randomUUID } from "node:crypto";
import { readdirSync, renameSync, rmSync, statSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { cacheRoot, makeCacheFolder } from "../bundle/cacheFolder.ts";
import { FileError } from "../errors.ts";
import { readSafetensors, writeSafetensors } from "../formats/safetensors.ts";

/** Where scores are kept. */
export interface ScoreCacheOptions {
  /** Folder of the cache. Default: `$XDG_CACHE_HOME/ifprune/scores`, where unset `~/.cache/…`. */
  root?: string | undefined;
  /** Bytes that all files together may take. Default: 256 MiB. */
  maxBytes?: number | undefined;
}

const defaultMaxBytes = 2 ** 28;
/** Files that are still being written after this time were left by a process that was killed. */
const abandonedMs = 3_600_000;
const partialSuffix = ".partial";

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
  const path = join(folder, `${key}.safetensors`);
  const shape = [model.numLayers, model.ffnWidth];
  const known = readScores(path, shape);
  if (known) return { scores: known, cached: true };
  const scores = await make();
  makeCacheFolder(folder);
  const partial = join(folder, randomUUID() + partialSuffix);
  try {
    writeSafetensors(partial, new Map([["scores", { shape, data: scores }]]));
    renameSync(partial, path);
  } finally {
    rmSync(partial, { force: true });
  }
  evict(root, maxBytes);
  return { scores, cached: false };
}

/** Scores of this shape, marked as just used; undefined where there are none or they are damaged. */
function readScores(path: string, shape: readonly number[]): Float32Array | undefined {
  try {
    const found = readSafetensors(path).get("scores");
    if (found?.shape.join() !== shape.join() || !found.data.every(Number.isFinite)) return undefined;
    const now = new Date();
    utimesSync(path, now, now);
    return found.data;
  } catch (error) {
    if (error instanceof FileError || (error as NodeJS.ErrnoException).code) return undefined;
    throw error;
  }
}

/** Removes abandoned files, then those that were unused for the longest time, until `maxBytes` suffice. */
function evict(root: string, maxBytes: number): void {
  const files = list(root)
    .flatMap(list)
    .flatMap((path) => {
      const stat = statSync(path, { throwIfNoEntry: false });
      return stat?.isFile() ? [{ path, usedMs: stat.mtimeMs, bytes: stat.size }] : [];
    })
    .sort((a, b) => b.usedMs - a.usedMs);
  let total = 0;
  for (const { path, usedMs, bytes } of files) {
    const isPartial = path.endsWith(partialSuffix);
    if (!isPartial) total += bytes;
    if (isPartial ? Date.now() - usedMs > abandonedMs : total > maxBytes) rmSync(path, { force: true });
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
