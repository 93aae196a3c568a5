import { Command, Option } from "commander";
import { GENERATE_OPTIONS, type GeneratedAnswers, generateAnswers } from "../answer/generate.ts";
import { InstructionModel } from "../answer/instructionModel.ts";
import { ENGINE_OPTIONS } from "../engine/engineOptions.ts";
import { numberFlag } from "./numberFlag.ts";
import {
  addMaskFlags,
  interruption,
  type MaskFlags,
  MODEL_NAME,
  printJson,
  readMask,
  withMaskFlags,
} from "./options.ts";
import { Progress } from "./progress.ts";

interface Options extends MaskFlags {
  maxTokens: number;
  temperature: number;
  topP: number;
  seed: number;
  samples: number;
  slots: number;
  mask?: string;
  threads?: number;
  force?: boolean;
  json?: boolean;
}

export function generateCommand(): Command {
  const { maxTokens, temperature, topP, seed, samples, slots } = GENERATE_OPTIONS;
  const command = new Command("generate")
    .description(
      "Write a model's own answers to a file of prompts, as training data. The dense model answers, unless a mask is given or how to make one. The same model, prompts and options give the same file; stopped or killed, the same command goes on.",
    )
    .argument("<model>", MODEL_NAME)
    .argument(
      "<prompts>",
      'prompts (.jsonl, .jsonl.gz) of {"instruction", "input"?, "task"?, "examples"?}; rows of training data and task files are some, their own answers are not read',
    )
    .argument("<out>", 'new file of {"instruction", "input"?, "task"?, "output"}, in the order of the prompts')
    .addOption(
      numberFlag("--max-tokens <n>", { ...maxTokens, words: `${maxTokens.words}; those without an end are left out` }),
    )
    .addOption(numberFlag("--temperature <t>", temperature))
    .addOption(numberFlag("--top-p <p>", topP))
    .addOption(numberFlag("--seed <n>", seed))
    .addOption(numberFlag("--samples <n>", samples))
    .addOption(numberFlag("--slots <n>", slots))
    .addOption(new Option("--mask <file>", "answer under a mask that `ifprune mask --json` printed"))
    .addOption(numberFlag("--threads <n>", ENGINE_OPTIONS.threads))
    .option("--force", "load even what does not seem to fit into memory")
    .option("--json", "print one JSON document instead of the summary")
    .action(generate);
  return addMaskFlags(
    command,
    "none: the dense model answers; with --keep or --t-ffn predictor, or griffin in a model without one",
  );
}

async function generate(path: string, prompts: string, out: string, options: Options): Promise<void> {
  const { mask, json, source, keep, maxLoss, tFfn, text, examples, ...rest } = options;
  const signal = interruption();
  using model = new InstructionModel(path);
  await Promise.all([model.bundle.verify(), model.engines.start()]);
  const given = mask === undefined ? undefined : readMask(mask);
  let progress: Progress | undefined;
  const onProgress = (done: number, total: number, tokens: number) => {
    if (progress) progress.update(done, (seconds) => `${Math.round(tokens / seconds)} tokens/s`);
    else progress = new Progress({ label: "answers", total, done });
  };
  let report: GeneratedAnswers;
  try {
    report = await withMaskFlags({ source, keep, maxLoss, tFfn, text, examples }, ({ onProgress: _, ...how }) =>
      generateAnswers(model, prompts, out, { ...rest, ...how, mask: given, signal, onProgress }),
    );
  } finally {
    progress?.finish();
  }
  if (json) printJson(report);
  else process.stderr.write(`${summary(report, out)}\n`);
}

function summary(report: GeneratedAnswers, out: string): string {
  const { isWhole, prompts, asked, rows, tokens, newTokens, seconds, cut, empty, tooLong } = report;
  if (!isWhole) return `stopped and saved after ${asked} of ${prompts} prompts; the same command goes on`;
  const left = [
    cut > 0 && `${cut} cut at --max-tokens`,
    empty > 0 && `${empty} without text`,
    tooLong > 0 && `${tooLong} prompts longer than the context`,
  ].filter(Boolean);
  const speed = newTokens > 0 ? ` · ${Math.round(newTokens / seconds)} tokens/s` : "";
  return `${out}: ${rows} rows · ${tokens} tokens${speed}${left.length > 0 ? ` · left out: ${left.join(", ")}` : ""}`;
}
