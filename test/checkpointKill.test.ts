/** Checkpoints survive `kill -9` inside any write: what is loaded afterwards is whole, and nothing acknowledged is lost. */
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Random } from "../src/random.ts";
import { loadLatestCheckpoint } from "../src/train/checkpoint.ts";
import { readRunLog } from "../src/train/runLog.ts";
import { expectKilledOrDone, type KilledRun, runKilled } from "./kill/kill.ts";
import { checkpointAt, rowAt } from "./kill/state.ts";

const STEPS = 4; // the third save is the first to remove an older one
const KILLS = 20;
const program = fileURLToPath(new URL("kill/checkpoints.ts", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "checkpoint-kill-"));
const run = (name: string) => join(folder, name);
afterAll(() => rmSync(folder, { recursive: true }));

let whole: KilledRun;
beforeAll(async () => {
  whole = await runKilled(program, [run("whole"), String(STEPS)], { under: run("whole") });
  expectKilledOrDone(whole);
});

describe(`killed inside one of all writes, ${KILLS} seeded moments`, () => {
  const random = new Random("kill moments");
  for (let kill = 0; kill < KILLS; kill++) {
    const at = random.float();
    test.concurrent(`at ${(100 * at).toFixed(1)} % of the writes`, async () => {
      const killAt = 1 + Math.floor(at * whole.calls.length);
      const dir = run(`kill-${kill}`);
      const killed = await runKilled(program, [dir, String(STEPS)], { under: dir, killAt });
      expect(killed.signal, killed.stderr).toBe("SIGKILL");

      const acknowledged = Number(killed.stdout.trim().split("\n").at(-1));
      const damaged: Error[] = [];
      const latest = await loadLatestCheckpoint(dir, (error) => damaged.push(error));
      expect(damaged).toEqual([]);
      expect(latest?.step ?? 0).toBeGreaterThanOrEqual(acknowledged);
      if (latest) expect(latest).toEqual({ ...checkpointAt(latest.step), metricsBytes: latest.metricsBytes });
    });
  }
});

test("a run that is killed again and again ends like one that never was", async () => {
  const dir = run("again");
  const random = new Random("killed again");
  for (let kill = 0; kill < 4; kill++) {
    const killed = await runKilled(program, [dir, String(STEPS)], {
      under: dir,
      killAt: 1 + random.int(whole.calls.length / 2),
    });
    expectKilledOrDone(killed);
  }
  expectKilledOrDone(await runKilled(program, [dir, String(STEPS)], { under: dir }));

  const [latest, uninterrupted] = [await loadLatestCheckpoint(dir), await loadLatestCheckpoint(run("whole"))];
  expect(latest).toEqual(uninterrupted);
  expect(latest?.step).toBe(STEPS);
  expect(readRunLog(join(dir, "metrics.jsonl"))).toEqual(Array.from({ length: STEPS }, (_, i) => rowAt(i + 1)));
  expect(readdirSync(join(dir, "checkpoints"))).toEqual(["step-000003", "step-000004"]); // no leftovers
});

test("every file and folder is synced before the checkpoint gets its name, and that name before older ones go", () => {
  const { calls } = whole;
  const renames = calls.flatMap(([name, path], i) => (name === "renameSync" && path.includes(".writing-") ? [i] : []));
  expect(renames).toHaveLength(STEPS);
  for (const [save, rename] of renames.entries()) {
    const temporary = calls[rename]![1];
    const before = calls.slice(save === 0 ? 0 : renames[save - 1]! + 1, rename);
    const written = before
      .filter(([name, path]) => name.startsWith("write") && path.startsWith(temporary))
      .map(([, path]) => path);
    expect(new Set(written).size).toBe(9); // two models with a config each, tokenizer, head, optimiser, state, manifest
    for (const path of new Set(written)) {
      const last = before.findLastIndex(([name, other]) => name.startsWith("write") && other === path);
      expect(
        before.slice(last).some(([name, other]) => name === "fsyncSync" && other === path),
        path,
      ).toBe(true);
      const synced = before.slice(last).some(([name, other]) => name === "fsyncSync" && other === dirname(path));
      expect(synced, `folder of ${path}`).toBe(true);
    }
    expect(calls[rename + 1]).toEqual(["fsyncSync", dirname(temporary)]);
  }
});
