/** A task's rows as the learner sees them, and a dense model as the job opens it. */
import type { PromptFormat } from "../text/prompt.ts";
import { loadModel, type SavedModel, savedFormat } from "../train/checkpoint.ts";
import { encodeQuestions, exampleLength, type Question, readQuestions, type SftData } from "../train/data.ts";
import { promptText, type TaskPrompt } from "./taskPrompts.ts";

/** A model with how it is prompted. */
export interface OpenedDense {
  model: SavedModel;
  format: PromptFormat;
}

export async function openDense(path: string): Promise<OpenedDense> {
  const model = await loadModel(path);
  return { model, format: savedFormat(model, path) };
}

/** Batches of rows: T tokens of a row, B rows. */
export interface RowShape {
  T: number;
  B: number;
}

/** Tokens of a batch, unless one row has more. */
const BATCH_TOKENS = 1024;
const SHORTEST = 256;
const LONGEST = 1024;
/** Lengths are whole steps of this. */
const STEP = 64;
/** Longer ones than these are left out: a few would make every row as long as they are. */
const COVERED = 0.98;

/** Most tokens of a prompt with its answer that a model of this context length learns from. */
export const longestRow = (contextLength: number) => Math.min(LONGEST, contextLength);

/** A shape of rows that most of these lengths fit in. */
export function rowShape(lengths: readonly number[], contextLength: number): RowShape {
  const sorted = lengths.toSorted((a, b) => a - b);
  const most = sorted[Math.ceil(COVERED * sorted.length) - 1] ?? 1;
  const longest = longestRow(contextLength);
  const T = Math.min(longest, Math.max(Math.min(SHORTEST, longest), Math.ceil(most / STEP) * STEP));
  return { T, B: Math.max(1, Math.floor(BATCH_TOKENS / T)) };
}

/** Rows that measuring has room for: T tokens, and one more that the engine gives. */
export function fittingRows(
  rows: readonly TaskPrompt[],
  { T }: RowShape,
  { model: { llm }, format }: OpenedDense,
): TaskPrompt[] {
  const most = Math.min(T, llm.config.contextLength - 1);
  const turnOf = (row: TaskPrompt) => ({
    prompt: format.promptIds(promptText(row)),
    answer: format.answerIds(row.output!),
  });
  return rows.filter((row) => exampleLength(turnOf(row)) <= most);
}

/** @param name of the data */
export async function taskData(
  path: string,
  name: string,
  { model, format }: OpenedDense,
): Promise<{ data: SftData; shape: RowShape; tokens: number }> {
  const questions: Question[] = await readQuestions([{ domain: name, path }]);
  const lengthOf = (data: SftData, question: Question) => exampleLength(data.encode(question, question.wordings[0]!));
  const { contextLength } = model.llm.config;
  const all = encodeQuestions(questions, format, { predictorInput: "prompt", maxTokens: contextLength });
  const shape = rowShape(
    all.questions.flat().map((question) => lengthOf(all, question)),
    contextLength,
  );
  const data = encodeQuestions(questions, format, { predictorInput: "prompt", maxTokens: shape.T });
  const tokens = data.questions.flat().reduce((sum, question) => sum + lengthOf(data, question), 0);
  return { data, shape, tokens };
}
