import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { storiesInBlocks } from "../../test/support/blocks.ts";
import { FakeEngines } from "../../test/support/fakeEngines.ts";
import { randomMask, stories, temporaryFolder } from "../../test/support/models.ts";
import { FormMeter } from "../bundle/formMeter.ts";
import { importModel } from "../bundle/importModel.ts";
import { FileError, OptionError } from "../errors.ts";
import { describeFiles, readManifest, writeManifest } from "../manifest.ts";
import { compareAnswers } from "./compareAnswers.ts";
import { type AskOptions, InstructionModel } from "./instructionModel.ts";
import { readPrompt } from "./prompts.ts";

/** stories260K as a bundle, with small files added to it. */
async function storiesBundle(texts: Record<string, string> = {}): Promise<string> {
  const folder = join(temporaryFolder(), "bundle");
  await importModel(join(stories, "stories260K.bin"), folder, { tokenizer: join(stories, "tok512.bin"), type: "F32" });
  const { files, ...manifest } = readManifest(folder, "ifprune-bundle");
  for (const [name, text] of Object.entries(texts)) writeFileSync(join(folder, name), text);
  writeManifest(folder, { ...manifest, files: { ...files, ...(await describeFiles(folder, Object.keys(texts))) } });
  return folder;
}

describe("prompts", () => {
  test("are what the chat template makes of them where the bundle has one; its BOS comes once", async () => {
    const template = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %} [answer]";
    using plain = new InstructionModel(await storiesBundle());
    using chat = new InstructionModel(await storiesBundle({ "chat_template.jinja": template }));
    const { bosId, decode } = chat.tokenizer;
    const ids = chat.promptIds("Once <s> upon");
    expect([...ids].filter((id) => id === bosId)).toEqual([ids[0]]);
    expect(decode(ids)).toBe("[user] Once <s> upon [answer]");
    expect(decode(plain.promptIds("Once upon"))).toBe("Once upon");
    const alone = { kind: "chat", messages: [{ role: "system", content: "Tell it." }] } as const; // as some clients send it
    const read = readPrompt(chat, alone, 256);
    expect([decode(read.ids), read.instruction.text]).toEqual(["[system] Tell it. [answer]", "Tell it."]);
    expect(() => readPrompt(plain, alone, 256)).toThrow(/wanted a user's message, got none/);
  });

  test("make masks where the LLM reads them in its chat template, and the rest of the template does not count", async () => {
    const maskIn = async (template: string) => {
      const options = { source: "griffin", scoreCache: { root: temporaryFolder() }, threads: 1 } as const;
      using model = new InstructionModel(await storiesBundle({ "chat_template.jinja": template }));
      return (await model.mask("a big red cat", options)).mask;
    };
    const content = "{{ messages[0].content }}";
    const told = await maskIn(`Tell: ${content}`);
    expect(await maskIn(`Tell: ${content} This is the story that she told:`)).toEqual(told); // nothing of it is counted
    expect(await maskIn(`Sing and dance, but do not tell: ${content}`)).not.toEqual(told); // the dense model has read it before
  });
});

test("is opened in turns as at once, and others have theirs in between", async () => {
  const path = await storiesBundle();
  let [isOpen, turns] = [false, 0];
  const counting = (async () => {
    for (; !isOpen; turns++) await setImmediate();
  })();
  using model = await InstructionModel.openInTurns(path, {});
  isOpen = true;
  await counting;
  expect(turns).toBeGreaterThanOrEqual(3); // after the bundle, the tokenizer's file, what it holds
  using other = new InstructionModel(path);
  expect(model.promptIds("Once upon")).toEqual(other.promptIds("Once upon"));
  writeFileSync(join(path, "tokenizer.json"), "{}");
  await expect(InstructionModel.openInTurns(path, {})).rejects.toThrow(FileError);
});

describe("masks", () => {
  test("of a bundle without predictor are made only where something says how: without, it answers whole", async () => {
    using model = new InstructionModel(await storiesBundle());
    const options = { cache: { root: temporaryFolder() }, maxTokens: 2, threads: 1 };
    await using answer = await model.ask("Once upon", options);
    expect([answer.mask.tFfn, answer.chosen]).toEqual([172, undefined]);
    for (const refused of [model.mask("Once upon"), compareAnswers(model, "Once upon")])
      await expect(refused).rejects.toThrow(/wanted a source of masks, or a share to keep, as .+ has no trained masks/);
  });

  test("are of the prompt's own activations there, where only a size is given", async () => {
    using model = new InstructionModel(await storiesBundle());
    const scoreCache = { root: temporaryFolder() };
    const { mask, ...chosen } = await model.mask("Once upon", { keep: 0.5, scoreCache, threads: 1 });
    expect(chosen).toEqual({ source: "griffin", cached: false });
    expect([mask.tFfn, mask.dFfn, mask.lambda]).toEqual([96, 172, undefined]);
    expect(await model.mask("Once upon", { source: "griffin", tFfn: 96, scoreCache })).toEqual({
      mask,
      source: "griffin",
      cached: true,
    });
  });

  test("of an open source, which stays open; the answer says where its mask comes from", async () => {
    using model = new InstructionModel(await storiesBundle());
    await using open = await model.openSource({ source: "random", seed: 4 });
    const options = { cache: { root: temporaryFolder() }, maxTokens: 2, threads: 1 };
    const { mask } = await model.mask("Once", { source: "random", seed: 4 });
    for (let round = 0; round < 2; round++) {
      await using answer = await model.ask("Once", { ...options, source: open });
      expect(answer).toMatchObject({ mask, chosen: { source: "random", cached: false } });
    }
    await using given = await model.ask("Once", { ...options, mask });
    expect(given).toMatchObject({ mask, chosen: undefined, ms: { predict: 0 } });
    await expect(model.mask("Once", { source: open, seed: 4 })).rejects.toThrow(OptionError);
  });

  test("given beside what makes one, or made from what a source does not take, are refused", async () => {
    using model = new InstructionModel(await storiesBundle());
    for (const how of [{ source: "griffin" }, { tFfn: 32 }, { text: "a" }] as const)
      await expect(model.ask("Once", { mask: "dense", ...how })).rejects.toThrow(/wanted a mask, or how to make one/);
    await expect(model.mask("Once", { text: "a" })).rejects.toThrow(OptionError);
    await expect(model.mask("Once", { source: "text" })).rejects.toThrow(OptionError);
    await expect(model.mask("Once", { source: "text", text: "a", seed: 1 })).rejects.toThrow(OptionError);
  });
});

