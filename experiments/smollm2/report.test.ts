/** What is committed is what the command writes, of results that are what they should be. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { afterAll, beforeEach, expect, test } from "vitest";
import { FileError } from "../../src/errors.ts";
import { renderEvidence } from "./report.ts";

const repository = join(import.meta.dirname, "../..");
const figures = join(repository, "docs/figures");
const folder = mkdtempSync(join(tmpdir(), "ifprune-evidence-"));
afterAll(() => rmSync(folder, { recursive: true }));
const write = (name: string, content: unknown) => writeFileSync(join(folder, name), JSON.stringify(content));
const render = () => renderEvidence(folder, "");
const tables = () => render().get(join(folder, "results/tables.md"))!;

const score = (kl: number) => ({
  kl,
  agreement: 0.5,
  byKind: { sql: { kl, agreement: 0.5 }, "a|b": { kl, agreement: 1 } },
});
const row = (mask: string, keep: number, kl: number) => ({ model: "m", mask, keep, ...score(kl) });
const matrix = {
  model: "m",
  keep: 0.5,
  kinds: ["sql", "a|b"],
  kl: [
    [0.25, 0.75],
    [0.5, 0.25],
  ],
  chance: 0.5,
  overlapWithin: [0.9, null],
  overlapAcross: [0.6, 0.5],
};
const evaluation = {
  dense: "d",
  prompts: 4,
  rows: [row("dense", 1, 0.1), row("own", 0.5, 0.25), row("foreign", 0.5, 0.5)],
};
const byPrompt = (...kls: number[]) => ({
  sql: kls.map((kl) => [kl, 2] as const),
  "a|b": kls.map((kl, i) => [kl * (i + 1), i + 1] as const),
});

test("arms are held against each other prompt by prompt; other prompts are refused", () => {
  const arm = (file: string, own: object, kl: number) =>
    write(`results/${file}`, { ...evaluation, rows: [{ ...row("own", 0.5, kl), byPrompt: own }] });
  arm("a.json", byPrompt(1, 2, 3, 4), 2.125);
  arm("b.json", byPrompt(2, 3, 4, 5), 2.875);
  const arms = ["a", "b"].map((name) => ({ name, file: `${name}.json` }));
  const pairs = [
    { name: "A and B", file: "a.json", against: "b.json" },
    { name: "A and later", file: "a.json", against: "later.json" },
  ];
  const all = {
    ...experiments,
    tables: [{ title: "T", arms: [...arms, { name: "later", file: "later.json" }] }],
    pairs,
  };
  write("experiments.json", all);
  // a half of each sql answer's KL a token, one of a|b's: no spread, whatever their lengths
  expect(tables()).toContain("| A and B | 0.74 | −0.750 (−0.750 to −0.750) | 2 of 2 |");
  expect(tables()).toContain("| A and later | not run |");
  arm("b.json", byPrompt(2, 3, 4, 6), 3.1375);
  expect(tables()).toMatch(/\| A and B \| 0\.68 \| −1\.01[23] \(−1\.\d+ to −0\.\d+\)/);
  arm("b.json", byPrompt(2, 3, 4), 2.5);
  expect(tables).toThrow(/wanted arms that were measured on the same prompts/);
});

const experiments = {
  tables: [
    {
      title: "T",
      arms: [
        { name: "A", file: "a.json" },
        { name: "later", file: "later.json" },
      ],
    },
  ],
  byStep: "steps.json",
  best: "a.json",
  questions: [
    { name: "dense", file: "questions-dense.json" },
    { name: "this model", file: "questions-model.json" },
  ],
  documents: ["card.md", "later/card.md"],
};
beforeEach(() => {
  rmSync(join(folder, "results"), { recursive: true, force: true });
  mkdirSync(join(folder, "results"));
  write("experiments.json", experiments);
  write("results/a.json", { ...evaluation, matrices: [matrix] });
  write("results/steps.json", {});
  write("results/questions-dense.json", { tasks: [{ task: "capital", count: 4, accuracy: 0.75, loss: 1 }], masks: {} });
  const marks = ["smollm2-kl", "smollm2-scores"].map((name) => `<!-- table: ${name} -->\n<!-- end -->\n`);
  writeFileSync(join(folder, "card.md"), marks.join(""));
});

test("tables, figures and the card are what the command writes from the committed results", () => {
  const rendered = renderEvidence(import.meta.dirname, figures);
  const stale = [...rendered].filter(([path, content]) => readFileSync(path, "utf8") !== content);
  expect(stale.map(([path]) => relative(repository, path))).toEqual([]);
  expect([...rendered.keys()].map((path) => relative(repository, path))).toEqual(
    expect.arrayContaining(["experiments/smollm2/results/tables.md", "docs/figures/smollm2-kl.svg"]),
  );
});

test("a row for each share of an arm, without columns that say nothing; what was not run says so", () => {
  write("results/a.json", { ...evaluation, rows: [...evaluation.rows, row("own", 0.75, 0.2)] });
  const lines = tables().split("\n");
  expect(lines).toContain("| masks | keep | prompts | own mask | another kind's | all channels |");
  expect(lines).toContain("| A | 0.5 | 4 | 0.250 / 0.500 | 0.500 / 0.500 | 0.100 / 0.500 |");
  expect(lines).toContain("| A | 0.75 | 4 | 0.200 / 0.500 | – | 0.100 / 0.500 |");
  expect(lines).toContain("| later | not run | – | – | – | – |");
  expect(lines).toContain("| A | 0.75 | 0.200 | 0.200 |"); // by kind
});

test("steps and tokens of a run are what its file says", () => {
  const heldOut = [{ step: 7, examples: 3, kl: { own: 1 }, agreement: { own: 0.5 } }];
  write("results/steps.json", { r: { tokens: 1234, heldOut, trainLoss: [] } });
  const arms = [{ name: "A", file: "a.json", healed: { rate: 1e-4, run: "r" } }];
  write("experiments.json", { ...experiments, tables: [{ title: "T", arms }] });
  expect(tables()).toContain("| A | 0.5 | 4 | 7 | 1,234 | 1e-4 |");
  expect(tables()).toContain("| r, 1,234 tokens | 7 | 3 | 1.000 / 0.500 |");
});

test("the card's tables; a document that is not there yet is left out", () => {
  const card = render().get(join(folder, "card.md"))!;
  expect(card).toContain("A, keep 0.5; 4 held-out prompts.");
  expect(card).toContain("| a\\|b | 0.250 / 1.000 | 0.500 / 1.000 | 0.100 / 1.000 |");
  expect(card).toContain("| capital | 3 of 4 | not run |");
  expect([...render().keys()]).not.toContain(join(folder, "later/card.md"));
});

test("figures are drawn of what was measured", () => {
  const drawn = [...render()].filter(([path]) => path.endsWith(".svg"));
  expect(drawn.map(([path]) => path)).toEqual(["smollm2-kl.svg", "smollm2-matrix.svg", "smollm2-overlap.svg"]);
  for (const [, svg] of drawn) expect(svg).not.toMatch(/NaN|Infinity|undefined|null/);
  const matrixSvg = drawn[1]![1];
  expect(matrixSvg).toContain("from 1.00 to 3.00"); // 0.75 of 0.25
  expect(matrixSvg).toMatch(/class="h31"\/><text[^>]*class="paper"[^>]*>0\.75</); // light on dark, dark on light
  expect(matrixSvg).toMatch(/class="h0"\/><text(?![^>]*class)[^>]*>0\.25</);
  write("results/a.json", evaluation);
  expect([...render().keys()].filter((path) => path.endsWith(".svg"))).toEqual(["smollm2-kl.svg"]);
});

test.each([
  ["a wrong number", { ...evaluation, rows: [{ ...row("own", 0.5, 1), kl: "1" }] }, /a\.json: .*[\s\S]*rows\[0\]\.kl/],
  ["an unknown key", { ...evaluation, more: 1 }, /a\.json: .*"more"/s],
  ["a matrix of another size", { ...evaluation, matrices: [{ ...matrix, kl: [[1]] }] }, /matrices\[0\]\.kl/],
  [
    "several models, none named",
    { ...evaluation, rows: [...evaluation.rows, { ...row("own", 1, 1), model: "n" }] },
    /got m, n/,
  ],
])("refuses %s, and says where", (_, content, message) => {
  write("results/a.json", content);
  expect(render).toThrow(FileError);
  expect(render).toThrow(message);
});

test("refuses a result that nothing names, so that none is left out in silence", () => {
  write("results/b.json", evaluation);
  expect(render).toThrow(/b\.json: wanted a result that .*experiments\.json names/);
});
