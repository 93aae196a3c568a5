import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, onTestFinished, test, vi } from "vitest";
import { storiesInBlocks } from "../../test/support/blocks.ts";
import { shapes, writeCheckpointFolder } from "../../test/support/checkpoints.ts";
import { FakeEngines } from "../../test/support/fakeEngines.ts";
import { FakeHub } from "../../test/support/hub.ts";
import { stories, storiesReference, temporaryFolder } from "../../test/support/models.ts";
import { InstructionModel } from "../answer/instructionModel.ts";
import { readPrompt } from "../answer/prompts.ts";
import { Bundle } from "../bundle/bundle.ts";
import { readStoredModel } from "../bundle/estimate.ts";
import { residentShare, subnetworkBytes } from "../bundle/formBytes.ts";
import { FormMeter } from "../bundle/formMeter.ts";
import { readHead, scoreFeature } from "../bundle/head.ts";
import { importModel } from "../bundle/importModel.ts";
import { TINY_MODEL } from "../bundle/pulledModels.ts";
import { BusyError, ContextLengthError, FileError, InputError, MemoryError, OptionError } from "../errors.ts";
import { GgufFile } from "../formats/gguf.ts";
import { modelNumber } from "../formats/ggufModel.ts";
import { maskFromScores } from "../mask/mask.ts";
import type { ChatMessage } from "../text/chatTemplate.ts";
import { type LocalServiceOptions, openLocalService } from "./localService.ts";
import type { GenerationEvent, GenerationRequest, InferenceService, MaskRequest } from "./service.ts";

const { tFfn, dFfn } = shapeOfTiny();
function shapeOfTiny() {
  using model = new InstructionModel(TINY_MODEL);
  return { tFfn: model.bundle.manifest.tFfn, dFfn: model.bundle.config.ffnWidth };
}
const greedy = {
  ...{ temperature: 0, topP: 1, topK: 0, minP: 0, seed: 0 },
  ...{ frequencyPenalty: 0, presencePenalty: 0, repeatPenalty: 1, logitBias: new Map<number, number>() },
};
/** Instructions whose masks differ. */
const instructions = [
  "Write the plural form of the given word. Input: cat",
  "Sum the two given numbers. Input: 22 10",
  "Write a word that means the opposite of the input word. Input: hot",
  "Extract the first letter of the input word. Input: house",
];

async function openTiny(options: LocalServiceOptions = {}) {
  const root = temporaryFolder();
  const service = await openLocalService([{ id: "m", path: TINY_MODEL }], {
    threads: 1,
    cache: { root: join(root, "cache") },
    tasksRoot: join(root, "tasks"),
    memoryBytes: 2 ** 30,
    ...options,
  });
  onTestFinished(() => service[Symbol.asyncDispose]());
  return service;
}

/** stories260K, a model without a predictor. */
async function openStories(options: LocalServiceOptions = {}, folder = join(temporaryFolder(), "stories")) {
  const tokenizer = join(stories, "tok512.bin");
  await importModel(join(stories, "stories260K.bin"), folder, { tokenizer, type: "F32" });
  const root = temporaryFolder();
  const service = await openLocalService([{ id: "s", path: folder }], {
    threads: 1,
    kvType: "F32",
    cache: { root: join(root, "cache") },
    scoreCache: { root: join(root, "scores") },
    tasksRoot: join(root, "tasks"),
    memoryBytes: 2 ** 30,
    ...options,
  });
  onTestFinished(() => service[Symbol.asyncDispose]());
  return service;
}

function request(content: string, changes: Partial<GenerationRequest> = {}): GenerationRequest {
  return {
    prompt: { kind: "chat", messages: [{ role: "user", content }] },
    mask: { kind: "auto" },
    maxTokens: 16,
    stop: [],
    sampling: greedy,
    signal: new AbortController().signal,
    ...changes,
  };
}

type Of<Type extends GenerationEvent["type"]> = Extract<GenerationEvent, { type: Type }>;

async function collect(events: AsyncIterable<GenerationEvent>) {
  const all: GenerationEvent[] = [];
  for await (const event of events) all.push(event);
  const start = all.find((event): event is Of<"start"> => event.type === "start")!;
  const end = all.find((event): event is Of<"end"> => event.type === "end")!;
  const pieces = all.filter((event): event is Of<"text"> => event.type === "text");
  return { start, end, pieces, text: pieces.map(({ text }) => text).join("") };
}

const ask = (service: InferenceService, content: string, changes: Partial<GenerationRequest> = {}, model = "m") =>
  collect(service.generate(model, request(content, changes)));

/** Fails where an answer hangs by a thread: each of its tokens, and the one that ends it, is to be ahead of all others by so many nats. */
async function expectSure(content: string, nats = 0.05) {
  await using service = await openTiny();
  const { start, pieces, end } = await ask(service, content, { logprobs: 0 });
  using model = new InstructionModel(TINY_MODEL);
  const answer = pieces.flatMap(({ logprobs = [] }) => logprobs.map(({ id }) => id));
  const ids = [...model.promptIds(content), ...answer, ...(end.finishReason === "stop" ? [model.tokenizer.eosId] : [])];
  const scored = await service.score("m", {
    prompt: { kind: "ids", ids: Int32Array.from(ids) },
    mask: { kind: "id", id: start.mask.id },
    top: 2,
    signal: new AbortController().signal,
  });
  for (const { top } of scored.slice(start.promptTokens))
    expect(top[0]!.logprob - top[1]!.logprob, `${content}: take another prompt`).toBeGreaterThan(nats);
}

