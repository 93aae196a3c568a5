import { join } from "node:path";
import { beforeEach, expect, test, vi } from "vitest";
import { FakeEngines } from "../../test/support/fakeEngines.ts";
import { goldenModel, temporaryFolder, writeCheckpoint } from "../../test/support/models.ts";
import { Bundle } from "../bundle/bundle.ts";
import { packBundle } from "../bundle/packBundle.ts";
import { hasSubnetwork } from "../bundle/subnetworkCache.ts";
import { InputError, OptionError } from "../errors.ts";
import { fullMask } from "../mask/mask.ts";
import { answer } from "./answer.ts";

const prompt = Int32Array.of(1, 5);
const tokens = [7, 8, 9, 10];

let bundle: Bundle;
let engines: FakeEngines;
let cache: { root: string };
beforeEach(async () => {
  const folder = join(temporaryFolder(), "bundle");
  await packBundle(await writeCheckpoint(temporaryFolder(), goldenModel("llama")), folder, { type: "F32" });
  bundle = new Bundle(folder);
  engines = new FakeEngines(tokens);
  cache = { root: temporaryFolder() };
  return () => bundle[Symbol.dispose]();
});
const dense = () => fullMask(bundle.numLayers, bundle.ffnWidth);

test("an answer is the engine's, under the mask that was made for it; at its end the engine is closed", async () => {
  const run = await answer(engines, bundle, prompt, async () => dense(), { maxTokens: 3, cache });
  expect(run.mask).toEqual(dense());
  expect(engines.openPaths).toEqual([expect.stringContaining(cache.root)]);
  const said: number[] = [];
  for await (const token of run.tokens) said.push(token);
  expect(said).toEqual(tokens.slice(0, 3));
  expect(engines.openPaths).toEqual([]);
  for (const stage of ["predict", "gather", "load", "prefill", "decode"] as const)
    expect(run.ms[stage], stage).toBeGreaterThan(0);
});

test("an answer left early frees its model, and has decoded nothing", async () => {
  const run = await answer(engines, bundle, prompt, dense(), { maxTokens: 50, cache });
  for await (const token of run.tokens) if (token) break;
  await run[Symbol.asyncDispose]();
  expect(engines.openPaths).toEqual([]);
  expect(run.ms.prefill).toBeGreaterThan(0);
  expect(run.ms.decode).toBe(0);
});

test("a mask that cannot be made, and a prompt longer than the model reads, open nothing", async () => {
  const failing = () => Promise.reject(new OptionError("no mask"));
  await expect(answer(engines, bundle, prompt, failing, { maxTokens: 3, cache })).rejects.toThrow("no mask");
  const long = new Int32Array(bundle.contextLength).fill(5);
  await expect(answer(engines, bundle, long, dense(), { maxTokens: 3, cache })).rejects.toThrow(InputError);
  expect(engines.openPaths).toEqual([]);
});

test("how the engine runs and how it samples reach it whole, and what stops the answer stops the loading", async () => {
  const { signal } = new AbortController();
  const running = { threads: 1, kvType: "F32", gpu: false, force: true } as const;
  const sampling = { temperature: 0.5, topP: 0.9, topK: 3, minP: 0.1, seed: 7, logitBias: new Map([[3, 1]]) };
  const asked = { ...sampling, maxTokens: 3, repeatPenalty: 1.1, ignoreEos: true, schema: { type: "string" } };
  const open = vi.spyOn(engines, "open");
  await using run = await answer(engines, bundle, prompt, dense(), { ...running, ...asked, signal, cache });
  expect(open.mock.calls[0]![1]).toEqual({ ...running, signal, contextLength: 5, adapter: undefined });
  const generate = vi.spyOn(await open.mock.results[0]!.value, "generate");
  for await (const _ of run.tokens);
  expect(generate.mock.calls[0]).toEqual([prompt, { ...asked, signal }]);
});

test("an answer that is stopped while its sub-network is gathered leaves none", async () => {
  const stop = new AbortController();
  const onStage = (stage: string) => stage === "gather" && stop.abort(new Error("stopped"));
  const run = answer(engines, bundle, prompt, dense(), { maxTokens: 3, cache, onStage, signal: stop.signal });
  await expect(run).rejects.toThrow("stopped");
  expect(hasSubnetwork(bundle, dense(), cache)).toBe(false);
});
