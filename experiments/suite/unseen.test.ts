/** The harder tests keep what their names promise, and the committed files are what the program makes. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { composePrompt } from "../../src/text/prompt.ts";
import { type EvalRow, evalRow, isCorrect } from "../../src/text/scorers.ts";
import { jsonLines, TASKS } from "./prepare.ts";
import { sameWording, withoutInput } from "./split.ts";
import {
  contentWords,
  inWords,
  isFarFrom,
  prepareUnseen,
  readSources,
  unseenWordings,
  vocabularies,
} from "./unseen.ts";

const sources = readSources();
const committed = (name: string) => readFileSync(join(import.meta.dirname, "data", `${name}.jsonl`), "utf8");
const read = (name: string): EvalRow[] =>
  committed(name)
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
const [words, crossed, plain] = [read("test-words"), read("test-crossed"), read("test-plain")];

test("committed files are what the program makes", () => {
  const made = prepareUnseen(sources);
  expect(committed("test-words") === jsonLines(made.words)).toBe(true);
  expect(committed("test-crossed") === jsonLines(made.crossed)).toBe(true);
  expect(committed("test-plain") === jsonLines(made.plain)).toBe(true);
});

describe("unseen words", () => {
  let vocabulary: Map<string, Set<string>>;
  beforeAll(() => {
    vocabulary = vocabularies(sources.train);
  });

  test("no word of a question is in its task's training rows, and each has one", () => {
    for (const { task, input } of [...words, ...crossed]) {
      const own = contentWords(task, input!);
      expect(own.length, input).toBeGreaterThan(0);
      expect(
        own.filter((word) => vocabulary.get(task)!.has(word)),
        `${task}: ${input}`,
      ).toEqual([]);
    }
  });

  test("a word of training is refused", () => {
    const questions = [...sources.questions, { task: "antonyms", input: "insane", answers: ["sane"] }];
    expect(() => prepareUnseen({ ...sources, questions })).toThrow(/"insane"/);
  });

  test("all 19 tasks, 40 to 60 questions each, and each is asked once", () => {
    for (const part of [words, crossed])
      for (const task of Object.keys(TASKS)) {
        const own = part.filter((row) => row.task === task);
        expect(own.length, task).toBeGreaterThanOrEqual(40);
        expect(own.length, task).toBeLessThanOrEqual(60);
        expect(new Set(own.map(({ input }) => input)).size).toBe(own.length);
      }
  });

  test("what the README says of closed vocabularies: how many words of unseen inputs training has", () => {
    const share = (task: string) => {
      const asked = read("test-inputs").filter((row) => row.task === task);
      const own = asked.flatMap(({ input }) => contentWords(task, input!));
      return Math.round((100 * own.filter((word) => vocabulary.get(task)!.has(word)).length) / own.length);
    };
    const rules = Object.keys(TASKS).filter((task) => TASKS[task]!.followsRule);
    expect(Object.fromEntries(rules.map((task) => [task, share(task)]))).toEqual({
      active_to_passive: 100,
      diff: 100,
      first_word_letter: 0,
      larger_animal: 100,
      letters_list: 0,
      negation: 50,
      num_to_verbal: 0,
      orthography_starts_with: 93,
      second_word_letter: 0,
      sentiment: 66,
      singular_to_plural: 0,
      sum: 100,
      taxonomy_animal: 100,
    });
  });
});

test("crossed: the same questions, in wordings that differ from each trained one by more than a word", () => {
  expect(crossed.map(({ task, input }) => `${task} ${input}`)).toEqual(
    words.map(({ task, input }) => `${task} ${input}`),
  );
  const wordings = unseenWordings(sources.instructions, sources.inline);
  for (const { task, instruction } of crossed) {
    expect(wordings[task]).toContain(instruction);
    expect(isFarFrom(instruction, sources.inline[task]!.train), instruction).toBe(true);
    expect(sources.instructions[task]!.train).not.toContain(instruction);
  }
  // trained with the input in them
  expect(wordings.antonyms).not.toContain("what the opposite of");
  expect(wordings["translation_en-es"]).not.toContain("Translate to Spanish");
});

test("plain questions: 60 or more, of every task, each in a wording of its own that no list has", () => {
  expect(plain.length).toBeGreaterThanOrEqual(60);
  expect(new Set(plain.map(({ task }) => task))).toEqual(new Set([...Object.keys(TASKS), "word_problem"]));
  expect(new Set(plain.map(({ instruction }) => sameWording(withoutInput(instruction)))).size).toBe(plain.length);
  const known = Object.values(sources.inline).flatMap((own) => [...own.train, ...own.validation, ...own.heldOut]);
  for (const { instruction, input } of plain) {
    expect(isFarFrom(instruction, known), instruction).toBe(true);
    expect(composePrompt(instruction, input)).not.toMatch(/\{input|Input:/);
  }
  const [first, ...others] = sources.plain;
  const instruction = sources.inline.sum!.train[0]!;
  expect(() => prepareUnseen({ ...sources, plain: [{ ...first!, instruction }, ...others] })).toThrow(/new wordings/);
});

test("every answer is right by its own scorer, and is not the question", () => {
  for (const row of [...words, ...crossed, ...plain]) {
    expect(evalRow.safeParse(row).success, row.input).toBe(true);
    for (const answer of row.answers) {
      expect(isCorrect(row.scorer, answer, row.answers)).toBe(true);
      if (row.task !== "taxonomy_animal") expect(answer).not.toBe(row.input);
    }
  }
});

test("numbers are written as the source writes them", () => {
  for (const { input, answers } of sources.train.filter(({ task }) => task === "num_to_verbal"))
    expect(inWords(Number(input))).toBe(answers[0]);
  expect(inWords(12_005)).toBe("twelve thousand and five");
});
