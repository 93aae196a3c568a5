import { appendFileSync, cpSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { inProcess, succeed } from "../../test/support/cli.ts";
import { parseRecipe, readRecipe } from "../train/recipe/read.ts";
import { trainRecipe } from "../train/run.ts";
import { readRunLog } from "../train/runLog.ts";

const folder = mkdtempSync(join(tmpdir(), "train-"));
afterAll(() => rmSync(folder, { recursive: true }));

cpSync(fileURLToPath(new URL("../../test/fixtures/tiny", import.meta.url)), folder, { recursive: true });
const tiny = join(folder, "recipe.json");
const runs = join(folder, "runs");

test("--seed trains another run of the same recipe, from the source of that seed", async () => {
  const recipes = {
    source: {
      extends: "recipe.json",
      name: "source-s{seed}",
      predictor: null,
      mask: null,
      stages: { backbone: null, cpt: null, sft: null, dense: { steps: 1 } },
    },
    next: { extends: "source.json", name: "next-s{seed}", tokenizer: null, init: { run: "runs/source-s{seed}" } },
  };
  for (const [name, recipe] of Object.entries(recipes)) {
    const path = join(folder, `${name}.json`);
    writeFileSync(path, JSON.stringify(recipe));
    await succeed("train", path, "--seed", "2", "--runs", runs);
  }
  expect(readdirSync(runs)).toEqual(["next-s2", "source-s2"]);
  expect(readRunLog(join(runs, "next-s2", "metrics.jsonl"))[0]).toMatchObject({
    kind: "run",
    recipe: { seed: 2, init: { run: "runs/source-s2" }, stages: [{ name: "dense", steps: 1 }] },
  });

  const noSource = await inProcess("train", join(folder, "next.json"), "--seed", "3", "--runs", runs);
  expect(noSource.code).toBe(1);
  expect(noSource.stderr).toContain(join(runs, "source-s3"));
  const half = await inProcess("train", join(folder, "next.json"), "--seed", "0.5");
  expect(half.stderr).toContain("Wanted an integer of at least 0.");
});

test("--print shows the recipe that would be trained, with all defaults, and trains nothing", async () => {
  const set = [
    "mask.tFfn=16",
    "stages[1].steps=9",
    "stages.sft.learningRate.llm=0.5",
    "name=tiny-s{seed}",
    "init=null",
  ];
  const withoutInit = set.slice(0, -1).flatMap((change) => ["--set", change]);
  const printed = JSON.parse(await succeed("train", tiny, "--seed", "3", ...withoutInit, "--print"));
  const { recipe } = readRecipe(tiny);
  expect(printed).toEqual({
    ...recipe,
    name: "tiny-s3",
    seed: 3,
    mask: { kind: "predictor", tFfn: 16, block: 1, epsilon: 0.3 },
    stages: recipe.stages.map((stage, i) => {
      const changed = i === 1 ? { ...stage, steps: 9 } : stage;
      return stage.name === "sft" ? { ...changed, learningRate: { ...stage.learningRate, llm: 0.5 } } : changed;
    }),
  });
  expect(printed.stages[0].beta2).toBe(0.95); // a default
  expect(parseRecipe(printed, "printed")).toEqual(printed);
  expect(readdirSync(folder)).not.toContain("tiny-s3");

  const nothingThere = await inProcess("train", tiny, ...set.flatMap((change) => ["--set", change]), "--print");
  expect(nothingThere).toMatchObject({ code: 1, stdout: "" });
  expect(nothingThere.stderr).toContain('set "init": wanted a key to remove (there: ');
});

test.each([
  ["an unknown key", ["--set", "mask.tffn=16"], /"mask": wanted no key "tffn" \(known: kind, tFfn, block, epsilon\)/],
  ["a wrong value", ["--set", "mask.tFfn=many"], /"mask\.tFfn": wanted an integer of at least 1, got "many"/],
  ["what does not fit", ["--set", "mask.tFfn=65"], /"mask\.tFfn": wanted at most llm\.ffnWidth = 64 channels, got 65/],
  [
    "an unknown stage",
    ["--set", "stages.joint.steps=1"],
    /set "stages\.joint\.steps": wanted one of backbone, dense, .*got "joint"/,
  ],
  ["no value", ["--set", "mask.tFfn"], /Wanted path=value, such as mask\.tFfn=64/],
  ["two seeds", ["--set", "seed=1", "--seed", "2"], /wanted one seed, got "--seed" too/],
  ["--print of a training's output", ["--print", "--json"], /'--print' cannot be used with option '--json'/],
])("refused: %s", async (_, args, message) => {
  const { code, stderr } = await inProcess("train", tiny, ...args);
  expect(code).not.toBe(0);
  expect(stderr).toMatch(message);
});

test("a run goes on under the changes that it began with, and under no others", async () => {
  const train = (...changes: string[]) =>
    inProcess("train", join(folder, "source.json"), "--runs", runs, ...changes.flatMap((change) => ["--set", change]));
  const begun = ["name=set", "stages.dense.steps=2"];
  expect(await train(...begun)).toMatchObject({ code: 0 });
  expect(await train(...begun)).toMatchObject({ code: 0, stderr: expect.stringContaining("2 steps done") });
  const { code, stderr } = await train("name=set", "stages.dense.steps=3");
  expect(code).toBe(1);
  expect(stderr).toContain("got changes of stages[0].steps (2 → 3)");
});

test("data that changed while a run was stopped are refused, naming the file, unless they are accepted", async () => {
  const file = readRecipe(join(folder, "source.json"), {
    set: [
      ["name", "data"],
      ["stages.dense.steps", 3],
    ],
  });
  const stop = new AbortController();
  for await (const { kind } of trainRecipe(file, { runDir: join(runs, "data"), threads: 1, signal: stop.signal }))
    if (kind === "row") stop.abort();
  const path = file.recipe.stages[0]!.data[0]!.path;
  appendFileSync(join(folder, path), "\n"); // a blank line, which changes no example
  const train = (...more: string[]) =>
    inProcess(
      "train",
      join(folder, "source.json"),
      "--runs",
      runs,
      "--set",
      "name=data",
      "--set",
      "stages.dense.steps=3",
      ...more,
    );
  const refused = await train();
  expect(refused.code).toBe(1);
  expect(refused.stderr).toMatch(`${path}: wanted what the run began with`);
  const accepted = await train("--accept-changed-data");
  expect(accepted).toMatchObject({ code: 0, stderr: expect.stringContaining("3 steps done") });
  expect(accepted.stderr).toContain(`changed since the run began, and accepted: ${path}`);
});
