import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { forward, greedy } from "../../test/reference/decoder.ts";
import {
  goldenModel,
  storiesCheckpoint,
  storiesReference,
  temporaryFolder,
  writeCheckpoint,
} from "../../test/support/models.ts";
import { sureTokens } from "../../test/support/sure.ts";
import { Bundle } from "../bundle/bundle.ts";
import { packBundle } from "../bundle/packBundle.ts";
import { openSubnetwork } from "../bundle/subnetworkCache.ts";
import { FileError, InputError, OptionError } from "../errors.ts";
import { writeGguf } from "../formats/gguf.ts";
import { fullMask } from "../mask/mask.ts";
import { loadTokenizer } from "../text/tokenizer.ts";
import type { AnswerToken, Engine, ScoredToken } from "./engine.ts";
import { labelScore } from "./labelScore.ts";
import { llamaCpp } from "./llamaCpp.ts";
import { largest, logProbabilities } from "./sampling.ts";

const bos = Int32Array.of(1);

async function storiesBundle(type: "F32" | "F16" = "F32"): Promise<Bundle> {
  const folder = join(temporaryFolder(), "bundle");
  await packBundle(await storiesCheckpoint(temporaryFolder()), folder, { type });
  return new Bundle(folder);
}

async function storiesEngine(contextLength = 512, sequences = 1, type: "F32" | "F16" = "F32"): Promise<Engine> {
  using bundle = await storiesBundle(type);
  const { path } = await openSubnetwork(bundle, fullMask(bundle.numLayers, bundle.ffnWidth), {
    root: temporaryFolder(),
  });
  return llamaCpp.open(path, { contextLength, sequences, threads: 1, kvType: "F32" });
}

async function take(tokens: AsyncIterable<number>): Promise<number[]> {
  const taken: number[] = [];
  for await (const token of tokens) taken.push(token);
  return taken;
}

/** A greedy answer with its two likeliest tokens in each place. */
async function scored(engine: Engine, ids: Int32Array, maxTokens: number): Promise<ScoredToken[]> {
  const answer: ScoredToken[] = [];
  for await (const token of engine.generateScored(ids, { maxTokens, top: 2 })) answer.push(token);
  return answer;
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

  test("ends before the end-of-sequence token, which comes last where answers are scored", async () => {
    const model = goldenModel("qwen2");
    const prompt = [1, 53];
    expect(greedy(model, prompt, 3)).toEqual([8, 27, 2]); // 2 is EOS
    const folder = join(temporaryFolder(), "bundle");
    await packBundle(await writeCheckpoint(temporaryFolder(), model), folder, { type: "F32" });
    using bundle = new Bundle(folder);
    const { path } = await openSubnetwork(bundle, fullMask(2, 48), { root: temporaryFolder() });
    await using engine = await llamaCpp.open(path, { contextLength: 64, threads: 1, kvType: "F32" });
    const ids = Int32Array.from(prompt);
    expect(await take(engine.generate(ids, { maxTokens: 10 }))).toEqual([8, 27]);
    const echoed: AnswerToken[] = [];
    for await (const token of engine.generateScored(ids, { maxTokens: 10, top: 1, echo: true })) echoed.push(token);
    expect(echoed.map(({ id, part }) => [id, part])).toEqual([
      ...[[53, "prompt"]],
      ...[
        [8, "answer"],
        [27, "answer"],
      ],
      ...[[2, "end"]],
    ]);
    const { logits } = forward(model, [1, 53, 8, 27, 2]);
    for (const [i, { id, logprob }] of echoed.entries())
      expect(logprob).toBeCloseTo(logProbabilities(Float32Array.from(logits[i]!))[id]!, 4);
  });

  test("ends at a full context, with the tokens of a larger one until there", async () => {
    await using larger = await storiesEngine();
    await using engine = await storiesEngine(256);
    const prompt = Int32Array.from(storiesReference().greedy_ids.slice(0, 100));
    const tokens = await take(engine.generate(prompt, { maxTokens: 1000 }));
    expect(prompt.length + tokens.length).toBe(256);
    const wanted = sureTokens(await scored(larger, prompt, tokens.length), 1e-3, 100);
    expect(tokens.slice(0, wanted.length)).toEqual(wanted);
  });

  test("a prompt that is empty or fills the context, and options out of range, are refused", async () => {
    await using engine = await storiesEngine();
    const first = (ids: Int32Array, maxTokens = 1) => engine.generate(ids, { maxTokens }).next();
    await expect(first(new Int32Array(0))).rejects.toThrow(InputError);
    await expect(first(new Int32Array(512).fill(5))).rejects.toThrow(InputError);
    await expect(first(Int32Array.of(1, 512))).rejects.toThrow(InputError);
    await expect(first(Int32Array.of(1, -1))).rejects.toThrow(InputError);
    await expect(first(bos, 0)).rejects.toThrow(OptionError);
    await expect(llamaCpp.open("none.gguf", { contextLength: 0 })).rejects.toThrow(OptionError);
    await expect(llamaCpp.open("none.gguf", { contextLength: 8, threads: 0.5 })).rejects.toThrow(OptionError);
  });
});

