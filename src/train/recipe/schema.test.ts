import { readdirSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { expect, test } from "vitest";
import { z } from "zod";
import { base, changed } from "../../../test/support/recipe.ts";
import { FileError, OptionError } from "../../errors.ts";
import { readJson } from "../../json.ts";
import { parseRecipe } from "./read.ts";
import { llmConfig, predictorConfig, recipeJsonSchema } from "./schema.ts";

const root = fileURLToPath(new URL("../../..", import.meta.url));

test("defaults are filled in, and filling them in again changes nothing", () => {
  const recipe = parseRecipe(base, "first.json");
  expect(recipe.llm).toMatchObject({ family: "llama", normEps: 1e-5, ropeTheta: 10_000, tieEmbeddings: true });
  expect(recipe.predictor).toMatchObject({ rank: 128, input: "prompt", importance: false });
  expect(recipe.mask).toEqual({ kind: "predictor", tFfn: 32, block: 1, epsilon: 0.3 });
  expect(recipe.stages.map(({ train }) => train)).toEqual(["llm", "both", "both"]);
  expect(recipe.stages[0]).toMatchObject({ accumulate: 1, weightDecay: 0.1, beta1: 0.9, beta2: 0.95, clipNorm: 1 });
  expect(recipe.stages[0]!.data[0]!.weight).toBe(1);
  expect(parseRecipe(JSON.parse(JSON.stringify(recipe)), "first.json")).toEqual(recipe);
});

test("models take their vocabulary from the tokenizer, the predictor its context and constants from the LLM", () => {
  const recipe = parseRecipe(base, "first.json");
  expect(llmConfig(recipe, 512)).toMatchObject({ width: 64, vocabSize: 512 });
  expect(predictorConfig(recipe, 512)).toMatchObject({
    numLayers: 2,
    ffnWidth: 256,
    backbone: { width: 32, ffnWidth: 96, vocabSize: 512, contextLength: 128, tieEmbeddings: true },
  });
});

for (const [what, recipe, message] of [
  [
    "an unknown key lists the known ones",
    changed(["mask", "tffn"], 3),
    /"mask": wanted no key "tffn" \(known: kind, tFfn, block, epsilon/,
  ],
  [
    "a wrong type",
    changed(["stages", 1, "steps"], "10"),
    /"stages\[1\]\.steps": wanted an integer of at least 1, got "10"/,
  ],
  ["a missing key", changed(["llm", "width"], undefined), /"llm\.width": wanted an integer of at least 1, got nothing/],
  [
    "a wrong choice",
    changed(["llm", "family"], "gpt2"),
    /"llm\.family": wanted one of llama, qwen2, qwen3, gemma2, gemma3, got "gpt2"/,
  ],
  [
    "a wrong kind of stage",
    changed(["stages", 0, "kind"], "rl"),
    /"stages\[0\]\.kind": wanted one of pretrain, cpt, warm-start, sft, distil, got "rl"/,
  ],
  [
    "a wrong kind of mask",
    changed(["mask", "kind"], 1),
    /"mask\.kind": wanted one of predictor, learned-static, .*, got 1/,
  ],
  ["a name that is a path", changed(["name"], "../x"), /"name": wanted a name of letters.*got "\.\.\/x"/],
  ["not an object", [1, 2], /"recipe": wanted an object, got \[1,2\]/],
  ["no stages", changed(["stages"], []), /"stages": wanted a list of at least one stage, got \[\]/],
  ["no tokenizer", changed(["tokenizer"], 3), /"tokenizer": wanted either \{"path"\} or/],
  [
    "half a tokenizer",
    changed(["tokenizer"], { vocabSize: 512 }),
    /"tokenizer\.data": wanted a list of paths, got noth/,
  ],
  ["no backbone", changed(["predictor", "backbone"], {}), /"predictor\.backbone": wanted a shape or \{"llmLayers"\}/],
  [
    "half a backbone",
    changed(["predictor", "backbone"], { llmLayers: -1 }),
    /"predictor\.backbone\.llmLayers": wanted an integer of at least 0, got -1/,
  ],
] as const) {
  test(`refused: ${what}`, () => {
    expect(() => parseRecipe(recipe, "first.json")).toThrow(FileError);
    expect(() => parseRecipe(recipe, "first.json")).toThrow(message);
    expect(() => parseRecipe(recipe, "first.json")).toThrow(/^first\.json: /);
  });
}

test("every wrong key is named at once", () => {
  const twice = changed(["seed"], -1, changed(["llm", "width"], 0));
  expect(() => parseRecipe(twice, "r.json")).toThrow(/"seed"[\s\S]*"llm\.width"/);
});

test("any value anywhere is either a recipe or a FileError, seed 1", () => {
  const paths: (string | number)[][] = [];
  const walk = (value: unknown, path: (string | number)[]): void => {
    paths.push(path);
    if (typeof value !== "object" || value === null) return;
    for (const key of Object.keys(value)) {
      walk((value as Record<string, unknown>)[key], [...path, Array.isArray(value) ? Number(key) : key]);
    }
  };
  walk(base, []);
  fc.assert(
    fc.property(fc.constantFrom(...paths), fc.jsonValue(), (path, value) => {
      try {
        parseRecipe(changed(path, value), "r.json");
      } catch (error) {
        expect(error instanceof FileError || error instanceof OptionError, String(error)).toBe(true);
      }
    }),
    { seed: 1, numRuns: 500 },
  );
});

test("recipe.schema.json says to editors what the schema says (`npx vitest run src/train/recipe -u` writes it)", async () => {
  await expect(`${JSON.stringify(recipeJsonSchema(), null, 2)}\n`).toMatchFileSnapshot(
    join(root, "recipe.schema.json"),
  );
});

const isRecipe = (json: unknown): boolean =>
  typeof json === "object" && json !== null && "name" in json && ("stages" in json || "extends" in json);

test("every committed recipe names recipe.schema.json, and is of it", () => {
  const schema = z.fromJSONSchema(recipeJsonSchema());
  const recipes = ["experiments/suite", "test/fixtures/tiny"]
    .flatMap((folder) => readdirSync(join(root, folder)).map((name) => join(root, folder, name)))
    .filter((file) => file.endsWith(".json") && isRecipe(readJson(file)));
  expect(recipes.length).toBeGreaterThan(2);
  for (const file of recipes) {
    const json = readJson(file) as { $schema?: string };
    expect(resolve(dirname(file), json.$schema ?? ""), file).toBe(join(root, "recipe.schema.json"));
    expect(schema.safeParse(json).error, file).toBeUndefined();
  }
  for (const wrong of [
    changed(["mask", "tffn"], 3),
    changed(["stages", 1, "steps"], "10"),
    { extends: "a.json", x: 1 },
  ])
    expect(schema.safeParse(wrong).success, JSON.stringify(wrong)).toBe(false);
  for (const right of [base, { extends: "a.json", stages: { sft: null }, mask: null }])
    expect(schema.safeParse(right).error).toBeUndefined();
});
