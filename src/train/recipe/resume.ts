/** What of a recipe may change between a run's beginning and its resumption. */
import { isDeepStrictEqual } from "node:util";
import { OptionError } from "../../errors.ts";
import type { Recipe } from "./schema.ts";

/** Keys that may change in the middle of a run. `threads` does change the last bits of sums, and `checkpointEvery` when the moments of a distil stage are rounded. */
const freeKeys: readonly string[] = ["checkpointEvery", "threads"] satisfies (keyof Recipe)[];

/**
 * Whether a run that was begun with `saved` can go on with `recipe`.
 *
 * @throws {OptionError} that names the keys that have changed
 */
export function checkSameRecipe(saved: unknown, recipe: Recipe): void {
  const changes = [...changedKeys(saved, recipe, "")].filter(({ key }) => !freeKeys.includes(key));
  if (changes.length === 0) return;
  const words = changes.map(
    ({ key, from, to }) => `${key} (${JSON.stringify(from) ?? "absent"} → ${JSON.stringify(to) ?? "absent"})`,
  );
  throw new OptionError(
    `resume: wanted the recipe that the run began with, got changes of ${words.join(", ")}. Undo them, or give the recipe a new name.`,
  );
}

function* changedKeys(from: unknown, to: unknown, key: string): Generator<{ key: string; from: unknown; to: unknown }> {
  if (isDeepStrictEqual(from, to)) return;
  if (!isContainer(from) || !isContainer(to)) {
    yield { key, from, to };
    return;
  }
  const separator = key === "" ? "" : ".";
  for (const name of new Set([...Object.keys(from), ...Object.keys(to)])) {
    yield* changedKeys(from[name], to[name], Array.isArray(to) ? `${key}[${name}]` : `${key}${separator}${name}`);
  }
}

function isContainer(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
