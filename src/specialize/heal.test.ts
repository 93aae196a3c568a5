import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { shapes, writeCheckpointFolder } from "../../test/support/checkpoints.ts";
import { temporaryFolder } from "../../test/support/models.ts";
import { importModel } from "../bundle/importModel.ts";
import { loadModel, saveModel } from "../train/checkpoint.ts";
import { keepChannels } from "./cut.ts";
import { heal, healRecipe, PATIENCE } from "./heal.ts";
import { jsonLines } from "./taskPrompts.ts";

test("a run that only gets worse ends soon, and what it gives is its best checkpoint", {
  timeout: 60_000,
}, async () => {
  const folder = temporaryFolder();
  const at = (name: string) => join(folder, name);
  const { config: own, ...shape } = shapes.SmolLM2!;
  const { config } = await writeCheckpointFolder(at("source"), { ...shape, config: { ...own, contextLength: 64 } });
  await importModel(at("source"), at("dense"), { as: "checkpoint" });
  const dense = await loadModel(at("dense"));
  const layers = Array.from({ length: config.numLayers }, () => Int32Array.from({ length: 64 }, (_, i) => i));
  await saveModel(at("cut"), { ...dense, llm: keepChannels(dense.llm, { layers, tFfn: 64, dFfn: config.ffnWidth }) });
  const rows = ["a b", "b c", "c d", "d e"].map((input) => ({ instruction: "Say", input, output: input }));
  writeFileSync(at("rows.jsonl"), jsonLines(rows));
  const file = healRecipe(
    {
      ...{ name: "run", init: "cut", teacher: "dense", llm: { ...config, ffnWidth: 64 }, shape: { T: 64, B: 2 } },
      ...{ steps: 40, every: 2, rows: { train: "rows.jsonl", heldOut: "rows.jsonl" } },
      ...{ data: { name: "rows", licence: "CC0" }, seed: 1, threads: 1 },
    },
    at,
  );
  file.recipe.stages[0]!.learningRate.llm = 1; // each step leads further away
  const healing = heal(file, at("run"), { threads: 1 });
  let next = await healing.next();
  while (!next.done) next = await healing.next();
  const { best, evaluations, steps, path } = next.value;
  const losses = evaluations.map(({ kl }) => kl);
  expect(losses.indexOf(best.kl)).toBe(losses.length - 1 - PATIENCE);
  expect(best.kl).toBe(Math.min(...losses));
  expect([steps, steps < 40]).toEqual([2 * losses.length, true]);
  const taken = await loadModel(path);
  expect(taken.llm.weights).not.toEqual((await loadModel(at("run"))).llm.weights);
  expect(best.step).toBe(2 * (losses.length - PATIENCE));
});
