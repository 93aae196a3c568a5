/** Inputs of a task that the model drafts itself, from the task in words. */
import { writeFileSync } from "node:fs";
import { type GenerateAnswersOptions, generateAnswers } from "../answer/generate.ts";
import type { InstructionModel } from "../answer/instructionModel.ts";
import { InputError } from "../errors.ts";
import type { JobFolder } from "./jobFolder.ts";
import { distinct, FEWEST_PROMPTS, jsonLines, readRows, type TaskPrompt } from "./taskPrompts.ts";
import type { Hooks } from "./told.ts";

/** Several ways to ask, and subjects: a small model says the same again where it is asked the same. */
const WAYS = [
  (task: string, subject: string) =>
    `Here is a task: “${task}” Write one input for this task, about ${subject}. Write the input alone, without an answer.`,
  (task: string, subject: string) =>
    `Someone has to do this: “${task}” Invent one text, about ${subject}, that they are given to do it with. Write that text only.`,
  (task: string, subject: string) =>
    `Task: ${task}\nGive one example of an input for it. Subject: ${subject}. Only the input.`,
] as const;
const SUBJECTS =
  "school,sport,food,travel,music,work,money,health,weather,animals,history,a film,a book,a city,a family,a shop,cars,plants,computers,law,art,science,a game,a house".split(
    ",",
  );
/** Of those asked for, so many more are drafted, as some are alike or none. */
export const DRAFTS_PER_PROMPT = 1.5;
const LONGEST = 400;

/**
 * @returns inputs of the task, each once, at most `count`; the same for the same model, task and seed
 * @throws {InputError} if too few of them differ
 */
export async function draftPrompts(
  model: InstructionModel,
  task: string,
  {
    count,
    job,
    ...how
  }: { count: number; job: JobFolder } & Pick<GenerateAnswersOptions, "seed" | "threads" | "force" | "cache">,
  { signal, onProgress }: Hooks,
): Promise<TaskPrompt[]> {
  const asked = await job.made("drafts-asked.jsonl", (partial) => {
    const told = task.replace(/\{input[^}]*\}/g, "…");
    const rows = Array.from({ length: Math.ceil(DRAFTS_PER_PROMPT * count) }, (_, i) => ({
      instruction: WAYS[i % WAYS.length]!(told, SUBJECTS[i % SUBJECTS.length]!),
    }));
    writeFileSync(partial, jsonLines(rows));
  });
  if (!job.has("drafts.jsonl")) {
    await generateAnswers(model, asked, job.at("drafts.jsonl"), {
      ...{ ...how, temperature: 0.9, topP: 0.95, maxTokens: 128 },
      signal,
      onProgress: (done, total) => onProgress(done, total),
    });
    signal.throwIfAborted();
  }
  const texts = readRows(job.at("drafts.jsonl")).map(({ output }) => tidy(output!));
  const inputs = texts.filter((input) => input.length > 1 && input.length <= LONGEST && input !== task);
  const prompts = distinct(inputs.map((input) => ({ instruction: task, input }))).slice(0, count);
  if (prompts.length < FEWEST_PROMPTS)
    throw new InputError(
      `specialize: wanted at least ${FEWEST_PROMPTS} different inputs that the model drafts, got ${prompts.length}${shown(texts)}. Give prompts of your own (--prompts).`,
    );
  return prompts;
}

/** A draft without what stands around it. */
function tidy(draft: string): string {
  const plain = draft
    .trim()
    .replace(/^(\*\*)?(input|text|example|task)(\*\*)?\s*:\s*/i, "")
    .replace(/\s+/g, " ");
  const [, quoted] = /^["“](.*)["”]$/.exec(plain) ?? [];
  return (quoted ?? plain).trim();
}

/** Three of them, as a part of a message. */
function shown(texts: readonly string[]): string {
  if (texts.length === 0) return "";
  return `, such as ${texts
    .slice(0, 3)
    .map((text) => JSON.stringify(text.slice(0, 80)))
    .join(", ")}`;
}
