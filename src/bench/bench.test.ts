import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { goldenModel, temporaryFolder, writeCheckpoint } from "../../test/support/models.ts";
import { packBundle } from "../bundle/packBundle.ts";
import { TINY_MODEL } from "../bundle/pulledModels.ts";
import { OptionError } from "../errors.ts";
import { ownTag } from "../processes.ts";
import { runBench, spread, VARIANTS } from "./bench.ts";
import { benchFigure, benchMarkdown } from "./benchReport.ts";

async function anyBundle(): Promise<string> {
  const folder = join(temporaryFolder(), "bundle");
  await packBundle(await writeCheckpoint(temporaryFolder(), goldenModel("llama")), folder, { type: "F16" });
  return folder;
}

test("every variant is measured in every round, and nothing is left on the disk, nor what a killed one left", async () => {
  const cache = temporaryFolder();
  process.env.XDG_CACHE_HOME = cache;
  const noProcess = ownTag().replace(String(process.pid), "4194305"); // Linux numbers them to 4194304
  mkdirSync(join(cache, "ifprune", "bench", `${noProcess}.killed`), { recursive: true });
  const steps: number[] = [];
  const result = await runBench(TINY_MODEL, {
    promptTokens: [5],
    answerTokens: 3,
    repeats: 2,
    threads: 1,
    onProgress: (done) => steps.push(done),
  });
  expect(readdirSync(join(cache, "ifprune", "bench"))).toEqual([]);
  const variants = Object.keys(VARIANTS);
  expect(steps.at(-1)).toBe(2 * variants.length);

  const wanted = variants.map((variant) => ({ variant, promptTokens: 5 }));
  const kinds = (list: typeof result.rows | typeof result.measurements) =>
    list.map(({ variant, promptTokens }) => ({ variant, promptTokens }));
  expect(kinds(result.rows)).toEqual(wanted);
  expect(kinds(result.measurements)).toHaveLength(2 * wanted.length);
  expect(kinds(result.measurements)).toEqual(expect.arrayContaining(wanted));
  expect(result).toMatchObject({ masks: "predictor", leftOut: [] });

  const stagesOf = (variant: string) =>
    Object.entries(result.measurements.find((one) => one.variant === variant)!.ms)
      .filter(([, ms]) => ms > 0)
      .map(([stage]) => stage);
  expect(Object.fromEntries(variants.map((variant) => [variant, stagesOf(variant)]))).toEqual({
    dense: ["load", "prefill"],
    shape: ["load", "prefill"],
    cold: ["predict", "gather", "load", "prefill"],
    cached: ["gather", "load", "prefill"],
    loaded: ["prefill"],
  });
  for (const { decodeTps, peakRss, bytesRead } of result.measurements) {
    expect(decodeTps).toBeGreaterThan(0);
    if (process.platform !== "linux") continue;
    expect(peakRss).toBeGreaterThan(1e6);
    expect(bytesRead).toBeGreaterThan(0);
  }
  for (const { bound, name } of result.ratios) {
    if (name.startsWith("decode speed")) expect(bound).toBeGreaterThanOrEqual(1);
    else if (name.startsWith("time")) expect(bound).toBeLessThan(1);
  }

  const markdown = benchMarkdown(JSON.parse(JSON.stringify(result)));
  for (const name of Object.values(VARIANTS)) expect(markdown).toContain(`| ${name} |`);
  const figure = benchFigure(result);
  for (const name of Object.values(VARIANTS)) expect(figure).toContain(name);
  expect(`${markdown}${figure}`).not.toMatch(/NaN|undefined|Infinity/);
}, 300_000); // five processes start llama.cpp, which takes a busy machine a minute

test("prompts that the model does not read, and a share beside a count, are refused", async () => {
  const bundle = await anyBundle();
  await expect(runBench(bundle, { promptTokens: [1000] })).rejects.toThrow(OptionError);
  await expect(runBench(bundle, { promptTokens: [5], answerTokens: 1 })).rejects.toThrow(OptionError);
  await expect(runBench(bundle, { tFfn: 4096 })).rejects.toThrow(OptionError);
  await expect(runBench(bundle, { keep: 0.5, tFfn: 32 })).rejects.toThrow("wanted keep or t_ffn, got both");
});

test("a spread is the median with the ends, of an odd or an even number", () => {
  expect(spread([3, 1, 2])).toEqual({ median: 2, min: 1, max: 3 });
  expect(spread([4, 1, 2, 3])).toEqual({ median: 2.5, min: 1, max: 4 });
});
