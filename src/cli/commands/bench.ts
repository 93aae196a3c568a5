import { Command, InvalidArgumentError } from "commander";
import { BENCH_OPTIONS, PROMPT_LENGTHS } from "../../bench/benchOptions.ts";
import { budgetFlags, late, MODEL_NAME } from "./flags.ts";
import { numberFlag } from "./numberFlag.ts";

export function benchCommand(): Command {
  const command = new Command("bench")
    .description(
      "Measure the dense model, an ordinary model of the sub-network's shape, and the sub-network: time to first token, speed, memory, beside what bytes and arithmetic allow.",
    )
    .argument("<bundle>", `${MODEL_NAME}; the dense model must fit into memory, and into the cache folder on disk`)
    .option(
      "--prompt-lengths <list>",
      `tokens, e.g. 32,512 (default: ${PROMPT_LENGTHS}, as far as the model reads)`,
      lengths,
    )
    .addOption(numberFlag("--tokens <n>", BENCH_OPTIONS.answerTokens))
    .addOption(numberFlag("--repeats <n>", BENCH_OPTIONS.repeats))
    .addOption(numberFlag("--threads <n>", BENCH_OPTIONS.threads))
    .option("--out <folder>", "write bench.json, bench.md and bench.svg there")
    .option("--json", "print one JSON document instead of tables")
    .action(late(async () => (await import("../bench.ts")).benchAction));
  for (const flag of budgetFlags()) command.addOption(flag);
  return command;
}

function lengths(list: string): number[] {
  const values = list.split(",").map(Number);
  if (!values.every((value) => Number.isInteger(value) && value >= 1))
    throw new InvalidArgumentError("Wanted positive integers with commas between them.");
  return values;
}
