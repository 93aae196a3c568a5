/** Files of examples, which the instruction of a task shows. */
import { z } from "zod";
import { FileError } from "../errors.ts";
import { readJsonLines } from "./jsonl.ts";
import type { TaskExample } from "./prompt.ts";

const text = z.string().refine((value) => value.trim() !== "", "wanted some text");

export const taskExample = z.object({ input: text, output: text });

/** A row of training data is one too: of several answers the first counts, and an instruction with its input in itself is the input. */
const exampleRow = z
  .object({
    task: text.optional(),
    instruction: text.optional(),
    input: z.string().optional(),
    output: text.optional(),
    answers: z.array(text).min(1).optional(),
  })
  .transform(({ task, instruction, input, output, answers }, context): TaskExample & { task?: string | undefined } => {
    const [asked, said] = [input || instruction, output ?? answers?.[0]];
    if (asked !== undefined && said !== undefined) return { task, input: asked, output: said };
    context.addIssue('wanted "input" and "output"');
    return z.NEVER;
  });

/**
 * Reads JSON Lines of `{input, output}`, or rows of training data.
 *
 * @returns with the task that each is of, where the row says it
 * @throws {FileError} that names file and line, or if there is none
 */
export async function readExamples(path: string): Promise<(TaskExample & { task?: string | undefined })[]> {
  const examples = [];
  for await (const { row } of readJsonLines(path, exampleRow)) examples.push(row);
  if (examples.length === 0) throw new FileError(path, "wanted at least one example, got none.");
  return examples;
}
