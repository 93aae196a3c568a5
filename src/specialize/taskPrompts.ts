/** The prompts of a task: read from files of several kinds, made distinct, and parted into those to learn from and those held out. */
import { createHash } from "node:crypto";
import { z } from "zod";
import { FileError, InputError } from "../errors.ts";
import { readText } from "../json.ts";
import { readJsonLines } from "../text/jsonl.ts";
import { composePrompt } from "../text/prompt.ts";
import { SPECIALIZE_OPTIONS } from "./specializeOptions.ts";

const OBJECTS = 'JSON Lines of {"instruction"?, "input"?, "output"?}, an object a line';

/** A prompt, and the answer where it is given. */
export interface TaskPrompt {
  instruction: string;
  input?: string | undefined;
  output?: string | undefined;
}

/** Fewer say little of a task: a quarter of them is held out. */
export const FEWEST_PROMPTS = 32;
/** Beside drafts: 8 to be held out, and 4 to show to the model that drafts. */
const FEWEST_BESIDE_DRAFTS = 12;
const HELD_OUT = { share: 0.1, min: 8, max: 60 } as const;

const text = z.string().refine((value) => value.trim() !== "", "wanted some text");
const row = z.looseObject({
  instruction: text.optional(),
  input: z.string().optional(),
  output: text.optional(),
  answers: z.array(text).min(1).optional(),
});

/**
 * Prompts of a file. JSON Lines of `{instruction?, input?}`: what has no instruction is an input of the task. Or plain text, one a line: inputs of the task, where
 * there is one, else whole prompts.
 *
 * @param task asked of inputs
 * @param hasGold rows must have an `output`, or `answers` of which the first counts
 * @throws {FileError} that names the line and what it has
 */
