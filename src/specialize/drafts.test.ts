import { join } from "node:path";
import { expect, test } from "vitest";
import { FakeEngines } from "../../test/support/fakeEngines.ts";
import { temporaryFolder } from "../../test/support/models.ts";
import { InstructionModel } from "../answer/instructionModel.ts";
import { TINY_MODEL } from "../bundle/pulledModels.ts";
import type { Engine, EngineOptions } from "../engine/engine.ts";
import { InputError } from "../errors.ts";
import { draftPrompts, inMannerOf, inWords } from "./drafts.ts";
import { JobFolder } from "./jobFolder.ts";
import type { TaskParts, TaskPrompt } from "./taskPrompts.ts";

/** The tiny model, which says what it is told to: a text for each seed. */
class Drafting extends FakeEngines {
  readonly model: InstructionModel;
  /** What it was asked. */
  readonly asked: string[] = [];

  constructor(readonly textOf: (seed: number) => string) {
    super();
    this.model = new InstructionModel(TINY_MODEL, { engines: this });
  }

  override async open(path: string, options: EngineOptions): Promise<Engine> {
    const { tokenizer } = this.model;
    const { textOf, asked } = this;
    return {
      ...(await super.open(path, options)),
      async *generate(ids, { seed = 0 }) {
        asked.push(tokenizer.decode(ids));
        yield* tokenizer.encode(textOf(seed));
      },
    };
  }
}

/** @param given parts of prompts in whose manner it drafts @param task in words */
async function draft(textOf: (seed: number) => string, given?: TaskParts, task?: string) {
  const drafting = new Drafting(textOf);
  using model = drafting.model;
  using job = new JobFolder(join(temporaryFolder(), "out.job"), {});
  const manner = given ? inMannerOf(given, task, model) : inWords(task ?? "Say “{input}” again.");
  const how = { count: 40, fewest: given ? 20 : 32, job, cache: { root: job.at("cache") } };
  const hooks = { signal: new AbortController().signal, onProgress: () => {} };
  return { prompts: await draftPrompts(model, manner, how, hooks), asked: drafting.asked };
}

test("drafts are inputs of the task, each once, without what stands around them", async () => {
  const { prompts } = await draft((seed) => `Input: "word ${seed % 48}"`);
  expect(prompts.length).toBeGreaterThanOrEqual(32);
  for (const { instruction, input } of prompts)
    expect([instruction, input]).toEqual(["Say “{input}” again.", expect.stringMatching(/^word \d+$/)]);
  expect(new Set(prompts.map(({ input }) => input)).size).toBe(prompts.length);
});

test("what talks about the request, goes on with the next task, or says nearly the same again is no draft of its own", async () => {
  const texts = (seed: number) => [
    "Sure, here is an input.",
    `The very same text${"!".repeat(1 + (seed % 3))}`,
    `A text of number\u001b${seed % 1000} with many words.\n\nTask: Say it.\nInput: more`,
  ];
  const { prompts } = await draft((seed) => texts(seed)[Math.min(2, seed % 8)]!);
  const inputs = prompts.map(({ input }) => input!);
  const own = inputs.filter((input) => /^A text of number \d+ with many words\.$/.test(input));
  const same = inputs.filter((input) => /^The very same text!+$/.test(input));
  expect([inputs.length, same.length]).toEqual([own.length + 1, 1]);
});

test("a model that drafts the same again and again is shown to", async () => {
  const drafting = draft((seed) => `the same ${seed % 3}`);
  await expect(drafting).rejects.toThrow(InputError);
  await expect(drafting).rejects.toThrow(/got 3, such as "the same \d".*Give prompts of your own/);
});

const nouns = "wolf,child,leaf,house,river,lamp,goat,ship,king,field,bridge,cloud".split(",");
const parts = (prompts: readonly TaskPrompt[]): TaskParts => ({
  train: prompts.slice(0, 6),
  heldOut: prompts.slice(6),
});

test("in the manner of prompts given: three to learn from are shown each time, never one held out, and no draft is alike to either", async () => {
  const given = parts(nouns.map((input) => ({ instruction: "The plural of {input}:", input })));
  const texts = (seed: number) => (seed % 3 === 0 ? nouns[seed % nouns.length]! : `\nnoun ${seed % 1000}\nand more`);
  const { prompts, asked } = await draft(texts, given, "The plural of {input}:");
  for (const { instruction, input } of prompts)
    expect([instruction, input]).toEqual(["The plural of {input}:", expect.stringMatching(/^noun \d+$/)]);
  const shown = asked.map((text) => text.trim().split("\n"));
  expect(shown.every((some) => some.length === 3)).toBe(true);
  expect(new Set(shown.flat())).toEqual(new Set(nouns.slice(0, 6)));
  expect(new Set(asked).size).toBeGreaterThan(10);
});

test("whole prompts are drafted where those given are whole; words that all of them have make none alike", async () => {
  const about = (noun: string) => `Please say what the plural of this English noun is: ${noun}`;
  const given = parts(nouns.map((noun) => ({ instruction: about(noun) })));
  const { prompts, asked } = await draft((seed) => about(seed % 2 === 0 ? "Goat" : `n${seed % 1000}`), given);
  for (const prompt of prompts) expect(prompt).toEqual({ instruction: expect.stringMatching(/noun is: n\d+$/) });
  expect(asked[0]!.match(/Please/g)).toHaveLength(3);
});

test("of prompts of several kinds the commonest is drafted; too few of each are refused", async () => {
  const rows: TaskPrompt[] = nouns.map((input, i) => ({ instruction: i === 1 ? "Spell it." : "Say it.", input }));
  const { prompts, asked } = await draft((seed) => `noun ${seed % 1000}`, parts(rows), "Words");
  expect(new Set(prompts.map(({ instruction }) => instruction))).toEqual(new Set(["Say it."]));
  expect(asked.some((text) => text.includes("child"))).toBe(false);
  const mixed = parts(nouns.map((input, i) => ({ instruction: `Do ${i}.`, input })));
  await expect(draft(() => "noun", mixed)).rejects.toThrow(InputError);
  await expect(draft(() => "noun", mixed)).rejects.toThrow(/at least 4 prompts .* in their manner; got 1\. Give more/);
});

test("a draft that lacks a part of its instruction is none", async () => {
  const given = parts(nouns.map((noun, i) => ({ instruction: "{input.1} and {input.2}", input: `${noun}, n${i}` })));
  const { prompts } = await draft((seed) => (seed % 4 === 0 ? `n${seed % 999}` : `a${seed % 999}, b`), given);
  expect(prompts.filter(({ input }) => !input!.endsWith(", b"))).toEqual([]);
});
