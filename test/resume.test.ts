/**
 * A training run that is killed at any moment and started again ends as if it had never been interrupted: same log but for
 * times, same checkpoint, bit for bit. On a recipe with every kind of stage, accumulated gradients and evaluations.
 */
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Random } from "../src/random.ts";
import { loadCheckpoint, loadLatestCheckpoint } from "../src/train/checkpoint.ts";
import { readRecipe } from "../src/train/recipe/read.ts";
import { trainRecipe } from "../src/train/run.ts";
import { readRunLog } from "../src/train/runLog.ts";
import { expectKilledOrDone, type KilledRun, runKilled } from "./kill/kill.ts";
import { type Remains, remainsOf, tinyRecipe, trainTiny } from "./kill/training.ts";
import { entry, ifprune } from "./support/cli.ts";

const recipe = tinyRecipe;
const tiny = dirname(recipe);
const steps = 20;
const minutes = (n: number) => n * 60_000;

const folder = mkdtempSync(join(tmpdir(), "ifprune-resume-"));
afterAll(() => rmSync(folder, { recursive: true }));

let whole: Remains;
let writes: KilledRun["calls"];
beforeAll(async () => {
  const run = await trainTiny(join(folder, "whole"));
  expectKilledOrDone(run);
  writes = run.calls;
  whole = await remainsOf(join(folder, "whole"));
  expect(whole.checkpoint.step).toBe(steps);
  expect(whole.rows.filter(({ kind }) => kind === "train")).toHaveLength(steps);
}, minutes(5));

const chains = 4;
const killsPerChain = 5;
/** At each kill: steps in the log, and whether a checkpoint was being written or removed. */
const kills: { step: number; inCheckpoint: boolean }[] = [];

for (let chain = 0; chain < chains; chain++) {
  test.concurrent(`killed ${killsPerChain} times, seed ${chain}`, { timeout: minutes(15) }, async () => {
    const runs = join(folder, `chain-${chain}`);
    const random = new Random(`kill ${chain}`);
    for (let kill = 0; kill < killsPerChain; kill++) {
      // Most writes are a checkpoint's, so every other kill is inside one of the log's: in a step, as far as the disk can tell.
      const under = kill % 2 === chain % 2 ? "" : "metrics.jsonl";
      const saved = Number(checkpointsOf(runs).at(-1)?.replace("step-", "") ?? 0);
      const writesLeft = writes.filter(([, path]) => path.includes(under)).length * (1 - saved / steps);
      const { signal, stderr } = await trainTiny(runs, {
        under,
        killAt: 1 + random.int(Math.max(1, Math.floor(0.5 * writesLeft))),
      });
      expect(signal, stderr).toBe("SIGKILL");
      kills.push(stateOf(runs));
    }
    expectKilledOrDone(await trainTiny(runs));
    expect(await remainsOf(runs)).toEqual(whole);
  });
}

function stateOf(runs: string): (typeof kills)[number] {
  const log = join(runs, "tiny/metrics.jsonl");
  const rows = existsSync(log) ? readRunLog(log) : [];
  const step = rows.reduce((last, row) => (row.kind === "train" ? row.step : last), 0);
  return { step, inCheckpoint: checkpointsOf(runs).some((name) => name.startsWith(".")) };
}

/** Names of checkpoints; those that begin with "." are being written or removed. */
function checkpointsOf(runs: string): string[] {
  const folder = join(runs, "tiny/checkpoints");
  return existsSync(folder) ? readdirSync(folder).sort() : [];
}

test("the kills came over the whole run, both inside checkpoint writing and between", () => {
  expect(kills).toHaveLength(chains * killsPerChain);
  expect(kills.filter(({ inCheckpoint }) => inCheckpoint).length).toBeGreaterThanOrEqual(5);
  expect(kills.filter(({ inCheckpoint }) => !inCheckpoint).length).toBeGreaterThanOrEqual(5);
  for (const [first, last] of [
    [0, 4],
    [5, 8],
    [9, 12],
    [13, 20],
  ] as const) {
    expect(
      kills.some(({ step }) => first <= step && step <= last),
      `steps ${first} to ${last}`,
    ).toBe(true);
  }
});

