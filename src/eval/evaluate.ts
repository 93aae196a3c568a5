/**
 * Scores of a model on a task file (greedy answers and teacher-forced losses, per task) or on plain text (perplexity). It is prompted as it is
 * served, and runs under masks of the same sources, or under controls that are made of their scores.
 */
import { extname } from "node:path";
import {
  checkTFfn,
  type MaskSource,
  modelTFfn,
  openFlaggedSource,
  type ScoreOptions,
  type SourceFlags,
} from "../answer/maskSource.ts";
import type { PromptedModel } from "../answer/promptedModel.ts";
import type { ScoreCacheOptions } from "../answer/scoreCache.ts";
import { SOURCE_NAMES } from "../answer/sourceNames.ts";
import type { Budget } from "../bundle/budget.ts";
import { FileError, OptionError } from "../errors.ts";
import { joinedIds } from "../ids.ts";
import { readText } from "../json.ts";
import { foreignPartners, meanScores, shuffledScores } from "../mask/baselines.ts";
import { checkMask, type Mask, maskFromScores } from "../mask/mask.ts";
import { type MaskDiagnostics, maskDiagnostics } from "../mask/overlap.ts";
import type { LabelledSequence, SequenceScore } from "../net/evaluator.ts";
import { IGNORED, labelledTurns } from "../net/labels.ts";
import { madeOfRow, readJsonLines } from "../text/jsonl.ts";
import { composePrompt, type Instruction, instructionOf, type TaskExample } from "../text/prompt.ts";
import { type EvalRow, evalRow, isCorrect } from "../text/scorers.ts";
import type { Control, Scope } from "./controls.ts";

/** What runs a model under masks, one per sequence, or dense without: the graph, exactly, or llama.cpp, as served. Ids in, ids out. */
export interface MaskedModel {
  /** Losses of sequences, each under its mask. */
  score(
    sequences: readonly LabelledSequence[],
    masks?: readonly Mask[],
    signal?: AbortSignal,
  ): Promise<SequenceScore[]>;
  /** Losses of questions' reference answers, and greedy answers, each under its mask. */
  answer(
    questions: readonly MaskedQuestion[],
    options: { masks?: readonly Mask[] | undefined; endIds: readonly number[]; signal?: AbortSignal | undefined },
  ): Promise<MaskedAnswer[]>;
}

/** A prompt and its reference answer. */
export interface MaskedQuestion {
  prompt: Int32Array;
  /** The prompt and the reference answer, which is what is labelled, with the token that ends it. */
  sequence: LabelledSequence;
  /** Of the greedy answer. */
  maxTokens: number;
}

/** What a model makes of a question. */
export interface MaskedAnswer {
  /** Of the reference answer. */
  score: SequenceScore;
  /** The greedy one, without the token that ends it. */
  answer: Int32Array;
}

/** A model that is evaluated. */
export interface OpenedModel extends AsyncDisposable {
  /** What prompts and masks are made with, as in serving. */
  model: PromptedModel;
  evaluator: MaskedModel;
  /** What it runs under unless told: masks of its source, or what it was trained under: every channel, a mask, or one by task. */
  own: "source" | "dense" | Mask | ((task: string) => Mask);
  threads: number | undefined;
}

/** The masks that a model is evaluated under. Without any of these they are the model's own. */
export interface EvaluatedMasks extends SourceFlags, Budget {
  /** One for all instead of those of a source; "dense" keeps every channel. */
  mask?: Mask | "dense" | undefined;
  /** Default: "input", or what the predictor was trained to read. */
  per?: Scope | undefined;
  /** Default: each prompt has its own mask. */
  control?: Control | undefined;
}

/** `seed` is that of the source `random`, and of the control of that name. */
export interface EvaluationOptions extends EvaluatedMasks, ScoreOptions {
  scoreCache?: ScoreCacheOptions | undefined;
  /** Solved cases that instructions show, each those of its task or of none. */
  examples?: readonly (TaskExample & { task?: string | undefined })[] | undefined;
}

/** Scores of one task. */
export interface TaskScore {
  task: string;
  count: number;
  /** Share of greedy answers that the task's scorer accepts. */
  accuracy: number;
  /** Share of the reference answer's tokens that are the most likely ones, given those before them. */
  tokenAccuracy: number;
  /** Mean −ln p of the reference answer's tokens. */
  loss: number;
}

