/** What a dense model reads in one go when its activations are taken. */
import { InputError } from "../errors.ts";
import { joinedIds } from "../ids.ts";
import type { Window } from "../net/activations.ts";
import type { Instruction } from "../text/prompt.ts";
import type { Tokenizer } from "../text/tokenizer.ts";

/** Longest window: attention takes memory by its square. Longer prompts and texts are cut, and the parts do not see each other. */
const maxWindow = 1024;
/** Counted tokens of a text, unless told. */
const textTokens = 4096;

/** A prompt as the LLM reads it, up to the end of the user's text, which alone is counted: what comes after changes nothing before it. */
export function promptWindows({ contextLength }: { contextLength: number }, { ids, user }: Instruction): Window[] {
  const [from, end] = user ?? [0, ids.length];
  const length = Math.min(maxWindow, contextLength);
  return cut(ids.subarray(0, end), length)
    .map((part, i) => ({ ids: part, skipped: Math.max(0, from - i * length) }))
    .filter((part) => part.skipped < part.ids.length);
}

/**
 * The beginning of a text, each window opened by BOS where there is one.
 *
 * @throws {InputError} if the text is empty
 */
export function textWindows(
  { contextLength }: { contextLength: number },
  tokenizer: Tokenizer,
  text: string,
  maxTokens = textTokens,
): Window[] {
  const opening = tokenizer.bosId === undefined ? [] : [tokenizer.bosId];
  // Tokens are mostly words or parts of them. Of a text of longer ones, fewer count.
  const ids = tokenizer.encode(text.slice(0, 32 * maxTokens)).subarray(0, maxTokens);
  if (ids.length === 0) throw new InputError("mask: wanted a text to take activations from, got an empty one.");
  const parts = cut(ids, Math.min(maxWindow, contextLength) - opening.length);
  return parts.map((part) => ({ ids: joinedIds(opening, part), skipped: opening.length }));
}

/** Parts of at most `length` ids. */
function cut(ids: Int32Array, length: number): Int32Array[] {
  return Array.from({ length: Math.ceil(ids.length / length) }, (_, i) => ids.subarray(i * length, (i + 1) * length));
}
