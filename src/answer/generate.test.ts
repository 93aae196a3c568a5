/** Answers of a tiny model to a file: the same however often the work was stopped, and rows that training and evaluation read. */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FakeEngines } from "../../test/support/fakeEngines.ts";
import { stories, temporaryFolder } from "../../test/support/models.ts";
import { importModel } from "../bundle/importModel.ts";
import type { EngineProvider, GenerateOptions } from "../engine/engine.ts";
import { FileError, OptionError } from "../errors.ts";
import { randomMask } from "../mask/baselines.ts";
import { readJsonLines } from "../text/jsonl.ts";
import { composePrompt } from "../text/prompt.ts";
import { evalRow } from "../text/scorers.ts";
import { readQuestions } from "../train/data.ts";
import { DEFAULT_ENGINES } from "./defaultEngines.ts";
import { type GenerateAnswersOptions, generateAnswers } from "./generate.ts";
import { InstructionModel } from "./instructionModel.ts";

const folder = mkdtempSync(join(tmpdir(), "ifprune-generate-"));
const cache = { root: join(folder, "cache") };
const bundle = join(folder, "bundle");
beforeAll(async () => {
  // In F16 the last bits of logits depend on what is computed together: it must be the same.
  await importModel(join(stories, "stories260K.bin"), bundle, { tokenizer: join(stories, "tok512.bin"), type: "F16" });
});
afterAll(() => rmSync(folder, { recursive: true }));

/** llama.cpp, with answers that end where their first sentence does, as this model ends none in a test's time. */
class Sentences implements EngineProvider {
  load = DEFAULT_ENGINES.load;
  start = DEFAULT_ENGINES.start;
  describe = DEFAULT_ENGINES.describe;
  openModel = DEFAULT_ENGINES.openModel;
  openFeature = DEFAULT_ENGINES.openFeature;
  numOpened = 0;
  readonly asked: { ids: Int32Array; options: GenerateOptions }[] = [];
  /** Ids with a full stop. */
  readonly #ends: ReadonlySet<number>;

  constructor(ends: Iterable<number>) {
    this.#ends = new Set(ends);
  }

  async open(...args: Parameters<EngineProvider["open"]>) {
    const engine = await DEFAULT_ENGINES.open(...args);
    const { asked } = this;
    const ends = this.#ends;
    this.numOpened++;
    async function* generate(ids: Int32Array, options: GenerateOptions) {
      asked.push({ ids, options });
      for await (const id of engine.generate(ids, options)) {
        if (ends.has(id)) return;
        yield id;
      }
    }
    const { generateScored, score, logits, adapt } = engine;
    return {
      generate,
      generateScored,
      score,
      logits,
      adapt,
      [Symbol.asyncDispose]: () => engine[Symbol.asyncDispose](),
    };
  }
}

function openSentences(): { model: InstructionModel; engines: Sentences } & Disposable {
  using plain = new InstructionModel(bundle);
  const ids = Array.from({ length: 512 }, (_, id) => id);
  const engines = new Sentences(ids.filter((id) => /[.!?]/.test(plain.tokenizer.decode([id]))));
  const model = new InstructionModel(bundle, { engines });
  return { model, engines, [Symbol.dispose]: () => model[Symbol.dispose]() };
}

/** 30 prompts of different lengths, as rows of training data. */
const rows = Array.from({ length: 30 }, (_, i) => ({
  instruction: ["Once upon a time there was {input} who", "Tom and Lily", "The big dog was"][i % 3]!,
  input: ["a girl", "a boy who liked to play in the park with his red ball and", "a cat"][i % 5] ?? "",
  ...(i % 4 === 0 && { task: `task ${i % 3}` }),
  output: "not read",
}));

function promptsFile(of: readonly object[] = rows): string {
  const path = join(temporaryFolder(), "prompts.jsonl");
  writeFileSync(path, of.map((row) => `${JSON.stringify(row)}\n`).join(""));
  return path;
}

const options = { maxTokens: 24, threads: 1, slots: 2, cache } as const;

