/** What is committed is what the command writes, of results that are what they should be. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, expect, test } from "vitest";
import { FileError } from "../../src/errors.ts";
import { renderResults } from "./report.ts";

const folder = mkdtempSync(join(tmpdir(), "ifprune-specialize-"));
afterAll(() => rmSync(folder, { recursive: true }));
beforeEach(() => {
  rmSync(join(folder, "results"), { recursive: true, force: true });
  mkdirSync(join(folder, "results"));
});

const measured = { agreement: 0.5, perplexity: 2, minutes: 1 };
const ours = { task: "sql", arm: "ours", keep: 0.5, seed: 1, tokens: 60_000, kl: 0.1, ...measured };
const write = (name: string, content: unknown) =>
  writeFileSync(join(folder, `results/${name}.json`), JSON.stringify(content));
const tables = () => renderResults(folder, "").get(join(folder, "results/tables.md"))!;
const rows = () =>
  tables()
    .split("\n")
    .filter((line) => /^\| [a-z]+ \| [0-9]/.test(line));

test("the committed table and figure are of the committed results", () => {
  const rendered = renderResults(import.meta.dirname, join(import.meta.dirname, "../../docs/figures"));
  expect(rendered.size).toBe(2);
  for (const [path, content] of rendered) expect(readFileSync(path, "utf8"), path).toBe(content);
});

test("seeds of one arm are one row, other shares and numbers of tokens others", () => {
  write("a", ours);
  write("b", { ...ours, seed: 2, kl: 0.3, exact: { share: 0.25, asked: 8 } });
  write("c", { ...ours, keep: 0.75 });
  write("d", { ...ours, tokens: 200_000 });
  write("e", { ...ours, arm: "tuned", keep: 1, kl: 0 });
  expect(rows()).toEqual([
    "| tuned | 1 | 60,000 | 1 | 0.000 | 50.0 | 2.00 | – | – |",
    "| ours | 0.75 | 60,000 | 1 | 0.100 | 50.0 | 2.00 | – | – |",
    "| ours | 0.5 | 60,000 | 1, 2 | 0.200 ± 0.141 | 50.0 ± 0.0 | 2.00 ± 0.00 | 25.0 | – |",
    "| ours | 0.5 | 200,000 | 1 | 0.100 | 50.0 | 2.00 | – | – |",
  ]);
});

test.each([
  { ...ours, arm: "mine" },
  { ...ours, kl: null },
  { ...ours, note: "by hand" },
])("a file that is no result of the suite is refused: %j", (content) => {
  write("a", content);
  expect(tables).toThrow(FileError);
  expect(tables).toThrow(/a\.json/);
});
