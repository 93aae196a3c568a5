import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../test/support/models.ts";
import { FileError, InputError } from "../errors.ts";
import {
  checkCount,
  distinct,
  fitting,
  partHeldOut,
  promptText,
  readTaskPrompts,
  type TaskPrompt,
} from "./taskPrompts.ts";

function file(name: string, text: string): string {
  const path = join(temporaryFolder(), name);
  writeFileSync(path, text);
  return path;
}

test("lines are inputs of the task, or whole prompts where there is none; rows may have their own instruction", async () => {
  const lines = file("prompts.txt", "one\r\n\n  two \n");
  expect(await readTaskPrompts(lines, "Say it:", false)).toEqual([
    { instruction: "Say it:", input: "one" },
    { instruction: "Say it:", input: "two" },
  ]);
  expect(await readTaskPrompts(lines, undefined, false)).toEqual([{ instruction: "one" }, { instruction: "two" }]);
  const brackets = file("prompts.txt", "[INST] hello\n{name} wants to know\n");
  expect(await readTaskPrompts(brackets, undefined, false)).toEqual([
    { instruction: "[INST] hello" },
    { instruction: "{name} wants to know" },
  ]);
  await expect(readTaskPrompts("prompts.txt.gz", undefined, false)).rejects.toThrow(
    /plain text that is not compressed/,
  );
  const rows = file(
    "prompts.jsonl",
    '{"input": "one", "output": "1"}\n{"instruction": "Do it", "answers": ["2", "3"]}\n',
  );
  expect(await readTaskPrompts(rows, "Say it:", true)).toEqual([
    { instruction: "Say it:", input: "one", output: "1" },
    { instruction: "Do it", output: "2" },
  ]);
  const asked = await readTaskPrompts(rows, "Say it:", false);
  expect(asked.map(({ output }) => output)).toEqual([undefined, undefined]); // the model answers
});

test("lines that happen to be JSON are text, unless they are objects", async () => {
  for (const lines of [
    ["[1, 3, 7]", "[2]"],
    ["null", "1"],
    ['"a"', "b"],
  ]) {
    const read = await readTaskPrompts(file("lines.txt", lines.join("\n")), "Sort:", false);
    expect(read).toEqual(lines.map((input) => ({ instruction: "Sort:", input })));
  }
  const objects = file("objects.txt", '{"a": 1}\n{"a": 2}\n');
  await expect(readTaskPrompts(objects, "As YAML:", false)).rejects.toThrow(
    /got "a".*Where the line itself is an input: /,
  );
});

test.each([
  [
    "other fields",
    "a.jsonl",
    '{"question": "one", "answer": "1"}',
    /line 1: wanted "instruction", or "input" of the task, got "question", "answer"\. Name the fields so/,
  ],
  ["no answers", "a.jsonl", '{"instruction": "one"}', /line 1: wanted "output", the right answer, got "instruction"/],
  ["inputs without a task", "a.jsonl", '{"input": "one", "output": "1"}', /or a task that is asked of inputs/],
  [
    "an array",
    "a.json",
    '[\n{"instruction": "one"}]',
    /wanted JSON Lines of .*, got a list\. Write each of its objects on/,
  ],
  ["plain text", "a.txt", "one\ntwo", /wanted JSON Lines of .*, got plain text/],
])("examples with %s are refused, and the line is named", async (_, name, text, message) => {
  const reading = readTaskPrompts(file(name, text), undefined, true);
  await expect(reading).rejects.toThrow(FileError);
  await expect(reading).rejects.toThrow(message);
});

test("prompts count once, however they are spaced, but with right answers to each letter; too few are refused", () => {
  const prompts = ["One  thing", "one thing", "Two"].map((instruction) => ({ instruction }));
  expect(distinct(prompts)).toEqual([prompts[0], prompts[2]]);
  const cased = ["Type a", "Type A"].map((instruction, i) => ({ instruction, output: String(i) }));
  expect(distinct([...cased, cased[0]!])).toEqual(cased);
  const plain = { hasGold: false, hasDrafts: false };
  expect(() => checkCount([prompts[0]!], "a.txt", plain)).toThrow(InputError);
  expect(() => checkCount([prompts[0]!], "a.txt", plain)).toThrow(/got 1 of a\.txt\. Write one a line/);
  expect(() => checkCount(prompts, "a.txt", plain)).toThrow(/got 3 of a\.txt\. Add 29 or more; or add 9 and have/);
});

test("fewer prompts do beside drafts, which are proposed where there is no gold", () => {
  const prompts: TaskPrompt[] = Array.from({ length: 20 }, (_, i) => ({ instruction: `${i}` }));
  const check = (count: number, hasDrafts: boolean, hasGold = false) =>
    checkCount(prompts.slice(0, count), "a.txt", { hasGold, hasDrafts });
  expect(() => check(20, false)).toThrow(/Add 12 or more, or have the model draft others .*\(draft = 256\); a few/);
  expect(() => check(20, false, true)).toThrow(/Add 12 or more; a few/);
  expect(() => check(11, true)).toThrow(/at least 12 different prompts beside drafts, got 11 .* Add 1 or more; a few/);
  check(12, true);
});

test("prompts that leave no room for their answers are left out and counted; too few that do are refused", () => {
  const prompts: TaskPrompt[] = Array.from({ length: 40 }, (_, i) => ({ instruction: "x".repeat(i), output: "yy" }));
  const tokensOf = (prompt: string, answer: string) => prompt.length + answer.length;
  const use = { hasGold: true, hasDrafts: false };
  const { prompts: some, note } = fitting(prompts, { room: 36, tokensOf, use });
  expect([some, note]).toEqual([prompts.slice(0, 35), expect.stringContaining("5 of 40 prompts")]);
  expect(fitting(prompts, { room: 50, tokensOf, use })).toEqual({ prompts });
  expect(() => fitting(prompts, { room: 10, tokensOf, use })).toThrow(/got 9: 31 of 40 prompts .* Shorten them/);
});

test("what is held out does not depend on the order of the prompts, and is in neither part twice", () => {
  const prompts: TaskPrompt[] = Array.from({ length: 200 }, (_, i) => ({ instruction: "Say", input: `${i}` }));
  const texts = (some: readonly TaskPrompt[]) => some.map(promptText).sort();
  const { train, heldOut } = partHeldOut(prompts, 1);
  expect([train.length, heldOut.length]).toEqual([180, 20]);
  expect(texts([...train, ...heldOut])).toEqual(texts(prompts));
  expect(texts(partHeldOut(prompts.toReversed(), 1).heldOut)).toEqual(texts(heldOut));
  expect(texts(partHeldOut(prompts, 2).heldOut)).not.toEqual(texts(heldOut));
  expect(partHeldOut(prompts.slice(0, 32), 1).heldOut).toHaveLength(8);
});
