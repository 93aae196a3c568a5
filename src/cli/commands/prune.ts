import { Command } from "commander";
import { KEEP, parseShare } from "../../bundle/budget.ts";
import type { NumberOption } from "../../options.ts";
import { integer, late } from "./flags.ts";
import { numberFlag } from "./numberFlag.ts";

const CORE = {
  words: "share of the channels kept that all masks keep, those that matter most to all prompts",
  example: "75% or 0.75",
  min: 0,
  max: 1,
  fallback: 0,
} as const satisfies NumberOption;

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
    .addOption(numberFlag("--core <share>", CORE, parseShare))
    .option("--random", "control: random blocks for each group of prompts")
    .option(
      "--reconstruct",
      "fit each layer's down projection, by least squares, so that the channels kept give what all gave on these prompts and answers",
    )
    .option(
      "--prompts <n>",
      "prompts whose answers importance is taken over, in all; files alike, and the tasks of each (rounded up)",
      integer(2),
      480,
    )
    .option("--max-tokens <n>", "longest prompt with its answer", integer(8), 256)
    .option("--seed <n>", "of what is drawn", integer(0), 1)
    .option("--importance <folder>", "keep importance there, and use what is there for the same model and prompts")
    .option("--threads <n>", "worker threads", integer(1))
    .option("--json", "print what was found as JSON")
    .action(late(async () => (await import("../prune.ts")).pruneAction));
}

function masksOf(text: string): "domains" | number {
  return text === "domains" ? text : integer(1)(text);
}
