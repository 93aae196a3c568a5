import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { FileError, OptionError } from "../errors.ts";
import { instructionOf, PromptFormat } from "../text/prompt.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { encodeDocuments, encodeQuestions, type Question, readDocuments, readQuestions, withExamples } from "./data.ts";

const folder = mkdtempSync(join(tmpdir(), "ifprune-test-"));
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, content: string): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

/** One id per character: its code; BOS 0, EOS 1. */
const characters: Pick<Tokenizer, "bosId" | "eosId" | "encode"> = {
  bosId: 0,
  eosId: 1,
  encode: (text) => Int32Array.from(text, (character) => character.charCodeAt(0)),
};
const tokenizer = characters as Tokenizer;
const codes = (text: string) => [...tokenizer.encode(text)];
const format = new PromptFormat(tokenizer, "{prompt}\n");
const options = { maxTokens: 50 };

describe("reading questions", () => {
  test("rows bring their instruction or take the wordings of their task; the first answer is learned", async () => {
    const instructions = file(
      "instructions.json",
      '{"plural":{"train":["Plural of","Pluralise"],"heldOut":["unseen"]}}',
    );
    const rows = file(
      "mixed.jsonl",
      [
        '{"task":"plural","input":"wolf","answers":["wolves","wolfs"]}',
        '{"instruction":"Say hello.","output":"hello","source":"ignored"}',
        '{"task":"greet","instruction":"Greet.","input":"Ann","output":"Hi Ann"}',
      ].join("\n"),
    );
    expect(await readQuestions([{ domain: "own", path: rows, weight: 2 }], instructions)).toEqual([
      { domain: "plural", weight: 2, wordings: ["Plural of", "Pluralise"], input: "wolf", answer: "wolves" },
      { domain: "own", weight: 2, wordings: ["Say hello."], input: undefined, answer: "hello" },
      { domain: "greet", weight: 2, wordings: ["Greet."], input: "Ann", answer: "Hi Ann" },
    ]);
  });

  const bad: [string, string, RegExp][] = [
    ["no answer", '{"instruction":"a"}', /line 1: wanted either "output" or "answers"/],
    ["two kinds of answer", '{"instruction":"a","output":"b","answers":["c"]}', /line 1: wanted either/],
    [
      "an empty answer",
      '{"instruction":"a","output":"b"}\n{"instruction":"a","output":" "}',
      /line 2: "output": wanted some text/,
    ],
    ["no instruction", '{"output":"b"}', /line 1: wanted an "instruction"/],
    [
      "a part of an input that is not there",
      '{"instruction":"{input.1} plus {input.2}","input":"3","output":"4"}',
      /line 1: .+\{input\.2\}/,
    ],
    ["a task without wordings", '{"task":"toString","output":"b"}', /line 1: .*for task "toString"/],
  ];
  test.each(bad)("%s is a FileError with the line", async (name, content, message) => {
    const path = file(`${name}.jsonl`, content);
    await expect(readQuestions([{ domain: "d", path }])).rejects.toThrow(FileError);
    await expect(readQuestions([{ domain: "d", path }])).rejects.toThrow(message);
  });

  test.each(["{", "[]", '{"a":[]}', '{"a":{"train":[]}}'])(
    "instructions that are %s are a FileError",
    async (content) => {
      const path = file("bad-instructions.json", content);
      await expect(readQuestions([], path)).rejects.toThrow(FileError);
    },
  );
});

