import { Command } from "commander";
import { ENGINE_OPTIONS } from "../../engine/engineOptions.ts";
import { addMaskFlags, integer, late, MODEL_HELP } from "./flags.ts";
import { numberFlag } from "./numberFlag.ts";

export function maskCommand(): Command {
  const command = new Command("mask")
    .description("Show the mask that an instruction gets; with two instructions, how much the two have in common.")
    .argument("<instruction>")
    .argument("[other]", "a second instruction to compare with")
    .option("--model <model>", MODEL_HELP)
    .option("--seed <n>", "of --source random", integer(0))
    .addOption(numberFlag("--threads <n>", ENGINE_OPTIONS.threads))
    .option("--json", "print the mask (which `run --mask` reads), or the overlap, as JSON")
    .action(late(async () => (await import("../mask.ts")).maskAction));
  return addMaskFlags(command);
}
