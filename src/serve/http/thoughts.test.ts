/** Thoughts and answer mean the same however they are cut into pieces. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { ThoughtReader } from "./thoughts.ts";
import type { Said } from "./tools.ts";

function read(pieces: readonly string[], isOpen = false): { thought: string; text: string } {
  const reader = new ThoughtReader(isOpen);
  const said: Said[] = [...pieces.flatMap((piece) => reader.push(piece)), ...reader.end()];
  const all = { thought: "", text: "" };
  for (const one of said) {
    if ("thought" in one) all.thought += one.thought;
    if ("text" in one) all.text += one.text;
  }
  return all;
}

test.each([
  ["<think>a < b</think>\n\nYes.", false, "a < b", "Yes."],
  ["\n<think>\na\n</think>", false, "\na", ""],
  ["a\n</think>\n\nYes.", true, "a", "Yes."],
  ["cut off </thi", true, "cut off </thi", ""],
  ["<thin", false, "", "<thin"],
  [" Yes, <think>no</think>", false, "", " Yes, <think>no</think>"],
  ["<think></think>Yes.", false, "", "Yes."],
  ["", false, "", ""],
])("of %j, opened before: %s", (answer, isOpen, thought, text) => {
  expect(read([answer], isOpen)).toEqual({ thought, text });
});

test("in any pieces it is the same (seed 1)", () => {
  const part = fc.constantFrom("a", "<", "<think>", "</think>", "</", "think>", "\n", " ", "é😀");
  fc.assert(
    fc.property(fc.array(part, { maxLength: 12 }), fc.boolean(), (parts, isOpen) => {
      const whole = parts.join("");
      expect(read(parts, isOpen)).toEqual(read([whole], isOpen));
      expect(read([...whole], isOpen)).toEqual(read([whole], isOpen));
    }),
    { seed: 1, numRuns: 300 },
  );
});
