/**
 * Recipe files: a recipe may say only how it differs from another (`extends`), and its strings may name its seed (`{seed}`).
 * This file makes plain JSON of that; what the JSON has to hold is for `parseRecipe` to say.
 */
import { basename, dirname, resolve } from "node:path";
import { FileError } from "../errors.ts";
import { readJson } from "../files.ts";

type JsonObject = Record<string, unknown>;

/**
 * The JSON of a recipe with every file that it extends merged in, then `{seed}` replaced in all strings.
 *
 * @param seed instead of the recipe's own
 * @throws {FileError} if a file of the chain is missing, not JSON, in another folder or extended again, or if a change finds
 *   nothing to change
 */
export function readRecipeJson(file: string, { seed }: { seed?: number | undefined } = {}): unknown {
  const written = readChain(file, []);
  if (!isObject(written)) return written;
  const json = seed === undefined ? written : { ...written, seed };
  return typeof json.seed === "number" ? withSeed(json, String(json.seed)) : json;
}

/** @param above files that extend this one, the first of them first */
function readChain(file: string, above: readonly string[]): unknown {
  const json = readJson(file);
  if (!isObject(json) || !Object.hasOwn(json, "extends")) return json;
  const { extends: link, ...changes } = json;
  if (typeof link !== "string" || link === "") {
    throw new FileError(file, `"extends": wanted the path of another recipe, got ${JSON.stringify(link)}.`);
  }
  const base = resolve(dirname(file), link);
  if (dirname(base) !== resolve(dirname(file))) {
    throw new FileError(
      file,
      `"extends": wanted a recipe in the same folder, to which the paths of both are relative, got "${link}". Copy it here, or write this one beside it.`,
    );
  }
  const chain = [...above, resolve(file)];
  if (chain.includes(base)) {
    const names = [...chain.slice(chain.indexOf(base)), base].map((path) => basename(path));
    throw new FileError(
      file,
      `"extends": wanted a chain of recipes that ends, got ${names.join(" → ")}. Remove one "extends".`,
    );
  }
  const inherited = readChain(base, chain);
  if (!isObject(inherited)) throw new FileError(base, "wanted a recipe to extend, an object, got other JSON.");
  return mergeRecipe(inherited, changes, { file, base: basename(base) });
}

/** Names for messages: the file of the changes, and what it extends. */
interface Link {
  file: string;
  base: string;
}

/**
 * A recipe with changes: objects merge key by key, `null` removes a key, all else replaces. `stages` as an object changes the
 * stages that its keys name, and `null` removes one.
 *
 * @throws {FileError} if there is no such stage, or no such key to remove: a change is never ignored in silence
 */
export function mergeRecipe(recipe: JsonObject, changes: JsonObject, link: Link): JsonObject {
  const { stages, ...others } = changes;
  if (!isObject(stages)) return merge(recipe, changes, "", link);
  return { ...merge(recipe, others, "", link), stages: changedStages(recipe.stages, stages, link) };
}

function changedStages(list: unknown, changes: JsonObject, link: Link): unknown[] {
  if (!Array.isArray(list)) {
    throw new FileError(link.file, `"stages": wanted a list, as ${link.base} has none to change, got an object.`);
  }
  const nameOf = (stage: unknown) => (isObject(stage) && typeof stage.name === "string" ? stage.name : undefined);
  const names = list.map(nameOf);
  for (const [name, change] of Object.entries(changes)) {
    if (!names.includes(name)) {
      throw new FileError(
        link.file,
        `"stages": wanted names of stages of ${link.base} (${names.join(", ")}), got "${name}". To add a stage, give the whole list.`,
      );
    }
    if (change !== null && !isObject(change)) {
      throw new FileError(
        link.file,
        `"stages.${name}": wanted an object of changes, or null to remove it, got ${JSON.stringify(change)}.`,
      );
    }
  }
  const changed = new Map(Object.entries(changes));
  return list.flatMap((stage) => {
    const change = changed.get(nameOf(stage) ?? "");
    if (change === undefined) return [stage];
    return isObject(change) ? [merge(stage, change, `stages.${nameOf(stage)}.`, link)] : [];
  });
}

/** @param at path of the two objects, for messages */
function merge(base: JsonObject, changes: JsonObject, at: string, link: Link): JsonObject {
  const merged = new Map(Object.entries(base));
  for (const [key, value] of Object.entries(changes)) {
    if (isObject(value)) {
      const old = merged.get(key);
      merged.set(key, merge(isObject(old) ? old : {}, value, `${at}${key}.`, link));
    } else if (value !== null) {
      merged.set(key, value);
    } else if (!merged.delete(key)) {
      const known = merged.size > 0 ? [...merged.keys()].join(", ") : "none";
      throw new FileError(
        link.file,
        `"${at}${key}": wanted a key of ${link.base} to remove (there: ${known}), got null for one that it lacks.`,
      );
    }
  }
  return Object.fromEntries(merged); // defines its keys where an assignment would follow "__proto__" into the prototype
}

function withSeed(value: unknown, seed: string): unknown {
  if (typeof value === "string") return value.replaceAll("{seed}", seed);
  if (Array.isArray(value)) return value.map((item) => withSeed(item, seed));
  if (!isObject(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, withSeed(item, seed)]));
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
