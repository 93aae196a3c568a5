import { join } from "node:path";
import { expect, test } from "vitest";
import { FakeEngines } from "../../test/support/fakeEngines.ts";
import { temporaryFolder } from "../../test/support/models.ts";
import { InstructionModel } from "../answer/instructionModel.ts";
import { TINY_MODEL } from "../bundle/pulledModels.ts";
import type { Engine, EngineOptions } from "../engine/engine.ts";
import { InputError } from "../errors.ts";
import { draftPrompts } from "./drafts.ts";
import { JobFolder } from "./jobFolder.ts";

/** The tiny model, which says what it is told to: a text for each seed. */
class Drafting extends FakeEngines {
  readonly model: InstructionModel;

  constructor(readonly textOf: (seed: number) => string) {
    super();
    this.model = new InstructionModel(TINY_MODEL, { engines: this });
  }

  override async open(path: string, options: EngineOptions): Promise<Engine> {
    const { tokenizer } = this.model;
    const { textOf } = this;
    return {
      ...(await super.open(path, options)),
      async *generate(_, { seed = 0 }) {
        yield* tokenizer.encode(textOf(seed));
      },
    };
  }
}

async function draft(textOf: (seed: number) => string) {
  using model = new Drafting(textOf).model;
  using job = new JobFolder(join(temporaryFolder(), "out.job"), {});
  const how = { count: 40, job, cache: { root: job.at("cache") } };
  return await draftPrompts(model, "Say “{input}” again.", how, {
    signal: new AbortController().signal,
    onProgress: () => {},
  });
}

test("drafts are inputs of the task, each once, without what stands around them", async () => {
  const prompts = await draft((seed) => `Input: "word ${seed % 48}"`);
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
  const inputs = (await draft((seed) => texts(seed)[Math.min(2, seed % 8)]!)).map(({ input }) => input!);
  const own = inputs.filter((input) => /^A text of number \d+ with many words\.$/.test(input));
  const same = inputs.filter((input) => /^The very same text!+$/.test(input));
  expect([inputs.length, same.length]).toEqual([own.length + 1, 1]);
});

test("a model that drafts the same again and again is shown to", async () => {
  const drafting = draft((seed) => `the same ${seed % 3}`);
  await expect(drafting).rejects.toThrow(InputError);
  await expect(drafting).rejects.toThrow(/got 3, such as "the same \d".*Give prompts of your own/);
});
