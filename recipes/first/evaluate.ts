/**
 * The table of the first model: every run of this folder on both held-out axes, under its own masks and under the controls.
 *
 *     npx tsx recipes/first/evaluate.ts [RUNS_DIR] [--threads N]
 *
 * Writes recipes/first/results/{table.md,table.json}: accuracy (%) of greedy answers by the task's scorer, per task and as the mean over
 * tasks, computed exactly (ONNX Runtime, float32).
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { evaluateTasks, type MaskChoice, type TaskReport } from "../../src/eval/evaluate.ts";
import { openModel } from "../../src/eval/load.ts";
import { readManifest } from "../../src/formats/manifest.ts";
import { checkpointFolders } from "../../src/train/checkpoint.ts";

/** Rows of the table: what is run, and under which mask. `own` is what the run was trained with. */
const ROWS: readonly { name: string; run: string; mask: "own" | Extract<MaskChoice, string>; sees: string }[] = [
  { name: "dense source", run: "first-source", mask: "own", sees: "–" },
  { name: "dense source, trained on", run: "first-source-continued", mask: "own", sees: "–" },
  { name: "dense of the activated size", run: "first-small", mask: "own", sees: "–" },
  { name: "static mask, same pipeline", run: "first-static", mask: "own", sees: "nothing" },
  { name: "fixed random mask per task (oracle)", run: "first-random-per-task", mask: "own", sees: "task label" },
  { name: "IFP per task", run: "first-ifp-task", mask: "task", sees: "instruction" },
  { name: "… with another task's mask", run: "first-ifp-task", mask: "foreign", sees: "instruction" },
  { name: "… with one generic mask", run: "first-ifp-task", mask: "generic", sees: "nothing" },
  { name: "IFP per input", run: "first-ifp-input", mask: "input", sees: "whole prompt" },
  { name: "… with another task's mask", run: "first-ifp-input", mask: "foreign", sees: "whole prompt" },
  { name: "… with one generic mask", run: "first-ifp-input", mask: "generic", sees: "nothing" },
];
const TESTS = [
  { name: "unseen inputs", file: "recipes/first/data/test-inputs.jsonl" },
  { name: "unseen wordings", file: "recipes/first/data/test-wordings.jsonl" },
];

interface Result {
  row: string;
  run: string;
  sees: string;
  test: string;
  /** Hash of the checkpoint's LLM: a row whose checkpoint is the same is not computed again. */
  checkpoint: string;
  report: Omit<TaskReport, "answers">;
}

const { values, positionals } = parseArgs({ allowPositionals: true, options: { threads: { type: "string" } } });
const runs = positionals[0] ?? "runs";
const percent = (share: number) => (100 * share).toFixed(1);

const folder = "recipes/first/results";
const tablePath = join(folder, "table.json");
const results: Result[] = [];
const earlier: Result[] = existsSync(tablePath) ? JSON.parse(readFileSync(tablePath, "utf8")) : [];
for (const { name, run, mask, sees } of ROWS) {
  const path = join(runs, run);
  if (!existsSync(path)) {
    console.error(`${run}: no such run, left out`);
    continue;
  }
  const checkpoint = readManifest(checkpointFolders(path)[0]!, "ifprune-checkpoint").files["llm/model.safetensors"]!
    .sha256;
  const known = earlier.filter(
    (result) => result.row === name && result.run === run && result.checkpoint === checkpoint,
  );
  if (known.length === TESTS.length) {
    results.push(...known);
    continue;
  }
  const opened = await openModel(path, {
    threads: values.threads ? Number(values.threads) : undefined,
    spinning: false,
  });
  for (const test of TESTS) {
    const choice = mask === "own" ? opened.ownChoice : mask;
    const { answers, ...report } = await evaluateTasks(opened.model, test.file, choice, opened.text);
    results.push({ row: name, run, sees, test: test.name, checkpoint, report });
    console.error(
      `${name} (${run}), ${test.name}: ${percent(report.mean.accuracy)} %, ${report.mean.loss.toFixed(3)} nats`,
    );
  }
  await opened.close();
}

mkdirSync(folder, { recursive: true });
writeFileSync(tablePath, `${JSON.stringify(results, null, 1)}\n`);
writeFileSync(join(folder, "table.md"), markdown());
process.exit(0);

function markdown(): string {
  const rows = results.filter(({ test }) => test === TESTS[0]!.name);
  const of = ({ row, run }: Result, test: string) =>
    results.find((result) => result.row === row && result.run === run && result.test === test)!.report;
  const overview = [
    `| model | the mask sees | ${TESTS.map(({ name }) => name).join(" | ")} |`,
    "|---|---|---:|---:|",
    ...rows.map((row) => {
      const scores = TESTS.map(({ name }) => percent(of(row, name).mean.accuracy));
      return `| ${row.row} | ${row.sees} | ${scores.join(" | ")} |`;
    }),
  ];
  const perTask = TESTS.flatMap(({ name }) => [
    "",
    `**${name}**, % per task`,
    "",
    `| task | n | ${rows.map(({ row, run }) => (row.startsWith("…") ? `${row} (${run})` : row)).join(" | ")} |`,
    `|---|---:|${"---:|".repeat(rows.length)}`,
    ...of(rows[0]!, name).tasks.map(({ task, count }) => {
      const cells = rows.map((row) => percent(of(row, name).tasks.find((score) => score.task === task)!.accuracy));
      return `| ${task} | ${count} | ${cells.join(" | ")} |`;
    }),
  ]);
  return `${[...overview, ...perTask].join("\n")}\n`;
}
