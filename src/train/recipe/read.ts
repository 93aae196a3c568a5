/**
 * From a recipe's file to a recipe: its JSON with what it extends merged in, changes from outside, its `{seed}`s and the shape of the
 * model that it starts from, then checked whole, with every default. Paths stay as written, relative to the recipe's folder, so that a
 * run can move with its recipe.
 */
import { existsSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { z } from "zod";
import { FileError, OptionError } from "../../errors.ts";
import { readModelConfig } from "../../formats/huggingfaceConfig.ts";
import { readJson } from "../../json.ts";
import { IMPORT_RECIPE, readManifest } from "../../manifest.ts";
import { checkModelConfig } from "../../model/config.ts";
import { checkpointFolders } from "../checkpoint.ts";
import { type Assignment, isObject, mergeRecipe, setPaths } from "./changes.ts";
import { conflicts } from "./conflicts.ts";
import { llmConfig, predictorConfig, type Recipe, recipeSchema, withDefaults } from "./schema.ts";

/** A recipe that was read from a file. */
export interface RecipeFile {
  recipe: Recipe;
  /** A path of the recipe, relative to its file, as one that can be opened. */
  pathOf(relative: string): string;
}

/** What is changed in a recipe as it is read. */
export interface ReadRecipeOptions {
  /** Values to set by path, in this order, before `{seed}` is replaced: `["mask.tFfn", 64]`. `null` removes what is there. */
  set?: readonly Assignment[] | undefined;
  /** Instead of the recipe's own. */
  seed?: number | undefined;
}

/**
 * Reads a recipe, what it extends, and its `{seed}`s.
 *
 * @throws {FileError} if a file is missing, not JSON, or not a recipe; the message names every wrong key
 * @throws {OptionError} if a path of `set` leads nowhere, or `init` to nothing
 */
export function readRecipe(file: string, options: ReadRecipeOptions = {}): RecipeFile {
  const pathOf = (relative: string) => resolve(dirname(file), relative);
  return { recipe: parseRecipe(withInitialShapes(readRecipeJson(file, options), pathOf), file), pathOf };
}

/**
 * Checks a recipe and fills in its defaults.
 *
 * @param where its origin, for messages
 * @throws {FileError} that names every wrong key, what was wanted and what came
 */
export function parseRecipe(json: unknown, where: string): Recipe {
  const parsed = recipeSchema.safeParse(json);
  if (!parsed.success) {
    const problems = parsed.error.issues
      .flatMap(meantIssues)
      .map(({ path, message }) => problem(path, message, valueAt(json, path)));
    throw recipeError(where, [...new Set(problems)]);
  }
  const recipe = withDefaults(parsed.data);
  const problems = [...conflicts(recipe)];
  if (problems.length > 0) throw recipeError(where, problems);
  // Shapes that cannot make a model. The vocabulary is not known yet; any size shows what is wrong with the rest.
  for (const [key, config] of [
    ["llm", llmConfig(recipe, 1)],
    ["predictor.backbone", predictorConfig(recipe, 1)?.backbone],
  ] as const) {
    if (config && config.numLayers > 0) checkModelConfig(config, `${where}: "${key}"`);
  }
  return recipe;
}

/** Of what may have several forms: what is wrong with the one that knows all its keys. */
function meantIssues(issue: z.core.$ZodIssue): z.core.$ZodIssue[] {
  if (issue.code !== "invalid_union") return [issue];
  const meant = issue.errors.filter((issues) => issues.every(({ code }) => code !== "unrecognized_keys"));
  if (meant.length !== 1) return [issue];
  return meant[0]!.flatMap((own) => meantIssues({ ...own, path: [...issue.path, ...own.path] }));
}

function recipeError(where: string, problems: readonly string[]): FileError {
  return new FileError(where, `not a recipe that can be trained:\n${problems.map((line) => `  ${line}`).join("\n")}`);
}

function problem(path: readonly PropertyKey[], wanted: string, got: unknown): string {
  const value = JSON.stringify(got) ?? "nothing";
  const keys = path.map((key) => (typeof key === "number" ? `[${key}]` : `.${String(key)}`)).join("");
  return `"${keys.replace(/^\./, "") || "recipe"}": wanted ${wanted}, got ${value.length > 80 ? `${value.slice(0, 80)}…` : value}.`;
}

function valueAt(json: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key], json);
}

/**
 * The JSON of a recipe with every file that it extends merged in, then the changes of `options`, then `{seed}` replaced in all strings.
 *
 * @throws {FileError} if a file of the chain is missing, not JSON, in another folder or extended again, or if a change of one finds
 *   nothing to change
 * @throws {OptionError} if a path of `set` leads nowhere
 */
export function readRecipeJson(file: string, { set = [], seed }: ReadRecipeOptions = {}): unknown {
  const written = readChain(file, []);
  if (!isObject(written)) return written;
  const changed = setPaths(written, set);
  const json = seed === undefined ? changed : { ...changed, seed };
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

function withSeed(value: unknown, seed: string): unknown {
  if (typeof value === "string") return value.replaceAll("{seed}", seed);
  if (Array.isArray(value)) return value.map((item) => withSeed(item, seed));
  if (!isObject(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, withSeed(item, seed)]));
}

/**
 * @param key of the recipe that names it
 * @throws {OptionError} if there is nothing to start from
 */
export function checkInit(path: string, key: "init" | "predictor.init"): void {
  if (!existsSync(path))
    throw new OptionError(
      `recipe "${key}": wanted a run or a checkpoint, got nothing at "${path}". Train or import it first.`,
    );
}

const startsElsewhere = z.looseObject({
  init: z.object({ run: z.string().min(1) }),
  llm: z.undefined().optional(),
  stages: z.array(z.looseObject({})),
});

const predictorStartsElsewhere = z.looseObject({
  predictor: z.looseObject({
    init: z.object({ run: z.string().min(1) }),
    backbone: z.undefined().optional(),
  }),
});

/**
 * A recipe's JSON with what it leaves to the models that it and its predictor start from: their shapes, and that an imported model's embedding, which
 * knows more words than the data has, stays as it is.
 */
function withInitialShapes(json: unknown, pathOf: (relative: string) => string): unknown {
  const { data: whole } = startsElsewhere.safeParse(json);
  const recipe = whole ? withInitialLlm(whole, pathOf(whole.init.run)) : json;
  const { data: own } = predictorStartsElsewhere.safeParse(recipe);
  if (!own) return recipe;
  const { predictor } = own;
  return { ...own, predictor: { ...predictor, backbone: shapeOf(pathOf(predictor.init.run), "predictor.init") } };
}

function withInitialLlm({ stages, ...recipe }: z.infer<typeof startsElsewhere>, run: string): object {
  const llm = shapeOf(run, "init");
  const { provenance } = readManifest(checkpointFolders(run)[0] ?? run, "ifprune-checkpoint");
  const isImported = provenance.recipe === IMPORT_RECIPE;
  return { ...recipe, llm, stages: stages.map((stage) => (isImported ? { embedding: "frozen", ...stage } : stage)) };
}

function shapeOf(run: string, key: "init" | "predictor.init"): object {
  checkInit(run, key);
  const { vocabSize: _, ...shape } = readModelConfig(join(checkpointFolders(run)[0] ?? run, "llm"));
  return shape;
}
