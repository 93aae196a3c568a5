import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { TinyModel } from "./experiments.ts";
import { type Answers, MASKS, readAnswers, tinyTables } from "./tinyModel.ts";

const folder = mkdtempSync(join(tmpdir(), "ifprune-tiny-"));
const experiments = join(folder, "experiments.json");
const model: TinyModel = {
  results: "tiny.jsonl",
  further: ["sql"],
  tests: [
    { name: "inputs", files: ["data/a.jsonl", "data/b.jsonl"], shows: "rules" },
    { name: "plain", files: ["data/c.jsonl"], shows: "all" },
  ],
};
beforeAll(() => {
  mkdirSync(join(folder, "data"));
  for (const name of ["a", "b", "c"]) writeFileSync(join(folder, "data", `${name}.jsonl`), name);
});
afterAll(() => rmSync(folder, { recursive: true }));

const ones = (right: number, count: number) => "1".repeat(right).padEnd(count, "0");
const lines = (mask: Answers["mask"], sum: number): Answers[] =>
  [
    ["a", "sum", ones(sum, 60)],
    ["b", "sql", ones(30, 60)],
    ["c", "sum", "1000"],
    ["c", "rhymes", "1100"],
  ].map(([file, task, isCorrect]) => ({
    file: file!,
    questions: createHash("sha256").update(file!).digest("hex"),
    mask,
    task: task!,
    isCorrect: isCorrect!,
  }));
const all = MASKS.flatMap((mask) => lines(mask, mask === "input" ? 54 : 48));

test("shares with their intervals, rules and facts apart, a further domain outside the means", () => {
  const tables = tinyTables(model, { facts: ["rhymes"] }, all);
  expect(tables.get("tiny-scores")).toEqual([
    "| task | inputs | plain |",
    "|---|---:|---:|",
    "| **rules (1)** | **90.0 (82–98)** | **25.0 (0–74)** |",
    "| sum | 90.0 (80–95) | 1 of 4 |",
    "| **facts (1)** | – | **50.0 (0–100)** |",
    "| rhymes | – | 2 of 4 |",
    "| **all 2** | **90.0 (82–98)** | **37.5 (0–75)** |",
    "| sql | 50.0 (38–62) | – |",
  ]);
  expect(tables.get("tiny-summary")!.slice(2)).toEqual([
    "| inputs | 90.0 (82–98) | – | rules |",
    "| plain | 25.0 (0–74) | 50.0 (0–100) | all |",
  ]);
});

test("masks are compared question by question", () => {
  const paired = tinyTables(model, { facts: ["rhymes"] }, all).get("tiny-paired")!;
  expect(paired[2]).toBe("| from the instruction without its input | inputs | +10.0 (+2.3 to +17.7) | 6 | 0 | 0.031 |");
});

test("answers to other questions than those that stand there are refused", async () => {
  const path = join(folder, "tiny.jsonl");
  writeFileSync(path, all.map((line) => `${JSON.stringify(line)}\n`).join(""));
  expect(await readAnswers(path, model, experiments)).toEqual(all);
  writeFileSync(join(folder, "data", "c.jsonl"), "changed");
  await expect(readAnswers(path, model, experiments)).rejects.toThrow(/line 3: wanted answers to c\.jsonl/);
});
