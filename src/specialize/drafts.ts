/** Prompts of a task that the model drafts itself: in the manner of some that are given, or inputs of the task from its words alone. */
import { writeFileSync } from "node:fs";
import { type GenerateAnswersOptions, generateAnswers } from "../answer/generate.ts";
import type { InstructionModel } from "../answer/instructionModel.ts";
import { InputError } from "../errors.ts";
import { Random } from "../random.ts";
import { oneLine } from "../words.ts";
import type { JobFolder } from "./jobFolder.ts";
import {
  FEWEST_PROMPTS,
  jsonLines,
  ownText,
  promptText,
  readRows,
  type TaskParts,
  type TaskPrompt,
} from "./taskPrompts.ts";
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
/** Of prompts given so many are shown each time, turning; the fewest that there must be to turn. */
const SHOWN_AT_A_TIME = 3;
const FEWEST_SHOWN = 4;
/** Longest draft, in tokens, unless one of those shown is longer. */
const LONGEST = 96;
/** A draft may be so many times as long as the longest of those shown. */
const LONGER = 1.5;

/** What drafts are to be like. */
export interface DraftManner {
  /** Of which they are inputs; absent where they are whole prompts. */
  instruction: string | undefined;
  /** Prompts given, of this kind; without any, those of other tasks are shown. */
  shown: readonly string[];
  /** No draft may be alike to one of these. */
  known: readonly string[];
  /** Longest draft. */
  maxTokens: number;
}

/** Of a task in words alone. */
export function inWords(task: string): DraftManner {
  const known = [task, ...SHOWN.map(([, , input]) => input)];
  return { instruction: task, shown: [], known, maxTokens: LONGEST };
}

/**
 * Of prompts given: those of the commonest kind to learn from, which are inputs of one instruction or whole prompts. Those held out are never shown.
 *
 * @param task in words, if it is said
 * @throws {InputError} if too few are of one kind, or short enough to be shown
 */
export function inMannerOf(
  { train, heldOut }: TaskParts,
  task: string | undefined,
  model: InstructionModel,
): DraftManner {
  const kinds = new Map<string | undefined, string[]>();
  for (const prompt of train) {
    const instruction = prompt.input === undefined ? undefined : prompt.instruction;
    kinds.set(instruction, [...(kinds.get(instruction) ?? []), ownText(prompt)]);
  }
  const [instruction, texts] = [...kinds].toSorted(([, a], [, b]) => b.length - a.length)[0]!;
  const told = instruction ?? task;
  const known = [...[...train, ...heldOut].map(ownText), ...(told === undefined ? [] : [told])];
  const room = Math.floor(model.bundle.contextLength / (SHOWN_AT_A_TIME + LONGER)) - 2; // a line's end, and what begins a text
  const lengthOf = (text: string) => model.tokenizer.encode(text).length;
  const shown = texts.filter((text) => lengthOf(text) <= room);
  if (shown.length < FEWEST_SHOWN)
    throw new InputError(
      `specialize: wanted at least ${FEWEST_SHOWN} prompts to learn from that are inputs of one instruction, or whole prompts, each of at most ${room} tokens, for the model to draft in their manner; got ${shown.length}. Give more that are alike in form, or ${FEWEST_PROMPTS} and no drafts.`,
    );
  return {
    instruction,
    known,
    shown,
    maxTokens: Math.max(LONGEST, Math.ceil(LONGER * Math.max(...shown.map(lengthOf)))),
  };
}

/**
 * @param fewest that must come
 * @returns prompts in this manner, each once, at most `count`; the same for the same model, manner and seed
 * @throws {InputError} if too few of them differ
 */
export async function draftPrompts(
  model: InstructionModel,
  manner: DraftManner,
  {
    count,
    fewest,
    seed = 0,
    job,
    ...how
  }: { count: number; fewest: number; job: JobFolder } & Pick<
    GenerateAnswersOptions,
    "seed" | "threads" | "force" | "cache"
  >,
  { signal, onProgress }: Hooks,
): Promise<TaskPrompt[]> {
  const { instruction, shown, known, maxTokens } = manner;
  const asked = await job.made("drafts-asked.jsonl", (partial) => {
    const rows = Array.from({ length: Math.ceil(DRAFTS_PER_PROMPT * count) }, (_, i) => ({
      instruction: draftAsk(manner, i, seed),
    }));
    writeFileSync(partial, jsonLines(rows));
  });
  if (!job.has("drafts.jsonl")) {
    await generateAnswers(model, asked, job.at("drafts.jsonl"), {
      ...{ ...how, seed, temperature: 0.7, topP: 0.95, maxTokens, continues: shown.length > 0 },
      signal,
      onProgress: (done, total) => onProgress(done, total),
    });
    signal.throwIfAborted();
  }
  const texts = readRows(job.at("drafts.jsonl")).map(({ output }) => tidy(output!));
  const own = texts.filter((text) => text.length > 1 && (!TALK.test(text) || shown.some((one) => TALK.test(one))));
  const prompts = unlike(own, known, commonWords(shown))
    .map((text) => (instruction === undefined ? { instruction: text } : { instruction, input: text }))
    .filter(isWhole)
    .slice(0, count);
  if (prompts.length < fewest)
    throw new InputError(
      `specialize: wanted at least ${fewest} different prompts that the model drafts, got ${prompts.length}${examplesOf(texts)}. Give ${shown.length === 0 ? "" : "more "}prompts of your own.`,
    );
  return prompts;
}