describe("sampling", () => {
  const options = { maxTokens: 12 };

  test("narrows to the likeliest token in every way that can", async () => {
    await using engine = await storiesEngine();
    const greedy = await take(engine.generate(bos, options));
    for (const narrow of [{ topK: 1 }, { topP: 0 }, { topP: 1e-6 }, { minP: 1 }, { temperature: 1e-30 }])
      expect(await take(engine.generate(bos, { ...options, temperature: 1, seed: 3, ...narrow }))).toEqual(greedy);
  });

  test("adds biases to logits, and penalises tokens of the answer, not of the prompt", async () => {
    await using engine = await storiesEngine();
    const logits = (await engine.logits(bos))[0]!;
    const [first, second] = largest(logits, 2) as [number, number];
    const gap = logits[first]! - logits[second]!;
    const biased = async (bias: number) =>
      (await take(engine.generate(bos, { maxTokens: 1, logitBias: new Map([[second, bias]]) })))[0];
    expect([await biased(gap - 0.01), await biased(gap + 0.01)]).toEqual([first, second]);
    const never = await take(engine.generate(bos, { maxTokens: 40, presencePenalty: 1000 }));
    expect(new Set(never).size).toBe(never.length);
    const prompted = engine.generate(Int32Array.of(1, first), { maxTokens: 1, presencePenalty: 1000 });
    expect(await take(prompted)).toEqual(await take(engine.generate(Int32Array.of(1, first), { maxTokens: 1 })));
  });

  test("refuses numbers out of range, strange tokens, and a bias of what ends an answer", async () => {
    await using engine = await storiesEngine();
    const wrong = [
      { temperature: Number.NaN },
      { temperature: -1 },
      { topP: 1.5 },
      { topK: 0.5 },
      { minP: -0.1 },
      { seed: 2 ** 60 },
      { repeatPenalty: 0 },
      { presencePenalty: Infinity },
      { logitBias: new Map([[512, 1]]) },
      { logitBias: new Map([[5, Number.NaN]]) },
      { logitBias: new Map([[2, -100]]) }, // EOS
    ];
    for (const given of wrong)
      await expect(engine.generate(bos, { ...options, ...given }).next(), JSON.stringify(given)).rejects.toThrow(
        OptionError,
      );
    expect(await take(engine.generate(bos, options))).toEqual(storiesReference().greedy_ids.slice(1, 13));
  });

  test("follows a schema; one that is enormous or makes no grammar is refused", async () => {
    using bundle = await storiesBundle();
    const tokenizer = loadTokenizer(bundle.tokenizerPath);
    await using engine = await storiesEngine();
    const schema = { type: "object", properties: { name: { enum: ["Tim", "Lily"] }, old: { type: "boolean" } } };
    const text = tokenizer.decode(await take(engine.generate(bos, { maxTokens: 60, schema })));
    expect(JSON.parse(text)).toEqual({ name: expect.stringMatching(/^(Tim|Lily)$/), old: expect.any(Boolean) });
    const numbers = {
      type: "object",
      properties: { a: { type: "array", items: { type: "integer" } }, b: { type: "number" } },
    };
    for (let seed = 0; seed < 12; seed++) {
      const said = tokenizer.decode(
        await take(engine.generate(bos, { maxTokens: 100, temperature: 2, seed, schema: numbers })),
      );
      const found = said.match(/-?\d[\d.eE+-]*/g) ?? [];
      for (const number of found) expect(Number.isFinite(Number(number)), said).toBe(true);
      if (said.endsWith("}"))
        expect(JSON.parse(said).a.filter((one: number) => !Number.isSafeInteger(one))).toEqual([]);
    }
    const enormous = { enum: Array.from({ length: 20_000 }, (_, i) => `value ${i}`) };
    const endless = { $ref: "#/$defs/a", $defs: { a: { $ref: "#/$defs/a" } } };
    for (const bad of [enormous, endless, { const: "\u0000" }])
      await expect(engine.generate(bos, { maxTokens: 5, schema: bad }).next()).rejects.toThrow(OptionError);
  });
});

