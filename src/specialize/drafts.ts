/** Inputs of a task that the model drafts itself, from the task in words. */
import { writeFileSync } from "node:fs";
import { type GenerateAnswersOptions, generateAnswers } from "../answer/generate.ts";
import type { InstructionModel } from "../answer/instructionModel.ts";
import { InputError } from "../errors.ts";
import { oneLine } from "../words.ts";
import type { JobFolder } from "./jobFolder.ts";
import { FEWEST_PROMPTS, jsonLines, readRows, type TaskPrompt } from "./taskPrompts.ts";
import type { Hooks } from "./told.ts";

/** Inputs of other tasks, of which three are shown each time: a small model goes on in their manner, and asked in words alone it answers, or says anything. */
const SHOWN = [
  ["Say who is meant.", "school", "My sister told her teacher that she had lost the key to the library."],
  ["Is the review good or bad?", "a hotel", "The room was clean, but the breakfast was cold and nobody smiled."],
  ["Give the answer in one word.", "animals", "Which bird cannot fly and lives in the Antarctic?"],
  ["Put it in the past tense.", "music", "The band plays three songs before the rain begins."],
  ["Find the date in the message.", "work", "Could we move the meeting with the new supplier to 4 May?"],
  ["Say what is to be done.", "a house", "The kitchen window does not close, and the lamp above the table flickers."],
] as const;
/** A small model says the same again where it is asked the same. */
const SUBJECTS =
  "sport,food,travel,money,health,weather,history,a film,a book,a city,a family,a shop,cars,plants,computers,law,art,science,a game,friends,the sea,a train,clothes,news".split(
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
      instruction: asking(told, SUBJECTS[i % SUBJECTS.length]!, i),
    }));
    writeFileSync(partial, jsonLines(rows));
  });
  if (!job.has("drafts.jsonl")) {
    await generateAnswers(model, asked, job.at("drafts.jsonl"), {
      ...{ ...how, temperature: 0.7, topP: 0.95, maxTokens: 96 },
      signal,
      onProgress: (done, total) => onProgress(done, total),
    });
    signal.throwIfAborted();
  }
  const texts = readRows(job.at("drafts.jsonl")).map(({ output }) => tidy(output!));
  const inputs = texts.filter((text) => isInput(text, task));
  const prompts = unlike(inputs)
    .slice(0, count)
    .map((input) => ({ instruction: task, input }));
  if (prompts.length < FEWEST_PROMPTS)
    throw new InputError(
      `specialize: wanted at least ${FEWEST_PROMPTS} different inputs that the model drafts, got ${prompts.length}${shown(texts)}. Give prompts of your own.`,
    );
  return prompts;
}

/** A draft is asked for as the next of a few; which are shown turns with its number. */
function asking(task: string, subject: string, number: number): string {
  const shown = [0, 1, 2].map((i) => SHOWN[(number + i) % SHOWN.length]!);
  const parts = shown.map(([task, subject, input]) => `Task: ${task}\nSubject: ${subject}\nInput: ${input}\n\n`);
  return `Inputs of tasks, one for each.\n\n${parts.join("")}Task: ${task}\nSubject: ${subject}\nInput:`;
}

/** A draft without what stands around it: it ends where the next task would begin. */
function tidy(draft: string): string {
  const [first] = draft.trim().split(/\n\s*\n|\n(?=(?:Task|Subject|Input|Output|Answer)\s*:)/i);
  const plain = oneLine(first!.replace(/^(\*\*)?(input|text|example)(\*\*)?\s*:\s*/i, "")); // it is shown on a terminal
  const [, quoted] = /^["“](.*)["”]$/.exec(plain) ?? [];
  return (quoted ?? plain).trim();
}

/** What models say about a request, or of it, in place of what it asks for. */
const TALK =
  /^((task|subject|output|answer)\s*:|(sure|certainly|of course|here (is|are)|i'm sorry|i am sorry|as an ai|i cannot|i can't)\b)/i;

function isInput(text: string, task: string): boolean {
  const isShown = SHOWN.some(([, , input]) => alike(words(input), words(text)));
  return text.length > 1 && text.length <= LONGEST && !TALK.test(text) && !isShown && !alike(words(task), words(text));
}

/** Texts without those that say nearly the same as one before. */
function unlike(texts: readonly string[]): string[] {
  const kept: { text: string; own: Set<string> }[] = [];
  for (const text of texts) {
    const own = words(text);
    if (!kept.some((one) => alike(one.own, own))) kept.push({ text, own });
  }
  return kept.map(({ text }) => text);
}

const words = (text: string) => new Set(text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [text]);

/** Of all their words so many are in both. */
const ALIKE = 0.8;

function alike(a: ReadonlySet<string>, b: ReadonlySet<string>): boolean {
  const both = [...a].filter((word) => b.has(word)).length;
  return both >= ALIKE * (a.size + b.size - both);
}

/** Three of them, as a part of a message. */
function shown(texts: readonly string[]): string {
  if (texts.length === 0) return "";
  return `, such as ${texts
    .slice(0, 3)
    .map((text) => JSON.stringify(text.slice(0, 80)))
    .join(", ")}`;
}