describe("answers", () => {
  test("are those of the same prompts alone, however many run at a time under however many masks", async () => {
    await using service = await openTiny({ slots: 2 });
    using model = new InstructionModel(TINY_MODEL);
    const root = temporaryFolder();
    const alone: string[] = [];
    for (const prompt of instructions) {
      await using answer = await model.ask(prompt, { maxTokens: 16, threads: 1, cache: { root } });
      const decoder = model.tokenizer.stream();
      let text = "";
      for await (const token of answer.tokens) text += decoder.push(token);
      alone.push(text + decoder.end());
    }
    for (const prompt of instructions) await expectSure(prompt);
    const runs = await Promise.all([...instructions, ...instructions, ...instructions].map((one) => ask(service, one)));
    expect(runs.map(({ text }) => text)).toEqual([...alone, ...alone, ...alone]);
    expect(new Set(runs.map(({ start }) => start.mask.id)).size).toBeGreaterThan(2);
    expect(runs[0]!.start.mask).toMatchObject({ source: "predictor", tFfn, dFfn, from: "cold" });
    const again = await ask(service, instructions[0]!);
    expect(again.start.mask.from).toBe("loaded");
    expect(again.end.ms).toMatchObject({ gather: 0, load: 0 });
    expect(again.end).toMatchObject({ finishReason: "stop", completionTokens: expect.any(Number) });
    expect(service.state()).toMatchObject({ running: 0, queued: 0 });
  });

  test("of a conversation keep the mask of its first message; turns are joined as in training", async () => {
    await using service = await openTiny();
    const first = { role: "user", content: instructions[0]! } as const;
    const { start, text } = await ask(service, instructions[0]!);
    const answer = { role: "assistant", content: text } as const;
    const next = async (content: string) =>
      collect(
        service.generate(
          "m",
          request("", { prompt: { kind: "chat", messages: [first, answer, { role: "user", content }] } }),
        ),
      );
    const second = await next("dog");
    expect(second.start.mask.id).toBe(start.mask.id);
    expect((await next("Input: dog")).text).toBe(second.text);
    using model = new InstructionModel(TINY_MODEL);
    const { tokenizer } = model;
    const expected = [
      ...tokenizer.encode(`${instructions[0]}\n`),
      ...tokenizer.encode(text),
      tokenizer.eosId,
      ...tokenizer.encode("Input: dog\n"),
    ];
    expect(second.start.promptTokens).toBe(1 + expected.length);
    const plain = { role: "user", content: "What is the plural of cat?" } as const; // no "Input: ": what follows is a prompt as well
    const prompt = { kind: "chat", messages: [plain, answer, { role: "user", content: "dog" }] } as const;
    const third = await collect(service.generate("m", request("", { prompt })));
    const plainTurns = [...tokenizer.encode(`${plain.content}\n`), ...tokenizer.encode(text), tokenizer.eosId];
    expect(third.start.promptTokens).toBe(1 + plainTurns.length + tokenizer.encode("dog\n").length);
    const count = async (messages: readonly ChatMessage[]) =>
      (await collect(service.generate("m", request("", { prompt: { kind: "chat", messages } })))).start.promptTokens;
    const asked = 1 + tokenizer.encode(`${first.content}\n`).length;
    expect(await count([{ role: "system", content: "Be kind." }, first])).toBe(asked); // it was not trained to read it
    expect(await count([first, { role: "system", content: "Be kind." }])).toBe(asked);
    expect(await count([first, answer])).toBe(asked + tokenizer.encode(text).length); // a beginning, without its end
    expect(await count([first, { role: "assistant", content: " " }])).toBe(asked);
    const wrong = [
      [first, first],
      [{ role: "system", content: "Be kind." } as const],
      [first, { ...answer, calls: [{ id: "c", name: "f", arguments: {} }] }],
      [{ role: "user", content: " " } as const],
      [],
    ];
    for (const messages of wrong) {
      const asked = collect(service.generate("m", request("", { prompt: { kind: "chat", messages } })));
      await expect(asked, JSON.stringify(messages)).rejects.toThrow(InputError);
    }
  });

  test("do not begin before the engine has taken the request", async () => {
    await using service = await openTiny();
    const sampling = { ...greedy, logitBias: new Map([[100_000, 1]]) };
    const events = service.generate("m", request(instructions[0]!, { sampling }));
    await expect(events.next()).rejects.toThrow(OptionError);
  });

  test("to megabytes are refused by the beginning of the text", () => {
    using model = new InstructionModel(TINY_MODEL);
    const encode = vi.spyOn(model.tokenizer, "encode");
    const contents = ["a ".repeat(2e6), "a".repeat(4e6), "1".repeat(4e6)];
    for (const content of contents) {
      for (const prompt of [
        { kind: "text", text: content } as const,
        { kind: "chat", messages: [{ role: "user", content }] } as const,
      ])
        expect(() => readPrompt(model, prompt, 256)).toThrow(ContextLengthError);
    }
    expect(Math.max(...encode.mock.calls.map(([text]) => text.length))).toBeLessThan(20_000);
    expect(() => readPrompt(model, { kind: "ids", ids: new Int32Array(1e6).fill(5) }, 256)).toThrow(ContextLengthError);
  });

  test("tell what they wait for, where asked for", async () => {
    await using service = await openTiny();
    const stages = async (changes: Partial<GenerationRequest>) => {
      const told: string[] = [];
      for await (const event of service.generate("m", request(instructions[0]!, { maxTokens: 1, ...changes })))
        told.push(event.type === "stage" ? event.stage : event.type);
      return told.slice(0, told.indexOf("start"));
    };
    expect(await stages({ withStages: true })).toEqual(["predict", "gather", "load", "prefill"]);
    expect(await stages({ withStages: true })).toEqual(["predict", "prefill"]);
    expect(await stages({ withStages: true, mask: { kind: "dense" } })).toEqual(["gather", "load", "prefill"]);
    expect(await stages({})).toEqual([]);
  });

  test("end before stop texts, at the limit of tokens, and at the end of JSON", async () => {
    await using service = await openStories();
    const text = storiesReference().greedy_text;
    const prompt = { kind: "text", text: "" } as const;
    const mask = { kind: "dense" } as const;
    const run = (changes: Partial<GenerationRequest>) => ask(service, "", { prompt, mask, ...changes }, "s");
    const cut = await run({ maxTokens: 20 });
    expect(text.startsWith(cut.text)).toBe(true);
    expect(cut.end).toMatchObject({ finishReason: "length", completionTokens: 20 });
    const stop = text.slice(20, 26);
    const stopped = await run({ maxTokens: 60, stop: [stop, "never"] });
    expect(stopped.text).toBe(text.slice(0, text.indexOf(stop)));
    expect(stopped.end.finishReason).toBe("stop");
    const schema = { type: "object", properties: { tall: { type: "boolean" }, name: { enum: ["Tim"] } } };
    const json = await run({ maxTokens: 60, schema });
    expect(JSON.parse(json.text)).toEqual({ tall: expect.any(Boolean), name: "Tim" });
    expect(json.text).toBe(json.text.trim());
    expect(json.end.finishReason).toBe("stop");
    for (const bad of [{ stop: [""] }, { maxTokens: 0 }, { schema, logprobs: 1 }, { sampling: { ...greedy, topP: 2 } }])
      await expect(run(bad)).rejects.toThrow(OptionError);
  });

  test("come with log-probabilities that join to the text, and agree with those of scoring the same tokens", async () => {
    await using service = await openStories();
    const prompt = { kind: "text", text: "Once upon" } as const;
    const mask = { kind: "dense" } as const;
    const plain = await ask(service, "", { prompt, mask }, "s");
    const { text, pieces, start } = await ask(service, "", { prompt, mask, logprobs: 2, echo: true }, "s");
    expect(text).toBe(plain.text);
    const tokens = pieces.flatMap(({ logprobs = [] }) => logprobs);
    expect(tokens.map((token) => token.text).join("")).toBe(text);
    const read = await service.score("s", { prompt, mask, top: 0, signal: new AbortController().signal });
    expect([read.length, read[0]!.text, read[0]!.logprob]).toEqual([start.promptTokens, "<s>", null]);
    const opened = { kind: "text", text: `<s>${prompt.text}` } as const; // BOS once, as clients that decode ids write it
    const { signal } = new AbortController();
    expect(await service.score("s", { prompt: opened, mask, top: 0, signal })).toEqual(read);
    const turn = { kind: "text", text: "Once</s>" } as const; // a prompt that is written whole has its special tokens
    expect((await service.score("s", { prompt: turn, mask, top: 0, signal })).at(-1)!.id).toBe(2);
    expect(start.echo!.map((token) => [token.id, token.text])).toEqual(read.map((token) => [token.id, token.text]));
    for (const [i, { logprob }] of start.echo!.entries()) if (i > 0) expect(logprob).toBeCloseTo(read[i]!.logprob!, 4);
    const ids = Int32Array.from([...read, ...tokens].map(({ id }) => id));
    const scored = await service.score("s", {
      prompt: { kind: "ids", ids },
      mask,
      top: 2,
      signal: new AbortController().signal,
    });
    for (const [i, token] of scored.slice(read.length).entries()) {
      expect(token.logprob!).toBeCloseTo(tokens[i]!.logprob, 3);
      expect(token.top.map(({ id }) => id)).toEqual(tokens[i]!.top.map(({ id }) => id));
    }
  });

  test("tell of the token that ended them, where log-probabilities are asked for", async () => {
    await using service = await openTiny();
    const asked = { logprobs: 1, mask: { kind: "dense" } } as const;
    const { start, pieces, end } = await ask(service, instructions[0]!, asked);
    expect([end.finishReason, end.endToken!.top[0]!.id]).toEqual(["stop", end.endToken!.id]);
    using model = new InstructionModel(TINY_MODEL);
    const answer = pieces.flatMap(({ logprobs = [] }) => logprobs.map(({ id }) => id));
    const ids = Int32Array.from([...model.promptIds(instructions[0]!), ...answer, end.endToken!.id]);
    const { signal } = new AbortController();
    const scored = await service.score("m", { prompt: { kind: "ids", ids }, mask: { kind: "dense" }, top: 0, signal });
    expect([scored.length, scored.at(-1)!.id]).toEqual([start.promptTokens + answer.length + 1, model.tokenizer.eosId]);
    expect(end.endToken!.logprob).toBeCloseTo(scored.at(-1)!.logprob!, 3);
    const cut = await ask(service, instructions[0]!, { ...asked, maxTokens: 1 });
    expect([cut.end.finishReason, cut.end.endToken]).toEqual(["length", undefined]);
    expect((await ask(service, instructions[0]!)).end.endToken).toBeUndefined();
    await expect(ask(service, instructions[0]!, { echo: true })).rejects.toThrow(OptionError);
  });

  test("are refused to prompts that are too long or of another vocabulary, and to names that are not known", async () => {
    await using service = await openTiny({ contextLength: 64 });
    const run = (changes: Partial<GenerationRequest>, model = "m") => ask(service, instructions[0]!, changes, model);
    const ids = (...list: number[]): Partial<GenerationRequest> => ({
      prompt: { kind: "ids", ids: Int32Array.from(list) },
    });
    await expect(run(ids(...new Array(64).fill(5)))).rejects.toThrow(ContextLengthError);
    await expect(run(ids(5000))).rejects.toThrow(InputError);
    await expect(run(ids(-1))).rejects.toThrow(InputError);
    await expect(run(ids())).rejects.toThrow(InputError);
    await expect(run({}, "other")).rejects.toThrow(/unknown model/);
    const masks: MaskRequest[] = [
      { kind: "task", name: "x" },
      { kind: "id", id: "0".repeat(32) },
    ];
    for (const mask of masks) await expect(run({ mask })).rejects.toThrow(/unknown (task|mask)/);
    expect(service.state()).toMatchObject({ running: 0, queued: 0, subnetworks: [] });
  });
});

