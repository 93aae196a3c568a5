/** Names of models: those of this package, and ids of the Hugging Face Hub that were pulled; which bundle each stands for on this machine. */
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { FileError } from "../errors.ts";
import { makeFile } from "../files.ts";
import { isHubId } from "../hub/hubSnapshot.ts";
import { readJson } from "../json.ts";
import { manifestName } from "../manifest.ts";
import { cacheRoot, makeCacheFolder } from "./cacheFolder.ts";

const inPackage = (name: string) => fileURLToPath(new URL(`../../models/${name}`, import.meta.url));
const large = inPackage("default");

/** The small bundle of this package: quick to open, for 22 kinds of short questions. */
export const TINY_MODEL = inPackage("tiny");
/** The bundle that answers where none is named. It is large, and left out of what npm installs: the small one stands in for it there. */
export const DEFAULT_MODEL = existsSync(join(large, manifestName)) ? large : TINY_MODEL;

/** By the names that stand for them. */
const packageModels = new Map([
  ["tiny", TINY_MODEL],
  ["default", DEFAULT_MODEL],
]);

/** What stands for a folder of this package; undefined of others. */
export function packageName(folder: string): string | undefined {
  return [...packageModels.keys()].find((name) => packageModels.get(name) === resolve(folder));
}

/** Whether a name, or a folder, is that of the small model. */
export function isTiny(name: string): boolean {
  return resolve(modelFolder(name)) === TINY_MODEL;
}

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
  makeFile(path, (partial) => writeFileSync(partial, `${JSON.stringify({ bundle })}\n`));
}

/** Ids of the models that were pulled. */
export function pulledIds(): string[] {
  const folder = cacheRoot("models");
  const files = existsSync(folder) ? readdirSync(folder) : [];
  const ids = files.filter((name) => name.endsWith(".json")).map((name) => name.slice(0, -5).replace("--", "/"));
  return ids.filter(isPulled).sort();
}

/** Whether the id stands for a bundle on this machine. */
export function isPulled(id: string): boolean {
  return bundleOf(id) !== undefined;
}

/** Whether it is the folder of a bundle, or the id of a pulled one. */
export function namesBundle(word: string): boolean {
  return existsSync(join(word, manifestName)) || (isHubId(word) && isPulled(word));
}

/** The bundle that an id stands for on this machine; nothing where what was noted of the pull came to harm, as pulling again notes it anew. */
export function bundleOf(id: string): string | undefined {
  const path = pulledFile(id);
  try {
    const pulled = existsSync(path) ? pulledSchema.safeParse(readJson(path)).data : undefined;
    return pulled && existsSync(pulled.bundle) ? pulled.bundle : undefined;
  } catch (error) {
    if (error instanceof FileError) return undefined;
    throw error;
  }
}

/**
 * The folder that a model's name stands for: a folder as it is, else what was pulled of the Hub by that id. The name that a server gives a model, the
 * last part of these, stands for it too.
 *
 * @throws {FileError} if it looks like a name and is none, or that of several
 */
export function modelFolder(name: string): string {
  if (existsSync(name)) return name;
  if (isHubId(name)) {
    const pulled = bundleOf(name);
    if (pulled !== undefined) return pulled;
    throw new FileError(
      name,
      `wanted a folder, or a model of the Hub that was pulled, got neither. Check the path, or run: ifprune pull ${name}`,
    );
  }
  if (!/^\w[\w.-]*$/.test(name)) return name; // a path
  const ours = packageModels.get(name);
  if (ours !== undefined) return ours;
  const ids = pulledIds();
  const named = ids.filter((id) => basename(id) === name);
  if (named.length === 1) return bundleOf(named[0]!)!;
  throw new FileError(
    name,
    named.length > 1
      ? `wanted the name of one model, got that of several. Say which: ${named.join(", ")}.`
      : `wanted a folder, or the name of a model, got neither. Check the path; names are: ${[...packageModels.keys(), ...ids].join(", ")}.`,
  );
}
