/**
 * Evaluation asks what serving asks: of an imported chat model, as a bundle and as a checkpoint, every source reads the ids and makes the masks
 * that the served model has, and every control is made of them.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { InstructionModel } from "../src/answer/instructionModel.ts";
import type { MaskSource } from "../src/answer/maskSource.ts";
import { importModel } from "../src/bundle/importModel.ts";
import { OptionError } from "../src/errors.ts";
import { CONTROLS } from "../src/eval/controls.ts";
import { type EvaluationOptions, evaluateTasks, evaluateText } from "../src/eval/evaluate.ts";
import { openModel } from "../src/eval/load.ts";
import type { Mask } from "../src/mask/mask.ts";
import { composePrompt, instructionOf } from "../src/text/prompt.ts";
import { loadModel, saveModel } from "../src/train/checkpoint.ts";
import { shapes, writeCheckpointFolder } from "./support/checkpoints.ts";

const folder = mkdtempSync(join(tmpdir(), "ifprune-evaluation-"));
const at = (name: string) => join(folder, name);
const cacheHome = process.env.XDG_CACHE_HOME;
const session = { threads: 1, spinning: false };

const examples = [{ input: "red", output: "r" }];
const rows = [
  { task: "letter", instruction: "first letter", input: "cab", output: "c" },
  { task: "letter", instruction: "first letter", input: "bad", output: "b", examples },
  { task: "colour", instruction: "name a colour", output: "red" },
];
const questions = at("questions.jsonl");
const prompts = rows.map(({ instruction, input, examples }) => composePrompt(instruction, input, examples));
const text = "a bad cab had a red bag. ".repeat(12);

let served: InstructionModel;
beforeAll(async () => {
  process.env.XDG_CACHE_HOME = at("cache");
  const shape = shapes.SmolLM2!; // with ChatML
  await writeCheckpointFolder(at("source"), { ...shape, config: { ...shape.config, contextLength: 128 } });
  await importModel(at("source"), at("bundle"), { type: "F32" });
  await importModel(at("source"), at("checkpoint"), { as: "checkpoint" });
  writeFileSync(questions, rows.map((row) => JSON.stringify(row)).join("\n"));
  served = new InstructionModel(at("bundle"));
});
afterAll(() => {
  served[Symbol.dispose]();
  process.env.XDG_CACHE_HOME = cacheHome;
  rmSync(folder, { recursive: true });
});

/** What an evaluation gives the model to read, and under which masks. */
async function evaluated(name: string, options: EvaluationOptions) {
  await using opened = await openModel(at(name), session);
  const { evaluator } = opened;
  let asked: { ids: readonly Int32Array[]; masks: readonly Mask[] | undefined; endIds: readonly number[] } | undefined;
  const answer: typeof evaluator.answer = (questions, how) => {
    asked = { ids: questions.map(({ prompt }) => prompt), masks: how.masks, endIds: how.endIds };
    return evaluator.answer(questions, how);
  };
  const score = evaluator.score.bind(evaluator);
  const report = await evaluateTasks({ ...opened, evaluator: { score, answer } }, questions, options);
  expect(report.mean.count).toBe(rows.length);
  expect(report.mean.loss).toBeGreaterThan(0);
  return { ...asked!, report };
}

const sources = {
  griffin: {},
  glass: { text },
  text: { text },
  weights: {},
  random: { seed: 3 },
};