describe("limits", () => {
  const endless = () => new FakeEngines(new Array(10 ** 6).fill(5));
  const long = { prompt: { kind: "text", text: "Once" }, mask: { kind: "dense" }, maxTokens: 400 } as const;

  test("a full queue refuses at once, and says when to come again; who waits gets a turn", async () => {
    await using service = await openStories({ engines: endless(), maxRunning: 1, maxQueued: 1 });
    const running = service.generate("s", request("", long));
    await running.next();
    const waiting = ask(service, "", { ...long, maxTokens: 2 }, "s");
    await expect.poll(() => service.state()).toMatchObject({ running: 1, queued: 1 });
    const refused = ask(service, "", long, "s");
    await expect(refused).rejects.toThrow(BusyError);
    await expect(refused).rejects.toMatchObject({ retryAfter: expect.any(Number) });
    await running.return();
    expect((await waiting).end.completionTokens).toBe(2);
  });

  test("a client that goes away frees its slot, wherever it is", async () => {
    await using service = await openStories({ engines: endless(), slots: 1, maxRunning: 2 });
    const run = async (stopAfter: number, byReturn: boolean) => {
      const controller = new AbortController();
      const events = service.generate("s", request("", { ...long, signal: controller.signal }));
      for (let i = 0; i < stopAfter; i++) await events.next();
      if (byReturn) await events.return();
      else {
        controller.abort(new Error("gone"));
        await expect(collect(events)).rejects.toThrow("gone");
      }
    };
    for (const byReturn of [true, false])
      for (const stopAfter of [0, 1, 3]) if (!byReturn || stopAfter > 0) await run(stopAfter, byReturn);
    const blocking = service.generate("s", request("", long));
    await blocking.next();
    const controller = new AbortController();
    const waiting = ask(service, "", { ...long, signal: controller.signal }, "s"); // for the slot
    setImmediate(() => controller.abort(new Error("gone")));
    await expect(waiting).rejects.toThrow("gone");
    await blocking.return();
    expect(service.state()).toMatchObject({ running: 0, queued: 0 });
    expect(service.state().subnetworks.map(({ users }) => users)).toEqual([0]);
    expect((await ask(service, "", { ...long, maxTokens: 3 }, "s")).end.completionTokens).toBe(3);
  });

  test("an answer goes on while nobody reads it, and frees its slot", async () => {
    await using service = await openStories({ engines: endless(), slots: 1 });
    const unread = service.generate("s", request("", { ...long, maxTokens: 30 }));
    await unread.next();
    await ask(service, "", { ...long, maxTokens: 3 }, "s"); // needs the only slot
    expect((await collect(unread)).end.completionTokens).toBe(30);
  });

  test("memory: sub-networks are freed for others, answers stay the same; less than one is refused", async () => {
    const roomy = await openTiny({ slots: 1 });
    const wanted: string[] = [];
    for (const one of instructions) wanted.push((await ask(roomy, one)).text);
    const { memoryBytes, subnetworks } = roomy.state();
    expect(subnetworks.length).toBeGreaterThan(2);
    const two = memoryBytes - (subnetworks.length - 2) * subnetworks[0]!.bytes;
    await using tight = await openTiny({ slots: 1, memoryBytes: two });
    const prompts = [...instructions, ...instructions.toReversed(), ...instructions];
    const runs = await Promise.all(prompts.map((one) => ask(tight, one)));
    expect(runs.map(({ text }) => text)).toEqual([...wanted, ...wanted.toReversed(), ...wanted]);
    expect(tight.state().subnetworks.length).toBeLessThanOrEqual(2);
    expect(tight.state().memoryBytes).toBeLessThanOrEqual(two);
    await expect(openTiny({ memoryBytes: 1000 })).rejects.toThrow(MemoryError);
    await using single = await openTiny({ slots: 1, memoryBytes: two - subnetworks[0]!.bytes });
    expect((await ask(single, instructions[0]!)).text).toBe(wanted[0]);
    await expect(ask(single, instructions[0]!, { mask: { kind: "dense" } })).rejects.toThrow(MemoryError);
  });

  test("options out of range are refused", async () => {
    const bad: LocalServiceOptions[] = [
      { slots: 0 },
      { maxQueued: -1 },
      { reuseOverlap: 2 },
      { contextLength: 10 ** 6 },
      { tFfn: 513 },
    ];
    for (const options of bad) await expect(openTiny(options), JSON.stringify(options)).rejects.toThrow(OptionError);
    const twice = [
      { id: "m", path: TINY_MODEL },
      { id: "m", path: TINY_MODEL },
    ];
    await expect(openLocalService(twice)).rejects.toThrow(OptionError);
  });
});