test("Ctrl-C saves, exits as interrupted, and the same command goes on", { timeout: minutes(10) }, async () => {
  const runs = join(folder, "interrupted");
  const args = ["train", recipe, "--runs", runs];
  const log = join(runs, "tiny/metrics.jsonl");
  const stopped = await runKilled(entry, args, { under: log, killAt: 6, by: "SIGINT" }); // after some steps
  expect(stopped.code, stopped.stderr).toBe(130);
  expect(stopped.calls.length).toBeGreaterThanOrEqual(6); // else it would not have been interrupted
  const step = Number(/stopped and saved at step (\d+) of 20; the same command goes on/.exec(stopped.stderr)?.[1]);
  expect((await loadLatestCheckpoint(join(runs, "tiny")))?.step).toBe(step);
  expect(step).toBeLessThan(steps);

  const { tokenizer, ...json } = JSON.parse(readFileSync(recipe, "utf8"));
  const next = join(folder, "next");
  cpSync(tiny, next, { recursive: true });
  writeFileSync(
    join(next, "recipe.json"),
    JSON.stringify({ ...json, name: "next", init: { run: join(runs, "tiny") } }),
  );
  const refused = await ifprune(["train", join(next, "recipe.json"), "--runs", next]);
  expect(refused.code).toBe(1);
  expect(refused.stderr).toContain(
    `"init": wanted a run that has come to its end, got "${join(runs, "tiny")}", which is at step ${step}.`,
  );

  const resumed = await ifprune(args);
  expect(resumed.code, resumed.stderr).toBe(0);
  expect(resumed.stderr).toContain(`resuming ${join(runs, "tiny")} at step ${step} of 20`);
  const { files, ...rest } = await remainsOf(runs);
  const { files: _, ...wanted } = whole;
  expect(rest).toEqual(wanted); // its second newest checkpoint may be of another step
});

test("a finished run stays as it is", async () => {
  const runDir = join(folder, "whole/tiny");
  const before = readFileSync(join(runDir, "metrics.jsonl"));
  const events = [];
  for await (const event of trainRecipe(readRecipe(recipe), { runDir, threads: 1 })) events.push(event);
  expect(events).toEqual([{ kind: "resumed", step: steps }]);
  expect(readFileSync(join(runDir, "metrics.jsonl"))).toEqual(before);
});

test("a changed recipe is refused, with the key that changed", async () => {
  const file = readRecipe(recipe);
  const changed = structuredClone(file.recipe);
  changed.stages[3]!.learningRate.llm = 0.5;
  const run = trainRecipe({ ...file, recipe: changed }, { runDir: join(folder, "whole/tiny"), threads: 1 });
  await expect(run.next()).rejects.toThrow(
    "resume: wanted the recipe that the run began with, got changes of stages[3].learningRate.llm (0.004 → 0.5).",
  );
  expect(await remainsOf(join(folder, "whole"))).toEqual(whole);
});

test("a diverging run stops with an error and keeps its last good checkpoint", async () => {
  const copy = join(folder, "diverging");
  cpSync(tiny, copy, { recursive: true });
  const json = JSON.parse(readFileSync(recipe, "utf8"));
  Object.assign(json.stages[2], { learningRate: { llm: 1e6, predictor: 1e6 }, clipNorm: 1e9, steps: 40 });
  json.checkpointEvery = 8; // the last step of the stage before
  writeFileSync(join(copy, "recipe.json"), JSON.stringify(json));

  const { code, stderr } = await ifprune(["train", join(copy, "recipe.json"), "--runs", copy]);
  expect(code).toBe(1);
  const [, kept] =
    /^ifprune: training: wanted a .+, got .+\. The last good checkpoint is kept: (.+)\. Try a lower learning rate/m.exec(
      stderr,
    ) ?? [];
  expect(kept, stderr).toBe(join(copy, "tiny/checkpoints/step-000008"));
  const { step, llm } = await loadCheckpoint(kept!);
  expect(step).toBe(8);
  for (const { data } of llm.weights.values()) expect(data.every(Number.isFinite)).toBe(true);
});
