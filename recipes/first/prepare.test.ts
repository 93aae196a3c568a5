/** The committed data keeps what the README promises of it. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { composePrompt, instructionOf } from "../../src/text/prompt.ts";
import { type EvalRow, evalRow, isCorrect } from "../../src/text/scorers.ts";
import { loadTokenizer } from "../../src/text/tokenizer.ts";
import { trainTokenizer } from "../../src/text/trainTokenizer.ts";
import { SftStream } from "../../src/train/batches.ts";
import { encodeQuestions, type Question, readDocuments, readQuestions } from "../../src/train/data.ts";
import { hash, prepareTasks, sameWording, splitOf, TASKS, type TaskRow, type Wordings } from "./prepare.ts";

const data = (name: string) => join(import.meta.dirname, "data", name);
const read = (name: string): string =>
  name.endsWith(".gz") ? gunzipSync(readFileSync(data(name))).toString() : readFileSync(data(name), "utf8");
const rows = <T>(name: string): T[] =>
  read(name)
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));

const train = rows<TaskRow>("train.jsonl.gz");
const validation = rows<EvalRow>("validation.jsonl");
const testInputs = rows<EvalRow>("test-inputs.jsonl");
const testWordings = rows<EvalRow>("test-wordings.jsonl");
const wordings: Record<string, Wordings> = JSON.parse(read("instructions.json"));

/** Questions that are the same but for the order of a list, such as "cat, dog" and "dog, cat", have one key. */
const key = ({ task, input }: { task: string; input?: string }) => `${task}: ${input!.split(", ").sort().join(", ")}`;
const tasksOf = (part: readonly { task: string }[]) => [...new Set(part.map(({ task }) => task))].sort();
const allTasks = Object.keys(TASKS).sort();
const ruleTasks = allTasks.filter((task) => TASKS[task]!.followsRule);

describe("splits", () => {
  test("unseen inputs: no question of the test is in training or validation, in any wording", () => {
    const [trained, validated] = [new Set(train.map(key)), new Set(validation.map(key))];
    for (const row of testInputs) {
      expect(trained.has(key(row)) || validated.has(key(row)), key(row)).toBe(false);
    }
    for (const row of validation) expect(trained.has(key(row)), key(row)).toBe(false);
  });

  test("unseen inputs follow from the fixed hash alone", () => {
    for (const { task, input } of testInputs) expect(splitOf(task, input!)).toBe("test");
    for (const { task, input } of validation) expect(splitOf(task, input!)).toBe("validation");
    for (const { task, input } of train)
      expect(TASKS[task]!.followsRule ? splitOf(task, input) : "train").toBe("train");
    expect(splitOf("larger_animal", "cat, dog")).toBe(splitOf("larger_animal", "dog, cat"));
  });

  test("unseen wordings: the question was trained on, its wording in no form", () => {
    const trained = new Set(train.map(key));
    for (const row of testWordings) {
      expect(trained.has(key(row)), key(row)).toBe(true);
      expect(wordings[row.task]!.heldOut).toContain(row.instruction);
    }
    const trainedWordings = new Set(Object.values(wordings).flatMap((own) => own.train.map(sameWording)));
    for (const { heldOut } of Object.values(wordings)) {
      expect(heldOut.length).toBeGreaterThan(0);
      for (const wording of heldOut) expect(trainedWordings.has(sameWording(wording)), wording).toBe(false);
    }
  });

  test("unseen inputs are asked in trained wordings", () => {
    for (const { task, instruction } of [...testInputs, ...validation])
      expect(wordings[task]!.train).toContain(instruction);
  });

  test("every task is trained and asked; 30 to 60 rows of each in an evaluation file", () => {
    expect(tasksOf(train)).toEqual(allTasks);
    expect(Object.keys(wordings).sort()).toEqual(allTasks);
    for (const [part, tasks] of [
      [testInputs, ruleTasks],
      [validation, ruleTasks],
      [testWordings, allTasks],
    ] as const) {
      expect(tasksOf(part)).toEqual(tasks);
      for (const task of tasks) {
        const own = part.filter((row) => row.task === task);
        expect(new Set(own.map(key)).size).toBe(own.length);
        expect(own.length).toBeGreaterThanOrEqual(30);
        expect(own.length).toBeLessThanOrEqual(60);
      }
    }
  });
});

