/** A process of `bench`: it measures one variant, so that its peak memory is the variant's own. Takes {@link Job}s and sends back their {@link Measurement}. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DEFAULT_ENGINES as engines } from "../answer/defaultEngines.ts";
import { InstructionModel } from "../answer/instructionModel.ts";
import { Bundle } from "../bundle/bundle.ts";
import { openSubnetwork } from "../bundle/subnetworkCache.ts";
import type { Engine } from "../engine/engine.ts";
import { GgufFile } from "../formats/gguf.ts";
import { modelNumber } from "../formats/ggufModel.ts";
import { randomMask } from "../mask/baselines.ts";
import { type Mask, maskFromScores } from "../mask/mask.ts";
import { Random } from "../random.ts";
import { fixedMask, type Job, type Measurement, type Run } from "./job.ts";

engines.start(); // a second or two, in all processes at once

let loaded: Engine | undefined;

async function measure({ run, seed, promptTokens, answerTokens, threads }: Job): Promise<Measurement> {
  await engines.start();
  using bundle = run.kind === "cached" || run.kind === "cold" ? new Bundle(run.bundle) : undefined;
  const source = run.kind === "cold" ? await maskSource(bundle!, run, seed) : undefined;
  const cold = run.kind === "cold" ? mkdtempSync(join(run.root, "cold-")) : undefined;
  if (run.kind === "loaded") loaded ??= await engines.open(run.path, { contextLength: run.contextLength, threads });
  const vocabSize = run.kind === "model" || run.kind === "loaded" ? vocabularyOf(run.path) : bundle!.config.vocabSize;
  const ids = promptIds(seed, promptTokens, vocabSize);

  const ms: Measurement["ms"] = { predict: 0, gather: 0, load: 0, prefill: 0 };
  const timed = async <T>(stage: keyof typeof ms, work: () => Promise<T>): Promise<T> => {
    const start = performance.now();
    const result = await work();
    ms[stage] += performance.now() - start;
    return result;
  };
  const open = async (path: string) => {
    const options = { contextLength: promptTokens + answerTokens, threads };
    return timed("load", () => engines.open(path, options));
  };
  resetPeak();
  const readBefore = bytesRead();
  try {
    let engine: Engine;
    switch (run.kind) {
      case "model":
        engine = await open(run.path);
        break;
      case "loaded":
        engine = loaded!;
        break;
      case "cached": {
        const mask = fixedMask(bundle!, run.tFfn);
        engine = await open((await timed("gather", () => openSubnetwork(bundle!, mask, { root: run.root }))).path);
        break;
      }
      case "cold": {
        const mask = run.masks === "predictor" ? await timed("predict", () => source!(ids)) : await source!(ids);
        engine = await open((await timed("gather", () => openSubnetwork(bundle!, mask, { root: cold! }))).path);
        break;
      }
      default:
        throw new Error(`internal: ${run satisfies never}`);
    }
    const tokens = engine.generate(ids, { maxTokens: answerTokens, ignoreEos: true });
    await timed("prefill", () => tokens.next());
    const start = performance.now();
    let count = 0;
    for await (const _ of tokens) count++;
    const decodeTps = (1000 * count) / (performance.now() - start);
    const measured = { peakRss: peakRss(), bytesRead: bytesSince(readBefore) };
    if (run.kind !== "loaded") await engine[Symbol.asyncDispose]();
    return { ms, ttftMs: ms.predict + ms.gather + ms.load + ms.prefill, decodeTps, ...measured };
  } finally {
    if (cold) rmSync(cold, { recursive: true });
  }
}

function vocabularyOf(path: string): number {
  using file = new GgufFile(path);
  return modelNumber(file, "vocab_size");
}

function promptIds(seed: string, length: number, vocabSize: number): Int32Array {
  const random = new Random(`${seed}/prompt`);
  return Int32Array.from({ length }, () => random.int(vocabSize));
}

/** The mask of a prompt. Loading the predictor is part of it; a random mask is drawn beforehand. */
async function maskSource(
  bundle: Bundle,
  { masks, tFfn }: Extract<Run, { kind: "cold" }>,
  seed: string,
): Promise<(ids: Int32Array) => Promise<Mask>> {
  const { numLayers, ffnWidth: dFfn, predictor } = bundle;
  if (masks === "random") {
    const mask = randomMask({ numLayers, dFfn, tFfn }, 1, seed);
    return async () => mask;
  }
  const model = new InstructionModel(bundle.path);
  const { backbone } = predictor!;
  using file = backbone === undefined ? undefined : new GgufFile(backbone);
  const contextLength = file ? modelNumber(file, "context_length") : bundle.contextLength;
  const mostTokens = Math.floor(contextLength / 4); // random tokens may take more when they are text
  return async (ids) => {
    await using open = await model.openSource({ source: "predictor" });
    const text = model.tokenizer.decode(ids.subarray(0, mostTokens));
    const { scores } = await open.scores({ text, ids });
    return maskFromScores(scores, { dFfn, tFfn, epsilon: open.epsilon });
  };
}

/** Linux: forgets the peak so far. Where it may not, the peak is that of all jobs so far, of which the longest prompts come last. */
function resetPeak(): void {
  try {
    writeFileSync("/proc/self/clear_refs", "5");
  } catch {}
}

function readNumber(path: string, pattern: RegExp): number | null {
  try {
    return Number(pattern.exec(readFileSync(path, "utf8"))![1]);
  } catch {
    return null;
  }
}

function peakRss(): number | null {
  const kilobytes = readNumber("/proc/self/status", /^VmHWM:\s+(\d+) kB$/m);
  return kilobytes === null ? null : kilobytes * 1024;
}

const bytesRead = () => readNumber("/proc/self/io", /^rchar: (\d+)$/m);

function bytesSince(before: number | null): number | null {
  const now = bytesRead();
  return now === null || before === null ? null : now - before;
}

process.on("message", (job: Job) => {
  measure(job).then(
    (measurement) => process.send!({ measurement }),
    (error: Error) => process.send!({ error: error.message, stack: error.stack }),
  );
});