describe.each(["bundle", "checkpoint"])("a %s", (name) => {
  test.each(Object.entries(sources))("under masks of %s is prompted and masked as served", async (source, more) => {
    const how = { source: source as keyof typeof sources, tFfn: 32, ...more };
    const { ids, masks, endIds } = await evaluated(name, how);
    expect(ids).toEqual(prompts.map((prompt) => served.promptIds(prompt)));
    expect(served.tokenizer.decode(ids[2]!)).toBe("user\nname a colour\nassistant\n"); // as ChatML has it
    expect(endIds).toEqual([2, 4]); // EOS, and the end of a turn
    for (const [i, prompt] of prompts.entries()) expect(masks![i]).toEqual((await served.mask(prompt, how)).mask);

    const perTask = await evaluated(name, { ...how, per: "task" });
    expect(perTask.ids).toEqual(ids);
    for (const [i, prompt] of prompts.entries())
      expect(perTask.masks![i]).toEqual((await served.mask(instructionOf(prompt), how)).mask);

    for (const control of CONTROLS) {
      const controlled = (await evaluated(name, { ...how, control })).masks!;
      if (control === "foreign") expect([controlled[0], controlled[2]]).toEqual([masks![2], expect.anything()]);
      if (control === "generic") expect(new Set(controlled).size).toBe(1);
      if (control === "random") expect(controlled[0]).not.toEqual(masks![0]);
      for (const mask of controlled) expect(mask.tFfn).toBe(32);
    }
  });

  test("dense, and under a mask that is given, is prompted as served", async () => {
    const dense = await evaluated(name, { mask: "dense" });
    expect(dense.ids).toEqual(prompts.map((prompt) => served.promptIds(prompt)));
    expect(dense.masks).toBeUndefined();
    const { mask } = await served.mask("a", { source: "random", tFfn: 20 });
    const masked = await evaluated(name, { mask });
    expect([masked.ids, masked.masks]).toEqual([dense.ids, rows.map(() => mask)]);
    expect(masked.report.mean.loss).not.toBe(dense.report.mean.loss);
  });

  test("a text under masks of its own beginnings", async () => {
    writeFileSync(at("text.txt"), text);
    await using opened = await openModel(at(name), session);
    const perplexity = async (options: EvaluationOptions) =>
      (await evaluateText(opened, at("text.txt"), options)).perplexity;
    const all = [await perplexity({ mask: "dense" })];
    for (const [source, more] of Object.entries(sources))
      all.push(await perplexity({ source: source as keyof typeof sources, tFfn: 32, ...more }));
    expect(new Set(all).size).toBe(all.length);
    await expect(perplexity({ source: "griffin", control: "foreign" })).rejects.toThrow(/wanted tasks/);
    await expect(perplexity({ source: "griffin", per: "task" })).rejects.toThrow(/wanted tasks/);
  });
});

test.each(["bundle", "checkpoint"])("unless told, an imported %s is evaluated dense, as it is served", async (name) => {
  expect((await evaluated(name, {})).masks).toBeUndefined();
  const griffin = (await evaluated(name, { source: "griffin", tFfn: 64 })).masks;
  expect((await evaluated(name, { keep: 0.66 })).masks).toEqual(griffin);
});

test("a checkpoint that is of no run, as those of a job, is evaluated dense", async () => {
  const model = await loadModel(at("checkpoint"));
  const provenance = { ...model.card.provenance, recipe: "job" };
  await saveModel(at("saved"), { ...model, card: { ...model.card, provenance } });
  expect((await evaluated("saved", {})).masks).toBeUndefined();
});

test("bundle and checkpoint score alike under the same masks", async () => {
  const [a, b] = [
    await evaluated("bundle", { source: "griffin" }),
    await evaluated("checkpoint", { source: "griffin" }),
  ];
  expect(a.report.mean.loss).toBeCloseTo(b.report.mean.loss, 2); // llama.cpp keeps keys and values in half precision
});

test("a text is read in windows, in a context of two tokens too", async () => {
  writeFileSync(at("text.txt"), text);
  await using opened = await openModel(at("checkpoint"), session);
  const { model, evaluator } = opened;
  const lengths: number[] = [];
  const evaluate = (contextLength: number) => {
    const config = { ...model.weights.config, contextLength };
    const score: typeof evaluator.score = async (sequences) => {
      lengths.push(Math.max(...sequences.map(({ ids }) => ids.length)));
      return sequences.map(() => ({ nll: 1, tokens: 1, correctTokens: 1 }));
    };
    const own = { ...model, weights: { ...model.weights, config } };
    return evaluateText({ ...opened, model: own, evaluator: { ...evaluator, score } }, at("text.txt"));
  };
  await evaluate(2);
  expect(lengths).toEqual([1]);
  writeFileSync(at("text.txt"), text.repeat(50));
  await evaluate(8192);
  expect(lengths[1]).toBeGreaterThan(1000);
  expect(lengths[1]).toBeLessThanOrEqual(1024);
});

test("a row that cannot be asked is named", async () => {
  const bad = at("bad.jsonl");
  writeFileSync(
    bad,
    `${JSON.stringify(rows[0])}\n${JSON.stringify({ ...rows[0], instruction: "{input.1} and {input.2}" })}`,
  );
  await using opened = await openModel(at("checkpoint"), session);
  await expect(evaluateTasks(opened, bad, {})).rejects.toThrow(/bad\.jsonl: line 2: .+\{input\.2\}/);
});

