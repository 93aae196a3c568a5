import { budgetTFfn, defaultTFfn } from "../bundle/budget.ts";
import { OptionError } from "../errors.ts";
import { checkNewFolder, makeFolders } from "../files.ts";
import { loadModel, type SavedModel, savedFormat, saveModel } from "../train/checkpoint.ts";
import { encodeQuestions, readQuestions } from "../train/data.ts";
import { type PrunePhase, type PruneReport, prune } from "../train/prune.ts";
import { recipeOfMasks } from "../train/runStart.ts";
import { interruption } from "./interruption.ts";
import { printJson } from "./options.ts";
import { Progress } from "./progress.ts";

interface Options {
  data: string[];
  instructions?: string;
  licence: string;
  keep?: number;
  tFfn?: number;
  block: number;
  masks: "domains" | number;
  core: number;
  random?: boolean;
  reconstruct?: boolean;
  prompts: number;
  maxTokens: number;
  seed: number;
  importance?: string;
  threads?: number;
  json?: boolean;
}

/** `ifprune prune` */
export async function pruneAction(checkpoint: string, out: string, options: Options): Promise<void> {
  const { data: paths, instructions, licence, maxTokens, keep, tFfn, json, threads, ...rest } = options;
  checkNewFolder(out, "prune"); // before minutes of work, not after
  const { importance } = options;
  const left =
    importance === undefined ? "Nothing was written" : `No checkpoint was written; importance stays in "${importance}"`;
  const signal = interruption(`prune: stopped. ${left}.`);
  const model = await loadModel(checkpoint);
  if (model.predictor)
    throw new OptionError(
      `prune: wanted a dense model, got "${checkpoint}", which has a predictor. Name the one that it was made from.`,
    );
  const files = await Promise.all(paths.map((path) => readQuestions([{ domain: path, path }], instructions)));
  if (importance !== undefined) makeFolders(importance);
  // files alike, and the tasks of each: a file of many tasks has no more say than one of a single task
  const weights = new Map<string, number>();
  for (const rows of files) {
    const tasks = new Set(rows.map(({ domain }) => domain));
    for (const task of tasks) weights.set(task, (weights.get(task) ?? 0) + 1 / tasks.size);
  }
  const questions = files.flat().map((question) => ({ ...question, weight: weights.get(question.domain)! }));
  const data = encodeQuestions(questions, savedFormat(model, checkpoint), {
    predictorInput: "prompt",
    maxTokens,
  });
  const { ffnWidth } = model.llm.config;
  let shown: { phase: PrunePhase; progress: Progress } | undefined;
  const onProgress = (phase: PrunePhase, done: number, total: number) => {
    if (shown?.phase !== phase) {
      shown?.progress.finish();
      shown = { phase, progress: new Progress({ label: phase, total }) };
    }
    shown.progress.update(done);
  };
  const { model: pruned, report } = await prune(model, data, {
    ...rest,
    tFfn: budgetTFfn({ keep, tFfn }, { ffnWidth, block: rest.block }) ?? defaultTFfn(ffnWidth, rest.block),
    data: paths.map((name) => ({ name, licence })),
    ...(threads !== undefined && { threads }),
    spinning: false,
    signal,
    onProgress,
  }).finally(() => shown?.progress.finish());
  await saveModel(out, pruned);
  if (json) printJson(report);
  else process.stderr.write(summary(pruned, report, out));
}

/** Share of importance below which masks of their own are as good as one for all. */
const LITTLE = 0.01;

function summary(model: SavedModel, report: PruneReport, out: string): string {
  const { prompts, entries, routed, kept, reconstruction } = report;
  const share = (value: number) => `${(100 * value).toFixed(1)} %`;
  const rows = entries.map(({ prompts, domains }, entry) => {
    const names = Object.entries(domains).map(([name, count]) => `${name} ${count}`);
    return `  mask ${entry}: ${prompts} prompts (${names.slice(0, 4).join(", ")}${names.length > 4 ? ", …" : ""})`;
  });
  return [
    ...rows,
    `importance kept, mean of ${prompts} prompts: own mask ${share(kept.own)}, one for all ${share(kept.generic)}, another's ${share(kept.foreign)}; a mask for each prompt alone would keep ${share(kept.most)}`,
    ...(entries.length > 1 && kept.own - kept.generic < LITTLE
      ? [
          `Masks of their own keep hardly more than one for all: try --masks 1${kept.most - kept.generic < LITTLE ? "; no other masks of this size of blocks can do better" : ""}.`,
        ]
      : []),
    ...(routed === undefined ? [] : [`the router finds the group of ${share(routed)} of prompts that it has not seen`]),
    ...(reconstruction
      ? [
          `error of FFN outputs under each prompt's mask, mean over layers: ${share(reconstruction.before)}, reconstructed ${share(reconstruction.after)}`,
        ]
      : []),
    `${out}: checkpoint. Heal it with a recipe that has ${recipeOfMasks(model)} and names it as "init", and a stage of kind distil.`,
    "",
  ].join("\n");
}
