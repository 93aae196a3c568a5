/**
 * What instruction-following pruning costs and saves on this machine: the dense model, an ordinary model of the sub-network's shape, and the
 * sub-network itself, by the same llama.cpp, in turns. Every variant has a process of its own; only one of them works at a time.
 *
 * Shapes: D model width · K kept FFN width (t_ffn) · L layers · H query heads · G key/value heads · C head width · V vocabulary · T prompt tokens
 */
import { type ChildProcess, fork } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { cpus, loadavg, totalmem } from "node:os";
import { basename, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { DEFAULT_ENGINES } from "../answer/defaultEngines.ts";
import type { Budget } from "../bundle/budget.ts";
import { Bundle } from "../bundle/bundle.ts";
import { cacheRoot, makeCacheFolder } from "../bundle/cacheFolder.ts";
import { bytesPerToken, estimate, readStoredModel } from "../bundle/estimate.ts";
import { checkMemory } from "../bundle/memory.ts";
import { openSubnetwork } from "../bundle/subnetworkCache.ts";
import { OptionError } from "../errors.ts";
import { exportSubnetwork } from "../export/export.ts";
import { ggufFileName } from "../export/exportManifest.ts";
import { fullMask, type Mask } from "../mask/mask.ts";
import { median } from "../median.ts";
import type { ModelConfig } from "../model/config.ts";
import { isLocalLayer } from "../model/families.ts";
import { type Given, readNumbers } from "../options.ts";
import { isLeftBy, ownModule, ownTag } from "../processes.ts";
import { BENCH_OPTIONS, PROMPT_LENGTHS } from "./benchOptions.ts";
import { fixedMask, type Job, type Measurement, type Run } from "./job.ts";

export const VARIANTS = {
  dense: "dense source",
  shape: "dense model of the activated shape",
  cold: "sub-network, cold mask",
  cached: "sub-network, cached mask",
  loaded: "sub-network, loaded",
} as const;
export type Variant = keyof typeof VARIANTS;
const variants = Object.keys(VARIANTS) as Variant[];

export interface BenchOptions extends Given<typeof BENCH_OPTIONS>, Budget {
  /** Prompt lengths in tokens. Default: those of {@link PROMPT_LENGTHS} that the model reads. */
  promptTokens?: readonly number[] | undefined;
  signal?: AbortSignal | undefined;
  /** Measurements done, of all, and what comes next. */
  onProgress?: ((done: number, total: number, next: string) => void) | undefined;
}

/** Over the rounds. */
export interface Spread {
  median: number;
  min: number;
  max: number;
}

export interface BenchRow {
  variant: Variant;
  promptTokens: number;
  ttftMs: Spread;
  predictMs: Spread;
  gatherMs: Spread;
  loadMs: Spread;
  prefillMs: Spread;
  prefillTps: Spread;
  decodeTps: Spread;
  peakRss: Spread | null;
  bytesRead: Spread | null;
}

/** One variant by another, within each round. */
export interface BenchRatio {
  name: string;
  promptTokens: number;
  ratio: Spread;
  /** What bytes or arithmetic allow. */
  bound: number;
  /** A goal and whether the median keeps it; null where there is none. */
  goal: { wanted: string; isMet: boolean } | null;
}

export interface BenchResult {
  format: "ifprune-bench";
  version: 1;
  created: string;
  model: {
    name: string;
    family: string;
    layers: number;
    width: number;
    ffnWidth: number;
    tFfn: number;
    vocabSize: number;
    types: string[];
  };
  machine: {
    cpu: string;
    cores: number;
    /** Of every step; null: as many as the engine takes where nobody says. */
    threads: number | null;
    memory: number;
    platform: string;
    node: string;
    /** Processes that wanted to run when the benchmark began, on average of a minute: above 0 the machine had other work. 0 on Windows. */
    load: number;
  };
  /** Name, version and build. */
  engine: string;
  /** Files were read or written shortly before: what is measured is not the disk. */
  pageCache: "warm";
  /** Where the masks of the cold variant come from. */
  masks: "predictor" | "random";
  answerTokens: number;
  repeats: number;
  /** Prompt lengths of the default that the model does not read. */
  leftOut: number[];
  /** Of the weights. */
  bytes: { dense: number; subnetwork: number };
  rows: BenchRow[];
  ratios: BenchRatio[];
  measurements: (Measurement & { variant: Variant; promptTokens: number; round: number })[];
}

/**
 * Measures a bundle. Takes disk space for the dense model and two sub-networks in the cache folder, which is given back.
 *
 * @throws {OptionError} if an option does not suit the model
 * @throws {FileError} if the bundle is damaged
 * @throws {MemoryError} if the dense model does not fit into memory
 */
export async function runBench(path: string, options: BenchOptions = {}): Promise<BenchResult> {
  const { signal, onProgress } = options;
  const { answerTokens, repeats, threads } = readNumbers("bench", BENCH_OPTIONS, options);
  using bundle = new Bundle(path);
  const stored = readStoredModel(path);
  const { config } = bundle;
  const { keep, maxLoss, tFfn: given } = options;
  const { dense, subnetwork, tFfn } = estimate(stored, { keep, maxLoss, tFfn: given });
  const longest = config.contextLength - answerTokens;
  const wanted = [...new Set(options.promptTokens ?? PROMPT_LENGTHS)].sort((a, b) => a - b);
  const lengths = options.promptTokens ? wanted : wanted.filter((length) => length <= longest);
  const tooLong = lengths.find((length) => length > longest);
  if (tooLong !== undefined || lengths.length === 0) {
    throw new OptionError(
      `bench: wanted prompts of at most ${longest} tokens beside ${answerTokens} of answer, got ${tooLong ?? wanted[0]}. Use shorter ones.`,
    );
  }
  if (answerTokens < 2) throw new OptionError(`bench: wanted answers of at least 2 tokens, got ${answerTokens}.`);
  checkMemory(dense.total + subnetwork.total, "the dense model beside a loaded sub-network");
  const masks = bundle.predictor ? "predictor" : "random";

  const load = loadavg()[0]!;
  const root = cacheRoot("bench");
  makeCacheFolder(root);
  removeAbandoned(root);
  const folder = mkdtempSync(join(root, `${ownTag()}.`));
  const workers = new Map<Variant, ChildProcess>();
  try {
    const runs = await prepare(bundle, tFfn, folder, lengths.at(-1)! + answerTokens, masks, signal);
    for (const variant of variants) workers.set(variant, startWorker());
    const measure = (variant: Variant, seed: string, promptTokens: number, tokens: number) => {
      const job = { run: runs[variant], seed, promptTokens, answerTokens: tokens, threads };
      return ask(workers.get(variant)!, job, signal);
    };
    for (const variant of variants) await measure(variant, "warm", lengths[0]!, 2); // starts llama.cpp, fills the page cache
    const measurements: BenchResult["measurements"] = [];
    const total = repeats * lengths.length * variants.length;
    for (let round = 0; round < repeats; round++) {
      for (const promptTokens of lengths) {
        for (const i of variants.keys()) {
          const variant = variants[(i + round) % variants.length]!; // in turns, each first once
          if (measurements.length > 0)
            onProgress?.(measurements.length, total, `${VARIANTS[variant]}, ${promptTokens} tokens`);
          const measurement = await measure(variant, `${round}/${promptTokens}`, promptTokens, answerTokens);
          measurements.push({ variant, promptTokens, round, ...measurement });
        }
      }
    }
    onProgress?.(total, total, "");
    const bytesAt = (K: number, promptTokens: number) =>
      bytesPerToken(stored, K, promptTokens + answerTokens / 2, "F16");
    const bounds = (promptTokens: number) => ({
      bytes: bytesAt(config.ffnWidth, promptTokens) / bytesAt(tFfn, promptTokens),
      arithmetic: prefillFlops(config, config.ffnWidth, promptTokens) / prefillFlops(config, tFfn, promptTokens),
    });
    const engine = await DEFAULT_ENGINES.describe();
    return {
      format: "ifprune-bench",
      version: 1,
      created: new Date().toISOString(),
      model: {
        name: basename(resolve(path)),
        family: config.family,
        layers: config.numLayers,
        width: config.width,
        ffnWidth: config.ffnWidth,
        tFfn,
        vocabSize: config.vocabSize,
        types: [...new Set(bundle.layouts.flatMap(({ gate, up, down }) => [gate, up, down]))],
      },
      machine: {
        cpu: cpus()[0]?.model ?? "unknown",
        cores: cpus().length,
        threads: threads ?? null,
        memory: totalmem(),
        platform: `${process.platform} ${process.arch}`,
        node: process.version,
        load,
      },
      engine: `${engine.name}. ${engine.processor}`,
      pageCache: "warm",
      masks,
      answerTokens,
      repeats,
      leftOut: wanted.filter((length) => !lengths.includes(length)),
      bytes: { dense: dense.shared + dense.ffn, subnetwork: subnetwork.shared + subnetwork.ffn },
      rows: lengths.flatMap((promptTokens) => variants.map((variant) => row(measurements, variant, promptTokens))),
      ratios: lengths.flatMap((promptTokens) => ratios(measurements, promptTokens, bounds(promptTokens))),
      measurements,
    };
  } finally {
    await Promise.all([...workers.values()].map(stopWorker));
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Removes what killed benchmarks left: folders are named after their process. */
function removeAbandoned(root: string): void {
  for (const name of readdirSync(root))
    if (isLeftBy(name.slice(0, name.lastIndexOf(".")))) rmSync(join(root, name), { recursive: true, force: true });
}

/** Writes what the variants run. */
async function prepare(
  bundle: Bundle,
  tFfn: number,
  folder: string,
  contextLength: number,
  masks: "predictor" | "random",
  signal: AbortSignal | undefined,
): Promise<Record<Variant, Run>> {
  const write = async (name: string, mask: Mask) => {
    await exportSubnetwork(bundle, mask, join(folder, name), { formats: ["gguf"], signal });
    return join(folder, name, ggufFileName("keep"));
  };
  const mask = fixedMask(bundle, tFfn);
  const dense = await write("dense", fullMask(bundle.numLayers, bundle.ffnWidth));
  const shape = await write("shape", mask);
  const root = join(folder, "cache");
  mkdirSync(root);
  const { path } = await openSubnetwork(bundle, mask, { root });
  const given = { bundle: resolve(bundle.path), tFfn, root };
  return {
    dense: { kind: "model", path: dense },
    shape: { kind: "model", path: shape },
    cold: { kind: "cold", ...given, masks },
    cached: { kind: "cached", ...given },
    loaded: { kind: "loaded", path, contextLength },
  };
}

function startWorker(): ChildProcess {
  const { url, execArgv } = ownModule("worker", import.meta.url);
  return fork(fileURLToPath(url), { execArgv });
}

/** Lets a worker measure. Aborting ends it. */
function ask(worker: ChildProcess, job: Job, signal: AbortSignal | undefined): Promise<Measurement> {
  signal?.throwIfAborted();
  return new Promise((resolve, reject) => {
    const abort = () => done(() => reject(signal!.reason as Error));
    const exit = (code: number | null, by: string | null) =>
      done(() =>
        reject(new Error(`bench: wanted a measurement, got a process that ended by ${by ?? `code ${code}`}.`)),
      );
    const message = (answer: { measurement: Measurement } | { error: string }) =>
      done(() => ("error" in answer ? reject(new Error(answer.error)) : resolve(answer.measurement)));
    const done = (settle: () => void) => {
      worker.off("message", message).off("exit", exit);
      signal?.removeEventListener("abort", abort);
      settle();
    };
    worker.on("message", message).on("exit", exit);
    signal?.addEventListener("abort", abort);
    worker.send(job);
  });
}

function stopWorker(worker: ChildProcess): Promise<void> {
  if (worker.exitCode !== null || worker.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    worker.once("exit", () => resolve());
    worker.kill("SIGKILL"); // it holds nothing but memory
  });
}

/** Multiplications and additions of reading a prompt: matrices, attention, and the output matrix for the last token. */
function prefillFlops(config: ModelConfig, K: number, T: number): number {
  const { width: D, numLayers: L, numHeads: H, numKvHeads: G, headWidth: C, vocabSize: V, slidingWindow } = config;
  const matrices = T * L * (2 * D * H * C + 2 * D * G * C + 3 * D * K);
  let pairs = 0; // of a token and one that it sees
  for (let layer = 0; layer < L; layer++) {
    const window = isLocalLayer(config, layer) && slidingWindow ? Math.min(T, slidingWindow) : T;
    pairs += (window * (window + 1)) / 2 + (T - window) * window;
  }
  return 2 * (matrices + D * V + pairs * 2 * H * C);
}

export function spread(values: readonly number[]): Spread {
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) };
}

