/**
 * Evaluates the runs of `experiments.json`: every seed of each, under each mask that a table or figure shows, on every test.
 *
 *     npx tsx experiments/suite/evaluate.ts [RUNS_DIR] [--only RUN,RUN-s1,…] [--experiments FILE] [--threads N]
 *
 * Updates `results/results.jsonl` beside the experiments, from which `ifprune report` makes tables and figures. Results of an
 * unchanged checkpoint and test stay as they are; a run that is still in training is left out. One process at a time.
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { z } from "zod";
import { chooseMask, modelTFfn, openMaskSource } from "../../src/answer/maskSource.ts";
import { OptionError } from "../../src/errors.ts";
import { type EvaluatedMasks, evaluateTasks, type OpenedModel, type TaskReport } from "../../src/eval/evaluate.ts";
import { openModel } from "../../src/eval/load.ts";
import { readJson } from "../../src/json.ts";
import { readManifest } from "../../src/manifest.ts";
import { overlap } from "../../src/mask/overlap.ts";
import { checkpointFolders } from "../../src/train/checkpoint.ts";
import { type Mask, type Result, Results, readExperiments, sourcesOf, suiteScore } from "../report/experiments.ts";
import { resultsPath } from "../report/writeExperiments.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { threads: { type: "string" }, only: { type: "string" }, experiments: { type: "string" } },
});
const runsDir = positionals[0] ?? "runs";
const only = values.only?.split(",");
const threads = values.threads === undefined ? undefined : Number(values.threads);
const file = values.experiments ?? join(import.meta.dirname, "experiments.json");

const experiments = readExperiments(file);
const tests = Object.entries(experiments.tests).map(([name, path]) => {
  const data = resolve(dirname(file), path);
  return { name, data, questions: createHash("sha256").update(readFileSync(data)).digest("hex") };
});
const wordings = z.record(z.string(), z.object({ train: z.array(z.string()), heldOut: z.array(z.string()) }));
const instructions = wordings.parse(readJson(resolve(dirname(file), experiments.instructions)));
const sources = sourcesOf(experiments);
const path = resultsPath(file);
mkdirSync(dirname(path), { recursive: true });
const results = existsSync(path) ? await Results.read(path) : new Results();

const runs = new Set(sources.map(({ run }) => run));
const unknown = only?.find((name) => !runs.has(name.replace(/-s\d+$/, "")));
if (unknown !== undefined) throw new OptionError(`--only: wanted runs of ${file}, got "${unknown}".`);

for (const run of runs) {
  const seeds = seedsOf(run).filter((seed) => !only || only.includes(run) || only.includes(nameOf(run, seed)));
  if (seeds.length === 0 && (!only || only.includes(run))) console.error(`${run}: no runs`);
  const masks = sources.flatMap((source) => (source.run === run ? [source.mask] : []));
  for (const seed of seeds) {
    console.error(`${nameOf(run, seed)}: ${await evaluateRun(run, seed, masks)}`);
    results.write(path);
  }
}
process.exit();

function nameOf(run: string, seed: number): string {
  return `${run}-s${seed}`;
}

/** Seeds of a run's folders, ascending. */
function seedsOf(run: string): number[] {
  return readdirSync(runsDir)
    .flatMap((name) => {
      const [, ofRun, seed] = /^(.+)-s(\d+)$/.exec(name) ?? [];
      return ofRun === run ? [Number(seed)] : [];
    })
    .sort((a, b) => a - b);
}

/** @returns in words, what came of it */
async function evaluateRun(run: string, seed: number, masks: readonly Mask[]): Promise<string> {
  const folder = checkpointFolders(join(runsDir, nameOf(run, seed)))[0];
  if (folder === undefined) return "no checkpoint yet, left out";
  if (!isTrained(folder)) return "still in training, left out";
  const hash = hashOf(folder);
  const checkpointOf = (mask: Mask) => (isUntrained(mask) ? `${hash}, ${experiments.tFfn} channels` : hash);
  const isKnown = (mask: Mask, test: (typeof tests)[number]) => {
    const known = results.get({ run, seed, mask, test: test.name });
    return known?.checkpoint === checkpointOf(mask) && known.questions === test.questions;
  };
  if (masks.every((mask) => tests.every((test) => isKnown(mask, test)))) return "unchanged";

  const started = performance.now();
  await using opened = await openModel(folder, { threads, spinning: false });
  const words: string[] = [];
  for (const mask of masks) {
    try {
      for (const test of tests) {
        if (isKnown(mask, test)) continue;
        const report = await evaluate(opened, mask, test.data);
        if (mask === "task" && report.masks)
          report.masks.unseenWordings = await wordingOverlap(
            opened,
            report.tasks.map(({ task }) => task),
          );
        results.set({
          run,
          seed,
          mask,
          test: test.name,
          checkpoint: checkpointOf(mask),
          questions: test.questions,
          report,
        });
      }
      const score = suiteScore(results.seedOf({ run, seed, mask }), experiments.facts)!;
      words.push(`${mask} ${(100 * score).toFixed(1)}`);
    } catch (error) {
      words.push(`${mask} FAILED (${(error as Error).message})`); // the other masks, and runs, are worth having
      process.exitCode = 1;
    }
  }
  return `${words.join(", ")} (${((performance.now() - started) / 1000).toFixed(0)} s)`;
}

