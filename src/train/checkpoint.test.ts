import {
  appendFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { checkpointAt } from "../../test/kill/state.ts";
import { FileError } from "../errors.ts";
import { readManifest } from "../manifest.ts";
import {
  checkpointFolders,
  loadCheckpoint,
  loadLatestCheckpoint,
  loadModel,
  removeLeftovers,
  removeOlder,
  saveCheckpoint,
} from "./checkpoint.ts";

const folder = mkdtempSync(join(tmpdir(), "checkpoint-"));
let runs = 0;
/** A run's folder of its own, with checkpoints saved at these steps. */
async function newRun(...steps: number[]): Promise<string> {
  const run = join(folder, `run-${runs++}`);
  mkdirSync(run);
  for (const step of steps) await saveCheckpoint(run, checkpointAt(step));
  return run;
}
afterAll(() => rmSync(folder, { recursive: true }));

const stepNames = (run: string) => readdirSync(join(run, "checkpoints"));
const stepFolder = (run: string, step: number) => join(run, "checkpoints", `step-${String(step).padStart(6, "0")}`);

test("what is saved comes back bit for bit: weights, moments, running values", async () => {
  const run = await newRun(120);
  const saved = checkpointAt(120);
  for (const loaded of [await loadLatestCheckpoint(run), await loadCheckpoint(stepFolder(run, 120))]) {
    expect(loaded).toEqual(saved);
  }
  const { card, tokenizer, llm, predictor } = saved;
  for (const path of [run, stepFolder(run, 120)])
    expect(await loadModel(path)).toEqual({ card, tokenizer, llm, predictor });
});

test("every float32 that is not NaN survives, and every finite float64 among the running values, seed 5", async () => {
  const floats = fc.array(fc.float({ noNaN: true }), { minLength: 1, maxLength: 50 });
  const doubles = fc.array(fc.double({ noNaN: true, noDefaultInfinity: true }).map((x) => x + 0)); // JSON has no -0
  await fc.assert(
    fc.asyncProperty(floats, doubles, async (data, values) => {
      const run = await newRun();
      const tensors = { optimizer: new Map([["m", { shape: [data.length], data: Float32Array.from(data) }]]) };
      await saveCheckpoint(run, { ...checkpointAt(1), values, tensors });
      const loaded = (await loadLatestCheckpoint(run))!;
      const bits = (array: Float32Array) => [...new Uint32Array(array.buffer)];
      expect(bits(loaded.tensors.optimizer!.get("m")!.data)).toEqual(bits(Float32Array.from(data)));
      expect(loaded.values).toEqual(values);
    }),
    { seed: 5, numRuns: 15 },
  );
});

test("a model without a predictor is saved and read without one", async () => {
  const run = await newRun();
  const { predictor, ...dense } = checkpointAt(1);
  await saveCheckpoint(run, { ...dense, tensors: {} });
  expect(await loadLatestCheckpoint(run)).toEqual({ ...dense, tensors: {} });
  expect(readdirSync(stepFolder(run, 1)).sort()).toEqual(["ifprune.json", "llm", "state.json"]);
});

test("nothing is written, or removed, where a link leads to", async () => {
  const elsewhere = join(folder, "elsewhere");
  mkdirSync(elsewhere);
  writeFileSync(join(elsewhere, ".dotfile"), "kept");
  const linked = await newRun();
  symlinkSync(elsewhere, join(linked, "checkpoints"));
  expect(() => removeLeftovers(linked)).toThrow(/wanted to write here, got a link to elsewhere/);
  await expect(saveCheckpoint(linked, checkpointAt(1))).rejects.toThrow(/got a link to elsewhere/);

  const run = await newRun(1);
  for (const name of [".writing-step-000002", "step-000002", ".removing-step-000001"])
    symlinkSync(elsewhere, join(run, "checkpoints", name));
  await saveCheckpoint(run, checkpointAt(2));
  await saveCheckpoint(run, checkpointAt(3));
  expect(stepNames(run)).toEqual(["step-000002", "step-000003"]);
  expect(readdirSync(elsewhere)).toEqual([".dotfile"]);
});

test("a disk that takes no more is a FileError, and the checkpoint before it stays alone", async () => {
  const run = await newRun(1);
  const full = new Proxy(new Map(), {
    get: () => {
      throw Object.assign(new Error("no space left"), { code: "ENOSPC", syscall: "write" });
    },
  });
  const saving = saveCheckpoint(run, { ...checkpointAt(2), tensors: { full } });
  await expect(saving).rejects.toThrow(FileError);
  await expect(saving).rejects.toThrow(/step-000002: wanted room on its disk, got no more\. Make room\./);
  expect(stepNames(run)).toEqual(["step-000001"]);
});

test("a new run has no checkpoint", async () => {
  expect(await loadLatestCheckpoint(await newRun())).toBeUndefined();
  expect(await loadLatestCheckpoint(join(folder, "never made"))).toBeUndefined();
});

test("the newest two stay, in order of their steps, also across powers of ten", async () => {
  const run = await newRun(8, 9, 999_999, 1_000_000);
  expect(stepNames(run)).toEqual(["step-1000000", "step-999999"]);
  expect(checkpointFolders(run)).toEqual([stepFolder(run, 1_000_000), stepFolder(run, 999_999)]);
  expect((await loadLatestCheckpoint(run))?.step).toBe(1_000_000);
});

test("a damaged newest checkpoint is reported and passed over; going on from the one before clears it away", async () => {
  const run = await newRun(10, 20);
  truncateSync(join(stepFolder(run, 20), "llm/model.safetensors"), 100);
  const damaged: FileError[] = [];
  const latest = await loadLatestCheckpoint(run, (error) => damaged.push(error));
  expect(latest).toEqual(checkpointAt(10));
  expect(damaged.map(({ message }) => message)).toEqual([
    expect.stringMatching(/step-000020.*model\.safetensors: wanted \d+ bytes/),
  ]);
  await saveCheckpoint(run, checkpointAt(15));
  expect(stepNames(run)).toEqual(["step-000010", "step-000015"]);
  await saveCheckpoint(run, checkpointAt(20));
  expect(await loadLatestCheckpoint(run)).toEqual(checkpointAt(20));
});

test("a damaged checkpoint of the same step is replaced", async () => {
  const run = await newRun(10, 20);
  rmSync(join(stepFolder(run, 20), "state.json"));
  await saveCheckpoint(run, checkpointAt(20));
  expect(await loadCheckpoint(stepFolder(run, 20))).toEqual(checkpointAt(20));
  expect(stepNames(run)).toEqual(["step-000010", "step-000020"]);
});

test("a run whose checkpoints are all damaged is not begun anew in silence", async () => {
  const run = await newRun(10, 20);
  for (const step of [10, 20]) rmSync(join(stepFolder(run, step), "ifprune.json"));
  await expect(loadLatestCheckpoint(run)).rejects.toThrow(/wanted an intact checkpoint, got 2 damaged/);
});

test("leftovers of killed writers are no checkpoints, and are removed", async () => {
  const run = await newRun(10);
  cpSync(stepFolder(run, 10), join(run, "checkpoints/.writing-step-000020"), { recursive: true });
  cpSync(stepFolder(run, 10), join(run, "checkpoints/.removing-step-000005"), { recursive: true });
  expect((await loadLatestCheckpoint(run))?.step).toBe(10);
  removeLeftovers(run);
  expect(stepNames(run)).toEqual(["step-000010"]);
});

test("what a save that was killed at its end has not removed goes later; the newest, one before it, and newer damaged ones stay", async () => {
  const run = await newRun(40);
  for (const step of [10, 20, 30, 50]) cpSync(stepFolder(run, 40), stepFolder(run, step), { recursive: true });
  removeOlder(run, 40);
  expect(stepNames(run)).toEqual(["step-000030", "step-000040", "step-000050"]);
});

test("a save that fails leaves the older checkpoints and nothing half-written", async () => {
  const run = await newRun(10);
  const broken = { ...checkpointAt(20), values: { loss: Number.NaN } };
  await expect(saveCheckpoint(run, broken)).rejects.toThrow();
  expect(stepNames(run)).toEqual(["step-000010"]);
});

test("any file damaged in any way is found before it is used, seed 6", async () => {
  const run = await newRun(10);
  const original = stepFolder(run, 10);
  const files = Object.keys(readManifest(original, "ifprune-checkpoint").files);
  const damage = fc.record({
    file: fc.constantFrom(...files),
    kind: fc.constantFrom("cut", "grow", "flip", "remove"),
    at: fc.nat(),
  });
  await fc.assert(
    fc.asyncProperty(damage, async ({ file, kind, at }) => {
      const copy = join(folder, "damaged");
      rmSync(copy, { recursive: true, force: true });
      cpSync(original, copy, { recursive: true });
      const path = join(copy, file);
      const bytes = readFileSync(path);
      if (kind === "cut") truncateSync(path, at % bytes.length);
      else if (kind === "grow") appendFileSync(path, "x");
      else if (kind === "remove") rmSync(path);
      else {
        bytes[at % bytes.length]! ^= 1 << (at % 8);
        writeFileSync(path, bytes);
      }
      await expect(loadCheckpoint(copy)).rejects.toThrow(FileError);
      await expect(loadModel(copy)).rejects.toThrow(file.split("/").at(-1)!);
    }),
    { seed: 6, numRuns: 60 },
  );
});

test("what is neither a run nor a checkpoint is refused", async () => {
  const file = join(folder, "file");
  writeFileSync(file, "x");
  for (const path of [file, folder, join(folder, "none")]) {
    await expect(loadModel(path)).rejects.toThrow(FileError);
    await expect(loadCheckpoint(path)).rejects.toThrow(FileError);
  }
});
