/** A predictor is attached to an imported model and trained: first alone, then with the model; the result is packed and answers. */
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { importModel } from "../src/bundle/importModel.ts";
import { readModelFolder } from "../src/formats/huggingface.ts";
import { checkpointFolders } from "../src/train/checkpoint.ts";
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

test.each(["SmolLM2", "Gemma 2"])("%s", { timeout: 120_000 }, async (name) => {
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
      { ...stage, name: "alone", train: "predictor", learningRate: { predictor: 0.01 } },
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
});
