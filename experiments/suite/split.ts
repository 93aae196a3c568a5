/** What decides, by the texts alone, which part of the data a question or a wording belongs to. */
import { createHash } from "node:crypto";

/** A question with its accepted answers; training uses the first. */
export interface TaskRow {
  task: string;
  input: string;
  answers: string[];
}

export interface Wordings {
  train: string[];
  validation: string[];
  heldOut: string[];
}

export type Part = "train" | "validation" | "test";

/** This share of the inputs is held out for the test, and as many for validation. */
const HELD_OUT_SHARE = 0.05;

/** A number in [0, 1) that depends on the texts alone. */
export function hash(...texts: string[]): number {
  return createHash("sha256").update(texts.join("\n")).digest().readUInt32BE() / 2 ** 32;
}

export function tidy(text: string): string {
  return text.trim().replace(/\s+/gu, " ");
}

/** Texts that differ in case, punctuation or white space alone are the same wording; but "{input.1} + {input.2}" is a sum. */
export function sameWording(text: string): string {
  return text
    .toLowerCase()
    .replace(/\}\s*\+\s*\{/g, "} plus {")
    .replace(/\}\s*-\s*\{/g, "} minus {")
    .replace(/[^\p{L}\p{N}]+/gu, " ")
    .trim();
}

/** A wording without the places of its input. */
export function withoutInput(wording: string): string {
  return wording.replace(/\{input(\.\d)?\}/g, " ");
}

/** Words to insert, delete or replace between two wordings. */
export function wordDistance(a: string, b: string): number {
  const [from, to] = [sameWording(a).split(" "), sameWording(b).split(" ")];
  let row = [0, ...to.map((_, j) => j + 1)];
  for (const [i, word] of from.entries()) {
    const next = [i + 1];
    for (const [j, other] of to.entries()) {
      next.push(Math.min(row[j + 1]! + 1, next[j]! + 1, row[j]! + (word === other ? 0 : 1)));
    }
    row = next;
  }
  return row.at(-1)!;
}

/** Questions that are the same but for the order of a list, "cat, dog" and "dog, cat", have one key. */
export function sameInput(input: string): string {
  return input.split(", ").sort().join(", ");
}

/** Part of the data that an input belongs to. */
export function splitOf(task: string, input: string): Part {
  const place = hash("split", task, sameInput(input));
  if (place < HELD_OUT_SHARE) return "test";
  return place < 2 * HELD_OUT_SHARE ? "validation" : "train";
}

/**
 * Take `sizes[i]` of the wordings as the i-th reserved set, chosen by hash, with all that say the same; the last set returned
 * is what is left. Each set keeps the order of `all`.
 */
export function reserve(name: string, task: string, all: readonly string[], sizes: readonly number[]): string[][] {
  const groups = [...new Set(all.map(sameWording))].sort((a, b) => hash(name, task, a) - hash(name, task, b));
  const sets = [...sizes.map((size) => new Set(groups.splice(0, size))), new Set(groups)];
  return sets.map((set) => all.filter((wording) => set.has(sameWording(wording))));
}

/** @throws {Error} if two parts or two tasks share a wording */
export function checkWordings(wordings: Readonly<Record<string, Wordings>>): void {
  const places = new Map<string, string>();
  for (const [task, parts] of Object.entries(wordings)) {
    for (const [part, own] of Object.entries(parts) as [string, string[]][]) {
      for (const wording of own) {
        const place = `${part} of ${task}`;
        const other = places.get(sameWording(wording)) ?? place;
        if (other !== place)
          throw new Error(
            `wordings: wanted each in one place, got "${wording}" in ${other} and in ${place}. Reword it.`,
          );
        places.set(sameWording(wording), place);
      }
    }
  }
}
