import { Command, Option } from "commander";
import { ENGINE_OPTIONS, MAX_TOKENS } from "../../engine/engineOptions.ts";
import { SAMPLING_OPTIONS } from "../../engine/sampling.ts";
import { addMaskFlags, appended, formFlag, lateWithEngine, MODEL_HELP, TINY_NOTE } from "./flags.ts";
import { numberFlag } from "./numberFlag.ts";

export function runCommand(): Command {
  const command = new Command("run")
    .description("Answer an instruction with the sub-network that it needs.")
    .argument(
      "[instruction...]",
      'what to do, e.g. "What is the plural of wolf?"; several words are one instruction; - or none: standard input',
    )
    .addOption(
      new Option(
        "--input <text>",
        "what to do it to: where the instruction says {input}, else as `Input: <text>` after it",
      ).conflicts("file"),
    )
    .option("--file <path>", "the same from a file, - for standard input; may be given more than once", appended)
    .option("--model <model>", MODEL_HELP)
    .addOption(numberFlag("--max-tokens <n>", MAX_TOKENS))
    .addOption(numberFlag("--temperature <t>", SAMPLING_OPTIONS.temperature))
    .addOption(numberFlag("--repeat-penalty <p>", SAMPLING_OPTIONS.repeatPenalty))
    .addOption(numberFlag("--seed <n>", { ...SAMPLING_OPTIONS.seed, words: "of sampling, and of --source random" }))
    .option("--dense", "run the unpruned model")
    .addOption(
      new Option(
        "--compare",
        "run both, greedily, and show both answers, how far they agree and what each took",
      ).conflicts(["dense", "temperature", "repeatPenalty", "form"]),
    )
    .addOption(
      new Option(
        "--mask <mask>",
        "run under a mask: a file that `ifprune mask --json` printed, or task:NAME, a saved task",
      ).conflicts("dense"),
    )
    .addOption(formFlag())
    .addOption(numberFlag("--threads <n>", ENGINE_OPTIONS.threads))
    .option("--force", "load even what does not seem to fit into memory")
    .addOption(
      new Option("--verbose", "say in which form the mask was run, and why; --json always says it").conflicts([
        "json",
        "compare",
      ]),
    )
    .option("--json", "print one JSON document instead of the streamed answer")
    .addHelpText("after", `\n--model tiny: ${TINY_NOTE}`)
    .action(lateWithEngine(async () => (await import("../run.ts")).runAction));
  return addMaskFlags(command);
}
