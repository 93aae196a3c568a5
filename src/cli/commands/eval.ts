import { Command, Option } from "commander";
import { ENGINE_OPTIONS } from "../../engine/engineOptions.ts";
import { CONTROLS, SCOPES } from "../../eval/controls.ts";
import { addMaskFlags, fixedFormFlag, integer, late, MODEL_NAME } from "./flags.ts";
import { numberFlag } from "./numberFlag.ts";

export function evalCommand(): Command {
  const command = new Command("eval")
    .description(
      "Score a model on a task file (accuracy per task) or a text (perplexity): a checkpoint exactly, in float32; a bundle as it is served. Prompts and masks are made as `run` makes them.",
    )
    .argument("<model>", `checkpoint folder, run folder (its newest checkpoint), ${MODEL_NAME}`)
    .argument(
      "<data>",
      'task file (.jsonl, .jsonl.gz) of {"instruction", "input"?, "examples"?, "output" or "answers": [], "task"?, "scorer"?}, or plain text',
    );
  addMaskFlags(command, "what the model was trained under; of others griffin for --keep or --t-ffn, else dense");
  const conflicting = [
    new Option("--seed <n>", "of --source random, and of --control random").argParser(integer(0)),
    new Option(
      "--per <what>",
      "make masks per input, from the whole prompt, or per task, from the instruction without its input; one with {input} in it stays whole (default: as the predictor was trained, else input)",
    ).choices(SCOPES),
    new Option(
      "--control <name>",
      "instead of each prompt's own mask, of the same scores: foreign (the mask of another task's prompt), generic (one for all, of the mean scores), random (the scores of each layer in a random order)",
    ).choices(CONTROLS),
  ];
  for (const flag of conflicting) command.addOption(flag.conflicts(["dense", "mask"]));
  return command
    .option("--dense", "run the unpruned model")
    .addOption(new Option("--mask <file>", "run under a mask that `ifprune mask --json` printed").conflicts("dense"))
    .addOption(fixedFormFlag())
    .addOption(numberFlag("--threads <n>", ENGINE_OPTIONS.threads))
    .option("--out <file>", "also write the whole report, with every answer, as JSON")
    .option("--json", "print JSON instead of a table")
    .action(late(async () => (await import("../eval.ts")).evalAction));
}