function row(measurements: BenchResult["measurements"], variant: Variant, promptTokens: number): BenchRow {
  const own = measurements.filter((one) => one.variant === variant && one.promptTokens === promptTokens);
  const over = (of: (measurement: Measurement) => number) => spread(own.map(of));
  const known = (values: readonly (number | null)[]) =>
    values.every((value) => value !== null) ? spread(values as number[]) : null;
  return {
    variant,
    promptTokens,
    ttftMs: over(({ ttftMs }) => ttftMs),
    predictMs: over(({ ms }) => ms.predict),
    gatherMs: over(({ ms }) => ms.gather),
    loadMs: over(({ ms }) => ms.load),
    prefillMs: over(({ ms }) => ms.prefill),
    prefillTps: over(({ ms }) => (1000 * promptTokens) / ms.prefill),
    decodeTps: over(({ decodeTps }) => decodeTps),
    peakRss: known(own.map(({ peakRss }) => peakRss)),
    bytesRead: known(own.map(({ bytesRead }) => bytesRead)),
  };
}

/** Prompts from which on a cold mask must pay. */
const coldGoalTokens = 512;

function ratios(
  measurements: BenchResult["measurements"],
  promptTokens: number,
  bounds: { bytes: number; arithmetic: number },
): BenchRatio[] {
  const own = measurements.filter((one) => one.promptTokens === promptTokens);
  const of = (variant: Variant, value: (measurement: Measurement) => number) =>
    own
      .filter((one) => one.variant === variant)
      .sort((a, b) => a.round - b.round)
      .map(value);
  const between = (top: readonly number[], bottom: readonly number[]) =>
    spread(top.map((value, round) => value / bottom[round]!));
  const decode = ({ decodeTps }: Measurement) => decodeTps;
  const prefill = ({ ms }: Measurement) => 1 / ms.prefill;
  const ttft = ({ ttftMs }: Measurement) => ttftMs;
  const goal = (wanted: string, isMet: boolean) => ({ wanted, isMet });
  const sameShape = between(of("cached", decode), of("shape", decode));
  const coldTtft = between(of("cold", ttft), of("dense", ttft));
  const coldLoaded = between(
    of("cold", ttft),
    of("dense", ({ ms }) => ms.prefill),
  );
  return [
    {
      name: "decode speed: sub-network / dense model of its shape",
      promptTokens,
      ratio: sameShape,
      bound: 1,
      goal: goal("≥ 0.97", sameShape.median >= 0.97),
    },
    {
      name: "decode speed: sub-network / dense source",
      promptTokens,
      ratio: between(of("cached", decode), of("dense", decode)),
      bound: bounds.bytes,
      goal: null,
    },
    {
      name: "prefill speed: sub-network / dense source",
      promptTokens,
      ratio: between(of("cached", prefill), of("dense", prefill)),
      bound: bounds.arithmetic,
      goal: null,
    },
    {
      name: "time to first token: cold mask / dense source",
      promptTokens,
      ratio: coldTtft,
      bound: 1 / bounds.arithmetic,
      goal: promptTokens >= coldGoalTokens ? goal("< 1", coldTtft.median < 1) : null,
    },
    {
      name: "time to first token: cold mask / dense source that is loaded already",
      promptTokens,
      ratio: coldLoaded,
      bound: 1 / bounds.arithmetic,
      goal: null,
    },
    {
      name: "time to first token: cached mask / dense source",
      promptTokens,
      ratio: between(of("cached", ttft), of("dense", ttft)),
      bound: 1 / bounds.arithmetic,
      goal: null,
    },
  ];
}