async function evaluate(opened: OpenedModel, mask: Mask, data: string): Promise<Result["report"]> {
  const { answers, masks, ...report } = await evaluateTasks(opened, data, choiceOf(mask));
  return {
    ...report,
    tasks: report.tasks.map((task) => ({ ...task })),
    ...(masks && !isUntrained(mask) && { masks: compact(masks) }),
  };
}

/** Mean overlap, over tasks and layers, of the masks of a trained and of a held-out wording of the same task. */
async function wordingOverlap({ model }: OpenedModel, tasks: readonly string[]): Promise<number> {
  await using source = await openMaskSource(model, { source: "predictor" }, { threads });
  const { ffnWidth } = model.weights.config;
  const masksOf = async (wordings: readonly string[]) => {
    const masks = [];
    for (const text of wordings) {
      const prompt = { text, ids: model.format.promptIds(text) };
      masks.push((await chooseMask(source, prompt, { tFfn: modelTFfn(model), ffnWidth })).mask);
    }
    return masks;
  };
  const shares: number[] = [];
  for (const { train, heldOut } of tasks.map((task) => instructions[task]!)) {
    const [trained, unseen] = [await masksOf(train), await masksOf(heldOut)];
    const pairs = unseen.flatMap((a) => trained.flatMap((b) => overlap(a, b)));
    shares.push(pairs.reduce((sum, share) => sum + share, 0) / pairs.length);
  }
  return shares.reduce((sum, share) => sum + share, 0) / shares.length;
}

function choiceOf(mask: Mask): EvaluatedMasks {
  const { tFfn } = experiments;
  switch (mask) {
    case "own":
      return {};
    case "dense":
      return { mask };
    case "input":
    case "task":
      return { per: mask };
    case "foreign":
    case "generic":
      return { control: mask };
    case "activations": // over all prompts
      return { source: "griffin", control: "generic", tFfn };
    case "griffin":
    case "weights":
    case "random":
      return { source: mask, tFfn };
    default:
      return mask satisfies never;
  }
}

/** Whether the size of a mask is that of the experiments, not the run's own. */
function isUntrained(mask: Mask): mask is "griffin" | "activations" | "weights" | "random" {
  return ["griffin", "activations", "weights", "random"].includes(mask);
}

/** Without the mean over layers, which follows; each layer's matrix, which is symmetric, as a triangle of three decimals. */
function compact({ matrix, matrices, ...rest }: NonNullable<TaskReport["masks"]>): Result["report"]["masks"] {
  const triangles = matrices?.map((rows) =>
    rows.map((row, a) => row.slice(0, a + 1).map((share) => +share.toFixed(3))),
  );
  return { ...rest, ...(triangles && { matrices: triangles }) };
}

/** Whether a checkpoint is the last of its run. */
function isTrained(folder: string): boolean {
  const state = z.object({ stage: z.number(), recipe: z.object({ stages: z.array(z.unknown()) }) });
  const { stage, recipe } = state.parse(readJson(join(folder, "state.json")));
  return stage === recipe.stages.length;
}

/** Hash of what an evaluation computes with: LLM, predictor, scores of a static mask. */
function hashOf(folder: string): string {
  const { files } = readManifest(folder, "ifprune-checkpoint");
  const used = Object.entries(files).filter(([name]) => /^(llm|predictor)\/|^static\./.test(name));
  const lines = used.map(([name, { sha256 }]) => `${name} ${sha256}\n`).sort();
  return createHash("sha256").update(lines.join("")).digest("hex");
}
