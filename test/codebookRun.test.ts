/**
 * A whole run of the codebook's recipe: warm start, conversations under one mask, a teacher; interrupted and resumed; packed and
 * served with the same masks.
 */
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { chooseMask, openMaskSource } from "../src/answer/maskSource.ts";
import { packBundle } from "../src/bundle/packBundle.ts";
import type { OpenedModel } from "../src/eval/evaluate.ts";
import { openModel } from "../src/eval/load.ts";
import { toDenseMask } from "../src/mask/mask.ts";
import { loadLatestCheckpoint } from "../src/train/checkpoint.ts";
import { readRecipe } from "../src/train/recipe/read.ts";
import { trainRecipe } from "../src/train/run.ts";
import { readRunLog } from "../src/train/runLog.ts";
import { expectRouted } from "./support/trained.ts";

const folder = mkdtempSync(join(tmpdir(), "ifprune-codebook-"));
afterAll(() => rmSync(folder, { recursive: true }));
cpSync(fileURLToPath(new URL("fixtures/tiny", import.meta.url)), folder, { recursive: true });

/** Trains a recipe; with `stopAt`, aborted once the log has that many steps. */
async function train(recipe: string, runDir: string, stopAt = Infinity): Promise<void> {
  const abort = new AbortController();
  const file = readRecipe(join(folder, recipe));
  for await (const event of trainRecipe(file, { runDir, threads: 1, spinning: false, signal: abort.signal })) {
    if (event.kind === "row" && event.row.kind === "train" && event.row.step === stopAt) abort.abort();
  }
}

async function remains(runDir: string) {
  const { card, metricsBytes, ...checkpoint } = (await loadLatestCheckpoint(runDir))!;
  const { created, ...provenance } = card.provenance;
  return {
    checkpoint,
    card: { ...card, provenance },
    rows: readRunLog(join(runDir, "metrics.jsonl")).map((row) => ({ ...row, ms: 0 })),
  };
}

const whole = join(folder, "runs/whole");
beforeAll(async () => {
  // the model that it starts from has no predictor of another kind: the tiny recipe's dense stage alone
  const file = readRecipe(join(folder, "recipe.json"));
  const { predictor, mask, ...dense } = file.recipe;
  const stages = dense.stages.filter(({ name }) => name === "dense");
  const recipe = { ...dense, stages };
  for await (const _ of trainRecipe({ ...file, recipe }, { runDir: join(folder, "runs/tiny"), threads: 1 }));
  await train("codebook.json", whole);
}, 300_000);

test("logs what was clustered, and evaluates masks that come from the codebook", () => {
  const rows = readRunLog(join(whole, "metrics.jsonl"));
  expect(rows.filter(({ kind }) => kind === "clusters")).toMatchObject([
    { stage: "warm-start", step: 0, clusters: 3, purity: expect.any(Number) },
  ]);
  expect(rows.filter(({ kind }) => kind === "train")).toHaveLength(14);
  expect(rows.filter(({ kind }) => kind === "evaluation")).toHaveLength(2);
});

test.each([3, 6, 7, 10])("interrupted after step %i, it ends as if it never had been", async (step) => {
  const runDir = join(folder, `runs/stopped-${step}`);
  await train("codebook.json", runDir, step);
  expect((await loadLatestCheckpoint(runDir))!.step).toBe(step);
  await train("codebook.json", runDir);
  expect(await remains(runDir)).toEqual(await remains(whole));
});

test("the packed bundle predicts the checkpoint's masks: entries of the codebook, in whole blocks", async () => {
  const bundle = join(folder, "bundle");
  const saved = (await loadLatestCheckpoint(whole))!;
  await packBundle(join(whole, "checkpoints", `step-${String(saved.step).padStart(6, "0")}`), bundle, { type: "F32" });
  await using exact = await openModel(whole, { threads: 1 });
  await using served = await openModel(bundle, { threads: 1 });
  const predicted = async ({ model }: OpenedModel, text: string) => {
    await using source = await openMaskSource(model, { source: "predictor" }, { threads: 1 });
    const prompt = { text, ids: model.format.promptIds(text) };
    const { tFfn } = model.manifest;
    const { mask } = await chooseMask(source, prompt, { tFfn: tFfn!, ffnWidth: model.weights.config.ffnWidth });
    return { mask: toDenseMask(mask), scores: (await source.scores(prompt)).scores };
  };
  const texts = ["Write the plural.", "Write the first letter. Input: cloud", "Give the plural form. Input: river"];
  expectRouted(saved, texts);
  for (const text of texts) {
    const [{ mask, scores }, got] = [await predicted(exact, text), await predicted(served, text)];
    for (const [at, value] of mask.entries()) expect(got.mask[at]!).toBeCloseTo(value, 5);
    for (const [at, value] of scores.entries()) expect(got.scores[at]!).toBeCloseTo(value, 4);
    for (const [at, value] of mask.entries()) expect(value).toBe(mask[at - (at % 4)]); // blocks of 4
  }
});
