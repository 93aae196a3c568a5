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

test("tables, figures and the tables in results and card are what the command writes from the committed results", () => {
  const stale = [...rendered].filter(([path, content]) => readFileSync(path, "utf8") !== content);
  expect(stale.map(([path]) => relative(repository, path))).toEqual([]);
  for (const name of ["docs/results.md", "models/tiny/README.md", "docs/figures/scaling.svg"])
    expect([...rendered.keys()]).toContain(at(name));
});

test("a seed that chose something is in no claim", () => {
  for (const { fresh, chosenOn } of readExperiments(experiments).claims)
    expect(fresh.filter((seed) => chosenOn.includes(seed))).toEqual([]);
});

test("numbers in README's words stand in what was measured", () => {
  const readme = readFileSync(at("README.md"), "utf8");
  const words = readme.replaceAll(/^```.*?^```$|\]\(.*?\)|`.*?`|Node \d+\.\d+/gms, "");
  const numbers = words.match(/(?<![\d.])\d+\.\d+(?![\d.])/g)!;
  expect(numbers.length).toBeGreaterThanOrEqual(5);
  const measured = ["docs/results.md", "docs/log.md", "bench/results/bench-3b.md"].map((name) =>
    readFileSync(at(name), "utf8"),
  );
  for (const number of numbers)
    expect(
      measured.some((text) => text.includes(number)),
      number,
    ).toBe(true);
});