describe("log-probabilities", () => {
  test("are the model's own, whatever the sampling; greedy answers are the same with and without", async () => {
    await using engine = await storiesEngine();
    const ids = await take(engine.generate(bos, { maxTokens: 8 }));
    const scored: ScoredToken[] = [];
    for await (const token of engine.generateScored(bos, { maxTokens: 8, top: 3 })) scored.push(token);
    expect(scored.map(({ id }) => id)).toEqual(ids);
    const sampled: ScoredToken[] = [];
    const hot = { maxTokens: 8, top: 3, temperature: 2, topK: 40, seed: 1, presencePenalty: 1 };
    for await (const token of engine.generateScored(bos, hot)) sampled.push(token);
    expect(sampled.map(({ id }) => id)).not.toEqual(ids);
    for (const answer of [scored, sampled]) {
      const logits = await engine.logits(Int32Array.of(1, ...answer.map(({ id }) => id)));
      for (const [i, { id, logprob, top }] of answer.entries()) {
        const wanted = logProbabilities(logits[i]!);
        expect(logprob).toBeCloseTo(wanted[id]!, 4);
        expect(top.map((one) => one.id)).toEqual(largest(wanted, 3));
        for (const one of top) expect(one.logprob).toBeCloseTo(wanted[one.id]!, 4);
      }
    }
  });

  test("of a prompt are those of its tokens, however many are scored at a time", async () => {
    await using engine = await storiesEngine();
    const ids = Int32Array.from(storiesReference().greedy_ids.slice(0, 100));
    const logits = await engine.logits(ids);
    const scored = await engine.score(ids, { top: 2 });
    expect(scored.map(({ id }) => id)).toEqual([...ids.subarray(1)]);
    for (const [i, { id, logprob, top }] of scored.entries()) {
      const wanted = logProbabilities(logits[i]!);
      expect(logprob).toBeCloseTo(wanted[id]!, 4);
      expect(top.map((one) => one.id)).toEqual(largest(wanted, 2));
    }
    expect((await engine.score(ids, { top: 0 }))[5]).toEqual({ id: ids[6], logprob: scored[5]!.logprob, top: [] });
    expect(await engine.score(ids, { top: 2, from: 90 })).toEqual(scored.slice(89));
    expect(await engine.score(bos, { top: 2 })).toEqual([]);
  });
});

test("labels are scored by the logits of their positions, the one after the last token too, and no others are asked for", async () => {
  await using engine = await storiesEngine();
  const text = Int32Array.from(storiesReference().greedy_ids.slice(0, 40));
  const ids = text.subarray(0, -1);
  const labels = Int32Array.from(text.subarray(1), (id, t) => (t < 20 || t === 25 ? -100 : id));
  const logits = (await engine.logits(ids)).map(logProbabilities);
  const score = vi.spyOn(engine, "score");
  const scored = await labelScore(engine, { ids, labels });
  expect(scored.nll).toBeCloseTo(
    labels.reduce((sum, label, t) => (label < 0 ? sum : sum - logits[t]![label]!), 0),
    3,
  );
  const correct = labels.filter((label, t) => label === largest(logits[t]!, 1)[0]);
  expect([scored.tokens, scored.correctTokens]).toEqual([18, correct.length]);
  expect(score.mock.calls.map(([, options]) => options)).toEqual([{ top: 1, from: 21 }]);
  expect(await labelScore(engine, { ids, labels: labels.map(() => -100) })).toMatchObject({ nll: 0, tokens: 0 });
});

