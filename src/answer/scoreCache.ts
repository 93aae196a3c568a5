/**
 * Scores on disk, so that another budget of the same prompt or text needs no second pass: `<root>/<bundle>/<key>.safetensors` holds `scores`
 * [L, F] in float32. Several processes may use one cache. Files unused for the longest time go first when it outgrows its limit.
 */
import { readdirSync, rmSync, statSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { cacheRoot, makeCacheFolder } from "../bundle/cacheFolder.ts";
import { FileError } from "../errors.ts";
import { makeFile, removePartials } from "../files.ts";
import { readSafetensors, writeSafetensors } from "../formats/safetensors.ts";

/** Where scores are kept. */
export interface ScoreCacheOptions {
  /** Folder of the cache. Default: `$XDG_CACHE_HOME/ifprune/scores`, where unset `~/.cache/…`. */
  root?: string | undefined;
  /** Bytes that all files together may take. Default: 256 MiB. */
  maxBytes?: number | undefined;
}

const defaultMaxBytes = 2 ** 28;
const extension = ".safetensors";

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
  const shape = [model.numLayers, model.ffnWidth];
  const known = readScores(path, shape);
  if (known) return { scores: known, cached: true };
  const scores = await make();
  makeCacheFolder(folder);
  makeFile(path, (partial) => writeSafetensors(partial, new Map([["scores", { shape, data: scores }]])));
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

/** Removes what killed processes left half-written, then the files that were unused for the longest time, until `maxBytes` suffice. */
function evict(root: string, maxBytes: number): void {
  const folders = list(root);
  for (const folder of folders) removePartials(folder);
  const files = folders
    .flatMap(list)
    .filter((path) => path.endsWith(extension))
    .flatMap((path) => {
      const stat = statSync(path, { throwIfNoEntry: false });
      return stat?.isFile() ? [{ path, usedMs: stat.mtimeMs, bytes: stat.size }] : [];
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
