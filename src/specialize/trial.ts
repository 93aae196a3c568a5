/** What a job will take on this machine: bytes by its shapes, and seconds by a few steps of the very graph. */
import { statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { InstructionModel } from "../answer/instructionModel.ts";
import { OneEngine } from "../answer/oneEngine.ts";
import { availableBytes, byteSize } from "../bundle/memory.ts";
import { FileError, MemoryError } from "../errors.ts";
import { makeFolders } from "../files.ts";
import { fullMask, type Mask } from "../mask/mask.ts";
import { countParameters, type ModelConfig } from "../model/config.ts";
import { saveModel } from "../train/checkpoint.ts";
import { trainRecipe } from "../train/run.ts";
import { CUT_PROMPTS, keepChannels } from "./cut.ts";
import { EVALUATIONS, healRecipe } from "./heal.ts";
import type { JobEstimate } from "./specialization.ts";
import { openDense, type RowShape, rowShape } from "./taskData.ts";
import { jsonLines, promptText, type TaskPrompt } from "./taskPrompts.ts";
import type { Hooks } from "./told.ts";

/** What is planned. */
export interface JobPlan {
  /** Whole model, and the width that stays; of `keep: "auto"` the largest that is tried. */
  config: ModelConfig;
  tFfn: number;
  /** Short runs of `keep: "auto"`, and their tokens as a share of the long one's. */
  shortRuns: { count: number; share: number };
  tokens: number;
  /** To learn from, and held out. */
  rows: number;
  heldOut: number;
  /** Answers that the whole model gives; 0 where there is gold. */
  answers: number;
  /** Drafts that it is asked for. */
  drafts: number;
  /** Whether the whole model first learns right answers. */
  isTuned: boolean;
  maxTokens: number;
  shape: RowShape;
}

/** Bytes that the job takes at its largest. */
export function jobBytes({ config, tFfn, shape, rows, tokens, isTuned }: JobPlan): { memory: number; disk: number } {
  const { width: D, numLayers: L, numHeads: H, vocabSize: V } = config;
  const [whole, small] = [config, { ...config, ffnWidth: tFfn }].map(countParameters) as [number, number];
  const { T, B } = shape;
  const N = T * B;
  // What a step keeps for its backward pass, and what the loss takes of the vocabulary at a time.
  const F = isTuned ? config.ffnWidth : tFfn;
  const activations = 4 * (L * (N * (14 * D + 5 * F) + 2 * B * H * T * T) + 4 * Math.min(N, 512) * V);
  // Teacher, and the whole model that was read before it; weights, two moments and gradients. Held to a trial of 135 M parameters: 5.5 of 5.75 GB.
  const memory = 4 * Math.max(2 * whole + 4 * small, isTuned ? 4 * whole : 0) + activations + 5e8;
  const states = 2 * D * Math.min(tokens, rows * T);
  const checkpoints = 4 * 8 * (isTuned ? whole : small); // two, the best, and the one that is being written
  const wholes = (isTuned ? 14 : 8) * whole; // as it came and after it was tuned, each with its bundle
  return { memory, disk: wholes + 8 * small + checkpoints + states + 8 * small };
}

/**
 * @param folder on the disk that the job lies on
 * @throws {MemoryError} if the job needs more memory than there is
 * @throws {FileError} if it needs more room than the disk has
 */
export function checkRoom(plan: JobPlan, folder: string, force: boolean): void {
  const { memory, disk } = jobBytes(plan);
  if (force) return;
  const [memoryThere, diskThere] = [availableBytes(), freeBytes(folder)];
  if (memory > memoryThere)
    throw new MemoryError(
      `specialize: wanted about ${byteSize(memory)} of memory to train ${plan.tFfn} channels, got ${byteSize(memoryThere)}. Take a smaller model, keep less of it, or free some.`,
    );
  if (disk > diskThere)
    throw new FileError(
      folder,
      `wanted about ${byteSize(disk)} free on its disk, got ${byteSize(diskThere)}. Make room.`,
    );
}

/** What this machine has left at the moment. */
export function availableNow(folder: string): Pick<JobEstimate, "memoryAvailable" | "diskAvailable"> {
  return { memoryAvailable: availableBytes(), diskAvailable: freeBytes(folder) };
}

function freeBytes(folder: string): number {
  const { bavail, bsize } = statfsSync(folder);
  return bavail * bsize;
}

/** Steps of the trial; the first builds the graph. */
const STEPS = 3;
const TRIAL_PROMPTS = 4;
const TRIAL_TOKENS = 32;
/** Of an answer that is not known yet. */
const USUAL_TOKENS = 96;
/** Answers in batches, against one at a time. */
const BATCH_GAIN = 2;
/** A forward pass is a third of a step. */
const FORWARD = 1 / 3;

/** Answers a few prompts and takes a few steps, in a folder that whoever calls removes. @returns the estimate of the whole job */
export async function tryOut(
  plan: JobPlan,
  {
    model,
    dense,
    prompts,
    ask,
    folder,
    threads,
    force,
    root,
  }: {
    model: InstructionModel;
    /** Checkpoint. */
    dense: string;
    prompts: readonly TaskPrompt[];
    /** How it is asked for a draft, where there are any. */
    ask: string | undefined;
    folder: string;
    threads?: number | undefined;
    force?: boolean | undefined;
    /** Of the model's files while it is open. */
    root: string;
  },
  { signal, onProgress }: Hooks,
): Promise<JobEstimate> {
  const { config, tFfn, shape, tokens, shortRuns } = plan;
  makeFolders(folder);
  const at = (name: string) => join(folder, name);
  let done = 0;
  const total = STEPS + TRIAL_PROMPTS;
  onProgress(done, total);

  const how = { threads, force, root, signal };
  const answer = await answerSeconds(model, prompts, plan.maxTokens, how);
  const draft = ask === undefined ? 0 : await answerSeconds(model, [{ instruction: ask }], USUAL_TOKENS, how);
  onProgress(TRIAL_PROMPTS, total);

  {
    const { model: whole } = await openDense(dense);
    // Any channels: the shape decides what a step takes.
    await saveModel(at("cut"), { ...whole, llm: keepChannels(whole.llm, firstChannels(config, tFfn)) });
  }
  const shortest = prompts.toSorted((a, b) => promptText(a).length - promptText(b).length)[0]!;
  writeFileSync(at("rows.jsonl"), jsonLines([{ ...shortest, output: "." }]));
  const small = { ...config, ffnWidth: tFfn };
  const file = healRecipe(
    {
      ...{
        name: "trial",
        init: "cut",
        teacher: dense,
        llm: small,
        shape,
        steps: STEPS,
        every: STEPS,
        seed: 0,
        threads,
      },
      rows: { train: "rows.jsonl" },
      data: { name: "trial", licence: "unknown" },
    },
    (path) => (path === dense ? path : at(path)),
  );
  const times: number[] = [];
  for await (const event of trainRecipe(file, {
    runDir: at("run"),
    signal,
    ...(threads && { threads }),
    spinning: false,
  })) {
    if (event.kind !== "row" || event.row.kind !== "train") continue;
    times.push(event.row.ms / 1000);
    onProgress(TRIAL_PROMPTS + ++done, total);
  }
  signal.throwIfAborted();
  const step = Math.min(...times.slice(1));

  const { T, B } = shape;
  const wholeStep = (step * countParameters(config)) / countParameters(small);
  const steps = (tokens / (T * B)) * (1 + shortRuns.count * shortRuns.share);
  const rows = Math.min(tokens / T, plan.rows);
  const seconds = {
    answers: (plan.answers * answer + plan.drafts * draft) / BATCH_GAIN,
    pruning: ((wholeStep * Math.min(CUT_PROMPTS, plan.rows)) / B) * (1 + FORWARD * (1 + shortRuns.count)),
    tuning: plan.isTuned ? (wholeStep * tokens) / (T * B) : 0,
    // The teacher reads each row once; held-out rows are read at each evaluation.
    healing: step * steps + (wholeStep * FORWARD * (rows + EVALUATIONS * plan.heldOut)) / B,
    compare: 2 * plan.heldOut * answer,
  };
  const bytes = jobBytes(plan);
  return {
    seconds,
    totalSeconds: Object.values(seconds).reduce((sum, part) => sum + part, 0),
    // The trial trains no whole model.
    memoryBytes: Math.max(process.resourceUsage().maxRSS * 1024, plan.isTuned ? bytes.memory : 0),
    diskBytes: bytes.disk,
    ...availableNow(folder),
  };
}

/** Seconds of an answer, mean over a few prompts; one that goes on beyond what is tried is taken for one of a usual length. */
async function answerSeconds(
  model: InstructionModel,
  prompts: readonly TaskPrompt[],
  maxTokens: number,
  {
    threads,
    force,
    root,
    signal,
  }: { threads?: number | undefined; force?: boolean | undefined; root: string; signal: AbortSignal },
): Promise<number> {
  const { numLayers, ffnWidth, contextLength } = model.bundle;
  const read = prompts.map((prompt) => model.promptIds(promptText(prompt))).filter((ids) => ids.length < contextLength);
  const some = read.slice(0, TRIAL_PROMPTS);
  if (some.length === 0) return 0; // whoever asks them says so
  const room = Math.min(contextLength, Math.max(...some.map((ids) => ids.length)) + TRIAL_TOKENS);
  await using engines = new OneEngine(model, room, 1, { threads, force, cache: { root }, signal });
  const engine = await engines.of("all", fullMask(numLayers, ffnWidth));
  const ask = async (ids: Int32Array): Promise<number> => {
    const start = performance.now();
    let count = 0;
    for await (const _ of engine.generate(ids, { maxTokens: TRIAL_TOKENS, signal })) count++;
    const seconds = (performance.now() - start) / 1000;
    return count < TRIAL_TOKENS ? seconds : (seconds * Math.min(maxTokens, USUAL_TOKENS)) / TRIAL_TOKENS;
  };
  await ask(some[0]!); // warms up
  let sum = 0;
  for (const ids of some) sum += await ask(ids);
  return sum / some.length;
}

function firstChannels({ numLayers, ffnWidth }: ModelConfig, tFfn: number): Mask {
  const layers = Array.from({ length: numLayers }, () => Int32Array.from({ length: tFfn }, (_, channel) => channel));
  return { layers, tFfn, dFfn: ffnWidth };
}

/** Shape of rows before there are answers: a prompt and an answer of a usual length. */
export function expectedShape(
  prompts: readonly TaskPrompt[],
  {
    lengthOf,
    maxTokens,
    contextLength,
  }: { lengthOf: (text: string) => number; maxTokens: number; contextLength: number },
): RowShape {
  const usual = Math.min(maxTokens, USUAL_TOKENS);
  return rowShape(
    prompts.map((prompt) => lengthOf(promptText(prompt)) + (prompt.output ? lengthOf(prompt.output) : usual)),
    contextLength,
  );
}