describe("a file of answers", () => {
  test.each([
    ["greedy", {}],
    ["at temperature 0.7, two to each prompt", { temperature: 0.7, samples: 2, seed: 5 }],
    ["under masks of their prompts", { source: "griffin", tFfn: 96, scoreCache: { root: join(folder, "scores") } }],
  ] as const)("%s, stopped and gone on with, is the one of a run without a stop", async (_, how) => {
    using opened = openSentences();
    const { model, engines } = opened;
    const prompts = promptsFile();
    const at = temporaryFolder();
    const given: GenerateAnswersOptions = { ...options, ...how };
    const whole = await generateAnswers(model, prompts, join(at, "whole"), given);
    expect(whole).toMatchObject({ isWhole: true, prompts: 30, asked: 30, tooLong: 0 });
    expect(whole.rows).toBeGreaterThan(15);
    expect(whole.rows + whole.cut + whole.empty).toBe(30 * (given.samples ?? 1));

    const numAsked = engines.asked.length;
    const path = join(at, "stopped");
    for (const after of [19, 30]) {
      const controller = new AbortController();
      let last = 0;
      const onProgress = (done: number) => {
        last = done;
        if (done >= after * (given.samples ?? 1)) controller.abort();
      };
      const report = await generateAnswers(model, prompts, path, { ...given, signal: controller.signal, onProgress });
      if (after === 19) expect(report).toMatchObject({ isWhole: false, asked: 16 });
      expect(last).toBeGreaterThanOrEqual(after);
      if (after === 19) expect(existsSync(path)).toBe(false);
    }
    expect(engines.asked.length - numAsked).toBeLessThan(1.4 * numAsked); // what was whole was not asked again
    expect(readFileSync(path, "utf8")).toBe(readFileSync(join(at, "whole"), "utf8"));
    expect(readdirSync(at).sort()).toEqual(["stopped", "whole"]);
  });

  test("has a row for each answer, which training and evaluation read as the prompt that was asked", async () => {
    using opened = openSentences();
    const { model, engines } = opened;
    const examples = [{ input: "a fox", output: "He ran." }];
    const out = join(temporaryFolder(), "out.jsonl");
    const report = await generateAnswers(model, promptsFile([...rows, { instruction: "A cow", examples }]), out, {
      ...options,
      maxTokens: 60,
    });
    expect(report.rows).toBeGreaterThan(25);
    const asked = new Map(engines.asked.map(({ ids }) => [model.tokenizer.decode(ids), ids]));
    let count = 0;
    for await (const { row } of readJsonLines(out, evalRow)) {
      const { instruction, input, answers } = row;
      expect(asked.get(model.tokenizer.decode(model.promptIds(composePrompt(instruction, input))))).toBeDefined();
      expect(answers[0]).not.toBe("not read");
      count++;
    }
    expect(count).toBe(report.rows);
    const questions = await readQuestions([{ domain: "own", path: out }]);
    expect(questions[0]).toMatchObject({ domain: "task 0", wordings: [rows[0]!.instruction], input: "a girl" });
    expect(questions.at(-1)!.wordings).toEqual(["A cow Example: a fox -> He ran."]);
  });

  test("is of one engine for all prompts of a mask; the dense model's differ from those under a mask", async () => {
    using opened = openSentences();
    const { model, engines } = opened;
    const at = temporaryFolder();
    const { numLayers, ffnWidth: dFfn } = model.bundle;
    const mask = randomMask({ numLayers, dFfn, tFfn: 64 }, 1, "all");
    const prompts = promptsFile();
    await generateAnswers(model, prompts, join(at, "dense"), options);
    await generateAnswers(model, prompts, join(at, "given"), { ...options, mask });
    await generateAnswers(model, prompts, join(at, "random"), { ...options, source: "random", tFfn: 64, seed: 3 });
    expect(engines.numOpened).toBe(3);
    const texts = ["dense", "given", "random"].map((name) => readFileSync(join(at, name), "utf8"));
    expect(new Set(texts).size).toBe(3);
  });

  test("leaves out answers without an end, answers without text, and prompts that fill the context, and says how many", async () => {
    using model = new InstructionModel(bundle, { engines: new FakeEngines([300, 301]) });
    const out = join(temporaryFolder(), "out");
    const long = { instruction: "word ".repeat(600) };
    const report = await generateAnswers(model, promptsFile([long, ...rows]), out, { maxTokens: 2, cache });
    expect(report).toMatchObject({ isWhole: true, prompts: 30, tooLong: 1, rows: 0, cut: 30, empty: 0, tokens: 60 });
    expect(readFileSync(out, "utf8")).toBe("");
    using silent = new InstructionModel(bundle, { engines: new FakeEngines([]) });
    expect(await generateAnswers(silent, promptsFile(), `${out}2`, { cache })).toMatchObject({ rows: 0, empty: 30 });
  });

  test("draws each answer by the seed, its row and its number alone: slots change batches, not seeds", async () => {
    using opened = openSentences();
    const { model, engines } = opened;
    const seeds = async (how: GenerateAnswersOptions) => {
      engines.asked.length = 0;
      const out = join(temporaryFolder(), "out");
      await generateAnswers(model, promptsFile(rows.slice(0, 5)), out, {
        ...options,
        maxTokens: 1,
        temperature: 1,
        ...how,
      });
      return engines.asked.map(({ options }) => options.seed);
    };
    const two = await seeds({ samples: 2 });
    expect(new Set(two).size).toBe(10);
    expect(await seeds({ samples: 2, slots: 3 })).toEqual(two);
    expect(await seeds({})).toEqual(two.filter((_, i) => i % 2 === 0));
    expect(await seeds({ seed: 1 })).not.toContain(two[0]);
  });
});

