import { Command } from "commander";
import { writeReport } from "../report/report.ts";
import { checkOut } from "./options.ts";

export function reportCommand(): Command {
  return new Command("report")
    .description("Write one self-contained HTML page with the curves of runs and the tables of evaluations.")
    .argument("<inputs...>", "run folders, their metrics.jsonl, and evaluations written by `eval --out`")
    .option("--out <file>", "the page", "report.html")
    .action((inputs: string[], { out }: { out: string }) => {
      checkOut(out);
      writeReport(inputs, out);
      process.stderr.write(`${out}\n`);
    });
}
