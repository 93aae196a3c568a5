import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { z } from "zod";
import { FileError, OptionError } from "../src/errors.ts";
import { readJsonLines } from "../src/text/jsonl.ts";
import { readRunLog } from "../src/train/runLog.ts";
import { readExperiments, sourcesOf } from "./report/experiments.ts";
import { resultsPath } from "./report/writeExperiments.ts";
import { inOrder, readRuns, recipeOf } from "./runs.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const suite = join(root, "experiments/suite");
const folder = mkdtempSync(join(tmpdir(), "runs-"));
afterAll(() => rmSync(folder, { recursive: true }));

test("every run of the suite has a recipe that can be trained, from the run that it comes after", () => {
  const file = join(suite, "runs.json");
  const runs = readRuns(file);
  for (const [name, { after }] of Object.entries(runs)) {
    const { recipe, pathOf } = recipeOf(file, runs, name, { seed: 2, runsDir: join(root, "runs") });
    expect(recipe).toMatchObject({ name: `${name}-s2`, seed: 2 });
    const init = recipe.init && pathOf(recipe.init.run);
    expect(init, name).toBe(after && join(root, "runs", `${after}-s2`));
  }
});

test("what a recipe trains by itself is the run that is named after it", () => {
  const file = join(suite, "runs.json");
  const runs = readRuns(file);
  const unchanged = Object.entries(runs).filter(([, { set }]) => Object.keys(set).length === 0);
  expect(unchanged.length).toBe(new Set(Object.values(runs).map(({ recipe }) => recipe)).size); // each recipe once
  for (const [name, { recipe }] of unchanged)
    expect(readFileSync(join(suite, recipe), "utf8"), recipe).toContain(`"name": "${name}-s{seed}"`);
});

test("every run that is compared or has results is there to be trained again", async () => {
  const experiments = join(suite, "experiments.json");
  const compared = sourcesOf(readExperiments(experiments)).map(({ run }) => run);
  const measured: string[] = [];
  for await (const { row } of readJsonLines(resultsPath(experiments), z.looseObject({ run: z.string() })))
    measured.push(row.run);
  expect(measured.length).toBeGreaterThan(100);
  const runs = readRuns(join(suite, "runs.json"));
  expect(new Set([...compared, ...measured].filter((run) => !Object.hasOwn(runs, run)))).toEqual(new Set());
});

function write(runs: unknown): string {
  const path = join(folder, "runs.json");
  writeFileSync(path, JSON.stringify(runs));
  return path;
}

test("runs come behind those that they come after, each once", () => {
  const recipe = "recipe.json";
  const runs = readRuns(
    write({ c: { recipe, after: "b" }, b: { recipe, after: "a" }, a: { recipe }, d: { recipe, after: "a" } }),
  );
  expect(inOrder(runs, ["c", "d", "b"])).toEqual(["a", "b", "c", "d"]);
  expect(() => inOrder(runs, ["e"])).toThrow(OptionError);
  expect(() => inOrder(runs, ["e"])).toThrow('run: wanted one of c, b, a, d, got "e".');
  expect(() => inOrder(runs, ["toString"])).toThrow(OptionError);
});

test.each([
  [
    "after one that is not there",
    { a: { recipe: "r", after: "b" } },
    /wanted runs after runs that are here, got a after b/,
  ],
  [
    "in a circle",
    { a: { recipe: "r", after: "b" }, b: { recipe: "r", after: "a" } },
    /wanted runs with a first one, got a after b after a/,
  ],
  ["with another key", { a: { recipe: "r", seed: 3 } }, /wanted runs, got: .*seed/],
  ["without a recipe", { a: { set: {} } }, /wanted runs, got: [\s\S]*recipe/],
])("refused: a run %s", (_, runs, message) => {
  expect(() => readRuns(write(runs))).toThrow(FileError);
  expect(() => readRuns(write(runs))).toThrow(message);
});

test("a run is trained behind what it starts from; what is finished is not trained again", () => {
  cpSync(join(root, "test/fixtures/tiny"), folder, { recursive: true });
  const dense = { predictor: null, mask: null, "stages.backbone": null, "stages.cpt": null, "stages.sft": null };
  const file = write({
    next: { recipe: "recipe.json", after: "source", set: { ...dense, tokenizer: null, "stages.dense.steps": 2 } },
    other: { recipe: "recipe.json", set: dense },
    source: { recipe: "recipe.json", set: { ...dense, "stages.dense.steps": 1 } },
  });
  const trained = join(folder, "runs");
  const train = (...names: string[]) =>
    execFileSync(
      process.execPath,
      [
        "--import",
        "tsx",
        join(root, "experiments/run.ts"),
        file,
        ...names,
        "--seed",
        "4",
        "--runs",
        trained,
        "--threads",
        "1",
      ],
      { cwd: root, stdio: "pipe" },
    );
  train("next");
  expect(readdirSync(trained)).toEqual(["next-s4", "source-s4"]);
  const [begun] = readRunLog(join(trained, "next-s4/metrics.jsonl"));
  expect(begun).toMatchObject({ recipe: { seed: 4, stages: [{ name: "dense", steps: 2 }] } });
  expect(basename((begun as { recipe: { init: { run: string } } }).recipe.init.run)).toBe("source-s4");
  const logs = () => ["source-s4", "next-s4"].map((run) => readFileSync(join(trained, run, "metrics.jsonl"), "utf8"));
  const before = logs(); // with the time of each step
  train("next");
  expect(logs()).toEqual(before);
});
