import fc from "fast-check";
import { expect, test } from "vitest";
import { FileError, OptionError } from "../../errors.ts";
import { mergeRecipe, setPaths } from "./changes.ts";

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
type JsonObject = { [key: string]: Json };

const link = { file: "a.json", base: "b.json" };

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

const recipe = {
  mask: { kind: "predictor", tFfn: 1 },
  stages: [
    { name: "one", steps: 1, data: [{ path: "a" }, { path: "b" }] },
    { name: "two", steps: 2, learningRate: { llm: 1 } },
  ],
};

for (const [path, value, expected] of [
  ["mask.tFfn", 2, { ...recipe, mask: { kind: "predictor", tFfn: 2 } }],
  ["mask.epsilon", 0.1, { ...recipe, mask: { ...recipe.mask, epsilon: 0.1 } }],
  ["mask", { tFfn: 3 }, { ...recipe, mask: { tFfn: 3 } }],
  ["mask", null, { stages: recipe.stages }],
  ["mask.kind", null, { ...recipe, mask: { tFfn: 1 } }],
  ["init.run", "x", { ...recipe, init: { run: "x" } }],
  ["__proto__.x", 1, { ...recipe, ["__proto__"]: { x: 1 } }],
  ["stages", [], { ...recipe, stages: [] }],
  ["stages.one", null, { ...recipe, stages: [recipe.stages[1]] }],
  ["stages[0]", null, { ...recipe, stages: [recipe.stages[1]] }],
  ["stages[1].steps", 3, { ...recipe, stages: [recipe.stages[0], { ...recipe.stages[1], steps: 3 }] }],
  [
    "stages.two.learningRate.llm",
    3,
    { ...recipe, stages: [recipe.stages[0], { ...recipe.stages[1], learningRate: { llm: 3 } }] },
  ],
  [
    "stages.one.data[1].path",
    "c",
    {
      ...recipe,
      stages: [{ ...recipe.stages[0], data: [{ path: "a" }, { path: "c" }] }, recipe.stages[1]],
    },
  ],
] as const) {
  test(`set: ${path} to ${JSON.stringify(value)}`, () => {
    const before = JSON.stringify(recipe);
    expect(JSON.stringify(setPaths(recipe, [[path, value]]))).toBe(JSON.stringify(expected));
    expect(JSON.stringify(recipe)).toBe(before);
  });
}

test("values are set one after the other: a renamed stage is meant by its new name", () => {
  const set = [
    ["stages.two.name", "three"],
    ["stages.three.steps", 3],
  ] as const;
  expect(setPaths(recipe, set).stages).toMatchObject([{ name: "one" }, { name: "three", steps: 3 }]);
  expect(() => setPaths(recipe, [...set, ["stages.two.steps", 2]])).toThrow(/wanted one of one, three, got "two"/);
});

for (const [what, path, value, message] of [
  ["no path", "", 1, /^set "": wanted a path such as mask\.tFfn, .*got other text\./],
  ["an empty key", "mask..tFfn", 1, /wanted a path such as/],
  ["an index that is none", "stages[x].steps", 1, /wanted a path such as/],
  ["a stage that is not there", "stages.stf.steps", 1, /^set "stages\.stf\.steps": wanted one of one, two, got "stf"/],
  ["a stage beyond the last", "stages[2].steps", 1, /wanted one of one, two, got "2"/],
  ["a key of a number", "mask.tFfn.x", 1, /wanted an object, for its key x, got 1\./],
  ["an index of an object", "mask[0]", 1, /wanted a list, for its index 0, got \{/],
  ["to remove what is not there", "mask.block", null, /wanted a key to remove \(there: kind, tFfn\), got null/],
] as const) {
  test(`refused to set: ${what}`, () => {
    expect(() => setPaths(recipe, [[path, value]])).toThrow(OptionError);
    expect(() => setPaths(recipe, [[path, value]])).toThrow(message);
  });
}

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
