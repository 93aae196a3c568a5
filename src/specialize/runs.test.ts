/** A run gives the model as it was before where training made it no better, and says so. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { shapes, writeCheckpointFolder } from "../../test/support/checkpoints.ts";
import { importModel } from "../bundle/importModel.ts";
import { loadModel } from "../train/checkpoint.ts";
import type { cutModel } from "./cut.ts";
import { JobFolder } from "./jobFolder.ts";
import { cutAndHeal, distanceOf, type RunSetting, tune } from "./runs.ts";
import type { SpecializeEvent } from "./specialization.ts";
import { jsonLines } from "./taskPrompts.ts";

const folder = mkdtempSync(join(tmpdir(), "ifprune-runs-"));
afterAll(() => rmSync(folder, { recursive: true }));
const dense = join(folder, "dense");

beforeAll(async () => {
  const { config, ...shape } = shapes.SmolLM2!;
  await writeCheckpointFolder(join(folder, "source"), { ...shape, config: { ...config, contextLength: 64 } });
  await importModel(join(folder, "source"), dense, { as: "checkpoint" });
}, 60_000);

/** A run that is asked about other answers than it learns. */
async function ended<T>(name: string, run: (setting: RunSetting) => AsyncGenerator<SpecializeEvent, T>) {
  using job = new JobFolder(join(folder, `${name}.job`), {});
  const rows = (output: string) => ["a", "b", "c", "d"].map((input) => ({ instruction: "Say", input, output }));
  writeFileSync(job.at("train.jsonl"), jsonLines(rows("x".repeat(16))));
  writeFileSync(job.at("heldout.jsonl"), jsonLines(rows("never learned")));
  const data = { name: "rows", licence: "CC0" };
  const parts = { train: "train.jsonl", heldOut: "heldout.jsonl" };
  const setting = { job, dense, data, rows: parts, shape: { T: 64, B: 2 }, seed: 1, threads: 1, signal: undefined };
  const running = run(setting);
  const events: SpecializeEvent[] = [];
  let next = await running.next();
  for (; !next.done; next = await running.next()) events.push(next.value);
  return { came: next.value, events, model: await loadModel(job.at(name)) };
}

/** What people see of it, and that its weights are those of before. */
function expectAsBefore({ events, model }: Omit<Awaited<ReturnType<typeof ended>>, "came">, before: typeof model) {
  const steps = events.flatMap((event) =>
    event.kind === "row" && event.row.kind === "evaluation" ? [event.row.step] : [],
  );
  expect(steps).toEqual([0, 2, 4]);
  expect(events).toContainEqual({ kind: "note", text: expect.stringContaining("taken as it was before, at step 0") });
  expect(model.llm.weights).toEqual(before.llm.weights);
}

test("a cut model that is as good as the whole one is not healed worse", { timeout: 120_000 }, async () => {
  const cutNothing: typeof cutModel = async (model) => ({ model });
  const length = { tFfn: 96, steps: 4, every: 2 };
  const { came, ...seen } = await ended("healed", (setting) => cutAndHeal("healed", length, setting, cutNothing));
  const { best, evaluations } = came.healed;
  expect([distanceOf(best), evaluations[0]]).toEqual([{ step: 0, ...came.cut.before }, best]);
  expect(evaluations[1]!.loss).toBeGreaterThan(best.loss);
  expectAsBefore(seen, await loadModel(dense));
});

test("a whole model that right answers made worse on held-out ones stays as it came", {
  timeout: 120_000,
}, async () => {
  const { came, ...seen } = await ended("tuned", (setting) => tune("tuned", { steps: 4, every: 2 }, setting));
  expect([came.best.step, came.evaluations.length]).toEqual([0, 3]);
  expect(came.evaluations[2]!.loss).toBeGreaterThan(came.best.loss);
  expectAsBefore(seen, await loadModel(dense));
});
