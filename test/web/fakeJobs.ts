/** Jobs without any work, for tests of the page: what they do follows from their task. Drafts come where no prompts are given, or drafts are asked for beside them. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type JobTask, SpecializeJobs } from "../../src/specialize/jobs.ts";
import type { Specialization, SpecializeEvent } from "../../src/specialize/specialization.ts";

const evaluations = [0.83, 0.61, 0.52, 0.47, 0.45, 0.44].map((kl, i) => ({
  step: 10 * (i + 1),
  kl,
  agreement: 0.75 - kl / 4,
}));

export const jobResult: Specialization = {
  ...{ format: "ifprune-specialization", version: 1, ifprune: "0.1.0", created: "2026-11-29T12:00:00.000Z" },
  ...{ seconds: 1510, options: { keep: 0.5 } },
  model: { name: "SmolLM2-135M-Instruct", data: [{ name: "SmolLM2-135M-Instruct", licence: "Apache-2.0" }] },
  data: {
    ...{ name: "prompts.txt", licence: "unknown", prompts: { given: 304, drafted: 0 }, answers: "own" },
    ...{ train: 270, heldOut: 30, unanswered: 3, looping: 1, tooLong: 2, twice: 0 },
  },
  ...{ tFfn: 768, dFfn: 1536, parameters: { dense: 134_515_008, small: 94_700_000 } },
  reconstruction: { before: 0.31, after: 0.19 },
  ...{ before: { kl: 1.42, agreement: 0.46 }, after: { ...evaluations.at(-1)! } },
  perplexity: { dense: 3.1, small: 3.4 },
  training: { steps: 60, planned: 60, tokens: 60_000, evaluations },
  gold: { dense: { exact: 0.3, contains: 0.4 }, small: { exact: 0.27, contains: 0.37 } },
  bytes: { dense: 269e6, small: 190e6 },
  speed: {
    dense: { firstTokenMs: 210, tokensPerSecond: 31.4 },
    small: { firstTokenMs: 152, tokensPerSecond: 43.9 },
  },
  quantized: [],
  answers: [{ prompt: "How many films?", dense: "SELECT COUNT(*) FROM films", small: "SELECT COUNT(*) FROM film" }],
};

/** "unread" fails before its estimate, "fails" after it; "endless" trains until it is stopped; any other makes a model at once. */
async function* work({ out, options, until }: JobTask, signal: AbortSignal): AsyncGenerator<SpecializeEvent> {
  const { task = "", keep } = options;
  if (task === "unread") throw new Error("specialize: wanted at least 32 different prompts, got 2.");
  yield { kind: "progress", phase: "trial", done: 1, total: 3 };
  yield {
    kind: "estimate",
    estimate: {
      seconds: { answers: 240, tuning: 0, pruning: 95, healing: 1100, compare: 70 },
      ...{ totalSeconds: 1505, memoryBytes: 2.1e9, memoryAvailable: 5e9, diskBytes: 4.2e9, diskAvailable: 60e9 },
    },
  };
  mkdirSync(`${out}.job`, { recursive: true });
  if (until === "estimate") return;
  if (options.draft !== undefined || (options.prompts ?? options.examples) === undefined)
    yield { kind: "drafted", prompts: ["wolf", "child", "leaf"].map((word) => `${word}: ${task}`) };
  if (until === "drafted") return;
  yield { kind: "note", text: 'left out: 1 without an end or text:\n  "How?" → "" is empty' };
  if (task === "fails") throw new Error(`${out}.job: wanted about 4.2 GB free on its disk, got 1 GB.`);
  if (keep === "auto")
    for (const [i, share] of [0.75, 0.5].entries())
      yield { kind: "point", point: { tFfn: 1536 * share, keep: share, kl: 0.3 + 0.2 * i, agreement: 0.7 } };
  for (const { step, kl, agreement } of evaluations) {
    const row = { stage: "heal", step, examples: 30, exactMatch: {} };
    yield {
      ...{ kind: "row", run: "healed", totalSteps: 96 },
      row: { ...row, kind: "evaluation", loss: { dense: kl }, accuracy: { dense: agreement } },
    };
  }
  const step = {
    kind: "train",
    stage: "heal",
    step: 63,
    loss: 0.43,
    tokens: 900,
    labels: 500,
    positions: 1024,
  } as const;
  yield {
    ...{ kind: "row", run: "healed", totalSteps: 96 },
    row: { ...step, gradientNorm: 1, learningRate: {}, ms: 9 },
  };
  if (task === "endless")
    await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  mkdirSync(out);
  writeFileSync(join(out, "specialize.json"), JSON.stringify(jobResult));
  rmSync(`${out}.job`, { recursive: true });
}

/** In a folder that goes with them. */
export function fakeJobs(): SpecializeJobs {
  const root = mkdtempSync(join(tmpdir(), "ifprune-jobs-"));
  const jobs = new SpecializeJobs({ root, work });
  const end = jobs[Symbol.asyncDispose].bind(jobs);
  return Object.assign(jobs, {
    [Symbol.asyncDispose]: async () => {
      await end();
      rmSync(root, { recursive: true });
    },
  });
}
