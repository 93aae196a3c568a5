/** Questions that a run is measured by while it trains, from a file that it does not train on. */
import type { LabelledSequence } from "../net/evaluator.ts";
import { readJsonLines } from "../text/jsonl.ts";
import { composePrompt, instructionOf, type PromptFormat, predictorIds } from "../text/prompt.ts";
import { evalRow } from "../text/scorers.ts";
import { IGNORED } from "./batches.ts";

export interface HeldOutExample extends LabelledSequence {
  domain: string;
  /** What the predictor reads, when it reads the whole prompt. */
  predictorPrompt: Int32Array;
  /** What the predictor reads, when it reads the instruction only. */
  predictorInstruction: Int32Array;
}

/**
 * Questions of evaluation files as token ids; those longer than `maxTokens` are left out. With a `limit`, that many, spread
 * evenly over the files.
 *
 * @throws {FileError} that names file and line
 */
export async function heldOutExamples(
  paths: string | readonly string[],
  format: PromptFormat,
  maxTokens: number,
  limit = Infinity,
): Promise<HeldOutExample[]> {
  const examples: HeldOutExample[] = [];
  for (const path of [paths].flat()) {
    for await (const { row } of readJsonLines(path, evalRow)) {
      const text = composePrompt(row.instruction, row.input, row.examples);
      const prompt = format.promptIds(text);
      const answer = format.answerIds(row.answers[0]!);
      const ids = Int32Array.of(...prompt, ...answer.subarray(0, -1));
      if (ids.length > maxTokens) continue;
      examples.push({
        domain: row.task,
        ids,
        labels: Int32Array.of(...new Int32Array(prompt.length - 1).fill(IGNORED), ...answer),
        predictorPrompt: predictorIds(format.tokenizer, text),
        predictorInstruction: predictorIds(format.tokenizer, instructionOf(text)),
      });
    }
  }
  const count = Math.min(limit, examples.length);
  return Array.from({ length: count }, (_, i) => examples[Math.floor((i * examples.length) / count)]!);
}