/** Scores of tasks. */
export interface TaskReport {
  tasks: TaskScore[];
  /** Means over tasks, every task alike. */
  mean: Omit<TaskScore, "task">;
  /** Of predicted masks: how alike they are within and across tasks. */
  masks?: MaskDiagnostics;
  /** Rows left out as longer than the context. */
  numTooLong: number;
  /** Per row kept, in order: the answer, for a closer look. */
  answers: { task: string; prompt: string; answer: string; isCorrect: boolean }[];
}

interface Case {
  row: EvalRow;
  read: Instruction;
  sequence: LabelledSequence;
}

/** Longest answer, in tokens: twice the longest reference answer of the task, at least this; where an answer has only to be in it, so much. */
const MIN_ANSWER_TOKENS = 16;
const SENTENCE_TOKENS = 64;

/**
 * @throws {FileError} that names file and line, or if no row fits the context
 * @throws {OptionError} if options do not go together, or not with the model
 * @throws as {@link MaskSource.scores}
 */
export async function evaluateTasks(
  opened: OpenedModel,
  path: string,
  options: EvaluationOptions = {},
): Promise<TaskReport> {
  const { model, evaluator } = opened;
  const { format } = model;
  const { cases, numTooLong } = await readCases(model, path, options.examples);
  const { masks, diagnostics } = await chooseMasks(
    opened,
    cases.map(({ row, read }) => ({ task: row.task, ...read })),
    options,
  );
  const names = [...new Set(cases.map(({ row }) => row.task))].sort();
  const membersOf = (task: string) => cases.flatMap(({ row }, i) => (row.task === task ? [i] : []));
  const referenceLength = ({ sequence }: Case) => sequence.labels.filter((label) => label >= 0).length;
  const longestOf = new Map(
    names.map((task) => [task, Math.max(...membersOf(task).map((i) => referenceLength(cases[i]!)))] as const),
  );
  const outputs = await evaluator.answer(
    cases.map(({ row, read, sequence }) => ({
      prompt: read.ids,
      sequence,
      maxTokens: Math.max(
        row.scorer === "contains" ? SENTENCE_TOKENS : MIN_ANSWER_TOKENS,
        2 * longestOf.get(row.task)!,
      ),
    })),
    { masks, endIds: format.endIds, signal: options.signal },
  );
  const answers = cases.map(({ row, read }, i) => {
    const answer = format.tokenizer.decode(outputs[i]!.answer);
    return { task: row.task, prompt: read.text, answer, isCorrect: isCorrect(row.scorer, answer, row.answers) };
  });

  const tasks = names.map((task) => {
    const members = membersOf(task);
    const sum = (f: (i: number) => number) => members.reduce((total, i) => total + f(i), 0);
    const tokens = sum((i) => outputs[i]!.score.tokens);
    return {
      task,
      count: members.length,
      accuracy: sum((i) => (answers[i]!.isCorrect ? 1 : 0)) / members.length,
      tokenAccuracy: sum((i) => outputs[i]!.score.correctTokens) / tokens,
      loss: sum((i) => outputs[i]!.score.nll) / tokens,
    };
  });
  const mean = (key: "accuracy" | "tokenAccuracy" | "loss") =>
    tasks.reduce((total, task) => total + task[key], 0) / tasks.length;
  return {
    tasks,
    mean: { count: cases.length, accuracy: mean("accuracy"), tokenAccuracy: mean("tokenAccuracy"), loss: mean("loss") },
    ...(diagnostics && { masks: diagnostics }),
    numTooLong,
    answers,
  };
}

