import { Command } from "commander";
import { OptionError } from "../errors.ts";
import { writeReport } from "../report/report.ts";
import { writeExperiments } from "../report/writeExperiments.ts";

interface Options {
  out?: string;
  figures?: string;
}

export function reportCommand(): Command {
  return new Command("report")
    .description(
      "Write one self-contained HTML page with the curves of runs and the tables of evaluations; or, with --figures, the tables and figures of experiments with several seeds.",
    )
    .argument(
      "<inputs...>",
      "run folders, their metrics.jsonl, and evaluations written by `eval --out`; or one experiments.json",
    )
    .option("--out <file>", 'the page (default: "report.html")')
    .option(
      "--figures <folder>",
      "where the figures of experiments.json go, as SVG; its tables go to results/tables.md beside it",
    )
    .action(report);
}

async function report(inputs: string[], { out, figures }: Options): Promise<void> {
  if (figures === undefined) {
    const page = out ?? "report.html";
    writeReport(inputs, page);
    process.stderr.write(`${page}\n`);
    return;
  }
  if (out !== undefined)
    throw new OptionError("report: wanted --figures or --out, got both. Experiments have no page.");
  const [experiments, ...others] = inputs;
  if (others.length > 0)
    throw new OptionError(`report: wanted one experiments.json with --figures, got ${inputs.length} inputs.`);
  const { written, notRun } = await writeExperiments(experiments!, figures);
  process.stderr.write(
    [...written, ...notRun.map((source) => `not run: ${source}`)].map((words) => `${words}\n`).join(""),
  );
}
