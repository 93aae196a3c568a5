import { Command } from "commander";
import { ENGINE_OPTIONS } from "../../engine/engineOptions.ts";
import { lateWithEngine, MODEL_NAME } from "./flags.ts";
import { numberFlag } from "./numberFlag.ts";

export function measureCommand(): Command {
  return new Command("measure")
    .description(
      "Measure what masks that need no training cost a model, on its own answers to six prompts, and write it down in its bundle, for --keep auto and the page. `import` and `pull` do so too.",
    )
    .argument("<model>", MODEL_NAME)
    .option("--text <file>", "measure what masks by --source glass and text cost too, made of this text")
    .addOption(numberFlag("--threads <n>", ENGINE_OPTIONS.threads))
    .action(lateWithEngine(async () => (await import("../measuring.ts")).measureAction));
}
