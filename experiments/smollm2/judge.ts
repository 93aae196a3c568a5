/**
 * How many of the instructions with verifiable constraints a model's answers keep:
 *
 *     npx ifprune generate BUNDLE experiments/smollm2/data/constraints.jsonl ANSWERS --max-tokens 256 [--source predictor]
 *     npx tsx experiments/smollm2/judge.ts ANSWERS…
 *
 * An answer without an end, which `generate` leaves out, keeps none.
 */
import { join } from "node:path";
import { z } from "zod";
import { OptionError } from "../../src/errors.ts";
import { readJsonLines } from "../../src/text/jsonl.ts";
import { constrainedRow, keeps } from "./constraints.ts";

const answered = z.object({ instruction: z.string(), output: z.string() });

const files = process.argv.slice(2);
if (files.length === 0) throw new OptionError("judge.ts: wanted files of answers, got none. See the head of the file.");
for (const file of files) {
  const answers = new Map<string, string>();
  for await (const { row } of readJsonLines(file, answered)) answers.set(row.instruction, row.output);
  let [asked, kept, ended] = [0, 0, 0];
  for await (const { row } of readJsonLines(join(import.meta.dirname, "data/constraints.jsonl"), constrainedRow)) {
    const answer = answers.get(row.instruction);
    asked++;
    if (answer === undefined) continue;
    ended++;
    if (row.constraints.every((constraint) => keeps(constraint, answer))) kept++;
  }
  console.log(`${file}: ${kept} of ${asked} kept, ${asked - ended} answers without an end`);
}