/** What the model is asked for a draft of this number. */
export function draftAsk(manner: DraftManner, number: number, seed: number): string {
  return manner.shown.length === 0 ? askedInWords(manner, number) : linesLike(manner, number, seed);
}

/** Of a task in words: the next of inputs of other tasks, which turn with its number, as its subject does. */
function askedInWords({ instruction }: DraftManner, number: number): string {
  const told = instruction!.replace(/\{input[^}]*\}/g, "…");
  const subject = SUBJECTS[number % SUBJECTS.length]!;
  const shown = [0, 1, 2].map((i) => SHOWN[(number + i) % SHOWN.length]!);
  const parts = shown.map(([task, subject, input]) => `Task: ${task}\nSubject: ${subject}\nInput: ${input}\n\n`);
  return `Inputs of tasks, one for each.\n\n${parts.join("")}Task: ${told}\nSubject: ${subject}\nInput:`;
}

/**
 * Lines that the model goes on with, drawn for each draft. As a request in a chat, and with the task before them, a small model does the task in place of the next line.
 */
function linesLike({ shown }: DraftManner, number: number, seed: number): string {
  const drawn = new Random(`${seed}/shown/${number}`).permutation(shown.length).subarray(0, SHOWN_AT_A_TIME);
  return Array.from(drawn, (i) => `${oneLine(shown[i]!)}\n`).join("");
}

/** A draft without what stands around it: it ends where the next task would begin. */
function tidy(draft: string): string {
  const [first] = draft.trim().split(/\n\s*\n|\n(?=(?:Task|Subject|Input|Prompt|Output|Answer)\s*:)/i);
  const plain = oneLine(first!.replace(/^(\*\*)?(input|prompt|text|example)(\*\*)?\s*:\s*/i, "")); // it is shown on a terminal
  const [, quoted] = /^["“](.*)["”]$/.exec(plain) ?? [];
  return (quoted ?? plain).trim();
}

/** What models say about a request, or of it, in place of what it asks for. */
const TALK =
  /^((task|subject|output|answer)\s*:|(sure|certainly|of course|here (is|are)|i'm sorry|i am sorry|as an ai|i cannot|i can't)\b)/i;

/** Whether it has all parts that its instruction names. */
function isWhole(prompt: TaskPrompt): boolean {
  try {
    promptText(prompt);
    return true;
  } catch {
    return false;
  }
}

/** Texts that do not say nearly the same as a known one, or one before. @param common words that tell none apart */
function unlike(texts: readonly string[], known: readonly string[], common: ReadonlySet<string>): string[] {
  const ownOf = (text: string) => {
    const own = [...words(text)].filter((word) => !common.has(word));
    return new Set(own.length > 0 ? own : [text]);
  };
  const seen = known.map(ownOf);
  return texts.filter((text) => {
    const own = ownOf(text);
    if (seen.some((one) => alike(one, own))) return false;
    seen.push(own);
    return true;
  });
}

/** Words of all of some texts, as of whole prompts that ask for the same. */
function commonWords(texts: readonly string[]): ReadonlySet<string> {
  const [first = new Set<string>(), ...others] = texts.map(words);
  return new Set([...first].filter((word) => others.every((other) => other.has(word))));
}

const words = (text: string) => new Set(text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? []);

/** Of all their words so many are in both. */
const ALIKE = 0.8;

function alike(a: ReadonlySet<string>, b: ReadonlySet<string>): boolean {
  const both = [...a].filter((word) => b.has(word)).length;
  return both >= ALIKE * (a.size + b.size - both);
}

/** Three of them, as a part of a message. */
function examplesOf(texts: readonly string[]): string {
  if (texts.length === 0) return "";
  return `, such as ${texts
    .slice(0, 3)
    .map((text) => JSON.stringify(text.slice(0, 80)))
    .join(", ")}`;
}
