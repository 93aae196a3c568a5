import { Command } from "commander";
import { late } from "./flags.ts";

export function reportCommand(): Command {
  return new Command("report")
    .description("Write one self-contained HTML page with the curves of runs and the tables of evaluations.")
    .argument("<inputs...>", "run folders, their metrics.jsonl, and evaluations written by `eval --out`")
    .option("--out <file>", "the page", "report.html")
    .action(late(async () => (await import("../report.ts")).reportAction));
}
