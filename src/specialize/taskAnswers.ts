/** Answers to the prompts of a task: gold where it is given, else the whole model's own; what is no answer is left out, counted and shown. */
import { writeFileSync } from "node:fs";
import { generateAnswers } from "../answer/generate.ts";
import type { InstructionModel } from "../answer/instructionModel.ts";
import type { CacheOptions } from "../bundle/cacheEntries.ts";
import { InputError } from "../errors.ts";
import type { JobFolder } from "./jobFolder.ts";
import { jsonLines, promptText, readRows, type TaskPrompt } from "./taskPrompts.ts";
import type { Hooks } from "./told.ts";

/** Which prompts. */
export type TaskPart = "train" | "heldout";

/** What {@link answerPrompts} gives. */
export interface TaskAnswers {
  /** File of the job, of rows with answers. */
  name: string;
  rows: number;
  unanswered: number;
  looping: number;
  /** Up to three that were left out, in words. */
  shown: readonly string[];
}

export interface AnswerHow {
  maxTokens: number;
  temperature: number;
  seed: number;
  threads?: number | undefined;
  force?: boolean | undefined;
  cache: CacheOptions;
}

/** Left of each part, at least. */
const FEWEST: Record<TaskPart, number> = { train: 16, heldout: 4 };

/** Answers of a part of the prompts, in a file `PART.jsonl` of the job. @throws {InputError} if too few answers are left, with three that are none */
export async function answerPrompts(
  model: InstructionModel,
  part: TaskPart,
  prompts: readonly TaskPrompt[],
  { job, ...how }: AnswerHow & { job: JobFolder },
  { signal, onProgress }: Hooks,
): Promise<TaskAnswers> {
  const name = `${part}.jsonl`;
  if (prompts.every(({ output }) => output !== undefined)) {
    await job.made(name, (partial) => writeFileSync(partial, jsonLines(prompts)));
    return { name, rows: prompts.length, unanswered: 0, looping: 0, shown: [] };
  }
  const asked = await job.made(`${part}-prompts.jsonl`, (partial) => writeFileSync(partial, jsonLines(prompts)));
  const answered = job.at(`${part}-answered.jsonl`);
  if (!job.has(`${part}-answered.jsonl`)) {
    await generateAnswers(model, asked, answered, {
      ...how,
      signal,
      onProgress: (done, total) => onProgress(done, total),
    });
    signal.throwIfAborted();
  }
  const all = readRows(answered);
  const sound = all.filter(({ output }) => !loops(model.tokenizer.encode(output!)));
  await job.made(name, (partial) => writeFileSync(partial, jsonLines(sound)));
  const known = new Set(all.map(promptText));
  const silent = prompts.filter((prompt) => !known.has(promptText(prompt)));
  const shown = [
    ...all.filter((one) => !sound.includes(one)).map((one) => words(one, one.output!, "repeats itself")),
    ...(await Promise.all(silent.slice(0, 3).map((prompt) => again(model, prompt, how, signal)))),
  ].slice(0, 3);
  const found = { name, rows: sound.length, unanswered: silent.length, looping: all.length - sound.length, shown };
  if (sound.length < FEWEST[part])
    throw new InputError(
      `specialize: wanted at least ${FEWEST[part]} answers to learn from, got ${sound.length} to ${prompts.length} prompts; ${leftOut(found)}\nAllow longer answers, give right answers of your own, or take another model.`,
    );
  return found;
}

/** What was left out, and three of it, as a part of a message. */
export function leftOut({ unanswered, looping, shown }: Pick<TaskAnswers, "unanswered" | "looping" | "shown">): string {
  return `${unanswered} without an end or text, ${looping} that repeat themselves:\n${shown.join("\n")}`;
}

/** A prompt that got no answer, asked again to show what came. */
async function again(
  model: InstructionModel,
  prompt: TaskPrompt,
  { threads, force, cache }: AnswerHow,
  signal: AbortSignal,
): Promise<string> {
  await using answer = await model.ask(promptText(prompt), {
    mask: "dense",
    maxTokens: SHOWN_TOKENS,
    threads,
    force,
    cache,
    signal,
  });
  const text = await answer.text();
  return words(prompt, text, text.trim() === "" ? "is empty" : "has no end");
}

const SHOWN_TOKENS = 48;

const words = (prompt: TaskPrompt, answer: string, flaw: string) =>
  `  ${JSON.stringify(promptText(prompt).slice(0, 80))} → ${JSON.stringify(answer.slice(0, 120))} ${flaw}`;

/** Tokens of a piece that is looked for before it. */
const N = 4;
/** Shorter answers may well say things twice. */
const SHORT = 32;

/** Whether most pieces of a text have been said in it before. */
export function loops(ids: Int32Array): boolean {
  if (ids.length < SHORT) return false;
  const seen = new Set<string>();
  let repeated = 0;
  for (let at = 0; at + N <= ids.length; at++) {
    const piece = ids.subarray(at, at + N).join();
    if (seen.has(piece)) repeated++;
    seen.add(piece);
  }
  return repeated > (ids.length - N + 1) / 2;
}
