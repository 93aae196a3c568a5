/**
 * Scores of a model on a task file (greedy answers and teacher-forced losses, per task) or on plain text (perplexity), under a
 * choice of masks: the model's own and its controls.
 */
import { extname } from "node:path";
import { FileError, OptionError } from "../errors.ts";
import { readText } from "../files.ts";
import { foreignPartners, genericMask, meanScores } from "../mask/baselines.ts";
import { type DenseMask, fromDenseMask, maskFromScores, toDenseMask } from "../mask/mask.ts";
import { type MaskDiagnostics, maskDiagnostics } from "../mask/overlap.ts";
import type { GenerateOptions, LabelledSequence, SequenceScore } from "../net/evaluator.ts";
import { readJsonLines } from "../text/jsonl.ts";
import { composePrompt, instructionOf, predictorIds, promptIds } from "../text/prompt.ts";
import { type EvalRow, evalRow, isCorrect } from "../text/scorers.ts";
import type { Tokenizer } from "../text/tokenizer.ts";

/** What evaluation needs of a model; `Evaluator` is the exact one. Ids in, ids out. */
export interface MaskedModel {
  predict(instructions: readonly Int32Array[]): Promise<{ mask: DenseMask; scores: Float32Array }[]>;
  /** Of the dense model, per sequence [L, F]: the statistic of GRIFFIN over its prompt. */
  statistics?(sequences: readonly LabelledSequence[], over: "prompt"): Promise<Float32Array[]>;
  score(sequences: readonly LabelledSequence[], masks?: readonly DenseMask[]): Promise<SequenceScore[]>;
  generate(prompts: readonly Int32Array[], options: GenerateOptions): Promise<Int32Array[]>;
}

/**
 * `input`: predicted from the whole prompt · `task`: predicted from the instruction without its input · `foreign`: the `input` mask
 * of a prompt of another task · `generic`: one mask for all, from the mean scores · `dense`: every channel.
 * A mask given by task holds for prompts of that task. `statistics`, without training: each prompt keeps the channels that are most
 * active in the dense model when it reads the prompt (`griffin`; the answer then reads the prompt again under the mask, where the
 * method as published keeps the dense one's cache), or all keep those that are most active over all prompts (`activations`).
 */
export type MaskChoice =
  | "input"
  | "task"
  | "foreign"
  | "generic"
  | "dense"
  | { fixed: DenseMask }
  | { byTask: (task: string) => DenseMask }
  | { statistics: "griffin" | "activations"; tFfn: number };

export interface EvaluatedText {
  /** The task file's rows as token ids. */
  tokenizer: Tokenizer;
  promptTemplate: string;
  /** Whether the masks of `foreign` and `generic` are predicted from the whole prompt or from the instruction. */
  predictorInput: "prompt" | "instruction" | "both";
  softTopK?: { tFfn: number; epsilon: number };
  /** Longest sequence of the model, in tokens. */
  contextLength: number;
  ffnWidth: number;
}

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
  prompt: string;
  promptIds: Int32Array;
  sequence: LabelledSequence;
}

/** Longest answer, in tokens: twice the longest reference answer of the task, at least this. */
const MIN_ANSWER_TOKENS = 16;