test("a model whose opening fails at any step leaves no engine open", async () => {
  const engines = new FakeEngines();
  const hash = vi.spyOn(InstructionModel.prototype, "hash", "get").mockImplementation(() => {
    throw new Error("spoilt");
  });
  onTestFinished(() => hash.mockRestore());
  await expect(openTiny({ engines })).rejects.toThrow("spoilt");
  expect(engines.openPaths).toEqual([]);
});

describe("models that are added", () => {
  test("answer beside those that were there; a name that is taken, and what is no bundle, are refused", async () => {
    const service = await openTiny();
    const folder = join(temporaryFolder(), "stories");
    const tokenizer = join(stories, "tok512.bin");
    await importModel(join(stories, "stories260K.bin"), folder, { tokenizer, type: "F32" });
    const added = await service.addModel(folder);
    expect(added).toMatchObject({ id: "stories", location: folder, isTrained: false, numLayers: 5 });
    expect(service.models()).toEqual([expect.objectContaining({ id: "m", location: "tiny" }), added]);
    expect((await service.mask("stories", "Once", { keep: 0.5 })).info.dFfn).toBe(added.dFfn);
    await expect(service.addModel(folder)).rejects.toThrow(OptionError);
    await expect(service.addModel(join(folder, "none"))).rejects.toThrow(FileError);
    await expect(service.addModel("none")).rejects.toThrow(/or the name of a model/);
    expect(service.models().length).toBe(2);
  });

  test("come from the Hub where they are not here yet, and stop with the signal", async () => {
    const folder = temporaryFolder();
    await writeCheckpointFolder(folder, shapes.SmolLM2!);
    const files = Object.fromEntries(readdirSync(folder).map((name) => [name, readFileSync(join(folder, name))]));
    const hub = await FakeHub.start(temporaryFolder());
    hub.add("owner/name", { files });
    const service = await openTiny({ contextLength: 64 });
    const stages = new Set<string>();
    const abort = new AbortController();
    const stopped = service.addModel("owner/name", { signal: abort.signal, onProgress: () => abort.abort() });
    await expect(stopped).rejects.toThrow(/abort/);
    expect(service.models().length).toBe(1);
    const added = await service.addModel("owner/name", { onProgress: (stage) => stages.add(stage) });
    expect(added).toMatchObject({ id: "name", location: "owner/name" });
    expect([...stages].slice(0, 2)).toEqual(["download", "import"]);
  });
});

