/** How an instruction and its input become the text and the ids that the predictor and the LLM read. */
import { InputError, OptionError } from "../errors.ts";
import type { Tokenizer } from "./tokenizer.ts";

const INPUT_MARK = " Input: ";

/** What the LLM reads around a prompt unless a checkpoint says otherwise; the answer follows it. */
export const DEFAULT_PROMPT_TEMPLATE = "{prompt}\n";

/** `{instruction} Input: {input}`, or the instruction alone. */
export function composePrompt(instruction: string, input?: string): string {
  return input ? `${instruction}${INPUT_MARK}${input}` : instruction;
}

/** A later turn of a conversation that asks for the same again: `Input: {input}` in the template. */
export function composeTurn(input: string, template: string): string {
  return template.replace("{prompt}", () => `${INPUT_MARK.trimStart()}${input}`);
}

/** The part of a prompt before its input; undoes `composePrompt`. */
export function instructionOf(prompt: string): string {
  return prompt.split(INPUT_MARK, 1)[0]!;
}

/**
 * What the predictor reads: BOS and the raw text, no template.
 * @throws {InputError} when the text is empty
 */
export function predictorIds(tokenizer: Tokenizer, text: string): Int32Array {
  if (text.trim() === "") throw new InputError("prompt: wanted an instruction, got empty text.");
  return withBos(tokenizer, text);
}

/**
 * What the LLM reads before it answers: BOS and the template with the prompt in it.
 * @throws {InputError} when the prompt is empty
 * @throws {OptionError} when the template has no place for it
 */
export function promptIds(tokenizer: Tokenizer, prompt: string, template: string): Int32Array {
  if (prompt.trim() === "") throw new InputError("prompt: wanted an instruction, got empty text.");
  if (!template.includes("{prompt}"))
    throw new OptionError(`prompt template: wanted "{prompt}" in it, got ${JSON.stringify(template)}.`);
  return withBos(
    tokenizer,
    template.replace("{prompt}", () => prompt),
  );
}

function withBos(tokenizer: Tokenizer, text: string): Int32Array {
  const ids = tokenizer.encode(text);
  const all = new Int32Array(1 + ids.length);
  all[0] = tokenizer.bosId;
  all.set(ids, 1);
  return all;
}
