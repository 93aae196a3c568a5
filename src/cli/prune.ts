import { Command } from "commander";
import { budgetTFfn, KEEP, parseShare } from "../bundle/estimate.ts";
import { OptionError } from "../errors.ts";
import { boundaryOf } from "../manifest.ts";
import { createTokenizer } from "../text/tokenizer.ts";
import { formatOf, loadModel, saveModel } from "../train/checkpoint.ts";
import { encodeQuestions, readQuestions } from "../train/data.ts";
import { type PrunePhase, type PruneReport, prune } from "../train/prune.ts";
import { numberFlag } from "./numberFlag.ts";
import { integer, interruption, printJson } from "./options.ts";
import { Progress } from "./progress.ts";

interface Options {
  data: string[];
  instructions?: string;
  licence: string;
  keep?: number;
  tFfn?: number;
  block: number;
  masks: "domains" | number;
  random?: boolean;
  reconstruct?: boolean;
  prompts: number;
  maxTokens: number;
  seed: number;
  importance?: string;
  threads?: number;
  json?: boolean;
}

export function pruneCommand(): Command {
  return new Command("prune")
    .description(
      "Find which channels of a pretrained model each kind of prompt needs, and give it a codebook of masks and a router that chooses among them by the prompt's words. No training: heal the result with a recipe whose stage is distil.",
    )
    .argument("<checkpoint>", "checkpoint folder or finished run, dense (`ifprune import --checkpoint`)")
    .argument("<out>", "checkpoint folder to make")
    .requiredOption("--data <file...>", "questions with answers (.jsonl, .jsonl.gz), as training takes them")
    .option("--instructions <file>", "wordings of the tasks' instructions")
    .option("--licence <text>", "licence of the data, for the provenance", "unknown")
    .addOption(numberFlag("--keep <share>", { ...KEEP, otherwise: "half" }, parseShare).conflicts("tFfn"))
    .option("--t-ffn <n>", "the same as channels in each layer", integer(1))
    .option("--block <n>", "channels that are kept or dropped together; they are regrouped for that", integer(1), 64)
    .option("--masks <n>", "masks: at most so many, of clusters of prompts; or domains, one for each", masksOf, 16)
    .option("--random", "control: random blocks for each group of prompts")
    .option(
      "--reconstruct",
      "fit each layer's down projection, by least squares, so that the channels kept give what all gave on these prompts and answers",
    )
    .option("--prompts <n>", "prompts whose answers importance is taken over, in all; domains alike", integer(2), 480)
    .option("--max-tokens <n>", "longest prompt with its answer", integer(8), 256)
    .option("--seed <n>", "of what is drawn", integer(0), 1)
    .option("--importance <folder>", "keep importance there, and use what is there for the same model and prompts")
    .option("--threads <n>", "worker threads", integer(1))
    .option("--json", "print what was found as JSON")
    .action(run);
}

function masksOf(text: string): "domains" | number {
  return text === "domains" ? text : integer(1)(text);
}

async function run(checkpoint: string, out: string, options: Options): Promise<void> {
  const { data: paths, instructions, licence, maxTokens, keep, tFfn, json, threads, ...rest } = options;
  const signal = interruption("prune: stopped. Nothing was written.");
  const model = await loadModel(checkpoint);
  if (model.predictor)
    throw new OptionError(
      `prune: wanted a dense model, got "${checkpoint}", which has a predictor. Name the one that it was made from.`,
    );
  const { card, llm } = model;
  const tokenizerJson = JSON.parse(new TextDecoder().decode(model.tokenizer));
  const tokenizer = createTokenizer(tokenizerJson, checkpoint, boundaryOf(card, llm.config));
  const questions = await readQuestions(
    paths.map((path) => ({ domain: path, path })),
    instructions,
  );
  const data = encodeQuestions(questions, formatOf(model, tokenizer, checkpoint), {
    predictorInput: "prompt",
    maxTokens,
  });
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
    tFfn: budgetTFfn({ keep, tFfn }, { ffnWidth: llm.config.ffnWidth, block: rest.block }) ?? llm.config.ffnWidth / 2,
    data: paths.map((name) => ({ name, licence })),
    ...(threads !== undefined && { threads }),
    spinning: false,
    signal,
    onProgress,
  }).finally(() => shown?.progress.finish());
  await saveModel(out, pruned);
  if (json) printJson(report);
  else process.stderr.write(summary(report, out));
}

function summary({ prompts, entries, routed, kept, reconstruction }: PruneReport, out: string): string {
  const share = (value: number) => `${(100 * value).toFixed(1)} %`;
  const rows = entries.map(({ prompts, domains }, entry) => {
    const names = Object.entries(domains).map(([name, count]) => `${name} ${count}`);
    return `  mask ${entry}: ${prompts} prompts (${names.slice(0, 4).join(", ")}${names.length > 4 ? ", …" : ""})`;
  });
  return [
    ...rows,
    `importance kept, mean of ${prompts} prompts: own mask ${share(kept.own)}, one for all ${share(kept.generic)}, another's ${share(kept.foreign)}`,
    ...(routed === undefined ? [] : [`the router finds the group of ${share(routed)} of prompts that it has not seen`]),
    ...(reconstruction
      ? [
          `error of FFN outputs under each prompt's mask, mean over layers: ${share(reconstruction.before)}, reconstructed ${share(reconstruction.after)}`,
        ]
      : []),
    `${out}: checkpoint. Heal it: name it in a recipe as "init", with a stage of kind distil.`,
    "",
  ].join("\n");
}
