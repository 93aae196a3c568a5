/** Tables and figures of experiments, as files. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { FileError } from "../../src/errors.ts";
import { writeExperiments } from "./writeExperiments.ts";

const folder = mkdtempSync(join(tmpdir(), "ifprune-suite-"));
const at = (...names: string[]) => join(folder, ...names);
beforeAll(() => {
  const source = { run: "a", mask: "own" };
  const experiments = {
    tFfn: 4,
    instructions: "w.json",
    tests: { "unseen inputs": "i.jsonl", "unseen wordings": "w.jsonl" },
    facts: [],
    tables: [{ title: "Table", rows: [{ name: "A", ...source, sees: "nothing" }] }],
    figures: [
      {
        kind: "bars",
        name: "bars",
        title: "Bars",
        headline: { name: "A", ...source },
        bars: [{ name: "B", run: "b", mask: "own" }],
      },
      { kind: "lines", name: "lines", title: "Lines", xLabel: "x", points: [{ series: "A", x: 1, ...source }] },
      { kind: "overlap", name: "overlap", title: "Overlap", ...source },
    ],
  };
  mkdirSync(at("results"));
  writeFileSync(at("experiments.json"), JSON.stringify(experiments));
  const report = { tasks: [{ task: "sum", accuracy: 0.5 }], mean: { accuracy: 0.5 } };
  const results = Object.keys(experiments.tests).map((name) => ({
    ...source,
    seed: 1,
    test: name,
    checkpoint: "c",
    questions: "q",
    report,
  }));
  writeFileSync(at("results", "results.jsonl"), results.map((result) => `${JSON.stringify(result)}\n`).join(""));
});
afterAll(() => rmSync(folder, { recursive: true }));

test("writes tables beside the results and every figure, the same each time, and says what was not run", async () => {
  const files = ["results/tables.md", "figures/deep/bars.svg", "figures/deep/lines.svg", "figures/deep/overlap.svg"];
  const read = () => files.map((name) => readFileSync(at(name), "utf8"));
  const make = () => writeExperiments(at("experiments.json"), at("figures", "deep"));
  expect(await make()).toEqual({ written: files.map((name) => at(name)), notRun: ["b, mask own"] });
  const first = read();
  expect(first[0]).toContain("| A | nothing | **50.0 ± –** |");
  for (const svg of first.slice(1)) expect(svg).toMatch(/^<svg [\s\S]*<\/svg>\n$/);
  await make();
  expect(read()).toEqual(first);
  expect(readdirSync(at("results")).sort()).toEqual(["results.jsonl", "tables.md"]);
});

test("refuses no experiments, and writes nothing", async () => {
  const none = writeExperiments(at("results", "nothing.json"), at("none"));
  await expect(none).rejects.toThrow(FileError);
  await expect(none).rejects.toThrow(/nothing\.json: wanted a readable file/);
  expect(existsSync(at("none"))).toBe(false);
});