test("a model whose files are not what its manifest says is found in the background and answers nothing", async () => {
  const folder = join(temporaryFolder(), "altered");
  cpSync(TINY_MODEL, folder, { recursive: true });
  const bytes = readFileSync(join(folder, "ffn.gguf"));
  writeFileSync(join(folder, "ffn.gguf"), bytes.fill(0, bytes.length - 64));
  const faults: string[] = [];
  const models = [TINY_MODEL, folder].map((path, i) => ({ id: i === 0 ? "m" : "altered", path }));
  await using service = await openLocalService(models, {
    threads: 1,
    cache: { root: temporaryFolder() },
    tasksRoot: temporaryFolder(),
    memoryBytes: 2 ** 30,
    onFault: (model, error) => faults.push(`${model}: ${error.name}`),
  });
  await expect(ask(service, instructions[0]!, {}, "altered")).rejects.toThrow(/ffn\.gguf: wanted sha256/);
  await expect.poll(() => faults).toEqual(["altered: FileError"]);
  const [genuine, altered] = service.models();
  expect(altered!.fault).toMatch(
    /^ffn\.gguf: wanted sha256 .+ The file was changed or damaged: make or pull it again\.$/,
  );
  expect([genuine!.fault, genuine!.verifying]).toEqual([undefined, undefined]);
  expect((await ask(service, instructions[0]!)).text).not.toBe("");
  await expect(service.mask("altered", instructions[0]!)).rejects.toThrow(FileError);
});

