import { expect, test } from "vitest";
import { type Experiments, type Result, Results } from "./experiments.ts";
import { tablesMarkdown } from "./tables.ts";

const tests = { "unseen inputs": "i.jsonl", "unseen wordings": "w.jsonl" };
const row = (name: string, run: string, sees = "–"): Experiments["tables"][number]["rows"][number] => ({
  name,
  run,
  mask: "own",
  sees,
});
function result(run: string, seed: number, test: string, accuracies: Record<string, number>): Result {
  const tasks = Object.entries(accuracies).map(([task, accuracy]) => ({ task, accuracy }));
  const mean = { accuracy: tasks.reduce((sum, { accuracy }) => sum + accuracy, 0) / tasks.length };
  return { run, seed, mask: "own", test, checkpoint: "c", questions: "q", report: { tasks, mean } };
}
const both = (run: string, seed: number, score: number) => [
  result(run, seed, "unseen inputs", { sum: score }),
  result(run, seed, "unseen wordings", { sum: 0, rhymes: score }),
];
const markdown = (rows: Experiments["tables"][number]["rows"], results: Result[], seeds?: number[]) =>
  tablesMarkdown(
    {
      tests,
      tFfn: 4,
      instructions: "w.json",
      facts: ["rhymes"],
      allOrNothing: [],
      claims: [],
      documents: [],
      tables: [{ title: "T", rows }, ...(seeds ? [{ title: "Some seeds", rows, seeds }] : [])],
      figures: [],
    },
    new Results(results),
  );

test("with a headline, every row is compared with it seed by seed, over the seeds that both have", () => {
  const rows = [row("H", "h"), row("A", "a"), row("B", "b")];
  const headline = { name: "H", run: "h", mask: "own" as const };
  const scores = [
    ...both("h", 1, 0.9),
    ...both("h", 2, 0.5),
    ...both("a", 1, 0.8),
    ...both("a", 2, 0.3),
    ...both("a", 3, 0),
  ];
  const lines = tablesMarkdown(
    {
      tests,
      tFfn: 4,
      instructions: "w.json",
      facts: ["rhymes"],
      allOrNothing: [],
      claims: [],
      documents: [],
      tables: [{ title: "T", headline, rows }],
      figures: [],
    },
    new Results(scores),
  ).split("\n");
  expect(lines).toContain(
    "| model | the mask sees | suite score | − H, seed by seed | unseen inputs | unseen wordings | seeds |",
  );
  const differences = ["H", "A", "B"].map(
    (name) => lines.find((line) => line.startsWith(`| ${name} |`))!.split(" | ")[3],
  );
  expect(differences).toEqual(["", "−15.0 ± 7.1", ""]);
});

test("tasks that are found out as a whole or not at all are set aside in columns of their own", () => {
  const rows = [row("H", "h"), row("A", "a")];
  const headline = { name: "H", run: "h", mask: "own" as const };
  const of = (run: string, seed: number, sum: number, rhymes: number) => [
    result(run, seed, "unseen inputs", { sum }),
    result(run, seed, "unseen wordings", { rhymes }),
  ];
  const experiments = {
    tests,
    tFfn: 4,
    instructions: "w.json",
    facts: ["rhymes"],
    allOrNothing: ["sum"],
    claims: [],
    documents: [],
    figures: [],
  };
  const scores = [...of("h", 1, 1, 0.5), ...of("h", 2, 0, 0.5), ...of("a", 1, 0, 0.25), ...of("a", 2, 0, 0.35)];
  const lines = tablesMarkdown({ ...experiments, tables: [{ title: "T", headline, rows }] }, new Results(scores)).split(
    "\n",
  );
  expect(lines).toContain(
    "| model | the mask sees | suite score | − H, seed by seed | without sum | − H, seed by seed | unseen inputs | unseen wordings | seeds |",
  );
  expect(lines.find((line) => line.startsWith("| A |"))).toContain(
    "| **15.0 ± 3.5** | −35.0 ± 38.9 | 30.0 ± 7.1 | −20.0 ± 7.1 |",
  );
});

