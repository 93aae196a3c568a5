import { Command, Option } from "commander";
import { GENERATE_OPTIONS } from "../../answer/generateOptions.ts";
import { ENGINE_OPTIONS } from "../../engine/engineOptions.ts";
import { addMaskFlags, fixedFormFlag, late, MODEL_NAME } from "./flags.ts";
import { numberFlag } from "./numberFlag.ts";

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
    .addOption(fixedFormFlag())
    .addOption(numberFlag("--threads <n>", ENGINE_OPTIONS.threads))
    .option("--force", "load even what does not seem to fit into memory")
    .option("--json", "print one JSON document instead of the summary")
    .action(late(async () => (await import("../generate.ts")).generateAction));
  return addMaskFlags(
    command,
    "none: the dense model answers; with --keep or --t-ffn predictor, or griffin in a model without one",
  );
}