/** @throws {FileError} that names file and line, or if no row fits the context */
export async function evaluateTasks(
  model: MaskedModel,
  path: string,
  choice: MaskChoice,
  text: EvaluatedText,
): Promise<TaskReport> {
  const { tokenizer, promptTemplate, contextLength } = text;
  const cases: Case[] = [];
  let numTooLong = 0;
  for await (const { row } of readJsonLines(path, evalRow)) {
    const prompt = composePrompt(row.instruction, row.input);
    const ids = promptIds(tokenizer, prompt, promptTemplate);
    const answer = Int32Array.of(...tokenizer.encode(row.answers[0]!), tokenizer.eosId);
    if (ids.length + answer.length - 1 > contextLength) {
      numTooLong++;
      continue;
    }
    const labels = Int32Array.of(...new Int32Array(ids.length - 1).fill(-100), ...answer);
    cases.push({
      row,
      prompt,
      promptIds: ids,
      sequence: { ids: Int32Array.of(...ids, ...answer.subarray(0, -1)), labels },
    });
  }
  if (cases.length === 0) throw new FileError(path, `wanted questions of at most ${contextLength} tokens, got none.`);

  const { masks, diagnostics } = await chooseMasks(model, cases, choice, text);
  const scores = await model.score(
    cases.map(({ sequence }) => sequence),
    masks,
  );
  const names = [...new Set(cases.map(({ row }) => row.task))].sort();
  const membersOf = (task: string) => cases.flatMap(({ row }, i) => (row.task === task ? [i] : []));
  const drafts = cases.map(({ sequence }) => sequence.labels.filter((label) => label >= 0)); // the reference answers
  const longestOf = new Map(
    names.map((task) => [task, Math.max(...membersOf(task).map((i) => drafts[i]!.length))] as const),
  );
  const outputs = await model.generate(
    cases.map(({ promptIds }) => promptIds),
    {
      masks,
      drafts,
      maxTokens: cases.map(({ row }) => Math.max(MIN_ANSWER_TOKENS, 2 * longestOf.get(row.task)!)),
      eosId: tokenizer.eosId,
    },
  );
  const answers = cases.map(({ row, prompt }, i) => {
    const answer = tokenizer.decode(outputs[i]!);
    return { task: row.task, prompt, answer, isCorrect: isCorrect(row.scorer, answer, row.answers) };
  });

  const tasks = names.map((task) => {
    const members = membersOf(task);
    const sum = (f: (i: number) => number) => members.reduce((total, i) => total + f(i), 0);
    const tokens = sum((i) => scores[i]!.tokens);
    return {
      task,
      count: members.length,
      accuracy: sum((i) => (answers[i]!.isCorrect ? 1 : 0)) / members.length,
      tokenAccuracy: sum((i) => scores[i]!.correctTokens) / tokens,
      loss: sum((i) => scores[i]!.nll) / tokens,
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

async function chooseMasks(
  model: MaskedModel,
  cases: readonly Case[],
  choice: MaskChoice,
  { tokenizer, predictorInput, softTopK, ffnWidth: dFfn }: EvaluatedText,
): Promise<{ masks?: DenseMask[]; diagnostics?: MaskDiagnostics }> {
  if (choice === "dense") return {};
  if (typeof choice === "object" && "statistics" in choice)
    return { masks: await statisticsMasks(model, cases, choice, dFfn) };
  if (typeof choice === "object") {
    return { masks: cases.map(({ row }) => ("fixed" in choice ? choice.fixed : choice.byTask(row.task))) };
  }
  const readsInstruction = choice === "task" || (choice !== "input" && predictorInput === "instruction");
  const predicted = await model.predict(
    cases.map(({ prompt }) => predictorIds(tokenizer, readsInstruction ? instructionOf(prompt) : prompt)),
  );
  const masks = predicted.map(({ mask }) => mask);
  const tasks = cases.map(({ row }) => row.task);
  switch (choice) {
    case "input":
    case "task": {
      const diagnostics = maskDiagnostics(
        masks.map((mask) => fromDenseMask(mask, dFfn)),
        tasks,
        predicted.map(({ scores }) => scores),
        { byLayer: true },
      );
      return { masks, diagnostics };
    }
    case "foreign":
      return { masks: foreignPartners(tasks).map((partner) => masks[partner]!) };
    case "generic": {
      const scores = predicted.map((own) => own.scores);
      const mask = genericMask(scores, { dFfn, ...softTopK! });
      return { masks: masks.map(() => mask) };
    }
    default:
      return choice satisfies never;
  }
}

async function statisticsMasks(
  model: MaskedModel,
  cases: readonly Case[],
  { statistics: kind, tFfn }: Extract<MaskChoice, { statistics: unknown }>,
  dFfn: number,
): Promise<DenseMask[]> {
  if (!model.statistics) throw new OptionError(`evaluation: wanted a checkpoint for ${kind} masks, got a bundle.`);
  const scores = await model.statistics(
    cases.map(({ sequence }) => sequence),
    "prompt",
  );
  if (kind === "griffin") return scores.map((own) => toDenseMask(maskFromScores(own, { dFfn, tFfn })));
  const mask = toDenseMask(maskFromScores(meanScores(scores), { dFfn, tFfn }));
  return cases.map(() => mask);
}

export interface TextReport {
  /** e^(mean −ln p) over the scored tokens. */
  perplexity: number;
  loss: number;
  tokenAccuracy: number;
  tokens: number;
}

/**
 * Perplexity of plain text. Text is cut into windows that fit the context; the first half of a window is read by the predictor and
 * kept as context, the second half is scored, so that every mask comes from text before the text it is judged by.
 *
 * @throws {FileError} if the text is shorter than one window
 */
export async function evaluateText(
  model: MaskedModel,
  path: string,
  choice: "input" | "dense" | { fixed: DenseMask },
  text: EvaluatedText,
): Promise<TextReport> {
  const { tokenizer, contextLength } = text;
  const ids = tokenizer.encode(readText(path));
  const half = (contextLength - 1) >> 1;
  const sequences: LabelledSequence[] = [];
  for (let start = 0; start + 2 * half <= ids.length; start += half) {
    const window = ids.subarray(start, start + 2 * half);
    const labels = window.map((id, i) => (i < half ? -100 : id));
    const input = window.subarray(0, -1);
    sequences.push(
      tokenizer.bosId === undefined
        ? { ids: input, labels: labels.subarray(1) }
        : { ids: Int32Array.of(tokenizer.bosId, ...input), labels },
    );
  }
  if (sequences.length === 0)
    throw new FileError(path, `wanted a text of at least ${2 * half} tokens, got ${ids.length}.`);
  const masks =
    choice === "dense"
      ? undefined
      : typeof choice === "object"
        ? sequences.map(() => choice.fixed)
        : (await model.predict(sequences.map(({ ids }) => ids.slice(0, half + 1)))).map(({ mask }) => mask);
  const scores = await model.score(sequences, masks);
  const sum = (f: (score: SequenceScore) => number) => scores.reduce((total, score) => total + f(score), 0);
  const tokens = sum((s) => s.tokens);
  const loss = sum((s) => s.nll) / tokens;
  return { perplexity: Math.exp(loss), loss, tokenAccuracy: sum((s) => s.correctTokens) / tokens, tokens };
}

/** Whether a file holds questions (JSONL) or plain text. */
export function isTaskFile(path: string): boolean {
  return extname(path.replace(/\.gz$/, "")) === ".jsonl";
}
