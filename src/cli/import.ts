import { basename } from "node:path";
import { Command } from "commander";
import { OptionError } from "../errors.ts";
import { importLlama2c } from "../formats/llama2c.ts";
import { integer } from "./options.ts";

export function importCommand(): Command {
  return new Command("import")
    .description(
      "Turn a model of another format into a checkpoint folder. Reads llama2.c checkpoints (.bin, version 0).",
    )
    .argument("<model>", "llama2.c checkpoint")
    .argument("<out>", "checkpoint folder to make")
    .requiredOption("--tokenizer <file>", "llama2.c tokenizer of the model")
    .option("--licence <text>", "licence of the weights, for the provenance", "unknown")
    .option("--seed <n>", "seed the model was trained with, for the provenance", integer(0), 0)
    .action(async (model: string, out: string, options: { tokenizer: string; licence: string; seed: number }) => {
      if (!model.endsWith(".bin"))
        throw new OptionError(`import: wanted a llama2.c checkpoint (.bin), got "${model}".`);
      await importLlama2c(model, options.tokenizer, out, {
        recipe: "import",
        seed: options.seed,
        data: [{ name: basename(model), licence: options.licence }],
        created: new Date().toISOString(),
      });
      process.stderr.write(`${out}: checkpoint. It has no predictor: pack it and run it with --dense or --mask.\n`);
    });
}