describe("sequences", () => {
  test("answer at the same time as each would alone, and forget what they have read", async () => {
    await using engine = await storiesEngine(256, 3);
    const text = storiesReference().greedy_ids;
    const prompts = [0, 7, 30].map((from) => Int32Array.of(1, ...text.slice(from + 1, from + 9)));
    const alone: number[][] = [];
    for (const ids of prompts) alone.push(sureTokens(await scored(engine, ids, 30), 1e-3, 20));
    const run = (ids: Int32Array, i: number) => take(engine.generate(ids, { maxTokens: alone[i]!.length }));
    for (let round = 0; round < 2; round++) expect(await Promise.all(prompts.map(run))).toEqual(alone);
  });

  test("are computed in the same batches when the same calls come again: in F16, where batches change the last bits, tokens repeat", async () => {
    await using engine = await storiesEngine(512, 4, "F16");
    const text = storiesReference().greedy_ids;
    const prompts = Array.from({ length: 24 }, (_, i) => Int32Array.of(1, ...text.slice(i + 1, i + 12 + 13 * (i % 9))));
    const run = async () => {
      const answers: number[][] = [];
      const queue = prompts.entries();
      const slot = async () => {
        for (const [i, ids] of queue) {
          const options = { maxTokens: 20 + 8 * (i % 7), temperature: i % 2, seed: i, ignoreEos: true };
          answers[i] = await take(engine.generate(ids, options));
        }
      };
      await Promise.all(Array.from({ length: 4 }, slot));
      return answers;
    };
    const first = await run();
    for (let round = 0; round < 2; round++) expect(await run()).toEqual(first);
  });

  test("are free again after an answer that is left, aborted or refused", async () => {
    await using engine = await storiesEngine(256, 2);
    const signal = AbortSignal.abort();
    for (let round = 0; round < 3; round++) {
      for await (const token of engine.generate(bos, { maxTokens: 50 })) if (token) break;
      await expect(take(engine.generate(bos, { maxTokens: 5, signal }))).rejects.toThrow(/abort/i);
      await expect(take(engine.generate(bos, { maxTokens: 5, schema: { const: "\u0000" } }))).rejects.toThrow(
        OptionError,
      );
      await expect(engine.score(Int32Array.of(1, 1), { top: 1, signal })).rejects.toThrow(/abort/i);
    }
    const [one, two] = [bos, bos].map((ids) => engine.generate(ids, { maxTokens: 5 }));
    await Promise.all([one!.next(), two!.next()]);
    await expect(engine.generate(bos, { maxTokens: 5 }).next()).rejects.toThrow(/internal/);
    await Promise.all([one!.return(), two!.return()]);
  });

  test("let a new one begin while others go on", async () => {
    await using engine = await storiesEngine(512, 3);
    const others = [5, 6].map((id) => engine.generate(Int32Array.of(1, id), { maxTokens: 200, ignoreEos: true }));
    const counts = others.map(() => 0);
    const running = others.map(async (tokens, i) => {
      for await (const _ of tokens) counts[i]!++;
    });
    while (counts[0]! < 10) await new Promise(setImmediate);
    const [start] = counts;
    await engine.generate(bos, { maxTokens: 1 }).next();
    expect(counts[0]! - start!).toBeLessThan(10);
    await Promise.all(running);
    expect(counts).toEqual([200, 200]);
  });

  test("stop within a long prompt", async () => {
    await using engine = await storiesEngine(512);
    const controller = new AbortController();
    const long = new Int32Array(500).fill(5);
    const first = engine.generate(long, { maxTokens: 1, signal: controller.signal }).next();
    setImmediate(() => controller.abort());
    await expect(first).rejects.toThrow(/abort/i);
  });
});

test("a file that is no GGUF, or one that holds no model, is a typed error", async () => {
  const path = join(temporaryFolder(), "x.gguf");
  writeFileSync(path, "GGUF and nothing else");
  await expect(llamaCpp.open(path, { contextLength: 8 })).rejects.toThrow(FileError);
  await writeGguf(path, new Map([["general.architecture", { type: "string", value: "llama" }]]), [], []);
  await expect(llamaCpp.open(path, { contextLength: 8 })).rejects.toThrow(FileError);
});