describe("encoding questions", () => {
  const question = (domain: string, answer: string, wordings = ["ask"]): Question => ({
    domain,
    weight: 1,
    wordings,
    input: "x",
    answer,
  });

  test("an example is BOS, prompt in the template, answer, EOS; the predictor reads prompt and instruction raw", () => {
    const data = encodeQuestions([question("d", "yes", ["ask", "do"])], format, {
      ...options,
      predictorInput: "both",
    });
    const asked = data.questions[0]![0]!;
    const { prompt, answer, predictorInputs } = data.encode(asked, "do");
    expect([...prompt]).toEqual([0, ...codes("do Input: x\n")]);
    expect([...answer]).toEqual([...codes("yes"), 1]);
    expect(predictorInputs.map((ids) => [...ids])).toEqual([
      [0, ...codes("do Input: x")],
      [0, ...codes("do")],
    ]);
    const inline = data.encode(asked, "is {input} so?"); // the input cannot be taken out of it
    expect(inline.predictorInputs.map((ids) => [...ids])).toEqual([
      [0, ...codes("is x so?")],
      [0, ...codes("is x so?")],
    ]);
    const turn = data.encodeTurn(asked)!;
    expect([[...turn.prompt], [...turn.answer]]).toEqual([codes("Input: x\n"), [...codes("yes"), 1]]);
    const dense = encodeQuestions([question("d", "yes")], format, options);
    expect(dense.encode(asked, "do").predictorInputs).toEqual([]);
    expect([data.numPredictorInputs, dense.numPredictorInputs]).toEqual([2, 0]);
  });

  test("too long examples are left out and counted, and so are domains that lose all of theirs", () => {
    const fits = "y".repeat(50 - codes("ask Input: x\n").length - 1); // prompt with BOS and answer: 50 positions
    const data = encodeQuestions(
      [question("a", fits, ["ask", "ask more"]), question("b", `${fits}y`)],
      format,
      options,
    );
    expect([data.domains, data.weights, data.numTooLong]).toEqual([["a"], [1], 2]);
    expect(data.questions.map((own) => own.map(({ wordings }) => wordings))).toEqual([[["ask"]]]);
  });

  test("examples are other questions of the domain, drawn once; instructions show them, later turns do not", () => {
    const words = ["cat", "dog", "cow", "dog"]; // one twice
    const questions = ["plural", "letter"].flatMap((domain) =>
      words.map((word) => ({ ...question(domain, `${domain} of ${word}`), input: word })),
    );
    const shown = withExamples(questions, 2, "seed");
    expect(withExamples(questions, 2, "seed")).toEqual(shown);
    expect(withExamples(questions, 2, "another")).not.toEqual(shown);
    const data = encodeQuestions(shown, format, { predictorInput: "instruction", maxTokens: 200 });
    for (const one of shown) {
      const inputs = one.examples!.map(({ input }) => input);
      expect(new Set([...inputs, one.input]).size).toBe(3);
      for (const { input, output } of one.examples!) expect(output).toBe(`${one.domain} of ${input}`);
      const prompt = `ask${one.examples!.map(({ input, output }) => ` Example: ${input} -> ${output}`).join("")} Input: ${one.input}`;
      const { prompt: ids, predictorInputs } = data.encode(one, "ask");
      expect([...ids]).toEqual([0, ...codes(`${prompt}\n`)]);
      expect([...predictorInputs[0]!]).toEqual([0, ...codes(instructionOf(prompt))]);
      expect([...data.encodeTurn(one)!.prompt]).toEqual(codes(`Input: ${one.input}\n`));
    }
    expect(() => withExamples(questions, 3, "seed")).toThrow(
      /wanted 3 other questions of domain "plural" as examples, got 2/,
    );
  });

  test("domains come in the order of the rows, and weights are shares", () => {
    const questions = [{ ...question("b", "y"), weight: 3 }, question("a", "y")];
    const free = encodeQuestions(questions, format, options);
    expect([free.domains, free.weights]).toEqual([
      ["b", "a"],
      [0.75, 0.25],
    ]);
  });

  test("what the predictor has no room for is left out and counted", () => {
    const questions = [question("d", "yes", ["ask"]), question("d", "yes", ["ask for something that is longer"])];
    const encode = (predictorContext: number) =>
      encodeQuestions(questions, format, { predictorInput: "prompt", maxTokens: 200, predictorContext });
    const all = encode(200);
    const longest = Math.max(
      ...all.questions[0]!.map((one) => all.encode(one, one.wordings[0]!).predictorInputs[0]!.length),
    );
    expect([all.numTooLong, encode(longest + 1).numTooLong, encode(longest).numTooLong]).toEqual([0, 0, 1]);
  });

  test("an answer of many pages is left out as too long", () => {
    const pages = "no word of it ".repeat(60_000);
    const data = encodeQuestions([question("d", "yes"), question("d", pages)], format, { maxTokens: 200 });
    expect(data.numTooLong).toBe(1);
  });

  test("nothing left and two weights for a domain are OptionErrors", () => {
    const encode = (questions: Question[], more = {}) => encodeQuestions(questions, format, { ...options, ...more });
    expect(() => encode([])).toThrow(OptionError);
    expect(() => encode([question("a", "y")], { maxTokens: 5 })).toThrow(/at most 5 tokens/);
    expect(() => encode([question("a", "y"), { ...question("a", "y"), weight: 2 }])).toThrow(/one weight/);
  });
});

test("a question is read as a document in its wordings in turn; anything else is refused with the line", async () => {
  const instructions = file("wordings.json", '{"plural":{"train":["Plural of","Pluralise"]}}');
  const question = '{"task":"plural","input":"wolf","answers":["wolves"]}';
  const path = file("documents.jsonl", `{"text":"once"}\n${question}\n${question}\n`);
  const texts: string[] = [];
  for await (const document of readDocuments([{ domain: "d", path }], instructions)) texts.push(document.text);
  expect(texts).toEqual(["once", "Plural of Input: wolf\nwolves", "Pluralise Input: wolf\nwolves"]);
  const bad = file("no-document.jsonl", '{"text":"once"}\n{"content":"once"}');
  await expect(readDocuments([{ domain: "d", path: bad }]).next()).resolves.toMatchObject({ value: { text: "once" } });
  const all = async () => {
    for await (const _ of readDocuments([{ domain: "d", path: bad }]));
  };
  await expect(all()).rejects.toThrow(/no-document\.jsonl: line 2: wanted either "text", or a question/);
});

test("documents are joined by domain, EOS after each", async () => {
  const sources = [
    { domain: "a", path: file("a.jsonl", '{"text":"one"}\n{"text":"two"}') },
    { domain: "b", path: file("b.jsonl", '{"text":"three"}'), weight: 4 },
  ];
  const data = await encodeDocuments(readDocuments(sources), tokenizer);
  expect([data.domains, data.weights, data.bosId]).toEqual([["a", "b"], [0.2, 0.8], 0]);
  expect(data.tokens.map((tokens) => [...tokens])).toEqual([
    [...codes("one"), 1, ...codes("two"), 1],
    [...codes("three"), 1],
  ]);
  await expect(encodeDocuments([], tokenizer)).rejects.toThrow(OptionError);
});