describe("masks", () => {
  test("are remembered by instruction and by id; tasks outlive the service", async () => {
    const root = temporaryFolder();
    const tasksRoot = join(root, "tasks");
    const service = await openTiny({ tasksRoot });
    const { info, mask } = await service.mask("m", instructions[0]!);
    expect(info).toMatchObject({ id: expect.stringMatching(/^[0-9a-f]{32}$/), source: "predictor", from: "cold" });
    expect(service.maskById("m", info.id)).toEqual(mask);
    expect(service.maskById("m", "dense").tFfn).toBe(dFfn);
    const byId = await ask(service, instructions[0]!, { mask: { kind: "id", id: info.id } });
    expect((await service.mask("m", instructions[0]!)).info.from).toBe("loaded");
    const task = await service.saveTask("m", "plural", instructions[0]!);
    expect(task).toEqual({ name: "plural", instruction: instructions[0], maskId: info.id });
    for (const name of ["../x", "", "..", " x", "a/b", "a\\b", "a\nb", "x".repeat(65)])
      await expect(service.saveTask("m", name, "x")).rejects.toThrow(InputError);
    await service[Symbol.asyncDispose]();

    const later = await openTiny({ tasksRoot });
    expect(later.tasks("m")).toEqual([task]);
    expect(later.maskById("m", info.id)).toEqual(mask);
    const byTask = await ask(later, instructions[0]!, { mask: { kind: "task", name: "plural" } });
    expect([byTask.text, byTask.start.mask.id, byTask.start.mask.source]).toEqual([byId.text, info.id, "task"]);
    later.deleteTask("m", "plural");
    expect(later.tasks("m")).toEqual([]);
    expect(() => later.deleteTask("m", "plural")).toThrow(InputError);
    expect(readdirSync(join(tasksRoot, readdirSync(tasksRoot)[0]!))).toEqual([]);
  });

  test("a task has any name, and its examples are part of what makes its mask", async () => {
    const tasksRoot = temporaryFolder();
    const service = await openTiny({ tasksRoot });
    const name = "Bob's plurals, 100 % 🐺";
    const examples = [{ input: "wolf", output: "wolves" }];
    const saved = await service.saveTask("m", name, "Write the plural.", { examples });
    const { info } = await service.mask("m", "Write the plural. Example: wolf -> wolves");
    expect(saved).toEqual({ name, instruction: "Write the plural.", examples, maskId: info.id });
    await service[Symbol.asyncDispose]();
    await using later = await openTiny({ tasksRoot });
    expect(later.tasks("m")).toEqual([saved]);
  });

  test("a damaged task is an error that names its file", async () => {
    const tasksRoot = temporaryFolder();
    const service = await openTiny({ tasksRoot });
    await service.saveTask("m", "plural", instructions[0]!);
    const folder = join(tasksRoot, readdirSync(tasksRoot)[0]!);
    const path = join(folder, readdirSync(folder)[0]!);
    writeFileSync(path, '{"instruction": "x", "mask": {"tFfn": 2}}');
    await expect(openTiny({ tasksRoot })).rejects.toThrow(FileError);
  });

  test("nearly the same as a loaded one are replaced by it only where that is allowed", async () => {
    await using strict = await openTiny();
    await using loose = await openTiny({ reuseOverlap: 0.01 });
    const ids = async (service: InferenceService) => {
      const first = await ask(service, instructions[0]!);
      const second = await ask(service, instructions[1]!);
      return [first.start.mask.id, second.start.mask.id];
    };
    const [a, b] = await ids(strict);
    expect(b).not.toBe(a);
    const [c, d] = await ids(loose);
    expect([c, d]).toEqual([a, a]);
  });

  test("without a predictor are made from activations, of the size that is asked for, else not at all", async () => {
    await using service = await openStories();
    const maskOf = async (budget: object, from = service) => {
      const { start } = await ask(from, "Once upon a time", { mask: { kind: "auto", ...budget } }, "s");
      return start.mask;
    };
    expect(await maskOf({})).toMatchObject({ id: "dense", source: "dense", tFfn: 172, dFfn: 172 });
    expect(await maskOf({ keep: 0.5 })).toMatchObject({ source: "griffin", tFfn: 96, dFfn: 172 });
    expect(await maskOf({ tFfn: 100 })).toMatchObject({ source: "griffin", tFfn: 100 });
    await expect(maskOf({ keep: 0.5, tFfn: 100 })).rejects.toThrow(/got both/);
    await expect(service.saveTask("s", "all", "Once")).rejects.toThrow(/wanted a mask to save, got all of "s"/);
    const told = { numLayers: 5, hasTools: false, isTrained: false };
    expect(service.models()).toMatchObject([{ id: "s", contextLength: 512, tFfn: 172, ...told }]);
    await using half = await openStories({ keep: 0.5 });
    expect(await maskOf({}, half)).toMatchObject({ source: "griffin", tFfn: 96 });
    expect(half.models()).toMatchObject([{ tFfn: 96, ...told }]);
  });
});

