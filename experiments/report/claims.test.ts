import { expect, test } from "vitest";
import { claimsMarkdown } from "./claims.ts";
import { type Claims, type Experiments, FACTS_TEST, type Result, Results, RULES_TEST } from "./experiments.ts";

const experiments = { facts: ["rhymes", "synonyms"], allOrNothing: ["sum"] } as unknown as Experiments;
const claims: Claims = {
  title: "T",
  of: { name: "A", run: "a", mask: "own" },
  over: [{ name: "B", run: "b", mask: "own" }],
  fresh: [2, 3],
  chosenOn: [1],
};
const report = (accuracies: Record<string, number>): Result["report"] => ({
  tasks: Object.entries(accuracies).map(([task, accuracy]) => ({ task, accuracy })),
  mean: { accuracy: 0 },
});
const both = (run: string, seed: number, rules: Record<string, number>, facts: Record<string, number>): Result[] =>
  [[RULES_TEST, rules] as const, [FACTS_TEST, { ...rules, ...facts }] as const].map(([test, own]) => ({
    run,
    seed,
    mask: "own",
    test,
    checkpoint: "c",
    questions: "q",
    report: report(own),
  }));
const seed = (number: number, rule: number, fact: number) => [
  ...both("a", number, { sum: 0.5 + rule, plural: 0.5 + rule }, { rhymes: 0.4 + fact, synonyms: 0.2 + fact }),
  ...both("b", number, { sum: 0.5, plural: 0.5 }, { rhymes: 0.4, synonyms: 0.2 }),
];
const cells = (lines: readonly string[], group: string) =>
  lines.find((line) => line.split(" | ")[1]?.startsWith(group))!.split(" | ");

test("rules and facts stand apart, over the fresh seeds alone; the seed of the choice is shown and not counted", () => {
  const results = new Results([...seed(1, -0.4, 0.4), ...seed(2, 0.1, 0.2), ...seed(3, -0.1, 0.3)]);
  const lines = claimsMarkdown(claims, experiments, results);
  expect(cells(lines, "rules (")).toEqual([
    "| ",
    "rules (2)",
    "+0.0 ± 14.1",
    "+10.0, −10.0",
    "−127.1 to +127.1",
    "1.000",
    "−40.0 |",
  ]);
  expect(cells(lines, "facts (")[2]).toBe("+25.0 ± 7.1");
  expect(cells(lines, "facts (")[5]).toBe("0.500"); // two tasks of one sign: two of four ways are as far
  expect(cells(lines, "rules without sum")[1]).toBe("rules without sum (1)");
  expect(cells(lines, "all (")[2]).toBe("+12.5 ± 3.5");
});

test("one fresh seed has no interval; a row that was not run says so", () => {
  const lines = claimsMarkdown(claims, experiments, new Results(seed(2, 0.1, 0.1)));
  expect(cells(lines, "all (").slice(2, 5)).toEqual(["+10.0 ± –", "+10.0", "–"]);
  expect(claimsMarkdown(claims, experiments, new Results()).join("\n")).toContain("not run");
});
