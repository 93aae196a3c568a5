/**
 * A predictor is attached to an imported chat model and trained: first alone, then with the model; the result is packed and answers. Its chat
 * template goes all the way: what is learned, evaluated and served are the same ids.
 */
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { InstructionModel } from "../src/answer/instructionModel.ts";
import { readPrompt } from "../src/answer/prompts.ts";
import { importModel } from "../src/bundle/importModel.ts";
import { evaluateTasks } from "../src/eval/evaluate.ts";
import { openModel } from "../src/eval/load.ts";
import { readModelFolder } from "../src/formats/huggingface.ts";
import { labelledTurns } from "../src/net/labels.ts";
import type { ChatTemplate } from "../src/text/chatTemplate.ts";
import { withBos } from "../src/text/prompt.ts";
import { checkpointFolders, formatOf, loadModel } from "../src/train/checkpoint.ts";
import { encodeQuestions } from "../src/train/data.ts";
import { heldOutExamples } from "../src/train/heldOut.ts";
import { readRecipe } from "../src/train/recipe/read.ts";
import { shapes, writeCheckpointFolder } from "./support/checkpoints.ts";
import { succeed } from "./support/cli.ts";
import { fixtures } from "./support/models.ts";

const folder = mkdtempSync(join(tmpdir(), "train-imported-"));
afterAll(() => rmSync(folder, { recursive: true }));

const stage = {
  kind: "sft",
  steps: 2,
  data: [{ domain: "questions", path: "train.jsonl", licence: "MIT" }],
  instructions: "instructions.json",
  tokensPerBatch: 256,
};

test.each(["SmolLM2", "Gemma 2"])("%s", { timeout: 300_000 }, async (name) => {
  const at = (what: string) => join(folder, name, what);
  cpSync(join(fixtures, "tiny"), at("tiny"), { recursive: true });
  await writeCheckpointFolder(at("source"), {
    ...shapes[name]!,
    config: { ...shapes[name]!.config, contextLength: 256 },
  });
  await importModel(at("source"), at("checkpoint"), { as: "checkpoint" });
  const recipe = {
    name: "attached",
    seed: 1,
    init: { run: "../checkpoint" },
    predictor: {
      backbone: { width: 32, numLayers: 1, numHeads: 2, numKvHeads: 2, headWidth: 16, ffnWidth: 64 },
      rank: 8,
    },
    mask: { kind: "predictor", tFfn: 32 },
    stages: [
      { ...stage, name: "alone", train: "predictor", shots: 1, learningRate: { predictor: 0.01 } },
      { ...stage, name: "together", learningRate: { llm: 0.001, predictor: 0.001 } },
    ],
    checkpointEvery: 2,
    threads: 1,
  };
  const path = at("tiny/attached.json");
  writeFileSync(path, JSON.stringify(recipe));
  const source = readModelFolder(at("checkpoint/llm"));
  const { vocabSize: _, ...shape } = source.config;
  expect(readRecipe(path).recipe.llm).toEqual(shape);

  await succeed("train", path, "--runs", at("runs"));
  const [together, alone] = checkpointFolders(at("runs/attached")).map((run) => readModelFolder(join(run, "llm")));
  expect(alone).toEqual(source);
  expect(together!.weights.get("model.norm.weight")).not.toEqual(source.weights.get("model.norm.weight"));

  await succeed("pack", at("runs/attached"), at("bundle"), "--type", "F32");
  const answer = await succeed("run", "--model", at("bundle"), "--json", "--max-tokens", "3", "Say a letter.");
  expect(JSON.parse(answer)).toMatchObject({ keptShare: 32 / 96 });

  using served = new InstructionModel(at("bundle"));
  const { template, tokenizer, endIds } = served.format;
  expect((template as ChatTemplate).source).toBe(shapes[name]!.chatTemplate);
  expect(endIds).toEqual([2, 4]); // EOS, and what ends a turn

  const saved = await loadModel(at("runs/attached"));
  const learned = formatOf(saved, tokenizer, at("runs/attached"));
  const words = ["cab", "bed", "dab"];
  const questions = words.map((input) => ({ domain: "d", weight: 1, wordings: ["Say it."], input, answer: "yes" }));
  const data = encodeQuestions(questions, learned, { predictorInput: "prompt", maxTokens: 200 });
  const [first, second, third] = data.questions[0]!;
  const row = data.encode(first!, "Say it.");
  expect(row.prompt).toEqual(served.promptIds("Say it. Input: cab"));
  expect(row.predictorInputs).toEqual([withBos(tokenizer, tokenizer.encode("Say it. Input: cab"))]); // no template
  expect(tokenizer.decode(row.answer)).toBe("yes");
  expect(row.answer.at(-1)).toBe(4);
  const turns = [row, data.encodeTurn(second!)!, data.encodeTurn(third!)!];
  const { ids, labels } = labelledTurns(turns);
  const messages = [
    { role: "user", content: "Say it. Input: cab" },
    { role: "assistant", content: "yes" },
    { role: "user", content: "Input: bed" },
    { role: "assistant", content: "yes" },
    { role: "user", content: "Input: dab" },
  ] as const;
  const { ids: asked } = readPrompt(served, { kind: "chat", messages }, 256);
  expect(ids.subarray(0, asked.length)).toEqual(asked);
  expect(labels.filter((id) => id === 4)).toHaveLength(3);

  const questionsPath = at("tiny/asked.jsonl");
  writeFileSync(questionsPath, JSON.stringify({ task: "d", instruction: "Say it.", input: "cab", output: "yes" }));
  const [heldOut] = await heldOutExamples(questionsPath, learned, 256);
  expect(heldOut!.ids.subarray(0, row.prompt.length)).toEqual(row.prompt);
  for (const model of [at("runs/attached"), at("bundle")]) {
    await using opened = await openModel(model, { threads: 1, spinning: false });
    const prompts: Int32Array[] = [];
    const answer: typeof opened.evaluator.answer = (questions, how) => {
      prompts.push(...questions.map(({ prompt }) => prompt));
      return opened.evaluator.answer(questions, how);
    };
    const score = opened.evaluator.score.bind(opened.evaluator);
    const { masks } = await evaluateTasks({ ...opened, evaluator: { score, answer } }, questionsPath, {
      source: "predictor",
    });
    expect(prompts).toEqual([row.prompt]);
    expect(masks!.chance).toBe(32 / 96);
  }
});
