/**
 * Runs of experiments: by its name without the seed, each says which recipe it trains, what it sets in it, and after which run. What
 * has to be trained for a run, and with which recipe, follows.
 */
import { dirname, join, relative } from "node:path";
import { z } from "zod";
import { FileError, OptionError } from "../src/errors.ts";
import { readJson } from "../src/json.ts";
import { type RecipeFile, readRecipe } from "../src/train/recipe/read.ts";

const text = z.string().min(1);
const runSchema = z.strictObject({
  /** Path relative to this file. */
  recipe: text,
  /** The run that it starts from, of the same seed: the recipe's `init`. */
  after: text.optional(),
  /** Values by path, as of `ifprune train --set`; in this order. */
  set: z.record(text, z.json()).default({}),
});
const runsSchema = z.record(text, runSchema);

export type Runs = z.infer<typeof runsSchema>;

/** @throws {FileError} if the file is missing or something else, or if a run comes after one that is not there, or after itself */
export function readRuns(path: string): Runs {
  const parsed = runsSchema.safeParse(readJson(path));
  if (!parsed.success) throw new FileError(path, `wanted runs, got: ${z.prettifyError(parsed.error)}`);
  const runs = parsed.data;
  for (const name of Object.keys(runs)) {
    const chain = [name];
    for (let after = runs[name]!.after; after !== undefined; after = runs[after]!.after) {
      const names = [...chain, after].join(" after ");
      if (!Object.hasOwn(runs, after)) throw new FileError(path, `wanted runs after runs that are here, got ${names}.`);
      if (chain.includes(after)) throw new FileError(path, `wanted runs with a first one, got ${names}.`);
      chain.push(after);
    }
  }
  return runs;
}

/**
 * Runs by name, each once and behind what it comes after.
 *
 * @throws {OptionError} if there is no such run
 */
export function inOrder(runs: Runs, names: readonly string[]): string[] {
  const order = new Set<string>();
  const add = (name: string): void => {
    const { after } = runs[name]!;
    if (after !== undefined) add(after);
    order.add(name);
  };
  for (const name of names) {
    if (!Object.hasOwn(runs, name))
      throw new OptionError(`run: wanted one of ${Object.keys(runs).join(", ")}, got "${name}".`);
    add(name);
  }
  return [...order];
}

/**
 * The recipe of a run.
 *
 * @param path of the file that `runs` were read from
 * @param runsDir where runs are trained, for `init`
 * @throws {FileError | OptionError} as of `readRecipe`
 */
export function recipeOf(
  path: string,
  runs: Runs,
  name: string,
  { seed, runsDir }: { seed: number; runsDir: string },
): RecipeFile {
  const { recipe, after, set } = runs[name]!;
  const file = join(dirname(path), recipe);
  const init = after === undefined ? {} : { "init.run": relative(dirname(file), join(runsDir, `${after}-s{seed}`)) };
  return readRecipe(file, { seed, set: Object.entries({ name: `${name}-s{seed}`, ...init, ...set }) });
}