describe("the form of a mask", () => {
  const ask = async (model: InstructionModel, options: AskOptions) => {
    await using answer = await model.ask("Once upon a time", { maxTokens: 20, threads: 1, kvType: "F32", ...options });
    return { form: answer.form, formFlaw: answer.formFlaw, text: await answer.text() };
  };

  test("is what is expected to answer sooner, here gathered, as the resident model is still to be written; resident, the answer is the same", async () => {
    using model = new InstructionModel(await storiesInBlocks());
    const cache = { root: temporaryFolder() };
    const gathered = await ask(model, { cache });
    expect(gathered.form).toBe("gathered");
    expect(existsSync(new FormMeter(model.bundle, cache).path)).toBe(true); // what it took is learned
    expect(await ask(model, { cache, form: "resident" })).toEqual({ ...gathered, form: "resident" });
    const dense = { cache, mask: "dense" } as const;
    expect((await ask(model, { ...dense, form: "resident" })).text).toBe((await ask(model, dense)).text);
  });

  test("is gathered where the mask has no other, with the reason", async () => {
    using model = new InstructionModel(await storiesInBlocks());
    const how = { cache: { root: temporaryFolder() }, form: "resident" } as const;
    expect(await ask(model, { ...how, mask: randomMask(5, 172, 88, "hard", 1) })).toMatchObject({
      form: "gathered",
      formFlaw: expect.stringMatching(/^wanted whole blocks of 4 channels/),
    });
    using single = new InstructionModel(await storiesBundle());
    // Single channels are blocks of 1.
    const half = { keep: 0.5, source: "random" } as const;
    expect((await ask(single, { ...how, ...half })).formFlaw).toMatch(/room for/);
  });
});

describe("an answer", () => {
  const tokens: number[] = [];
  const engines = new FakeEngines(tokens);
  const options = () => ({ mask: "dense", cache: { root: temporaryFolder() } }) as const;

  test("comes as text in whole characters, with what is left at its end, or as tokens", async () => {
    using model = new InstructionModel(await storiesBundle(), { engines });
    const ids = model.tokenizer.encode("a ☃ and ☃").subarray(0, -1); // the last byte is missing
    tokens.splice(0, tokens.length, ...ids);
    await using answer = await model.ask("Once", options());
    const pieces: string[] = [];
    for await (const piece of answer) pieces.push(piece);
    expect(pieces.length).toBeGreaterThan(3);
    expect(pieces).toContain("☃");
    expect(pieces).not.toContain("");
    expect(pieces.join("")).toMatch(/^ ?a ☃ and \uFFFD+$/);
    expect(answer.answerTokens).toBe(ids.length);

    await using whole = await model.ask("Once", options());
    expect(await whole.text()).toBe(pieces.join(""));
    await using raw = await model.ask("Once", options());
    const taken: number[] = [];
    for await (const id of raw.tokens) taken.push(id);
    expect(taken).toEqual([...ids]);
  });

  test("whose text is left early frees its model", async () => {
    using model = new InstructionModel(await storiesBundle(), { engines });
    tokens.splice(0, tokens.length, ...model.tokenizer.encode("Once upon a time"));
    const answer = await model.ask("Once", options());
    expect(engines.openPaths).toHaveLength(1);
    for await (const piece of answer) if (piece) break;
    expect(engines.openPaths).toEqual([]);
    expect(answer.answerTokens).toBe(1);
  });
});

test("a model that is disposed while it is asked ends that with an error: it reads no file that has its descriptor by then, and keeps nothing", async () => {
  const path = await storiesBundle();
  const cache = { root: temporaryFolder() };
  const options = { source: "weights", keep: 0.5, scoreCache: { root: temporaryFolder() }, cache, threads: 1 } as const;
  const model = new InstructionModel(path, { engines: new FakeEngines() });
  const asked = model.ask("Once", options);
  model[Symbol.dispose]();
  using _other = new InstructionModel(path, { engines: new FakeEngines() }); // takes the descriptors
  await expect(asked).rejects.toThrow(/got one that was disposed/);
  expect(readdirSync(cache.root, { recursive: true }).filter((name) => String(name).endsWith(".gguf"))).toEqual([]);
});

test("an answer is read once", async () => {
  using model = new InstructionModel(await storiesBundle(), { engines: new FakeEngines() });
  const answer = await model.ask("Once", { cache: { root: temporaryFolder() }, maxTokens: 2, threads: 1 });
  await answer.text();
  await expect(answer.text()).rejects.toThrow(/wanted to be read once/);
});
