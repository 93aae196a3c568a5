/** What is long is read apart: the same ids and errors as here, and nothing that a prompt or a template does keeps other requests waiting, or for ever. */
import { setImmediate } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import { InstructionModel } from "../answer/instructionModel.ts";
import { readByPredictor } from "../answer/maskSource.ts";
import { type Prompt, readPrompt } from "../answer/prompts.ts";
import { TINY_MODEL } from "../bundle/pulledModels.ts";
import { ContextLengthError, FileError, InputError } from "../errors.ts";
import { openFormat } from "../text/prompt.ts";
import { PromptReader } from "./promptReader.ts";

/** @param chatTemplate Jinja text */
function open(chatTemplate?: string, options?: { maxMs?: number; maxHeapMb?: number }) {
  using whole = new InstructionModel(TINY_MODEL);
  const formatSource = {
    ...whole.formatSource,
    chatTemplate: chatTemplate === undefined ? undefined : { source: chatTemplate, where: "x.jinja" },
  };
  const { manifest } = whole;
  const model = { formatSource, format: openFormat(formatSource), hasPredictor: true, manifest };
  const reader = new PromptReader(model, options);
  onTestFinished(() => reader[Symbol.asyncDispose]());
  return { model, reader };
}
const text = (length: number): Prompt => ({ kind: "text", text: "a word ".repeat(length / 7) });

test("a long prompt is read as a short one is: ids, instruction, decoder, and errors of its kind", async () => {
  const { model, reader } = open();
  const long = `Write the plural form of the given word. Input: ${"cat ".repeat(4000)}`;
  const chat = { kind: "chat", messages: [{ role: "user", content: long }] } as const;
  const begun = { kind: "chat", messages: [...chat.messages, { role: "assistant", content: "cats and" }] } as const;
  for (const prompt of [text(40_000), chat, begun]) {
    const [here, apart] = [readPrompt(model, prompt, 1e6), await reader.read(prompt, 1e6)];
    const predictorIds = readByPredictor(model, here.instruction.text);
    expect([apart.ids, apart.instruction]).toEqual([here.ids, { ...here.instruction, predictorIds }]);
    const id = here.ids.at(-1)!;
    expect(apart.decoder.push(id)).toBe(here.decoder.push(id));
  }
  for (const some of [long, "cat"])
    expect(await reader.readByPredictor(some, 1e6)).toEqual(readByPredictor(model, some));
  const tooLong = reader.read(text(40_000), 64);
  await expect(tooLong).rejects.toThrow(ContextLengthError);
  await expect(tooLong).rejects.toMatchObject({ contextLength: 64, isCounted: false });
  const noUser = reader.read({ kind: "chat", messages: [{ role: "system", content: long }] }, 1e6);
  await expect(noUser).rejects.toThrow(InputError);
  const failing = open("{{ messages[0].content | nothing }}").reader.read(chat, 1e6);
  await expect(failing).rejects.toThrow(FileError);
  await expect(failing).rejects.toThrow(/^x\.jinja: chat template: wanted one that runs/);
});

test("others go on while a long prompt is read, and one that takes too long is given up", async () => {
  const { reader } = open(undefined, { maxMs: 1000 });
  let isRead = false;
  const slow = reader.read({ kind: "text", text: "a".repeat(30_000_000) }, 2 ** 30).finally(() => (isRead = true));
  slow.catch(() => {});
  const short = await reader.read(text(70), 1000);
  expect(short.ids.length).toBeGreaterThan(10);
  let turns = 0;
  while (!isRead) {
    await setImmediate();
    turns++;
  }
  expect(turns).toBeGreaterThan(100);
  await expect(slow).rejects.toThrow(InputError);
  await expect(slow).rejects.toThrow(/read within 1 s/);
  expect((await reader.read(text(14_000), 1e6)).ids.length).toBeGreaterThan(1000); // by another thread
});

test("one that takes too much memory is given up, and the process lives", async () => {
  const { reader } = open(undefined, { maxHeapMb: 48 });
  const large = reader.read({ kind: "text", text: "ab 1".repeat(3_000_000) }, 2 ** 30);
  await expect(large).rejects.toThrow(InputError);
  await expect(large).rejects.toThrow(/takes more/);
});