test("overlaps of masks stand layer by layer, as the mean over seeds, once per run, mask and seeds", () => {
  const withMasks = (seed: number, within: number, unseenWordings: number): Result[] =>
    both("a", seed, 0.5).map((own) => {
      const overlaps = { overlapWithin: [within, 1], overlapAcross: [0.1, null], everUsed: [0.5, 0.75] };
      const masks = { domains: ["sum"], chance: 0.125, ...overlaps, unseenWordings };
      return { ...own, report: { ...own.report, masks } };
    });
  const rows = [row("A", "a"), row("again", "a"), row("B", "b")];
  const results = [...withMasks(1, 0.6, 0.9), ...withMasks(2, 0.8, 0.7), ...both("b", 1, 1)];
  const lines = markdown(rows, results, [2]).split("\n");
  const at = lines.indexOf("## How alike masks are");
  const table = lines.slice(at).filter((line) => line.startsWith("| T "));
  expect(table).toHaveLength(1); // "B" predicts no masks
  expect(table[0]).toBe("| T | A | – | 70 100 | 10 – | 12.5 | 50 75 | 80.0 ± 14.1 |");
  expect(lines.slice(at).filter((line) => line.startsWith("| Some seeds "))).toEqual([
    "| Some seeds | A | – | 80 100 | 10 – | 12.5 | 50 75 | 70.0 ± – |",
  ]);
});

test("a row is the mean and spread over its seeds; one seed has no spread; a row without runs says so", () => {
  const lines = markdown(
    [row("A", "a"), row("B", "b", "nothing"), row("C", "c")],
    [...both("a", 1, 0.5), ...both("a", 2, 0.7), ...both("b", 1, 0.25)],
  ).split("\n");
  expect(lines).toContain("| model | the mask sees | suite score | unseen inputs | unseen wordings | seeds |");
  expect(lines).toContain("| A | – | **60.0 ± 14.1** | 60.0 ± 14.1 | 30.0 ± 7.1 | 2 |");
  expect(lines).toContain("| B | nothing | **25.0 ± –** | 25.0 ± – | 12.5 ± – | 1 |");
  expect(lines).toContain("| C | – | not run | not run | not run | 0 |");
  expect(lines).toContain("| rhymes | 60.0 ± 14.1 | 25.0 ± – | not run |");
});

test("a table of some seeds leaves out the others", () => {
  const results = new Results([...both("a", 1, 0.4), ...both("a", 2, 0.6), ...both("a", 3, 0.9)]);
  const table = { title: "T", rows: [row("A", "a")] };
  const experiments = {
    tests,
    tFfn: 4,
    instructions: "w.json",
    facts: ["rhymes"],
    allOrNothing: [],
    claims: [],
    documents: [],
    figures: [],
  };
  const line = (seeds: number[]) =>
    tablesMarkdown({ ...experiments, tables: [{ ...table, seeds }] }, results)
      .split("\n")
      .find((text) => text.startsWith("| A |"));
  expect(line([1, 2])).toMatch(/\*\*50\.0 ± 14\.1\*\*.* 2 \|$/);
  expect(line([3])).toMatch(/\*\*90\.0 ± –\*\*.* 1 \|$/);
});

test("a column of other seeds than the suite score says of how many", () => {
  const results = [...both("a", 1, 0.5), result("a", 2, "unseen inputs", { sum: 0.5 })];
  expect(markdown([row("A", "a")], results)).toContain("| A | – | **50.0 ± –** | 50.0 ± 0.0 (n = 2) | 25.0 ± – | 1 |");
  expect(markdown([row("A", "a")], results.slice(2))).toContain("| A | – | not run | 50.0 ± – (n = 1) | not run | 0 |");
});

test("without any result there still is a table", () => {
  expect(markdown([row("A", "a")], [])).toContain("| A | – | not run | not run | not run | 0 |");
  expect(markdown([row("A", "a")], [])).not.toMatch(/NaN|undefined/);
});

test("text cannot break out of its cell", () => {
  const text = markdown([row("a|b\n<script>*x*", "a")], []);
  expect(text).toContain("| a\\|b \\<script\\>\\*x\\* | – |");
});
