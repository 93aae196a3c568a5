/**
 * Gathers what `ifprune eval --out` wrote about the tiny model into the file that tables are made from:
 *
 *     npx tsx experiments/report/collect.ts experiments/suite/experiments.json FOLDER
 *
 * FOLDER holds `FILE.MASK.json` for each task file of `tinyModel.tests` and each mask (input, task, foreign, generic, dense).
 */
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { z } from "zod";
import { FileError } from "../../src/errors.ts";
import { readJson } from "../../src/json.ts";
import { composePrompt } from "../../src/text/prompt.ts";
import { type EvalRow, evalRow } from "../../src/text/scorers.ts";
import { readExperiments } from "./experiments.ts";
import { type Answers, MASKS, NOT_JUDGED, tinyResults } from "./tinyModel.ts";

const report = z.object({
  answers: z.array(z.object({ task: z.string(), prompt: z.string(), answer: z.string(), isCorrect: z.boolean() })),
});

const [experiments, folder, ...others] = process.argv.slice(2);
if (!experiments || !folder || others.length > 0) {
  process.stderr.write("usage: npx tsx experiments/report/collect.ts EXPERIMENTS_JSON FOLDER\n");
  process.exit(2);
}
const { tinyModel } = readExperiments(experiments);
if (!tinyModel) throw new FileError(experiments, 'wanted "tinyModel", got none.');

const lines: Answers[] = [];
for (const file of tinyModel.tests.flatMap(({ files }) => files)) {
  const bytes = readFileSync(resolve(dirname(experiments), file));
  const rows: EvalRow[] = bytes
    .toString("utf8")
    .trim()
    .split("\n")
    .map((line) => evalRow.parse(JSON.parse(line)));
  const name = basename(file, ".jsonl");
  for (const mask of MASKS) {
    const path = join(folder, `${name}.${mask}.json`);
    const { answers } = report.parse(readJson(path));
    if (answers.length !== rows.length || answers.some(({ prompt }, i) => prompt !== promptOf(rows[i]!)))
      throw new FileError(path, `wanted an answer to each row of ${file}, got others. Was it evaluated on this file?`);
    for (const task of [...new Set(rows.map((row) => row.task))].sort()) {
      if (task === NOT_JUDGED) continue;
      const own = answers.filter((answer) => answer.task === task);
      lines.push({
        file: name,
        questions: createHash("sha256").update(bytes).digest("hex"),
        mask,
        task,
        isCorrect: own.map(({ isCorrect }) => Number(isCorrect)).join(""),
        ...(mask === MASKS[0] && { answers: own.map(({ answer }) => answer) }),
      });
    }
  }
}
writeFileSync(tinyResults(experiments, tinyModel), lines.map((line) => `${JSON.stringify(line)}\n`).join(""));

function promptOf({ instruction, input }: EvalRow): string {
  return composePrompt(instruction, input);
}
