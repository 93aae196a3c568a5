import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { shapes, writeCheckpointFolder } from "../../test/support/checkpoints.ts";
import { temporaryFolder } from "../../test/support/models.ts";
import { importModel } from "../bundle/importModel.ts";
import { loadModel, saveModel } from "../train/checkpoint.ts";
import { keepChannels } from "./cut.ts";
import { heal, healRecipe, PATIENCE } from "./heal.ts";
import type { SpecializeEvent } from "./specialization.ts";
import { jsonLines } from "./taskPrompts.ts";

/** A run whose loss jumps, the more the higher its rate. */
async function led(rate: number, { steps, every }: { steps: number; every: number }) {
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
      ...{ steps, every, rows: { train: "rows.jsonl", heldOut: "rows.jsonl" } },
      ...{ data: { name: "rows", licence: "CC0" }, seed: 1, threads: 1 },
    },
    at,
  );
  file.recipe.stages[0]!.learningRate.llm = rate;
  const healing = heal(file, at("run"), { threads: 1 });
  const events: SpecializeEvent[] = [];
  let next = await healing.next();
  for (; !next.done; next = await healing.next()) events.push(next.value);
  return { ...next.value, events, last: at("run") };
}

test("a run that gets no better in its last quarter ends, and what it gives is its best checkpoint", {
  timeout: 120_000,
}, async () => {
  const { best, evaluations, steps, last } = await led(1, { steps: 40, every: 2 });
  const losses = evaluations.map(({ loss }) => loss);
  expect(losses.indexOf(best!.loss)).toBe(losses.length - 1 - PATIENCE);
  expect(best!.loss).toBe(Math.min(...losses));
  expect([steps, steps < 40, steps >= 30]).toEqual([2 * losses.length, true, true]);
  expect((await loadModel(best!.path)).llm.weights).not.toEqual((await loadModel(last)).llm.weights);
  expect(best!.step).toBe(2 * (losses.length - PATIENCE));
});

test("a loss that rises while the rate is high ends nothing", { timeout: 120_000 }, async () => {
  const { evaluations, steps } = await led(10, { steps: 40, every: 2 });
  const losses = evaluations.map(({ loss }) => loss);
  expect(Math.min(...losses.slice(1, 6))).toBeGreaterThan(losses[0]!); // as many as would have ended it
  expect(steps).toBeGreaterThanOrEqual(30);
});

test("a run that diverges ends, and says so; before its first evaluation nothing of it is the best", {
  timeout: 120_000,
}, async () => {
  const { best, steps, events } = await led(1e30, { steps: 8, every: 8 });
  expect([best, steps]).toEqual([undefined, 0]);
  expect(events.at(-1)).toEqual({ kind: "note", text: expect.stringContaining("training diverged") });
});
