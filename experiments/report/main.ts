/**
 * Makes the tables and figures of experiments, and the tables in documents that are marked as ours, again from committed results.
 *
 *     npx tsx experiments/report/main.ts experiments/suite/experiments.json docs/figures
 */
import { IfpruneError } from "../../src/errors.ts";
import { writeExperiments } from "./writeExperiments.ts";

const [experiments, figures, ...others] = process.argv.slice(2);
if (!experiments || !figures || others.length > 0) {
  process.stderr.write("usage: npx tsx experiments/report/main.ts EXPERIMENTS_JSON FIGURES_DIR\n");
  process.exit(2);
}
try {
  const { written, notRun } = await writeExperiments(experiments, figures);
  process.stderr.write(
    [...written, ...notRun.map((source) => `not run: ${source}`)].map((line) => `${line}\n`).join(""),
  );
} catch (error) {
  if (!(error instanceof IfpruneError)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exit(1);
}
