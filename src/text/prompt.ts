/** How an instruction and its input become the text and the ids that the predictor and the LLM read. */
import { InputError, OptionError } from "../errors.ts";
import { ChatTemplate, chatIds } from "./chatTemplate.ts";
import type { Tokenizer } from "./tokenizer.ts";

const INPUT_MARK = " Input: ";

/** What the LLM reads around a prompt unless a checkpoint says otherwise; the answer follows it. */
export const DEFAULT_PROMPT_TEMPLATE = "{prompt}\n";

/** Where an instruction has its input in itself: all of it, or its n-th part between commas or else spaces. */
const INPUT_SLOT = /\{input(?:\.([1-9]))?\}/g;

/**
 * `{instruction} Input: {input}`, or the instruction alone. An instruction that has a place for its input, as in "the plural of {input}" or
 * "{input.1} plus {input.2}", takes it there.
 * @throws {InputError} when the input has fewer parts than the instruction names
 */
export function composePrompt(instruction: string, input?: string): string {
  if (!input) return instruction;
  if (instruction.search(INPUT_SLOT) < 0) return `${instruction}${INPUT_MARK}${input}`;
  const parts = input.split(input.includes(",") ? /,\s*/ : /\s+/);
  return instruction.replace(INPUT_SLOT, (slot, n?: string) => {
    const part = n === undefined ? input : parts[Number(n) - 1];
    if (part === undefined)
      throw new InputError(`prompt: wanted an input with a part for ${slot}, got ${JSON.stringify(input)}.`);
    return part;
  });
}

/** A later turn of a conversation that asks for the same again: `Input: {input}`. */
export function composeTurn(input: string): string {
  return `${INPUT_MARK.trimStart()}${input}`;
}

/** Whether a message says what its input is, as `composePrompt` and `composeTurn` do. */
export function hasInput(message: string): boolean {
  return ` ${message}`.includes(INPUT_MARK);
}

/** The part of a prompt before its input; undoes `composePrompt`. All of it where the input stands in the instruction itself. */
export function instructionOf(prompt: string): string {
  return prompt.split(INPUT_MARK, 1)[0]!;
}

/**
 * What the predictor reads: BOS where there is one, and the raw text, no template.
 * @throws {InputError} when the text is empty
 */
export function predictorIds(tokenizer: Tokenizer, text: string): Int32Array {
  if (text.trim() === "") throw new InputError("prompt: wanted an instruction, got empty text.");
  return withBos(tokenizer, tokenizer.encode(text));
}

/**
 * What the LLM reads before it answers: BOS where there is one, once, and the prompt in its format.
 * @param format a text with "{prompt}" in it, or a chat template, of which the prompt is the only message
 * @throws {InputError} when the prompt is empty, or the chat template refuses it
 * @throws {OptionError} when the text has no place for it
 * @throws {FileError} when the chat template fails
 */
export function promptIds(tokenizer: Tokenizer, prompt: string, format: string | ChatTemplate): Int32Array {
  if (prompt.trim() === "") throw new InputError("prompt: wanted an instruction, got empty text.");
  if (format instanceof ChatTemplate)
    return withBos(tokenizer, chatIds(tokenizer, format, [{ role: "user", content: prompt }]));
  if (!format.includes("{prompt}"))
    throw new OptionError(`prompt template: wanted "{prompt}" in it, got ${JSON.stringify(format)}.`);
  return withBos(tokenizer, tokenizer.encode(format.replace("{prompt}", () => prompt)));
}

/** Ids with BOS before them, where there is one, unless they have it: a chat template may have written it itself. */
export function withBos({ bosId }: Tokenizer, ids: Int32Array): Int32Array {
  if (bosId === undefined || ids[0] === bosId) return ids;
  const all = new Int32Array(1 + ids.length);
  all[0] = bosId;
  all.set(ids, 1);
  return all;
}