/** The rows of a task file that fit the context, as they are asked and scored. */
async function readCases(
  { format, weights }: PromptedModel,
  path: string,
  examples: EvaluationOptions["examples"],
): Promise<{ cases: Case[]; numTooLong: number }> {
  const { contextLength } = weights.config;
  const cases: Case[] = [];
  let numTooLong = 0;
  for await (const { line, row } of readJsonLines(path, evalRow)) {
    if (row.examples && examples)
      throw new FileError(path, `line ${line}: wanted no examples in it beside those for all rows, got some.`);
    const shown = row.examples ?? examplesOf(row.task, examples);
    const read = madeOfRow(path, line, () => format.instruction(composePrompt(row.instruction, row.input, shown)));
    const { ids } = read;
    const answer = format.answerIds(row.answers[0]!);
    if (ids.length + answer.length > contextLength) {
      numTooLong++;
      continue;
    }
    cases.push({ row, read, sequence: labelledTurns([{ prompt: ids, answer }]) });
  }
  if (cases.length === 0) throw new FileError(path, `wanted questions of at most ${contextLength} tokens, got none.`);
  return { cases, numTooLong };
}

function examplesOf(task: string, examples: EvaluationOptions["examples"]): readonly TaskExample[] {
  return examples?.filter((example) => example.task === undefined || example.task === task) ?? [];
}

interface Asked extends Instruction {
  /** Undefined: of text, which has no tasks. */
  task: string | undefined;
}

/** One mask per prompt, or none where the model runs dense. */
async function chooseMasks(
  { model, own, threads }: OpenedModel,
  prompts: readonly Asked[],
  options: EvaluationOptions,
): Promise<{ masks?: Mask[]; diagnostics?: MaskDiagnostics }> {
  const { mask, source, text, seed, per, control, keep, maxLoss, signal, onProgress, scoreCache } = options;
  const named = Object.entries({ source, text, seed, per, control, keep, maxLoss, tFfn: options.tFfn });
  const given = named.flatMap(([name, value]) => (value === undefined ? [] : [name]));
  if (mask !== undefined && given.length > 0)
    throw new OptionError(`evaluation: wanted a mask, or how to make one, got both (${given.join(", ")}).`);
  const fixed = mask ?? (given.length === 0 ? own : "source");
  if (fixed === "dense") return {};
  if (typeof fixed === "function")
    return { masks: prompts.map(({ task }) => fixed(wantedTask(task, "its own masks"))) };
  if (fixed !== "source") {
    checkMask(fixed, "evaluation", model.weights.config);
    return { masks: prompts.map(() => fixed) };
  }
  const isBudgetOnly = own === "dense" && (keep ?? options.tFfn) !== undefined; // as such a model is served
  if (source === undefined && own !== "source" && !isBudgetOnly) {
    const what = `${given.join(", ")}, as the model was trained without a predictor`;
    throw new OptionError(
      `evaluation: wanted a source of masks for ${what}, got none. Name one of ${SOURCE_NAMES.filter((name) => name !== "predictor").join(", ")}.`,
    );
  }

  const { ffnWidth: dFfn } = model.weights.config;
  const tFfn = modelTFfn(model, options, source);
  checkTFfn(tFfn, dFfn);
  const sourceSeed = control === "random" && source !== "random" ? undefined : seed;
  await using open = await openFlaggedSource(model, { source, text, seed: sourceSeed }, { threads, cache: scoreCache });
  const scores = await scoresOf(open, model, prompts, per, { signal, onProgress });
  const maskOf = (own: Float32Array) => maskFromScores(own, { dFfn, tFfn, epsilon: open.epsilon });
  const tasks = () => prompts.map(({ task }) => wantedTask(task, `the control ${control}`));
  switch (control) {
    case undefined: {
      const masks = scores.map(maskOf);
      const labels = prompts.map(({ task }) => task ?? "text");
      return { masks, diagnostics: maskDiagnostics(masks, labels, scores, { byLayer: true }) };
    }
    case "foreign": {
      const masks = scores.map(maskOf);
      return { masks: foreignPartners(tasks()).map((partner) => masks[partner]!) };
    }
    case "generic": {
      const generic = maskOf(meanScores(scores));
      return { masks: prompts.map(() => generic) };
    }
    case "random": {
      const block = open.name === "predictor" ? model.block : model.manifest.block;
      const shuffled = (own: Float32Array, label: string) =>
        shuffledScores(own, dFfn, { block, seed: seed ?? 0, label });
      return { masks: scores.map((own, i) => maskOf(shuffled(own, prompts[i]!.text))) };
    }
    default:
      return control satisfies never;
  }
}

