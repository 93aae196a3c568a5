/** What is committed is what the command writes, and README claims nothing else. */
import { readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { readExperiments } from "./experiments.ts";
import { renderExperiments } from "./writeExperiments.ts";

const repository = join(import.meta.dirname, "../..");
const at = (...names: string[]) => join(repository, ...names);
const experiments = at("experiments/suite/experiments.json");
let rendered: Map<string, string>;
beforeAll(async () => {
  rendered = await renderExperiments(experiments, at("docs/figures"));
});

test("tables, figures and the tables in README, results and card are what the command writes from the committed results", () => {
  const stale = [...rendered].filter(([path, content]) => readFileSync(path, "utf8") !== content);
  expect(stale.map(([path]) => relative(repository, path))).toEqual([]);
  for (const name of ["README.md", "docs/results.md", "models/default/README.md", "docs/figures/scaling.svg"])
    expect([...rendered.keys()]).toContain(at(name));
});

test("a seed that chose something is in no claim", () => {
  for (const { fresh, chosenOn } of readExperiments(experiments).claims)
    expect(fresh.filter((seed) => chosenOn.includes(seed))).toEqual([]);
});

test("differences and shares in README's words stand in the tables of docs/results.md or of the card", () => {
  const section = /## What it does, measured\n([\s\S]*?)\n## /.exec(readFileSync(at("README.md"), "utf8"))![1]!;
  expect(section.split("\n").length).toBeLessThanOrEqual(27);
  const claimed = section.match(/\d+\.\d ± \d+\.\d/g)!;
  expect(claimed.length).toBeGreaterThan(5);
  const tables = /## What masks are worth, over fresh seeds\n([\s\S]*?)\n## /.exec(
    readFileSync(at("docs/results.md"), "utf8"),
  )![1]!;
  for (const number of claimed) expect(tables, number).toContain(number);
});
