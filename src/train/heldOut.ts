/** Questions that a run is measured by while it trains, from a file that it does not train on. */
import { FileError } from "../errors.ts";
import type { Model } from "../formats/huggingface.ts";
import type { SessionOptions } from "../graph/session.ts";
import { DivergenceMeter, type TaughtSequence } from "../net/divergenceMeter.ts";
import type { LabelledSequence } from "../net/evaluator.ts";
import { labelledTurns } from "../net/labels.ts";
import { parameterArrays } from "../net/parameters.ts";
import { madeOfRow, readJsonLines } from "../text/jsonl.ts";
import { composePrompt, instructionOf, type PromptFormat, predictorIds } from "../text/prompt.ts";
import { evalRow } from "../text/scorers.ts";
import { exampleLength } from "./data.ts";
import { type Score, summarizeDivergence } from "./diagnose.ts";
import type { Teacher } from "./teacher.ts";

export interface HeldOutExample extends LabelledSequence {
  /** Its task. */
  domain: string;
  /** That it was read from. */
  file: string;
  /** As it is asked, without the chat template. */
  prompt: string;
  /** What the predictor reads, when it reads the whole prompt. */
  predictorPrompt: Int32Array;
  /** What the predictor reads, when it reads the instruction only. */
  predictorInstruction: Int32Array;
}

/**
 * Questions of evaluation files as token ids; those longer than `maxTokens` are left out. With a `limit`, that many: of each file as many as of the others, where it has them, and spread evenly
 * over it.
 *
 * @throws {FileError} that names file and line; if no question is left
 */
export async function heldOutExamples(
  paths: string | readonly string[],
  format: PromptFormat,
  maxTokens: number,
  limit = Infinity,
): Promise<HeldOutExample[]> {
  const files: HeldOutExample[][] = [];
  for (const path of [paths].flat()) {
    const examples: HeldOutExample[] = [];
    for await (const { line, row } of readJsonLines(path, evalRow)) {
      const text = madeOfRow(path, line, () => composePrompt(row.instruction, row.input, row.examples));
      const turn = { prompt: format.promptIds(text), answer: format.answerIds(row.answers[0]!) };
      if (exampleLength(turn) > maxTokens) continue;
      examples.push({
        ...{ domain: row.task, file: path, prompt: text, ...labelledTurns([turn]) },
        predictorPrompt: predictorIds(format.tokenizer, text),
        predictorInstruction: predictorIds(format.tokenizer, instructionOf(text)),
      });
    }
    files.push(examples);
  }
  const shares = evenShares(
    files.map(({ length }) => length),
    limit,
  );
  const chosen = files.flatMap((examples, file) =>
    Array.from({ length: shares[file]! }, (_, i) => examples[Math.floor((i * examples.length) / shares[file]!)]!),
  );
  if (chosen.length === 0)
    throw new FileError([paths].flat().join(", "), `wanted questions of at most ${maxTokens} tokens, got none.`);
  return chosen;
}

/** How many of each to take so that they are `limit` together: of the others at most one more than of any that has more of them. */
function evenShares(counts: readonly number[], limit: number): number[] {
  const shares = counts.map(() => 0);
  let left = limit;
  const order = [...counts.keys()].sort((a, b) => counts[a]! - counts[b]!);
  for (const [place, file] of order.entries()) {
    shares[file] = Math.min(counts[file]!, Math.ceil(left / (order.length - place)));
    left -= shares[file]!;
  }
  return shares;
}

/** What a mean over held-out questions weighs alike: files where there are several, else tasks. A file may hold twenty tasks with a question or two of each, another three hundred of one. */
export function kindsOf(examples: readonly HeldOutExample[]): readonly string[] {
  const files = examples.map(({ file }) => file);
  return new Set(files).size > 1 ? files : examples.map(({ domain }) => domain);
}

/** Held-out questions with what a teacher of them makes of each; answers count, prompts do not. @param states of the same questions, in their order */
export async function taughtSequences(
  examples: readonly HeldOutExample[],
  states: Teacher,
): Promise<readonly TaughtSequence[]> {
  const size = states.sequenceLength * states.head.width;
  const taught = await states.states(Int32Array.from(examples.keys()));
  return examples.map(({ ids, labels }, i) => ({
    ids,
    counts: Array.from(labels, (label) => label >= 0),
    states: taught.subarray(i * size, (i + 1) * size),
  }));
}

/** How far a dense model is from a teacher on held-out questions: `loss` is the divergence in nats a token, `tokenAccuracy` how often both find the same token likeliest. */
export async function measureDivergence(
  { config, weights }: Model,
  examples: readonly HeldOutExample[],
  states: Teacher,
  session: SessionOptions,
): Promise<Score> {
  const teacher = { ...states.head, weight: states.headWeight };
  const meter = new DivergenceMeter(config, parameterArrays({ llm: weights }), teacher, session);
  try {
    const measured = await meter.measure(await taughtSequences(examples, states));
    return summarizeDivergence(measured, kindsOf(examples));
  } finally {
    await meter.release();
  }
}
