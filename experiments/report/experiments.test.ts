import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, test } from "vitest";
import { FileError, OptionError } from "../../src/errors.ts";
import {
  estimate,
  percent,
  type Result,
  Results,
  readExperiments,
  scoreOf,
  sourcesOf,
  suiteScore,
  suiteTasks,
} from "./experiments.ts";

const folder = mkdtempSync(join(tmpdir(), "ifprune-experiments-"));
afterAll(() => rmSync(folder, { recursive: true }));
function file(name: string, content: string): string {
  writeFileSync(join(folder, name), content);
  return join(folder, name);
}

const inputs = "unseen inputs";
const wordings = "unseen wordings";
function result(seed: number, test: string, accuracies: Record<string, number>, change: Partial<Result> = {}): Result {
  const tasks = Object.entries(accuracies).map(([task, accuracy]) => ({ task, accuracy }));
  const accuracy = tasks.reduce((sum, task) => sum + task.accuracy, 0) / tasks.length;
  const report = { tasks, mean: { accuracy }, numTooLong: 0 };
  return { run: "a", seed, mask: "own", test, checkpoint: "c", questions: "q", report, ...change };
}
const byTest = (...list: Result[]) => new Map(list.map((one) => [one.test, one]));

describe("estimate", () => {
  const values = fc.array(fc.double({ min: -100, max: 100, noNaN: true }), { minLength: 2, maxLength: 8 });

  test("equals the definition over pairs: 2 n (n - 1) std² = Σ (x - y)², seed 1", () => {
    fc.assert(
      fc.property(values, (xs) => {
        const { mean, std, n } = estimate(xs)!;
        expect(n * mean).toBeCloseTo(
          xs.reduce((a, b) => a + b),
          8,
        );
        const pairs = xs.flatMap((x) => xs.map((y) => (x - y) ** 2)).reduce((a, b) => a + b);
        expect(std ** 2).toBeCloseTo(pairs / (2 * n * (n - 1)), 6);
      }),
      { seed: 1, numRuns: 200 },
    );
  });

  test("moves and scales with the values, seed 2", () => {
    fc.assert(
      fc.property(values, fc.integer({ min: -50, max: 50 }), (xs, shift) => {
        const [plain, moved] = [estimate(xs)!, estimate(xs.map((x) => 3 * x + shift))!];
        expect(moved.mean).toBeCloseTo(3 * plain.mean + shift, 8);
        expect(moved.std).toBeCloseTo(3 * plain.std, 8);
      }),
      { seed: 2, numRuns: 200 },
    );
  });

  test("counts what is there; one value has no spread, none no estimate", () => {
    expect(estimate([0.5, undefined, 0.7])).toMatchObject({ n: 2 });
    expect(percent(estimate([0.5, 0.7])!)).toBe("60.0 ± 14.1");
    expect(percent(estimate([0.7185])!)).toMatch(/^71\.[89] ± –$/);
    expect(estimate([undefined])).toBeUndefined();
  });
});