test.each(["bundle", "checkpoint"])(
  "the longest row that a %s has room for is scored, a longer one counted",
  async (name) => {
    await using opened = await openModel(at(name), session);
    const { contextLength } = opened.model.weights.config;
    const [instruction, letter] = ["say a a lot of times", " a"];
    const { format } = opened.model;
    const lengthOf = (output: string) => format.promptIds(instruction).length + format.answerIds(output).length;
    const path = at("long.jsonl");
    for (const more of [0, 1]) {
      const output = "a".concat(letter.repeat(contextLength));
      let text = output;
      while (lengthOf(text) > contextLength + more) text = text.slice(0, -1);
      expect(lengthOf(text)).toBe(contextLength + more);
      const long = { task: "long", instruction, output: text };
      writeFileSync(path, [rows[2], long].map((row) => JSON.stringify(row)).join("\n"));
      const report = await evaluateTasks(opened, path, { mask: "dense" });
      expect([report.mean.count, report.numTooLong]).toEqual([2 - more, more]);
    }
  },
);

test("examples for all rows stand in the instructions of their task", async () => {
  const plain = at("plain.jsonl");
  writeFileSync(plain, rows.map(({ examples, ...row }) => JSON.stringify(row)).join("\n"));
  await using opened = await openModel(at("checkpoint"), session);
  const { answers } = await evaluateTasks(opened, plain, { examples: [{ ...examples[0]!, task: "letter" }] });
  expect(answers.map(({ prompt }) => prompt)).toEqual([
    "first letter Example: red -> r Input: cab",
    "first letter Example: red -> r Input: bad",
    "name a colour",
  ]);
  await expect(evaluateTasks(opened, questions, { examples })).rejects.toThrow(/line 2: wanted no examples/);
});

test.each(["bundle", "checkpoint"])("an abort ends the evaluation of a %s", async (name) => {
  writeFileSync(at("text.txt"), text);
  await using opened = await openModel(at(name), session);
  const { evaluator } = opened;
  const controller = new AbortController();
  const interrupted: typeof evaluator = {
    score: (sequences, ...how) => {
      controller.abort();
      return evaluator.score(sequences, ...how);
    },
    answer: (questions, how) => {
      controller.abort();
      return evaluator.answer(questions, how);
    },
  };
  for (const [evaluate, path] of [
    [evaluateTasks, questions],
    [evaluateText, at("text.txt")],
  ] as const) {
    const options = { mask: "dense", signal: controller.signal } as const;
    await expect(evaluate({ ...opened, evaluator: interrupted }, path, options)).rejects.toThrow(/aborted/);
  }
});

describe("options that do not go together are refused:", () => {
  test.each<[string, string, EvaluationOptions, RegExp]>([
    ["a mask and a source", "bundle", { mask: "dense", source: "griffin" }, /wanted a mask, or how to make one/],
    ["a mask and a control", "bundle", { mask: "dense", control: "generic" }, /got both \(control\)/],
    ["a control without a source", "checkpoint", { control: "generic" }, /wanted a source of masks for control/],
    ["two budgets", "checkpoint", { tFfn: 32, keep: 0.5 }, /wanted keep or t_ffn, got both/],
    ["a seed for griffin", "bundle", { source: "griffin", seed: 1 }, /wanted no seed/],
    ["no text", "bundle", { source: "text" }, /wanted a text for the source text/],
    ["no text for glass", "checkpoint", { source: "glass" }, /wanted a text for the source glass/],
    ["too many channels", "bundle", { source: "weights", tFfn: 97 }, /wanted t_ffn in 1\.\.96/],
  ])("%s", async (_, name, options, message) => {
    await using opened = await openModel(at(name), session);
    const evaluating = evaluateTasks(opened, questions, options);
    await expect(evaluating).rejects.toThrow(OptionError);
    await expect(evaluating).rejects.toThrow(message);
  });

  test("per input, of a predictor that reads instructions alone", async () => {
    await using opened = await openModel(at("bundle"), session);
    const model = { ...opened.model, format: served.format, weights: served.weights };
    const source = { name: "predictor", scores: () => expect.unreachable() } as unknown as MaskSource;
    Object.assign(model, { manifest: { ...served.manifest, predictorInput: "instruction" } });
    const evaluating = evaluateTasks({ ...opened, model }, questions, { source, per: "input" });
    await expect(evaluating).rejects.toThrow(/wanted masks per task/);
  });
});