describe("rows", () => {
  test("evaluation rows are complete, and each accepted answer is correct by the row's own scorer", () => {
    for (const row of [...validation, ...testInputs, ...testWordings]) {
      const { scorer, answers } = evalRow.parse(row);
      for (const answer of answers) expect(isCorrect(scorer, answer, answers)).toBe(true);
    }
  });

  test("lists are judged without order, unless the instruction asks for one", () => {
    for (const { task, instruction, scorer } of [...validation, ...testInputs, ...testWordings]) {
      const isOrdered = instruction.includes("original order");
      const byTask: Record<string, string> = { taxonomy_animal: "comma-set", orthography_starts_with: "word-set" };
      expect(scorer).toBe(isOrdered ? "any" : (byTask[task] ?? "any"));
    }
  });

  test("an input with several answers in the source is one row that accepts them all", () => {
    expect(new Set(train.map(({ task, input }) => `${task}: ${input}`)).size).toBe(train.length);
    const rhymes = train.find(({ task, input }) => task === "rhymes" && input === "sing")!;
    expect([...rhymes.answers].sort()).toEqual(["bring", "king", "ring", "thing", "wing"]);
  });

  test("the instruction of a prompt can be told from its input", () => {
    for (const { train: own, heldOut } of Object.values(wordings)) {
      for (const wording of [...own, ...heldOut]) expect(instructionOf(composePrompt(wording, "x"))).toBe(wording);
    }
  });

  test("answers of some rule tasks follow from the input", () => {
    const sum = (input: string, sign: number) => {
      const [x, y] = input.split(" ").map(Number) as [number, number];
      return String(x + sign * y);
    };
    const wanted: Record<string, (input: string) => string> = {
      sum: (input) => sum(input, 1),
      diff: (input) => sum(input, -1),
      first_word_letter: (input) => input[0]!,
      second_word_letter: (input) => input[1]!,
      letters_list: (input) => [...input].join(" "),
    };
    for (const { task, input, answers } of [...train, ...validation, ...testInputs]) {
      if (wanted[task]) expect(answers).toEqual([wanted[task](input!)]);
    }
  });
});

test("prepareTasks holds out questions of a rule, not facts, and joins answers (made-up source)", () => {
  const instructions = Object.fromEntries(
    allTasks.map((task) => [task, ["Do it", "do it.", "Make it", "Say it", "Try it"]]),
  );
  const numbers = Array.from({ length: 400 }, (_, i) => ({ task: "num_to_verbal", input: `${i}`, output: `n${i}` }));
  const facts = numbers.map((row) => ({ ...row, task: "antonyms" }));
  const again = { task: "antonyms", input: " 7", output: "seventh" };
  const made = prepareTasks([...numbers, ...facts, again, { task: "unknown", input: "x", output: "y" }], instructions);
  const count = (task: string) => made.train.filter((row) => row.task === task).length;
  expect(count("antonyms")).toBe(400);
  expect(made.train.find(({ task, input }) => task === "antonyms" && input === "7")!.answers).toEqual([
    "n7",
    "seventh",
  ]);
  expect(count("num_to_verbal")).toBe(
    numbers.filter(({ input }) => hash("split", "num_to_verbal", input) >= 0.1).length,
  );
  for (const { train: own, heldOut } of Object.values(made.wordings)) {
    expect([...own, ...heldOut].sort()).toEqual([...instructions.sum!].sort());
    expect(heldOut.includes("Do it")).toBe(heldOut.includes("do it.")); // the same wording
  }
});

test("padding wastes less than 15 % of a batch with a tokenizer of 2,048 tokens (a twelfth of the questions)", async () => {
  const all = await readQuestions([{ domain: "tasks", path: data("train.jsonl.gz") }], data("instructions.json"));
  const questions = all.filter((_, i) => i % 12 === 0);
  const folder = mkdtempSync(join(tmpdir(), "ifprune-test-"));
  try {
    const out = join(folder, "tokenizer.json");
    const lines = (question: Question) => question.wordings.map((wording) => composePrompt(wording, question.input));
    await trainTokenizer({ texts: questions.flatMap(lines), vocabSize: 2048, out });
    const options = { promptTemplate: "{prompt}\n", predictorInput: "prompt", maxTokens: 256 } as const;
    const stream = new SftStream(encodeQuestions(questions, loadTokenizer(out), options), {
      seed: 1,
      tokensPerBatch: 2048,
    });
    let positions = 0;
    let padding = 0;
    for (let i = 0; i < 300; i++) {
      const { B, T, tokens } = stream.next();
      positions += B * T;
      padding += B * T - tokens;
    }
    expect(stream.buckets.length).toBeLessThanOrEqual(6);
    expect(padding / positions).toBeLessThan(0.15);
    expect(Math.abs(padding / positions - stream.waste)).toBeLessThan(0.02); // as planned, but for chance
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test.each(["novels", "code", "maths", "sql"])("text-%s can be read", async (domain) => {
  let characters = 0;
  for await (const { text } of readDocuments([{ domain, path: data(`text-${domain}.jsonl.gz`) }]))
    characters += text.length;
  expect(characters).toBeGreaterThan(500_000);
});