describe("suite score", () => {
  test("is the mean over all tasks, each from the test that judges it, seed 3", () => {
    const share = fc.double({ min: 0, max: 1, noNaN: true });
    const names = fc.uniqueArray(fc.stringMatching(/^[a-z]{1,6}$/), { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(names, fc.nat(11), fc.infiniteStream(share), (tasks, numFacts, stream) => {
        const facts = tasks.slice(0, numFacts);
        const rules = tasks.slice(numFacts);
        fc.pre(rules.length > 0);
        const next = (list: string[]) => Object.fromEntries(list.map((task) => [task, stream.next().value as number]));
        const [onInputs, onWordings] = [next(rules), next(tasks)];
        const score = suiteScore(byTest(result(1, inputs, onInputs), result(1, wordings, onWordings)), facts)!;
        const judged = [...rules.map((task) => onInputs[task]!), ...facts.map((task) => onWordings[task]!)];
        expect(score).toBeCloseTo(judged.reduce((a, b) => a + b) / tasks.length, 12);
      }),
      { seed: 3, numRuns: 200 },
    );
  });

  test("is not there as long as a test is missing", () => {
    expect(suiteTasks(byTest(result(1, inputs, { sum: 1 })), [])).toBeUndefined();
    expect(suiteTasks(byTest(result(1, wordings, { sum: 1 })), [])).toBeUndefined();
  });

  test("never leaves a task out in silence", () => {
    const both = byTest(result(1, inputs, { sum: 1 }), result(1, wordings, { sum: 1, rhymes: 0 }));
    expect(() => suiteScore(both, [])).toThrow(OptionError);
    expect(() => suiteScore(both, [])).toThrow(/"rhymes" in "unseen inputs"/);
    expect(() => suiteScore(both, ["rhymes", "antonyms"])).toThrow(/"antonyms" in "unseen wordings"/);
    expect(suiteScore(both, ["rhymes"])).toBe(0.5);
  });

  test("over seeds counts those that have both tests", () => {
    const results = new Results([
      ...[1, 2, 3].map((seed) => result(seed, inputs, { sum: seed / 4 })),
      ...[1, 3].map((seed) => result(seed, wordings, { sum: 0, rhymes: 1 })),
    ]);
    expect(scoreOf(results, ["rhymes"], { run: "a", mask: "own" })).toMatchObject({ mean: 0.75, n: 2 });
    expect(scoreOf(results, ["rhymes"], { run: "a", mask: "dense" })).toBeUndefined();
  });
});

describe("results", () => {
  test("come back as they were, the same bytes in whatever order they came", async () => {
    const list = [10, 9, 1].flatMap((seed) =>
      [inputs, wordings].map((name) => result(seed, name, { sum: 0.25, rhymes: 0.5 })),
    );
    const [a, b] = [join(folder, "a.jsonl"), join(folder, "b.jsonl")];
    new Results(list).write(a);
    new Results(list.toReversed()).write(b);
    expect(readFileSync(a, "utf8")).toBe(readFileSync(b, "utf8"));
    const seeds = (await Results.read(a)).seedsOf({ run: "a", mask: "own" });
    expect(seeds.map((tests) => tests.get(inputs)!)).toEqual([list[4], list[2], list[0]]);
  });

  test("a newer one takes the place of the one before", () => {
    const results = new Results([result(1, inputs, { sum: 0 })]);
    results.set(result(1, inputs, { sum: 1 }));
    expect(results.seedsOf({ run: "a", mask: "own" })).toHaveLength(1);
    expect(results.get({ run: "a", seed: 1, mask: "own", test: inputs })!.report.mean.accuracy).toBe(1);
  });

  test("numbers have five digits; what this program does not know stays; what is not a number is null", async () => {
    const none = [Number.NaN];
    const overlaps = { overlapWithin: none, overlapAcross: none, everUsed: [0.25] };
    const masks = { domains: ["a"], chance: 1 / 3, ...overlaps, matrices: [[none]] };
    const report = { tasks: [{ task: "sum", accuracy: 2 / 3, count: 123_456 }], mean: { accuracy: 2 / 3 }, masks };
    const path = join(folder, "short.jsonl");
    new Results([result(1, inputs, {}, { report })]).write(path);
    const [tests] = (await Results.read(path)).seedsOf({ run: "a", mask: "own" });
    expect(tests!.get(inputs)!.report).toEqual({
      tasks: [{ task: "sum", accuracy: 0.66667, count: 123_456 }],
      mean: { accuracy: 0.66667 },
      masks: {
        domains: ["a"],
        chance: 0.33333,
        overlapWithin: [null],
        overlapAcross: [null],
        everUsed: [0.25],
        matrices: [[[null]]],
      },
    });
  });

  test("a line that is no result, or a second of its kind, is an error that names it", async () => {
    const line = JSON.stringify(result(1, inputs, { sum: 1 }));
    await expect(Results.read(file("bad.jsonl", `${line}\n{}\n`))).rejects.toThrow(/bad\.jsonl: line 2/);
    await expect(Results.read(file("twice.jsonl", `${line}\n${line}\n`))).rejects.toThrow(/line 2: .*got a second/);
  });
});

describe("experiments.json", () => {
  const row = { name: "A", run: "a", mask: "own", sees: "–" };
  const valid = {
    tFfn: 4,
    instructions: "w.json",
    tests: { [inputs]: "i.jsonl", [wordings]: "w.jsonl" },
    facts: ["rhymes"],
    tables: [{ title: "T", rows: [row] }],
    figures: [{ kind: "bars", name: "f", title: "F", headline: { name: "A", run: "a", mask: "own" }, bars: [row] }],
  };
  const read = (change: object) => readExperiments(file("experiments.json", JSON.stringify({ ...valid, ...change })));
  const { sees, ...bar } = row;
  const figures = [{ ...valid.figures[0]!, bars: [bar, { ...bar, mask: "dense" }] }];

  test("names every run and mask once", () => {
    expect(sourcesOf(read({ figures }))).toEqual([
      { run: "a", mask: "own" },
      { run: "a", mask: "dense" },
    ]);
  });

  test.each([
    ["a key that is unknown", {}, /Unrecognized key: "sees"/],
    ["a mask that is unknown", { figures, tables: [{ title: "T", rows: [{ ...row, mask: "inputs" }] }] }, /mask/],
    ["a run with its seed", { figures, tables: [{ title: "T", rows: [{ ...row, run: "a-s1" }] }] }, /without its seed/],
    ["two figures of one name", { figures: [figures[0], figures[0]] }, /different names/],
    ["a name that leaves the folder", { figures: [{ ...figures[0], name: "../f" }] }, /letters, digits/],
    ["a test that is missing", { figures, tests: { [inputs]: "i.jsonl" } }, /unseen wordings/],
  ])("refuses %s", (_, change, message) => {
    expect(() => read(change)).toThrow(FileError);
    expect(() => read(change)).toThrow(message);
  });

  test("the suite's own is valid", () => {
    const { facts } = readExperiments(join(import.meta.dirname, "../../experiments/suite/experiments.json"));
    expect(facts.length).toBeGreaterThan(0);
  });
});
