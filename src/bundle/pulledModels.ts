/** Models of the Hugging Face Hub that were pulled: which bundle an id stands for on this machine. */
import { existsSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { z } from "zod";
import { FileError } from "../errors.ts";
import { isHubId } from "../hub/hubSnapshot.ts";
import { readJson } from "../json.ts";
import { cacheRoot, makeCacheFolder } from "./cacheFolder.ts";

/** The pull that an id stands for: its last. */
const pulledSchema = z.object({ bundle: z.string() });

/** Where bundles of a model lie, and beside them `.json`, which of them it is. */
export function pulledFolder(id: string): string {
  return join(cacheRoot("models"), id.replace("/", "--"));
}

const pulledFile = (id: string): string => `${pulledFolder(id)}.json`;

/** Lets an id stand for a bundle. */
export function setPulled(id: string, bundle: string): void {
  const path = pulledFile(id);
  makeCacheFolder(dirname(path));
  const partial = `${path}.${process.pid}`;
  writeFileSync(partial, `${JSON.stringify({ bundle })}\n`);
  renameSync(partial, path);
}

/**
 * The folder that a model's name stands for: a folder as it is, else what was pulled of the Hub by that id.
 *
 * @throws {FileError} if it looks like an id and is neither
 */
export function modelFolder(name: string): string {
  if (!isHubId(name) || existsSync(name)) return name;
  const path = pulledFile(name);
  const pulled = existsSync(path) ? pulledSchema.safeParse(readJson(path)).data : undefined;
  if (pulled && existsSync(pulled.bundle)) return pulled.bundle;
  throw new FileError(
    name,
    `wanted a folder, or a model of the Hub that was pulled, got neither. Check the path, or run: ifprune pull ${name}`,
  );
}
