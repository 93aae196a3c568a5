/** The committed data keeps what the README promises of it. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { composePrompt, instructionOf, PromptFormat } from "../../src/text/prompt.ts";
import { type EvalRow, evalRow, isCorrect } from "../../src/text/scorers.ts";
import { loadTokenizer } from "../../src/text/tokenizer.ts";
import { trainTokenizer } from "../../src/text/trainTokenizer.ts";
import { SftStream } from "../../src/train/batches.ts";
import { encodeQuestions, type Question, readDocuments, readQuestions } from "../../src/train/data.ts";
import { EXTRA_TASKS, storyRows, wordProblems } from "./extras.ts";
import { prepareTasks, TASKS } from "./prepare.ts";
import {
  checkWordings,
  hash,
  sameInput,
  sameWording,
  splitOf,
  type TaskRow,
  type Wordings,
  withoutInput,
  wordDistance,
} from "./split.ts";

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
const validationWordings = rows<EvalRow>("validation-wordings.jsonl");
const testInputs = rows<EvalRow>("test-inputs.jsonl");
const testWordings = rows<EvalRow>("test-wordings.jsonl");
const wordings: Record<string, Wordings> = JSON.parse(read("instructions.json"));
const ours: Record<string, string[]> = JSON.parse(readFileSync(join(import.meta.dirname, "wordings.json"), "utf8"));
const extra = {
  train: EXTRA_TASKS.flatMap((task) => rows<TaskRow>(`train-${task}.jsonl.gz`)),
  validation: rows<EvalRow>("extra-validation.jsonl"),
  test: rows<EvalRow>("extra-test-inputs.jsonl"),
};
const evaluated = [...validation, ...validationWordings, ...testInputs, ...testWordings];

/** Questions that are the same but for the order of a list, such as "cat, dog" and "dog, cat", have one key. */
const key = ({ task, input }: { task: string; input?: string }) => `${task}: ${sameInput(input!)}`;
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
    const trainedWordings = new Set(Object.values(wordings).flatMap((own) => own.train.map(sameWording)));
    for (const [part, set] of [
      [testWordings, "heldOut"],
      [validationWordings, "validation"],
    ] as const) {
      for (const row of part) {
        expect(trained.has(key(row)), key(row)).toBe(true);
        expect(wordings[row.task]![set]).toContain(row.instruction);
        expect(trainedWordings.has(sameWording(row.instruction)), row.instruction).toBe(false);
      }
    }
  });

  test("validation and test ask different questions in different wordings", () => {
    const asked = new Set(testWordings.map(key));
    for (const row of validationWordings) expect(asked.has(key(row)), key(row)).toBe(false);
  });

  test("unseen inputs are asked in trained wordings, the human ones", () => {
    for (const { task, instruction } of [...testInputs, ...validation]) {
      expect(wordings[task]!.train).toContain(instruction);
      expect(ours[task]).not.toContain(instruction);
    }
  });

  test("every task is trained and asked; 30 to 60 rows of each in an evaluation file", () => {
    expect(tasksOf(train)).toEqual(allTasks);
    expect(Object.keys(wordings).sort()).toEqual([...allTasks, ...EXTRA_TASKS].sort());
    for (const [part, tasks] of [
      [testInputs, ruleTasks],
      [validation, ruleTasks],
      [testWordings, allTasks],
      [validationWordings, allTasks],
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

describe("wordings with the input in them", () => {
  const inline: Record<string, Wordings> = JSON.parse(read("instructions-inline.json"));
  const [validated, tested] = [rows<EvalRow>("inline-validation.jsonl"), rows<EvalRow>("inline-test.jsonl")];

  test("each has its input whole or in two parts, stands in one place, and the plainest are trained on", () => {
    checkWordings(inline);
    for (const [task, { train: trained, validation: reserved, heldOut }] of Object.entries(inline)) {
      expect(trained.slice(0, wordings[task]!.train.length)).toEqual(wordings[task]!.train);
      const own = trained.slice(wordings[task]!.train.length);
      expect([own.length, reserved.length, heldOut.length]).toEqual([expect.any(Number), 2, 3]);
      expect(own.length).toBeGreaterThanOrEqual(14);
      for (const wording of [...own, ...reserved, ...heldOut])
        expect(wording).toMatch(/\{input\}|\{input\.1\}.*\{input\.2\}|\{input\.2\}.*\{input\.1\}/);
    }
    expect(inline.sum!.train).toContain("{input.1} + {input.2}");
  });

  test("those added to the first 20 are never reserved, and none is a reserved or held-out human one but for a single word", () => {
    const lists: Record<string, string[]> = JSON.parse(
      readFileSync(join(import.meta.dirname, "wordings-inline.json"), "utf8"),
    );
    for (const [task, { train: trained, validation: reserved, heldOut }] of Object.entries(inline)) {
      const added = lists[task]!.slice(20);
      expect(added.length).toBeGreaterThanOrEqual(18);
      for (const wording of added) {
        expect(trained).toContain(wording);
        for (const other of [...reserved, ...heldOut])
          expect(wordDistance(wording, other), `${wording} | ${other}`).toBeGreaterThan(1);
        const bare = withoutInput(wording);
        for (const other of wordings[task]!.heldOut)
          expect(wordDistance(bare, other), `${wording} | ${other}`).toBeGreaterThan(1);
      }
    }
  });

  test("validation and test ask what no training knows: 15 to 20 questions of each task, in reserved wordings", () => {
    const trained = new Set([...train, ...extra.train].map(key));
    const asked = new Set(validated.map(key));
    for (const [part, set] of [
      [validated, "validation"],
      [tested, "heldOut"],
    ] as const) {
      expect(tasksOf(part)).toEqual(Object.keys(inline).sort());
      for (const row of part) {
        expect(inline[row.task]![set]).toContain(row.instruction);
        expect(composePrompt(row.instruction, row.input)).not.toMatch(/\{input/);
        const isFact = TASKS[row.task]?.followsRule === false;
        expect(trained.has(key(row)), key(row)).toBe(isFact);
        if (set === "heldOut") expect(asked.has(key(row)), key(row)).toBe(false);
      }
      for (const task of tasksOf(part)) {
        const count = part.filter((row) => row.task === task).length;
        expect(count).toBeGreaterThanOrEqual(15);
        expect(count).toBeLessThanOrEqual(20);
      }
    }
  });
});

describe("wordings", () => {
  test("no wording stands in two parts or in two tasks, in any form", () => {
    checkWordings(wordings);
    const [one, other] = [wordings.sum!, wordings.diff!];
    const moved = { ...other, train: [...other.train, one.heldOut[0]!.toUpperCase()] };
    expect(() => checkWordings({ sum: one, diff: moved })).toThrow(/heldOut of sum/);
  });

  test("each task has about 40 of ours to train on and 4 for validation; the held-out ones are all human", () => {
    for (const task of allTasks) {
      const { train: trained, validation: reserved, heldOut } = wordings[task]!;
      expect(trained.filter((wording) => ours[task]!.includes(wording)).length).toBeGreaterThanOrEqual(38);
      expect(trained.filter((wording) => !ours[task]!.includes(wording)).length).toBeGreaterThanOrEqual(2);
      expect(reserved.filter((wording) => ours[task]!.includes(wording)).length).toBe(4);
      expect(heldOut.filter((wording) => ours[task]!.includes(wording))).toEqual([]);
      expect(heldOut.length).toBeGreaterThan(0);
    }
    for (const task of EXTRA_TASKS) {
      const { train: trained, validation: reserved, heldOut } = wordings[task]!;
      expect([trained.length, reserved.length, heldOut.length]).toEqual([15, 2, 3]);
    }
  });

  test("none of ours is a held-out one but for a single word", () => {
    for (const [task, { heldOut }] of Object.entries(wordings)) {
      for (const wording of ours[task]!.filter((own) => !heldOut.includes(own))) {
        for (const other of heldOut) expect(wordDistance(wording, other), `${wording} | ${other}`).toBeGreaterThan(1);
      }
    }
  });
});

describe("rows", () => {
  test("evaluation rows are complete, and each accepted answer is correct by the row's own scorer", () => {
    for (const row of [...evaluated, ...extra.validation, ...extra.test]) {
      const { scorer, answers } = evalRow.parse(row);
      for (const answer of answers) expect(isCorrect(scorer, answer, answers)).toBe(true);
    }
    for (const { input, answers } of [...train, ...extra.train]) {
      expect(input.trim()).not.toBe("");
      expect(answers.length).toBeGreaterThan(0);
      for (const answer of answers) expect(answer.trim()).not.toBe("");
    }
  });

  test("lists are judged without order, unless the instruction asks for one", () => {
    for (const { task, instruction, scorer } of evaluated) {
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
    for (const parts of Object.values(wordings)) {
      for (const wording of Object.values<string[]>({ ...parts }).flat())
        expect(instructionOf(composePrompt(wording, "x"))).toBe(wording);
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

describe("further domains", () => {
  const own = (part: readonly { task: string; input?: string }[], task: string) =>
    part.filter((row) => row.task === task);

  test("rows of each, none in two parts, asked in trained wordings", () => {
    const inputs = [...extra.train, ...extra.validation, ...extra.test].map(({ task, input }) => `${task}: ${input}`);
    expect(new Set(inputs).size).toBe(inputs.length);
    const counts = (part: readonly { task: string }[]) => EXTRA_TASKS.map((task) => own(part, task).length);
    expect(counts(extra.train)).toEqual([6000, 2023, 4000]);
    expect(counts(extra.validation)).toEqual([60, 60, 60]);
    expect(counts(extra.test)).toEqual([60, 60, 60]);
    for (const { task, instruction } of [...extra.validation, ...extra.test])
      expect(wordings[task]!.train).toContain(instruction);
  });

  test("sql: short, one column, one condition at most, all of it in the question", () => {
    for (const { input, answers } of [...extra.train, ...extra.validation, ...extra.test].filter(
      ({ task }) => task === "sql",
    )) {
      const question = input!.toLowerCase();
      expect(question.length).toBeLessThanOrEqual(100);
      expect(answers[0]!.length).toBeLessThanOrEqual(90);
      const [, select, where = "", value = ""] =
        /^SELECT (?:[A-Z]{3,5} )?(\w+) FROM TABLE(?: WHERE (\w+) . (.+))? ;$/.exec(answers[0]!)!;
      for (const word of `${select}_${where}`.toLowerCase().split("_")) expect(question).toContain(word);
      expect(input).toContain(value.replaceAll('"', "").trim());
    }
  });

  test("story: goes on where the beginning stops, and stops at a heading (made-up book)", () => {
    const [start, end] = [
      "There was once a little fox who could not sleep.",
      "So he went out to look at the big moon.",
    ];
    const verse = "  The moon, the moon,\n  it shines so soon.";
    const { train: rows, ...others } = storyRows([`I\n\n${start}\n${end}\n\nII\n\n${end}\n\n${verse}\n\n${start}`]);
    const made = [...rows, ...others.validation, ...others.test];
    expect(made).toEqual([{ task: "story", input: start, answers: [end] }]);
    for (const { input, answers } of own(extra.train, "story") as TaskRow[]) {
      expect(input.length).toBeLessThanOrEqual(160);
      expect(answers[0]!.length).toBeLessThanOrEqual(220);
    }
  });

  test("word_problem: right, within range, and a name with its two numbers is in one part only", () => {
    const parts = wordProblems();
    expect(parts.train).toEqual(own(extra.train, "word_problem"));
    for (const [part, rows] of Object.entries(parts)) {
      for (const { input, answers } of rows) {
        const [a, b] = input.match(/\d+/g)!.map(Number) as [number, number];
        expect([a + b, Math.abs(a - b), a * b]).toContain(Number(answers[0]));
        expect(Number(answers[0])).toBeLessThanOrEqual(99);
        const names = input.match(/\b[A-Z][a-z]+/g)!; // one of them is the name that was split by
        const places = names.flatMap((name) => [`${name} ${a} ${b}`, `${name} ${b} ${a}`]);
        expect(places.map((place) => splitOf("word_problem", place))).toContain(part);
      }
    }
  });
});

test("prepareTasks holds out questions of a rule, not facts, and joins answers (made-up source)", () => {
  const instructions = Object.fromEntries(
    allTasks.map((task) => [task, ["Do it", "do it.", "Make it", "Say it", "Try it"]]),
  );
  const more = Object.fromEntries(allTasks.map((task) => [task, ["One", "Two", "Three", "Four", "Five", "Six"]]));
  const numbers = Array.from({ length: 400 }, (_, i) => ({ task: "num_to_verbal", input: `${i}`, output: `n${i}` }));
  const facts = numbers.map((row) => ({ ...row, task: "antonyms" }));
  const again = { task: "antonyms", input: " 7", output: "seventh" };
  const made = prepareTasks(
    [...numbers, ...facts, again, { task: "unknown", input: "x", output: "y" }],
    instructions,
    more,
  );
  const count = (task: string) => made.train.filter((row) => row.task === task).length;
  expect(count("antonyms")).toBe(400);
  expect(made.train.find(({ task, input }) => task === "antonyms" && input === "7")!.answers).toEqual([
    "n7",
    "seventh",
  ]);
  expect(count("num_to_verbal")).toBe(
    numbers.filter(({ input }) => hash("split", "num_to_verbal", input) >= 0.1).length,
  );
  for (const { train: own, validation: reserved, heldOut } of Object.values(made.wordings)) {
    expect([...own, ...reserved, ...heldOut].sort()).toEqual([...instructions.sum!, ...more.sum!].sort());
    expect(reserved.every((wording) => more.sum!.includes(wording))).toBe(true);
    expect(reserved).toHaveLength(4);
    expect(heldOut.includes("Do it")).toBe(heldOut.includes("do it.")); // the same wording
  }
});

test("padding wastes less than 15 % of a batch with a tokenizer of 2,048 tokens (a hundredth of the questions)", async () => {
  const all = await readQuestions([{ domain: "tasks", path: data("train.jsonl.gz") }], data("instructions.json"));
  const questions = all.filter((_, i) => i % 100 === 0);
  const folder = mkdtempSync(join(tmpdir(), "ifprune-test-"));
  try {
    const out = join(folder, "tokenizer.json");
    const lines = (question: Question) => question.wordings.map((wording) => composePrompt(wording, question.input));
    await trainTokenizer({ texts: questions.flatMap(lines), vocabSize: 2048, out });
    const options = { predictorInput: "prompt", maxTokens: 256 } as const;
    const format = new PromptFormat(loadTokenizer(out), "{prompt}\n");
    const stream = new SftStream(encodeQuestions(questions, format, options), {
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
