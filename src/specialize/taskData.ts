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
/** The same of held-out rows, which are few: more than this must stay. */
const HELD_OUT_COVERED = 0.75;

/** Most tokens of a prompt with its answer that a model of this context length learns from. */
export const longestRow = (contextLength: number) => Math.min(LONGEST, contextLength);

/** A shape of rows that most of these lengths fit in. @param covered which share of them */
export function rowShape(lengths: readonly number[], contextLength: number, covered = COVERED): RowShape {
  const sorted = lengths.toSorted((a, b) => a - b);
  const most = sorted[Math.ceil(covered * sorted.length) - 1] ?? 1;
  const longest = longestRow(contextLength);
  const T = Math.min(longest, Math.max(Math.min(SHORTEST, longest), Math.ceil(most / STEP) * STEP));
  return { T, B: Math.max(1, Math.floor(BATCH_TOKENS / T)) };
}

/** Rows that measuring has room for: T tokens, and one more that the engine gives. */
export function fittingRows(rows: readonly TaskPrompt[], { T }: RowShape, opened: OpenedDense): TaskPrompt[] {
  const most = Math.min(T, opened.model.llm.config.contextLength - 1);
  return rows.filter((row) => answeredLength(row, opened) <= most);
}

/** Tokens of a prompt with its answer. */
function answeredLength(row: TaskPrompt, { format }: OpenedDense): number {
  return exampleLength({ prompt: format.promptIds(promptText(row)), answer: format.answerIds(row.output!) });
}

/**
 * @param name of the data
 * @param heldOut rows of which most have to fit in too: where those to learn from are drafts, they may be longer than these
 */
export async function taskData(
  path: string,
  name: string,
  opened: OpenedDense,
  heldOut: readonly TaskPrompt[] = [],
): Promise<{ data: SftData; shape: RowShape; tokens: number }> {
  const { model, format } = opened;
  const questions: Question[] = await readQuestions([{ domain: name, path }]);
  const lengthOf = (data: SftData, question: Question) => exampleLength(data.encode(question, question.wordings[0]!));
  const { contextLength } = model.llm.config;
  const all = encodeQuestions(questions, format, { predictorInput: "prompt", maxTokens: contextLength });
  const learned = all.questions.flat().map((question) => lengthOf(all, question));
  const measured = heldOut.map((row) => answeredLength(row, opened));
  const shapes = [rowShape(learned, contextLength), rowShape(measured, contextLength, HELD_OUT_COVERED)];
  const shape = shapes.reduce((widest, one) => (one.T > widest.T ? one : widest));
  const data = encodeQuestions(questions, format, { predictorInput: "prompt", maxTokens: shape.T });
  const tokens = data.questions.flat().reduce((sum, question) => sum + lengthOf(data, question), 0);
  return { data, shape, tokens };
}
