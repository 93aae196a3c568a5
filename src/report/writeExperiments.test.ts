/** `ifprune report EXPERIMENTS.json --figures DIR`, from the command line. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { inProcess } from "../../test/support/cli.ts";

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
  const read = () =>
    ["results/tables.md", "figures/deep/bars.svg", "figures/deep/lines.svg", "figures/deep/overlap.svg"].map((name) =>
      readFileSync(at(name), "utf8"),
    );
  const make = () => inProcess("report", at("experiments.json"), "--figures", at("figures", "deep"));
  const { code, stderr } = await make();
  expect(code).toBe(0);
  expect(stderr.trim().split("\n")).toEqual([
    ...["results/tables.md", "figures/deep/bars.svg", "figures/deep/lines.svg", "figures/deep/overlap.svg"].map(
      (name) => at(name),
    ),
    "not run: b, mask own",
  ]);
  const first = read();
  expect(first[0]).toContain("| A | nothing | **50.0 ± –** |");
  for (const svg of first.slice(1)) expect(svg).toMatch(/^<svg [\s\S]*<\/svg>\n$/);
  await make();
  expect(read()).toEqual(first);
  expect(readdirSync(at("results")).sort()).toEqual(["results.jsonl", "tables.md"]);
});

test.each([
  [
    "a page as well",
    [at("experiments.json"), "--figures", at("none"), "--out", at("page.html")],
    /--figures or --out, got both/,
  ],
  [
    "two inputs",
    [at("experiments.json"), "runs", "--figures", at("none")],
    /one experiments\.json with --figures, got 2/,
  ],
  ["no experiments", [at("results", "nothing.json"), "--figures", at("none")], /nothing\.json: wanted a readable file/],
])("refuses %s, and writes nothing", async (_, args, message) => {
  const { code, stderr } = await inProcess("report", ...args);
  expect(code).toBe(1);
  expect(stderr).toMatch(message);
  expect([at("none"), at("page.html")].filter((path) => existsSync(path))).toEqual([]);
});