describe("the end", () => {
  test("draining lets answers end and refuses new ones", async () => {
    const service = await openStories();
    const running = service.generate("s", request("Once", { mask: { kind: "dense" }, maxTokens: 20 }));
    await running.next();
    const drained = service.drain();
    await expect(ask(service, "Once", {}, "s")).rejects.toThrow(BusyError);
    await drained;
    expect((await collect(running)).end.completionTokens).toBe(20);
  });

  test("closing ends what runs", async () => {
    const service = await openStories();
    const running = service.generate("s", request("Once", { mask: { kind: "dense" }, maxTokens: 400 }));
    await running.next();
    await service[Symbol.asyncDispose]();
    await expect(collect(running)).rejects.toThrow(BusyError);
  });

  test("closing does not wait until a model's files are read, and what waits for that is not begun", async () => {
    const folder = join(temporaryFolder(), "stories");
    await (await openStories({}, folder))[Symbol.asyncDispose]();
    const path = join(folder, "ifprune.json");
    const manifest = JSON.parse(readFileSync(path, "utf8"));
    const bytes = 2 ** 30;
    writeFileSync(join(folder, "large.bin"), "");
    truncateSync(join(folder, "large.bin"), bytes);
    const sha256 = "49bc20df15e412a64472421e13fe86ff1c5165e18b2afccf160d4dc19fe68a14"; // of zeros
    const files = { ...manifest.files, "large.bin": { bytes, sha256 } };
    writeFileSync(path, JSON.stringify({ ...manifest, files }));
    const root = join(temporaryFolder(), "cache");
    const options = { threads: 1, tasksRoot: temporaryFolder(), cache: { root } };
    const service = await openLocalService([{ id: "s", path: folder }], options);
    const refused = expect(ask(service, "Once", { mask: { kind: "dense" } }, "s")).rejects.toThrow(BusyError);
    await expect.poll(() => service.models()[0]!.verifying?.done, { interval: 5 }).toBeGreaterThan(bytes / 8);
    await service[Symbol.asyncDispose]();
    await refused;
    expect(existsSync(root)).toBe(false); // what comes after the reading was not begun
  });

  test("masks are made by the source that the service was opened with", async () => {
    const service = await openStories({ source: "weights" });
    expect(service.models()[0]).toMatchObject({ tFfn: 96, dFfn: 172, isTrained: false });
    expect((await service.mask("s", "Once")).info).toMatchObject({ source: "weights", tFfn: 96 });
    await expect(openStories({ source: "text" })).rejects.toThrow("wanted a text for the source text, got none");
  });

  test("a model whose files vanish fails with a typed error, and what is loaded goes on", async () => {
    const folder = join(temporaryFolder(), "stories");
    await using service = await openStories({}, folder);
    const dense = { mask: { kind: "dense" }, maxTokens: 5 } as const;
    const half = { mask: { kind: "auto", keep: 0.5 }, maxTokens: 5 } as const;
    const before = await ask(service, "Once", dense, "s");
    renameSync(folder, `${folder}.gone`);
    await expect(ask(service, "Once", half, "s")).rejects.toThrow(FileError);
    expect((await ask(service, "Once", dense, "s")).text).toBe(before.text);
    renameSync(`${folder}.gone`, folder);
    expect((await ask(service, "Once", half, "s")).end.completionTokens).toBeGreaterThan(0);
  });
});

describe("features", () => {
  const { signal } = new AbortController();

  test("are what the masks of the same texts are chosen from", async () => {
    await using service = await openTiny();
    using bundle = new Bundle(TINY_MODEL);
    const { features, numTokens } = await service.features("m", instructions, signal);
    const { head, backbone } = bundle.predictor!;
    using file = new GgufFile(backbone!);
    const featureWidth = modelNumber(file, "embedding_length");
    const read = readHead(head, { featureWidth, numLayers: bundle.numLayers, ffnWidth: dFfn });
    for (const [i, instruction] of instructions.entries()) {
      const scores = scoreFeature(read, features[i]!);
      const { mask } = await service.mask("m", instruction);
      expect(maskFromScores(scores, { dFfn, tFfn: tFfn! }).layers).toEqual(mask.layers);
    }
    expect(numTokens).toBeGreaterThan(4 * 3);
  });

  test("of a model without a predictor are means of its embedding's rows", async () => {
    await using service = await openStories();
    const of = async (...ids: number[]) => (await service.features("s", [Int32Array.from(ids)], signal)).features[0]!;
    const [a, b, both] = [await of(300), await of(301), await of(300, 301)];
    expect(a).not.toEqual(b);
    for (const [i, value] of both.entries()) expect(value).toBeCloseTo((a[i]! + b[i]!) / 2, 6);
    await expect(service.features("s", ["word ".repeat(100_000)], signal)).rejects.toThrow(ContextLengthError);
    await expect(service.features("s", [" "], signal)).rejects.toThrow(InputError);
    await expect(service.features("none", ["a"], signal)).rejects.toThrow(InputError);
    await expect(service.features("s", ["a"], AbortSignal.abort())).rejects.toThrow(/aborted/);
  });
});