describe("refused, with nothing written", () => {
  const refuse = async (of: readonly object[], how: GenerateAnswersOptions = {}) => {
    using model = new InstructionModel(bundle, { engines: new FakeEngines() });
    const at = temporaryFolder();
    const error = await generateAnswers(model, promptsFile(of), join(at, "out"), { cache, ...how }).then(
      () => undefined,
      (error: Error) => error,
    );
    expect(readdirSync(at)).toEqual([]);
    return error;
  };

  test.each([
    ["no prompts", [], {}, FileError, "wanted at least one prompt, got none"],
    [
      "only prompts that fill the context",
      [{ instruction: "word ".repeat(600) }],
      {},
      FileError,
      "fewer than 512 tokens",
    ],
    ["a row without an instruction", [{ instruction: "a" }, { input: "b" }], {}, FileError, 'line 2: "instruction"'],
    [
      "an input with too few parts",
      [{ instruction: "{input.2}", input: "a" }],
      {},
      FileError,
      "line 1: prompt: wanted",
    ],
    [
      "two kinds of examples",
      [{ instruction: "a", examples: [{ input: "b", output: "c" }] }],
      { examples: [{ input: "b", output: "c" }] },
      FileError,
      "line 1: wanted no examples",
    ],
    ["a mask and how to make one", rows, { mask: "dense", tFfn: 64 }, OptionError, "got both"],
    ["samples that would be the same", rows, { samples: 2 }, OptionError, "wanted one sample at temperature 0, got 2"],
    ["no slots", rows, { slots: 0 }, OptionError, '"slots" must be an integer of at least 1'],
  ] as const)("%s", async (_, of, how, kind, words) => {
    const error = await refuse(of, how);
    expect(error).toBeInstanceOf(kind);
    expect(error!.message).toContain(words);
  });

  test("other options than those of what is begun; an engine's failure keeps what is whole, and stops the other slots", async () => {
    using opened = openSentences();
    const { model, engines } = opened;
    const out = join(temporaryFolder(), "out");
    const prompts = promptsFile();
    const open = engines.open.bind(engines);
    let left = 20;
    engines.open = async (...args) => {
      const engine = await open(...args);
      const generate: typeof engine.generate = (...asked) => {
        if (left-- === 0) throw new Error("broken");
        return engine.generate(...asked);
      };
      return { ...engine, generate };
    };
    await expect(generateAnswers(model, prompts, out, options)).rejects.toThrow("broken");
    await expect(generateAnswers(model, prompts, out, { ...options, maxTokens: 25 })).rejects.toThrow(
      "maxTokens 25 (before: 24)",
    );
    await expect(generateAnswers(model, promptsFile(rows.slice(1)), out, options)).rejects.toThrow("another prompts");
    expect(await generateAnswers(model, prompts, out, options)).toMatchObject({ isWhole: true, asked: 30 });
    await expect(generateAnswers(model, prompts, out, options)).rejects.toThrow(OptionError);
  });
});
