import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { greedy } from "../../test/reference/decoder.ts";
import {
  goldenModel,
  storiesCheckpoint,
  storiesReference,
  temporaryFolder,
  writeCheckpoint,
} from "../../test/support/models.ts";
import { FileError, InputError, OptionError } from "../errors.ts";
import { Bundle } from "../formats/bundle.ts";
import { writeGguf } from "../formats/gguf.ts";
import { packBundle } from "../formats/packBundle.ts";
import { fullMask } from "../mask/mask.ts";
import { openSubnetwork } from "../subnet/cache.ts";
import { answer } from "./answer.ts";
import { type Engine, openEngine } from "./engine.ts";

const bos = Int32Array.of(1);

async function storiesBundle(): Promise<Bundle> {
  const folder = join(temporaryFolder(), "bundle");
  await packBundle(await storiesCheckpoint(temporaryFolder()), folder, { type: "F32" });
  return new Bundle(folder);
}

async function storiesEngine(contextLength = 512): Promise<Engine> {
  using bundle = await storiesBundle();
  const { path } = await openSubnetwork(bundle, fullMask(bundle.numLayers, bundle.ffnWidth), {
    root: temporaryFolder(),
  });
  return openEngine(path, { contextLength, threads: 1, kvType: "F32" });
}

async function take(tokens: AsyncIterable<number>): Promise<number[]> {
  const taken: number[] = [];
  for await (const token of tokens) taken.push(token);
  return taken;
}

describe("generate", () => {
  test("repeats itself: greedy always, sampling for one seed; another seed differs", async () => {
    await using engine = await storiesEngine();
    const run = (options: { temperature?: number; seed?: number }) =>
      take(engine.generate(bos, { maxTokens: 30, ...options }));
    expect(await run({})).toEqual(storiesReference().greedy_ids.slice(1, 31));
    expect(await run({})).toEqual(await run({ temperature: 0 }));
    const sampled = await run({ temperature: 1, seed: 5 });
    expect(await run({ temperature: 1, seed: 5 })).toEqual(sampled);
    expect(await run({ temperature: 1, seed: 6 })).not.toEqual(sampled);
  });

  test("stops between two tokens when aborted, and goes on with the next prompt", async () => {
    await using engine = await storiesEngine();
    const controller = new AbortController();
    const seen: number[] = [];
    const run = async () => {
      for await (const token of engine.generate(bos, { maxTokens: 100, signal: controller.signal })) {
        seen.push(token);
        if (seen.length === 3) controller.abort();
      }
    };
    await expect(run()).rejects.toThrow(/abort/i);
    expect(seen).toEqual(storiesReference().greedy_ids.slice(1, 4));
    expect(await take(engine.generate(bos, { maxTokens: 5 }))).toEqual(storiesReference().greedy_ids.slice(1, 6));
  });

  test("ends before the end-of-sequence token", async () => {
    const model = goldenModel("qwen2");
    const prompt = [1, 53];
    expect(greedy(model, prompt, 3)).toEqual([8, 27, 2]); // 2 is EOS
    const folder = join(temporaryFolder(), "bundle");
    await packBundle(await writeCheckpoint(temporaryFolder(), model), folder, { type: "F32" });
    using bundle = new Bundle(folder);
    const { path } = await openSubnetwork(bundle, fullMask(2, 48), { root: temporaryFolder() });
    await using engine = await openEngine(path, { contextLength: 64, threads: 1, kvType: "F32" });
    expect(await take(engine.generate(Int32Array.from(prompt), { maxTokens: 10 }))).toEqual([8, 27]);
  });

  test("ends at a full context, with the tokens of a larger one until there", async () => {
    await using larger = await storiesEngine();
    await using engine = await storiesEngine(256);
    const prompt = Int32Array.from(storiesReference().greedy_ids.slice(0, 100));
    const tokens = await take(engine.generate(prompt, { maxTokens: 1000 }));
    expect(prompt.length + tokens.length).toBe(256);
    expect(tokens).toEqual(await take(larger.generate(prompt, { maxTokens: tokens.length })));
  });

  test("a prompt that is empty or fills the context, and options out of range, are refused", async () => {
    await using engine = await storiesEngine();
    const first = (ids: Int32Array, maxTokens = 1) => engine.generate(ids, { maxTokens }).next();
    await expect(first(new Int32Array(0))).rejects.toThrow(InputError);
    await expect(first(new Int32Array(512).fill(5))).rejects.toThrow(InputError);
    await expect(first(Int32Array.of(1, 512))).rejects.toThrow(InputError);
    await expect(first(Int32Array.of(1, -1))).rejects.toThrow(InputError);
    await expect(first(bos, 0)).rejects.toThrow(OptionError);
    await expect(openEngine("none.gguf", { contextLength: 0 })).rejects.toThrow(OptionError);
    await expect(openEngine("none.gguf", { contextLength: 8, threads: 0.5 })).rejects.toThrow(OptionError);
  });
});

test("a file that is no GGUF, or one that holds no model, is a typed error", async () => {
  const path = join(temporaryFolder(), "x.gguf");
  writeFileSync(path, "GGUF and nothing else");
  await expect(openEngine(path, { contextLength: 8 })).rejects.toThrow(FileError);
  await writeGguf(path, new Map([["general.architecture", { type: "string", value: "llama" }]]), [], []);
  await expect(openEngine(path, { contextLength: 8 })).rejects.toThrow(FileError);
});

describe("answer", () => {
  const options = { maxTokens: 3, threads: 1 };

  test("makes the mask before anything else, as part of predicting, and fails as that does", async () => {
    using bundle = await storiesBundle();
    const root = temporaryFolder();
    const make = async () => fullMask(bundle.numLayers, bundle.ffnWidth);
    await using run = await answer(bundle, bos, make, { ...options, cache: { root } });
    expect(run.mask).toEqual(await make());
    expect(run.ms.predict).toBeGreaterThan(0);
    const failing = () => Promise.reject(new OptionError("no mask"));
    await expect(answer(bundle, bos, failing, { ...options, cache: { root } })).rejects.toThrow("no mask");
  });

  test("a prompt longer than the model reads is refused before anything is built", async () => {
    using bundle = await storiesBundle();
    const root = temporaryFolder();
    const long = new Int32Array(512).fill(5);
    const mask = fullMask(bundle.numLayers, bundle.ffnWidth);
    await expect(answer(bundle, long, mask, { ...options, cache: { root } })).rejects.toThrow(InputError);
  });

  test("an answer left early frees its model", async () => {
    using bundle = await storiesBundle();
    const mask = fullMask(bundle.numLayers, bundle.ffnWidth);
    const run = await answer(bundle, bos, mask, { ...options, maxTokens: 50, cache: { root: temporaryFolder() } });
    for await (const token of run.tokens) if (token) break;
    await run[Symbol.asyncDispose]();
    expect(run.ms.prefill).toBeGreaterThan(0);
    expect(run.ms.decode).toBe(0);
  });
});
