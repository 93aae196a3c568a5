/**
 * Runs whose predictor is no second model: it reads with the LLM's own first layers, or with its embedding alone. Warm-started, interrupted and resumed;
 * packed and asked for the same masks.
 */
import { cpSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { chooseMask, openMaskSource } from "../src/answer/maskSource.ts";
import { packBundle } from "../src/bundle/packBundle.ts";
import type { OpenedModel } from "../src/eval/evaluate.ts";
import { openModel } from "../src/eval/load.ts";
import { readSafetensors } from "../src/formats/safetensors.ts";
import { type Checkpoint, checkpointFolder, loadLatestCheckpoint } from "../src/train/checkpoint.ts";
import { readRecipe } from "../src/train/recipe/read.ts";
import { trainRecipe } from "../src/train/run.ts";
import { readRunLog } from "../src/train/runLog.ts";
import { succeed } from "./support/cli.ts";
import { fixtures } from "./support/models.ts";
import { questionsOf, routerLead } from "./support/trained.ts";

const folder = mkdtempSync(join(tmpdir(), "ifprune-layers-"));
afterAll(() => rmSync(folder, { recursive: true }));
cpSync(join(fixtures, "tiny"), folder, { recursive: true });
const at = (path: string) => join(folder, path);

const questions = {
  data: [{ domain: "questions", path: "train.jsonl", licence: "MIT" }],
  instructions: "instructions.json",
};
/** A recipe that goes on from the dense model. */
const recipe = (name: string, predictor: object) => ({
  name,
  seed: 7,
  init: { run: "runs/tiny" },
  predictor: { head: "codebook", rank: 3, pooling: "mean", ...predictor },
  mask: { kind: "predictor", tFfn: 32, block: 4 },
  stages: [
    {
      ...{
        name: "warm-start",
        kind: "warm-start",
        steps: 40,
        ...questions,
        examples: 32,
        clusters: "k-means",
        tokensPerBatch: 512,
      },
      learningRate: { predictor: 0.03 },
    },
    {
      ...{ name: "joint", kind: "sft", steps: 2, ...questions, tokensPerBatch: 256, embedding: "frozen" },
      learningRate: { llm: 0.004, predictor: 0.001 },
    },
  ],
  checkpointEvery: 10,
  threads: 1,
});

async function train(
  name: string,
  json: object,
  { stopAt = Infinity, runDir = at(`runs/${name}`) } = {},
): Promise<Checkpoint> {
  writeFileSync(at(`${name}.json`), JSON.stringify(json));
  const abort = new AbortController();
  const options = { runDir, threads: 1, spinning: false, signal: abort.signal };
  for await (const event of trainRecipe(readRecipe(at(`${name}.json`)), options))
    if (event.kind === "row" && event.row.kind === "train" && event.row.step === stopAt) abort.abort();
  return (await loadLatestCheckpoint(runDir))!;
}

beforeAll(async () => {
  const { recipe } = readRecipe(at("recipe.json"));
  const { predictor, mask, ...dense } = recipe;
  const stages = dense.stages.filter(({ name }) => name === "dense").map((stage) => ({ ...stage, steps: 30 }));
  await train("tiny", { ...dense, stages });
}, 300_000);

/** Of kept channels of texts, and the file of each. */
async function masksOf(model: OpenedModel["model"], texts: readonly string[]) {
  await using source = await openMaskSource(model, { source: "predictor" }, { threads: 1, kvType: "F32" });
  const { ffnWidth } = model.weights.config;
  const masks = [];
  for (const text of texts) {
    const { mask } = await chooseMask(
      source,
      { text, ids: model.format.promptIds(text) },
      { tFfn: model.manifest.tFfn!, ffnWidth },
    );
    masks.push(mask.layers);
  }
  return masks;
}

test.each([
  ["its embedding", 0],
  ["its first layer", 1],
] as const)("%s: learns to choose, is resumed, packed and asked", { timeout: 300_000 }, async (_, llmLayers) => {
  const name = `layers-${llmLayers}`;
  const json = recipe(name, { backbone: { llmLayers } });
  const saved = await train(name, json);
  const llm = (await loadLatestCheckpoint(at("runs/tiny")))!.llm;
  const rows = readRunLog(at(`runs/${name}/metrics.jsonl`));
  expect(rows[0]).toMatchObject({ kind: "run", parameters: llmLayers === 0 ? { backbone: 0 } : {} });

  // what it reads with is as it was in the model that the run began with
  const { weights: backbone } = saved.predictor!.backbone;
  for (const parameter of backbone.keys())
    if (parameter !== "model.norm.weight")
      expect(backbone.get(parameter), parameter).toEqual(llm.weights.get(parameter));
  const learned = "model.layers.0.self_attn.q_proj.weight";
  expect(saved.llm.weights.get(learned)).not.toEqual(llm.weights.get(learned));
  const last = checkpointFolder(at(`runs/${name}`), saved.step);
  expect(existsSync(join(last, "predictor/model.safetensors"))).toBe(llmLayers > 0);

  for (const stopAt of [7, 41]) {
    const runDir = at(`runs/${name}-${stopAt}`);
    await train(name, json, { stopAt, runDir });
    await train(name, json, { runDir });
    for (const file of ["llm/model.safetensors", "predictor/head.safetensors"])
      expect(readSafetensors(join(checkpointFolder(runDir, saved.step), file)), file).toEqual(
        readSafetensors(join(last, file)),
      );
  }

  const asked = questionsOf(folder).map(({ prompt }) => prompt);
  const texts = asked.filter((prompt) => routerLead(saved, prompt) > 0.5); // of those that hang by no thread
  expect(texts.length).toBeGreaterThan(asked.length / 4);
  await using exact = await openModel(at(`runs/${name}`), { threads: 1 });
  const wanted = await masksOf(exact.model, texts);
  expect(new Set(wanted.map((layers) => layers.join())).size).toBeGreaterThan(1);
  for (const type of ["F32", "Q8_0"] as const) {
    const bundle = at(`${name}-${type}`);
    await packBundle(last, bundle, { type });
    expect(existsSync(join(bundle, "predictor.gguf"))).toBe(llmLayers > 0);
    await using served = await openModel(bundle, { threads: 1 });
    expect(await masksOf(served.model, texts), type).toEqual(wanted);
  }
  const answer = await succeed("run", "--model", at(`${name}-F32`), "--json", "--max-tokens", "2", texts[0]!);
  expect(JSON.parse(answer)).toMatchObject({ source: "predictor", keptShare: 32 / 64 });
});
