/** The hashes of a run's data files, in its folder: a run goes on with the data that it began with, as its batches are a function of them. */
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { FileError } from "../errors.ts";
import { makeFile, readJson } from "../files.ts";
import { hashFile } from "../manifest.ts";
import { zodWords } from "../words.ts";
import type { RecipeFile } from "./recipe/read.ts";
import { dataFiles } from "./recipe/schema.ts";

const pinsName = "data.json";
/** SHA-256 by the path that the recipe has. */
const pinsSchema = z.record(z.string(), z.string());

export interface PinOptions {
  /** Whether nothing of the run is there yet: it begins with the data that there is. */
  isNew: boolean;
  /** Goes on with other data. */
  acceptChanged: boolean;
}

/**
 * Pins the data of a run that begins, or compares them with those that it began with.
 *
 * @returns paths of the recipe whose files have changed, which was accepted
 * @throws {FileError} for the first that has changed, unless that is accepted
 */
export async function pinData(
  { recipe, pathOf }: RecipeFile,
  runDir: string,
  { isNew, acceptChanged }: PinOptions,
): Promise<string[]> {
  const pinned = isNew ? {} : readPins(join(runDir, pinsName));
  const pins: Record<string, string> = {};
  for (const path of new Set(dataFiles(recipe))) pins[path] = await hashFile(pathOf(path));
  const changed = Object.keys(pins).filter((path) => pinned[path] !== undefined && pinned[path] !== pins[path]);
  const [first] = changed;
  if (first !== undefined && !acceptChanged) {
    throw new FileError(
      pathOf(first),
      `wanted the data that the run began with, sha256 ${pinned[first]}, got ${pins[first]}. Bring it back, or go on with what it is now: --accept-changed-data.`,
    );
  }
  makeFile(join(runDir, pinsName), (partial) => writeFileSync(partial, `${JSON.stringify(pins, null, 2)}\n`));
  return changed;
}

/** None where the run was begun without. */
function readPins(path: string): Record<string, string> {
  if (!existsSync(path)) return {};
  const parsed = pinsSchema.safeParse(readJson(path));
  if (!parsed.success) throw new FileError(path, `wanted hashes of data files, got: ${zodWords(parsed.error)}.`);
  return parsed.data;
}
