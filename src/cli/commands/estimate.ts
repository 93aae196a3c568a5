import { Command } from "commander";
import { DEFAULT_CONTEXT_LENGTH } from "../../bundle/memory.ts";
import { ENGINE_OPTIONS } from "../../engine/engineOptions.ts";
import { budgetFlags, late, MODEL_NAME } from "./flags.ts";
import { numberFlag } from "./numberFlag.ts";

const CONTEXT = { ...ENGINE_OPTIONS.contextLength, otherwise: `the model's, at most ${DEFAULT_CONTEXT_LENGTH}` };
const READERS = { ...ENGINE_OPTIONS.threads, words: "threads that read memory", otherwise: "one per core" };

export function estimateCommand(): Command {
  const command = new Command("estimate")
    .description(
      "Say what a model and its sub-networks would take, from the headers of its files, before anything is loaded.",
    )
    .argument("<model>", `${MODEL_NAME}; or Hugging Face folder or GGUF file, taken as "import" would store it`)
    .addOption(numberFlag("--context <n>", CONTEXT))
    .addOption(numberFlag("--threads <n>", READERS))
    .option("--json", "print one JSON document")
    .action(late(async () => (await import("../estimate.ts")).estimateAction));
  for (const flag of budgetFlags()) command.addOption(flag);
  return command;
}
