/** The hashes of a run's data files and teachers, in its folder: a run goes on with those that it began with, as its steps are a function of them. */
import { createHash } from "node:crypto";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { FileError } from "../errors.ts";
import { makeFile } from "../files.ts";
import { readJson } from "../json.ts";
import { hashFile, parseManifest } from "../manifest.ts";
import { zodWords } from "../words.ts";
import { checkpointFolders } from "./checkpoint.ts";
import type { RecipeFile } from "./recipe/read.ts";
import { dataFiles, teacherRuns } from "./recipe/schema.ts";

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
  for (const path of new Set(teacherRuns(recipe))) pins[path] = filesHash(pathOf(path));
  const changed = Object.keys(pins).filter((path) => pinned[path] !== undefined && pinned[path] !== pins[path]);
  const [first] = changed;
  if (first !== undefined && !acceptChanged) {
    throw new FileError(
      pathOf(first),
      `wanted what the run began with, sha256 ${pinned[first]}, got ${pins[first]}. Bring it back, or go on with what it is now: --accept-changed-data.`,
    );
  }
  makeFile(join(runDir, pinsName), (partial) => writeFileSync(partial, `${JSON.stringify(pins, null, 2)}\n`));
  return changed;
}

/** Of a checkpoint, or a run's newest one: its files, not when it was made. */
function filesHash(path: string): string {
  const { files } = parseManifest(checkpointFolders(path)[0] ?? path, "ifprune-checkpoint");
  return createHash("sha256").update(JSON.stringify(files)).digest("hex");
}

/** None where the run was begun without. */
function readPins(path: string): Record<string, string> {
  if (!existsSync(path)) return {};
  const parsed = pinsSchema.safeParse(readJson(path));
  if (!parsed.success) throw new FileError(path, `wanted hashes of data files, got: ${zodWords(parsed.error)}.`);
  return parsed.data;
}