/** Scores for each prompt, or for its instruction; the same text is scored once. */
async function scoresOf(
  source: MaskSource,
  { manifest, format }: PromptedModel,
  prompts: readonly Asked[],
  per: Scope | undefined,
  options: ScoreOptions,
): Promise<Float32Array[]> {
  if (per === "input" && source.name === "predictor" && manifest.predictorInput === "instruction")
    throw new OptionError(
      "evaluation: wanted masks per task, as the predictor reads instructions alone, got per input.",
    );
  const known = new Map<string, Float32Array>();
  const results: Float32Array[] = [];
  for (const prompt of prompts) {
    const text = per === "task" ? instructionOf(prompt.text) : prompt.text;
    if (per === "task") wantedTask(prompt.task, "masks per task");
    let scores = known.get(text);
    if (!scores) {
      options.signal?.throwIfAborted();
      const read = text === prompt.text ? prompt : format.instruction(text);
      ({ scores } = await source.scores(read, { signal: options.signal }));
      known.set(text, scores);
    }
    results.push(scores);
    options.onProgress?.(results.length, prompts.length);
  }
  return results;
}

/** @throws {OptionError} of text, which has no tasks */
function wantedTask(task: string | undefined, what: string): string {
  if (task === undefined) throw new OptionError(`evaluation: wanted tasks for ${what}, got a text.`);
  return task;
}

/** Scores of a text. */
export interface TextReport {
  /** e^(mean −ln p) over the scored tokens. */
  perplexity: number;
  loss: number;
  tokenAccuracy: number;
  tokens: number;
}

/** Tokens of a window of text, where the context has room for more: what two windows of most books' pages hold, and memory in exact evaluation grows with its square. */
const LONGEST_WINDOW = 1024;

/**
 * Perplexity of plain text. Text is cut into windows that fit the context, of 1,024 tokens at most; the mask of a window is made from its first half, which is kept as
 * context, and the second half is scored, so that every mask comes from text before the text it is judged by.
 *
 * @throws {FileError} if the text is shorter than one window
 * @throws {OptionError} if options want tasks, do not go together, or not with the model
 * @throws as {@link MaskSource.scores}
 */
export async function evaluateText(
  opened: OpenedModel,
  path: string,
  options: EvaluationOptions = {},
): Promise<TextReport> {
  if (options.examples) throw new OptionError("evaluation: wanted no examples for a text, got some.");
  const { format, weights } = opened.model;
  const { tokenizer } = format;
  const ids = tokenizer.encode(readText(path));
  const half = Math.max(1, (Math.min(weights.config.contextLength, LONGEST_WINDOW) - 1) >> 1);
  const sequences: LabelledSequence[] = [];
  for (let start = 0; start + 2 * half <= ids.length; start += half) {
    const window = ids.subarray(start, start + 2 * half);
    const labels = window.map((id, i) => (i < half ? IGNORED : id));
    const input = window.subarray(0, -1);
    sequences.push(
      tokenizer.bosId === undefined
        ? { ids: input, labels: labels.subarray(1) }
        : { ids: joinedIds([tokenizer.bosId], input), labels },
    );
  }
  if (sequences.length === 0)
    throw new FileError(path, `wanted a text of at least ${2 * half} tokens, got ${ids.length}.`);
  const { masks } = await chooseMasks(
    opened,
    sequences.map((sequence) => {
      const read = sequence.ids.slice(0, sequence.labels.findIndex((label) => label >= 0) + 1);
      return { task: undefined, text: tokenizer.decode(read), ids: read };
    }),
    options,
  );
  const scores = await opened.evaluator.score(sequences, masks, options.signal);
  const sum = (f: (score: SequenceScore) => number) => scores.reduce((total, score) => total + f(score), 0);
  const tokens = sum((s) => s.tokens);
  const loss = sum((s) => s.nll) / tokens;
  return { perplexity: Math.exp(loss), loss, tokenAccuracy: sum((s) => s.correctTokens) / tokens, tokens };
}

/** Whether a file holds questions (JSONL) or plain text. */
export function isTaskFile(path: string): boolean {
  return extname(path.replace(/\.gz$/, "")) === ".jsonl";
}