export async function readTaskPrompts(path: string, task: string | undefined, hasGold: boolean): Promise<TaskPrompt[]> {
  if (!isJsonLines(path)) {
    if (path.endsWith(".gz")) throw new FileError(path, `wanted ${OBJECTS}, or plain text that is not compressed.`);
    if (hasGold) throw new FileError(path, `wanted ${OBJECTS}, got plain text. Write each example as one.`);
    const lines = readText(path).split(/\r?\n/);
    return lines.flatMap((line) => (line.trim() === "" ? [] : [asked(task, line.trim())]));
  }
  if (!path.endsWith(".gz") && /^\s*\[/.test(readText(path)))
    throw new FileError(path, `wanted ${OBJECTS}, got a list. Write each of its objects on a line of its own.`);
  const prompts: TaskPrompt[] = [];
  for await (const { line, row: read } of readJsonLines(path, row)) {
    const { instruction = task, input, output, answers } = read;
    const wrong = (wanted: string, hint = 'Name the fields so. Where the line itself is an input: {"input": "…"}.') => {
      const fields = Object.keys(read).map((name) => `"${name}"`);
      return new FileError(path, `line ${line}: wanted ${wanted}, got ${fields.join(", ") || "no fields"}. ${hint}`);
    };
    if (read.instruction === undefined && !input?.trim()) throw wrong('"instruction", or "input" of the task');
    if (instruction === undefined) throw wrong('"instruction", or a task that is asked of inputs', "Say the task.");
    const gold = output ?? answers?.[0];
    if (hasGold && gold === undefined) throw wrong('"output", the right answer', "Without answers they are prompts.");
    prompts.push({ instruction, ...(input?.trim() && { input }), ...(hasGold && { output: gold }) });
  }
  return prompts;
}

/** By its name, or else by what its first line is. */
function isJsonLines(path: string): boolean {
  if (/\.(jsonl|json|ndjson)(\.gz)?$/.test(path)) return true;
  if (path.endsWith(".gz")) return false;
  const text = readText(path).trim();
  if (text === "[" || /^\[\s*\{/.test(text)) return true; // a list, which is told to be none
  try {
    const first: unknown = JSON.parse(text.split(/\r?\n/, 1)[0]!);
    return typeof first === "object" && first !== null && !Array.isArray(first);
  } catch {
    return false;
  }
}

const asked = (task: string | undefined, line: string): TaskPrompt =>
  task === undefined ? { instruction: line } : { instruction: task, input: line };

/** A prompt as the model reads it. */
export const promptText = ({ instruction, input }: TaskPrompt) => composePrompt(instruction, input);

/** What it says of its own, beside an instruction that others have too. */
export const ownText = ({ instruction, input }: TaskPrompt) => input ?? instruction;

/** Each prompt once, the first of the same. Without right answers they are the same whatever their case and spaces, which a task with right answers may be about. */
export function distinct(prompts: readonly TaskPrompt[]): TaskPrompt[] {
  const seen = new Map<string, TaskPrompt>();
  for (const prompt of prompts) {
    const text = promptText(prompt);
    const key = prompt.output === undefined ? text.replace(/\s+/g, " ").trim().toLowerCase() : text;
    if (!seen.has(key)) seen.set(key, prompt);
  }
  return [...seen.values()];
}

/** What is to become of prompts. */
export interface PromptUse {
  /** Whether they have right answers. */
  hasGold: boolean;
  /** Whether the model drafts more in their manner. */
  hasDrafts: boolean;
}

const fewestOf = ({ hasDrafts }: PromptUse) => (hasDrafts ? FEWEST_BESIDE_DRAFTS : FEWEST_PROMPTS);

/** @param where they are from @throws {InputError} if there are too few to learn a task from */
export function checkCount(prompts: readonly TaskPrompt[], where: string, use: PromptUse): void {
  const [count, fewest] = [prompts.length, fewestOf(use)];
  if (count >= fewest) return;
  const drafts = `have the model draft others in their manner (draft = ${SPECIALIZE_OPTIONS.draft.fallback})`;
  const beside = FEWEST_BESIDE_DRAFTS - count;
  const other = beside > 0 ? `; or add ${beside} and ${drafts}` : `, or ${drafts}`;
  const missing = `Add ${fewest - count} or more${use.hasGold || use.hasDrafts ? "" : other}; a few hundred are better.`;
  throw new InputError(
    `specialize: wanted at least ${fewest} different prompts${use.hasDrafts ? " beside drafts" : ""}, got ${count} of ${where}. ${count === 1 ? "Write one a line." : missing}`,
  );
}

/**
 * Those that there is room for with their answers, where they are given.
 *
 * @param tokensOf a prompt and an answer
 * @throws {InputError} if too few are left
 */
export function fitting(
  prompts: readonly TaskPrompt[],
  { room, tokensOf, use }: { room: number; tokensOf: (prompt: string, answer: string) => number; use: PromptUse },
): { prompts: readonly TaskPrompt[]; note?: string | undefined } {
  const some = prompts.filter((one) => tokensOf(promptText(one), one.output ?? "") <= room);
  if (some.length === prompts.length) return { prompts };
  const tooLong = `${prompts.length - some.length} of ${prompts.length} prompts with their answers have more than the ${room} tokens that it learns from at a time`;
  if (some.length < fewestOf(use))
    throw new InputError(
      `specialize: wanted at least ${fewestOf(use)} prompts that the model has room for, got ${some.length}: ${tooLong}. Shorten them.`,
    );
  return { prompts: some, note: `left out: ${tooLong}` };
}

/** Prompts to learn from, and those held out. */
export interface TaskParts {
  train: readonly TaskPrompt[];
  heldOut: readonly TaskPrompt[];
}

/** Prompts held out of so many. */
export function partSize(count: number): number {
  const { share, min, max } = HELD_OUT;
  return Math.min(max, Math.max(min, Math.round(share * count)));
}

/** Parts prompts by a hash of each and the seed, so that a prompt's part does not depend on the others' order; both stay in theirs. */
export function partHeldOut(prompts: readonly TaskPrompt[], seed: number): TaskParts {
  const count = partSize(prompts.length);
  const hash = (prompt: TaskPrompt) =>
    createHash("sha256")
      .update(`${seed}/held out/${promptText(prompt)}`)
      .digest("hex");
  const chosen = new Set(
    prompts
      .map((prompt) => ({ prompt, key: hash(prompt) }))
      .sort((a, b) => (a.key < b.key ? -1 : 1))
      .slice(0, count)
      .map(({ prompt }) => prompt),
  );
  return {
    train: prompts.filter((prompt) => !chosen.has(prompt)),
    heldOut: prompts.filter((prompt) => chosen.has(prompt)),
  };
}

/** Rows of a file of ours. */
export const jsonLines = (rows: readonly object[]) => rows.map((one) => `${JSON.stringify(one)}\n`).join("");

/** Reads what {@link jsonLines} wrote. */
export function readRows(path: string): TaskPrompt[] {
  return readText(path)
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line));
}