describe("the resident form", () => {
  async function openBlocks(path: string, options: LocalServiceOptions = {}) {
    const service = await openLocalService([{ id: "b", path }], {
      threads: 1,
      kvType: "F32",
      cache: { root: temporaryFolder() },
      tasksRoot: temporaryFolder(),
      memoryBytes: 2 ** 30,
      ...options,
    });
    onTestFinished(() => service[Symbol.asyncDispose]());
    return service;
  }
  /** What a sub-network of half of the channels takes, and not the resident model. */
  function roomForGathered(path: string): number {
    using bundle = new Bundle(path);
    const size = { tFfn: 88, contextLength: bundle.contextLength, slots: 4, kvType: "F32" } as const;
    const { own } = subnetworkBytes(readStoredModel(path), size);
    const resident = residentShare(bundle, size);
    expect(own).toBeLessThan(resident.own + resident.shared);
    return own;
  }
  const prompts = ["Once upon a time", "The cat", "Lily and Tim", "A big dog", "One day", "Sam had a red ball"];

  test("gives the answers of the gathered one, to many prompts at a time, from weights that all masks share", async () => {
    const path = await storiesInBlocks();
    const gathered = await openBlocks(path, { form: "gathered" });
    const resident = await openBlocks(path, { form: "resident" });
    const answers = (service: InferenceService) => Promise.all(prompts.map((prompt) => ask(service, prompt, {}, "b")));
    const [wanted, got] = [await answers(gathered), await answers(resident)];
    expect(got.map(({ text }) => text)).toEqual(wanted.map(({ text }) => text));
    expect(new Set(wanted.map(({ start }) => start.mask.id)).size).toBeGreaterThan(2);
    expect(got.map(({ start }) => start.mask)).toEqual(
      wanted.map(({ start: { mask } }) => ({ ...mask, form: "resident", from: expect.any(String) })),
    );
    const own = (service: InferenceService) => service.state().subnetworks.map(({ bytes }) => bytes);
    expect(Math.max(...own(resident))).toBeLessThan(Math.min(...own(gathered)));
  });

  test("masks that answer one after the other take one cache in turns, and all that is loaded goes at the end", async () => {
    const engines = new FakeEngines([5]);
    const service = await openBlocks(await storiesInBlocks(), { form: "resident", engines });
    const answers = [];
    for (const prompt of prompts) answers.push(await ask(service, prompt, {}, "b"));
    expect(new Set(answers.map(({ start }) => start.mask.id)).size).toBeGreaterThan(2);
    expect(service.state().subnetworks).toMatchObject([{ maskId: answers.at(-1)!.start.mask.id, form: "resident" }]);
    expect(engines.openPaths).toHaveLength(2); // weights and an engine
    await service[Symbol.asyncDispose]();
    expect(engines.openPaths).toEqual([]);
  });

  test("is chosen where it is expected to answer sooner, and says so; the answer is the same", async () => {
    const path = await storiesInBlocks();
    const answer = async (options: LocalServiceOptions) => {
      const { start, text } = await ask(await openBlocks(path, options), prompts[0]!, {}, "b");
      return { mask: start.mask, text };
    };
    const wanted = await answer({ form: "gathered" });
    expect(wanted.mask).toMatchObject({ form: "gathered", formReason: "told" });
    for (const form of ["resident", "gathered"] as const) {
      const root = temporaryFolder();
      using bundle = new Bundle(path);
      const { path: speeds } = new FormMeter(bundle, { root });
      const slow = (other: string) => ({ [`${other} gather`]: 1e5, [`${other} load`]: 1e5 });
      mkdirSync(dirname(speeds));
      const factors = { ...slow("resident"), ...slow("gathered"), [`${form} gather`]: 1, [`${form} load`]: 1 };
      writeFileSync(speeds, JSON.stringify({ factors }));
      const { mask, text } = await answer({ cache: { root } });
      expect(text).toBe(wanted.text);
      expect(mask).toMatchObject({ form, formReason: expect.stringMatching(/^(gather|load)$/) });
      const other = form === "resident" ? "gathered" : "resident";
      expect(mask.formMs![form]).toBeLessThan(mask.formMs![other]);
    }
  });

  test("a model without one, or without the memory, is served gathered and says why; asked for, it is refused", async () => {
    const path = await storiesInBlocks();
    const half = await openBlocks(path, { memoryBytes: roomForGathered(path) });
    expect(half.models()[0]!.formFlaw).toMatch(/^wanted .* of memory, got a limit of/);
    expect((await ask(half, prompts[0]!, {}, "b")).start.mask).toMatchObject({
      form: "gathered",
      formReason: "memory",
    });
    expect((await openBlocks(path)).models()[0]!.formFlaw).toBeUndefined();
    await expect(openTiny({ form: "resident" })).rejects.toThrow(/resident model: wanted masks of blocks/);
    await expect(openBlocks(path, { form: "resident", memoryBytes: roomForGathered(path) })).rejects.toThrow(
      MemoryError,
    );
  });
});
