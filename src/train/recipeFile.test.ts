import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { FileError } from "../errors.ts";
import { readRecipe } from "./recipe.ts";
import { mergeRecipe, readRecipeJson } from "./recipeFile.ts";

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
type JsonObject = { [key: string]: Json };

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

const link = { file: "a.json", base: "b.json" };

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

test("stages as an object change the stages that they name, in place; as a list they replace", () => {
  const stages = [
    { name: "one", steps: 1, learningRate: { llm: 1, predictor: 2 } },
    { name: "two", steps: 2 },
    { name: "three", steps: 3 },
  ];
  const changes = {
    three: { steps: 9, data: [1] },
    two: null,
    one: { learningRate: { predictor: null }, name: "uno" },
  };
  expect(mergeRecipe({ stages }, { stages: changes }, link).stages).toEqual([
    { name: "uno", steps: 1, learningRate: { llm: 1 } },
    { name: "three", steps: 9, data: [1] },
  ]);
  expect(mergeRecipe({ stages }, { stages: [{ name: "new" }] }, link).stages).toEqual([{ name: "new" }]);
  expect(mergeRecipe({ stages }, { stages: {} }, link).stages).toEqual(stages);
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

for (const [what, base, changes, message] of [
  [
    "an unknown stage lists the known ones",
    { stages: [{ name: "one" }, { name: "two" }] },
    { stages: { tow: { steps: 1 } } },
    /^a\.json: "stages": wanted names of stages of b\.json \(one, two\), got "tow"\. To add a stage, give the whole list/,
  ],
  ["to remove an unknown stage", { stages: [{ name: "one" }] }, { stages: { two: null } }, /\(one\), got "two"/],
  [
    "a base whose stages have no names",
    { stages: [{ name: { toString: 1 } }] },
    { stages: { one: {} } },
    /\(\), got "one"/,
  ],
  ["a stage of the prototype", { stages: [] }, { stages: { constructor: {} } }, /got "constructor"/],
  [
    "a stage that is no object",
    { stages: [{ name: "one" }] },
    { stages: { one: 3 } },
    /"stages\.one": wanted an object.*got 3/,
  ],
  ["changes to no stages", { stages: 1 }, { stages: { one: {} } }, /"stages": wanted a list, as b\.json has none/],
  [
    "to remove a key that is not there",
    { mask: { tFfn: 1, kind: "learned-static" } },
    { mask: { tffn: null } },
    /"mask\.tffn": wanted a key of b\.json to remove \(there: tFfn, kind\), got null for one that it lacks/,
  ],
  [
    "to remove a stage's",
    { stages: [{ name: "one" }] },
    { stages: { one: { a: { b: null } } } },
    /"stages\.one\.a\.b".*none/,
  ],
] as const) {
  test(`refused: ${what}`, () => {
    expect(() => mergeRecipe(base, changes, link)).toThrow(FileError);
    expect(() => mergeRecipe(base, changes, link)).toThrow(message);
  });
}

test("the whole is checked as one recipe: a wrong key is refused wherever it was written", () => {
  const file = write({ "a.json": { extends: "b.json", seed: -1 }, "b.json": { name: "b-{seed}", __proto: 1 } });
  expect(() => readRecipe(file)).toThrow(/a\.json: not a recipe[\s\S]*"seed": wanted [\s\S]*got -1[\s\S]*"__proto"/);
  expect(() => readRecipe(write({ "a.json": { name: "s{seed}" } }))).toThrow(/"seed": wanted .*, got nothing/);
  expect(() => readRecipe(write({ "a.json": [] }))).toThrow(/wanted an object, got \[\]/);
});

// Keys that meet often, and those that lead into prototypes.
const key = fc.constantFrom("a", "b", "c", "stages", "__proto__", "constructor", "toString");
const { object } = fc.letrec<{ value: Json; object: JsonObject }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom<Json>(0, 1, "x", "", false),
    fc.array(tie("object"), { maxLength: 2 }),
    tie("object"),
  ),
  object: fc.dictionary(key, tie("value"), { maxKeys: 4, noNullPrototype: true }),
}));
const isObject = (value: Json | undefined): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);
/** JSON with keys in order, `__proto__` too: what `toEqual` cannot compare. */
const text = (value: unknown): string =>
  JSON.stringify(value, (_, part) =>
    isObject(part) ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1))) : part,
  );

/** The changes that make `to` of `from`. */
function difference(from: JsonObject, to: JsonObject): JsonObject {
  const changes = new Map<string, Json>();
  for (const name of new Set([...Object.keys(from), ...Object.keys(to)])) {
    const [old, now] = [from, to].map((side) => (Object.hasOwn(side, name) ? side[name]! : undefined));
    if (now === undefined) changes.set(name, null);
    else if (isObject(old) && isObject(now)) changes.set(name, difference(old, now));
    else if (text(old) !== text(now)) changes.set(name, now);
  }
  return Object.fromEntries(changes);
}

test("any recipe is any other with their difference, neither input changes, no prototype does, seed 1", () => {
  const plain = object.filter((recipe) => !isObject(recipe.stages)); // "stages" as an object has a meaning of its own
  fc.assert(
    fc.property(plain, plain, (from, to) => {
      const changes = difference(from, to);
      const before = text([from, changes]);
      expect(text(mergeRecipe(from, changes, link))).toBe(text(to));
      expect(text([from, changes])).toBe(before);
      expect(Object.getPrototypeOf(mergeRecipe(from, changes, link))).toBe(Object.prototype);
      expect(["a", "b", "c", "stages"].filter((name) => name in {})).toEqual([]);
    }),
    { seed: 1, numRuns: 1000 },
  );
});

test("any stages are any others of the same names with their differences, seed 1", () => {
  const named = fc.uniqueArray(fc.constantFrom("x", "y", "z", "__proto__"), { minLength: 1 });
  fc.assert(
    fc.property(named, fc.array(object, { minLength: 8, maxLength: 8 }), fc.nat(15), (names, bodies, removed) => {
      const stages = (from: number) => names.map((name, i): JsonObject => ({ ...bodies[from + i], name }));
      const [before, after] = [stages(0), stages(4)];
      const isKept = (i: number) => ((removed >> i) & 1) === 0;
      const changes = Object.fromEntries(
        names.map((name, i) => [name, isKept(i) ? difference(before[i]!, after[i]!) : null]),
      );
      const merged = mergeRecipe({ stages: before }, { stages: changes }, link);
      expect(text(merged.stages)).toBe(text(after.filter((_, i) => isKept(i))));
    }),
    { seed: 1, numRuns: 500 },
  );
});
