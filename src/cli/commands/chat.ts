import { Command } from "commander";
import { ENGINE_OPTIONS, MAX_TOKENS } from "../../engine/engineOptions.ts";
import { SAMPLING_OPTIONS } from "../../engine/sampling.ts";
import { chatHelp } from "../chatCommands.ts";
import { budgetFlags, formFlag, lateWithEngine, MODEL_HELP } from "./flags.ts";
import { numberFlag } from "./numberFlag.ts";

export function chatCommand(): Command {
  const command = new Command("chat")
    .description("Talk to a model in the terminal. One conversation keeps the mask of its first message.")
    .argument("[model]", MODEL_HELP)
    .option("--system <text>", "what the model is told before the conversation, if its template has a place for it")
    .addOption(numberFlag("--max-tokens <n>", { ...MAX_TOKENS, fallback: 512 }))
    .addOption(numberFlag("--temperature <t>", SAMPLING_OPTIONS.temperature))
    .addOption(numberFlag("--repeat-penalty <p>", SAMPLING_OPTIONS.repeatPenalty))
    .addOption(numberFlag("--seed <n>", SAMPLING_OPTIONS.seed))
    .addOption(formFlag())
    .addOption(numberFlag("--threads <n>", ENGINE_OPTIONS.threads))
    .addHelpText("after", `\nIn the conversation:\n${chatHelp()}`)
    .action(lateWithEngine(async () => (await import("../chat.ts")).chatAction));
  for (const flag of budgetFlags()) command.addOption(flag);
  return command;
}
