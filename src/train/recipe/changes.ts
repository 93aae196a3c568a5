/** Changes to a recipe's JSON: those of a file to what it `extends`, and single values by path, as of `ifprune train --set`. */
import { FileError, OptionError } from "../../errors.ts";

type JsonObject = Record<string, unknown>;

/** A path such as `mask.tFfn`, `stages[1].steps` or `stages.sft.learningRate.llm`, and the value that it gets; `null` removes. */
export type Assignment = readonly [path: string, value: unknown];

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

/**
 * A recipe with values set by path, one after the other: a key's value becomes the new one as a whole, `null` removes it. An item of a
 * list is meant by its index, a stage also by its name.
 *
 * @throws {OptionError} if a path leads to no place: a change is never ignored in silence
 */
export function setPaths(recipe: JsonObject, set: readonly Assignment[]): JsonObject {
  return set.reduce(
    (json, [path, value]) => withValue(json, keysOf(path), value, `set "${path}"`) as JsonObject,
    recipe,
  );
}

function keysOf(path: string): (string | number)[] {
  if (!/^[^.[\]]+(\.[^.[\]]+|\[\d+\])*$/.test(path)) {
    throw new OptionError(
      `set "${path}": wanted a path such as mask.tFfn, stages[1].steps or stages.sft.steps, got other text.`,
    );
  }
  return [...path.matchAll(/\[(\d+)\]|[^.[\]]+/g)].map(([key, index]) => (index === undefined ? key : Number(index)));
}

/** @param where for messages */
function withValue(old: unknown, [key, ...rest]: readonly (string | number)[], value: unknown, where: string): unknown {
  if (key === undefined) return value;
  const isLast = rest.length === 0;
  if (Array.isArray(old)) {
    const index = typeof key === "number" ? key : old.findIndex((item) => isObject(item) && item.name === key);
    if (!(index in old)) {
      const names = old.map((item, i) => (isObject(item) && typeof item.name === "string" ? item.name : `[${i}]`));
      throw new OptionError(`${where}: wanted one of ${names.join(", ")}, got "${key}".`);
    }
    if (isLast && value === null) return old.toSpliced(index, 1);
    return old.with(index, withValue(old[index], rest, value, where));
  }
  if (typeof key === "number" || (old !== undefined && !isObject(old))) {
    const wanted = typeof key === "number" ? "a list, for its index" : "an object, for its key";
    throw new OptionError(`${where}: wanted ${wanted} ${key}, got ${JSON.stringify(old) ?? "nothing"}.`);
  }
  const entries = new Map(Object.entries(old ?? {}));
  if (!isLast || value !== null) entries.set(key, withValue(entries.get(key), rest, value, where));
  else if (!entries.delete(key)) {
    throw new OptionError(
      `${where}: wanted a key to remove (there: ${[...entries.keys()].join(", ") || "none"}), got null for one that the recipe lacks.`,
    );
  }
  return Object.fromEntries(entries);
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
