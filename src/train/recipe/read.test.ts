import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { goldenModel, writeCheckpoint } from "../../../test/support/models.ts";
import { base, sft } from "../../../test/support/recipe.ts";
import { FileError, OptionError } from "../../errors.ts";
import { IMPORT_RECIPE, manifestName } from "../../manifest.ts";
import { readRecipe, readRecipeJson } from "./read.ts";

const folder = mkdtempSync(join(tmpdir(), "recipe-file-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Writes recipes by name; returns the path of the first. */
function write(files: Record<string, unknown>): string {
  const paths = Object.entries(files).map(([name, json]) => {
    const path = join(folder, name);
    writeFileSync(path, typeof json === "string" ? json : JSON.stringify(json));
    return path;
  });
  return paths[0]!;
}

test("a chain merges objects key by key; null removes, lists and plain values replace", () => {
  const file = write({
    "a.json": { extends: "b.json", name: "a", llm: { width: 8 }, mask: null },
    "b.json": { extends: "./c.json", mask: { tFfn: 4 }, list: [3], init: { run: "x" } },
    "c.json": {
      name: "c",
      seed: 1,
      llm: { width: 4, heads: { q: 2 } },
      list: [{ a: 1 }, 2],
      mask: { kind: "learned-static" },
    },
  });
  expect(readRecipeJson(file)).toEqual({
    name: "a",
    seed: 1,
    llm: { width: 8, heads: { q: 2 } },
    list: [3],
    init: { run: "x" },
  });
  expect(readRecipeJson(join(folder, "b.json"))).toMatchObject({
    name: "c",
    mask: { kind: "learned-static", tFfn: 4 },
  });
});

test("{seed} is replaced in every string after merging, by the seed that is given or else the recipe's", () => {
  const file = write({
    "ifp.json": { extends: "source.json", name: "ifp-s{seed}", seed: 3, init: { run: "../runs/{seed}/s{seed}" } },
    "source.json": {
      name: "source-s{seed}",
      seed: 1,
      stages: [{ name: "s", data: [{ path: "{seed}.jsonl{ seed}" }] }],
    },
  });
  const expected = (seed: number) => ({
    name: `ifp-s${seed}`,
    seed,
    init: { run: `../runs/${seed}/s${seed}` },
    stages: [{ name: "s", data: [{ path: `${seed}.jsonl{ seed}` }] }],
  });
  expect(readRecipeJson(file)).toEqual(expected(3));
  for (const seed of [0, 2, 1234567]) expect(readRecipeJson(file, { seed })).toEqual(expected(seed));
  expect(readRecipeJson(join(folder, "source.json"))).toMatchObject({ name: "source-s1" });
});

for (const [what, files, at, message] of [
  [
    "a cycle",
    { "a.json": { extends: "b.json" }, "b.json": { extends: "a.json" } },
    "b.json",
    /got a\.json → b\.json → a/,
  ],
  [
    "a cycle further on",
    { "a.json": { extends: "b.json" }, "b.json": { extends: "c.json" }, "c.json": { extends: "./b.json" } },
    "c.json",
    /wanted a chain of recipes that ends, got b\.json → c\.json → b\.json\. Remove/,
  ],
  ["itself", { "a.json": { extends: "a.json" } }, "a.json", /got a\.json → a\.json/],
  [
    "a folder above",
    { "a.json": { extends: "../b.json" } },
    "a.json",
    /in the same folder.*got "\.\.\/b\.json"\. Copy/,
  ],
  ["a folder below", { "a.json": { extends: "sub/b.json" } }, "a.json", /in the same folder.*got "sub\/b\.json"/],
  ["no path", { "a.json": { extends: 3 } }, "a.json", /"extends": wanted the path of another recipe, got 3\./],
  ["null", { "a.json": { extends: null } }, "a.json", /"extends": wanted the path of another recipe, got null\./],
  ["a missing file", { "a.json": { extends: "none.json" } }, "none.json", /wanted a readable file, got ENOENT/],
  ["broken JSON", { "a.json": { extends: "b.json" }, "b.json": "{" }, "b.json", /wanted JSON/],
  ["a list", { "a.json": { extends: "b.json" }, "b.json": [1] }, "b.json", /wanted a recipe to extend, an object/],
] as const) {
  test(`refused: to extend ${what}`, () => {
    mkdirSync(join(folder, "sub"), { recursive: true });
    const file = write(files);
    expect(() => readRecipeJson(file)).toThrow(FileError);
    expect(() => readRecipeJson(file)).toThrow(message);
    expect(() => readRecipeJson(file)).toThrow(expect.objectContaining({ path: join(folder, at) }));
  });
}

test("values set by path come after what is extended and before {seed}; the seed that is given is the last", () => {
  const file = write({
    "a.json": { extends: "b.json", name: "a-s{seed}" },
    "b.json": { name: "b", seed: 1, mask: { tFfn: 1 } },
  });
  const set = [
    ["mask.tFfn", 2],
    ["name", "c-s{seed}"],
    ["seed", 3],
  ] as const;
  expect(readRecipeJson(file, { set })).toEqual({ name: "c-s3", seed: 3, mask: { tFfn: 2 } });
  expect(readRecipeJson(file, { set, seed: 4 })).toEqual({ name: "c-s4", seed: 4, mask: { tFfn: 2 } });
  const recipe = write({ "a.json": base });
  expect(() => readRecipe(recipe, { set: [["mask.tffn", 2]] })).toThrow(/"mask": wanted no key "tffn" \(known: kind, /);
  expect(() => readRecipe(recipe, { set: [["stages.sft.steps", "two"]] })).toThrow(
    /a\.json: .*\n {2}"stages\[2\]\.steps": wanted an integer of at least 1, got "two"\.$/,
  );
  expect(() => readRecipe(recipe, { set: [["stages.stf.steps", 2]] })).toThrow(OptionError);
});

test("the schema that a file names for editors is no part of the recipe, and of none that extends it", () => {
  const file = write({ "a.json": { extends: "b.json" }, "b.json": { $schema: "../recipe.schema.json", ...base } });
  expect(readRecipe(file).recipe).toEqual(readRecipe(write({ "c.json": base })).recipe);
});

test("the whole is checked as one recipe: a wrong key is refused wherever it was written", () => {
  const file = write({ "a.json": { extends: "b.json", seed: -1 }, "b.json": { name: "b-{seed}", __proto: 1 } });
  expect(() => readRecipe(file)).toThrow(/a\.json: not a recipe[\s\S]*"seed": wanted [\s\S]*got -1[\s\S]*"__proto"/);
  expect(() => readRecipe(write({ "a.json": { name: "s{seed}" } }))).toThrow(/"seed": wanted .*, got nothing/);
  expect(() => readRecipe(write({ "a.json": [] }))).toThrow(/wanted an object, got \[\]/);
});

test("paths are relative to the recipe's file", () => {
  const file = join(folder, "first.json");
  writeFileSync(file, JSON.stringify(base));
  const { recipe, pathOf } = readRecipe(file);
  expect(recipe.stages[0]!.data[0]!.path).toBe("data/train.jsonl.gz");
  expect(pathOf("data/train.jsonl.gz")).toBe(join(folder, "data/train.jsonl.gz"));
  expect(pathOf("/abs")).toBe("/abs");
  expect(() => readRecipe(join(folder, "none.json"))).toThrow(FileError);
  writeFileSync(file, "{");
  expect(() => readRecipe(file)).toThrow(/wanted JSON/);
});

test("of init come the shape, and a frozen embedding where it is an imported model and the stage does not say", async () => {
  const model = goldenModel("llama");
  const run = await writeCheckpoint(join(folder, "source"), model);
  const recipe = {
    ...{
      name: "on",
      seed: 1,
      init: { run: "source" },
      mask: { kind: "random-per-domain", tFfn: 8 },
      checkpointEvery: 1,
    },
    stages: [
      { ...sft, learningRate: { llm: 1e-3 } },
      { ...sft, name: "all", learningRate: { llm: 1e-3 }, embedding: "trained" },
    ],
  };
  const read = () => readRecipe(write({ "on.json": recipe })).recipe;
  const embeddings = () => read().stages.map(({ embedding }) => embedding);
  expect(read().llm).toMatchObject({ width: model.config.width, ffnWidth: model.config.ffnWidth });
  expect(embeddings()).toEqual(["trained", "trained"]);
  const path = join(run, manifestName);
  const manifest = JSON.parse(readFileSync(path, "utf8"));
  manifest.provenance.recipe = IMPORT_RECIPE;
  writeFileSync(path, JSON.stringify(manifest));
  expect(embeddings()).toEqual(["frozen", "trained"]);
});
