/**
 * Trains runs of experiments, and what each of them starts from, in order. What is finished stays as it is; what was interrupted goes
 * on; Ctrl-C saves and ends all.
 *
 *     npx tsx experiments/run.ts RUNS_JSON NAME… [--seed N] [--runs DIR] [--threads N]
 */
import { join } from "node:path";
import { Command } from "commander";
import { integer } from "../src/cli/commands/flags.ts";
import { interruption } from "../src/cli/interruption.ts";
import { trainWithProgress } from "../src/cli/train.ts";
import { IfpruneError } from "../src/errors.ts";
import { inOrder, readRuns, recipeOf } from "./runs.ts";

const command = new Command("run")
  .description("Train runs of experiments, and what each of them starts from, in order.")
  .argument("<file>", "what the runs are, such as experiments/suite/runs.json")
  .argument("<names...>", "runs by their name without the seed")
  .option("--seed <n>", "seed of all of them", integer(0), 1)
  .option("--runs <folder>", "where their folders are", "runs")
  .option("--threads <n>", "worker threads (default: the recipe's, else all cores)", integer(1))
  .action(async (file: string, names: string[], options: { seed: number; runs: string; threads?: number }) => {
    const { seed, runs: runsDir, threads } = options;
    const runs = readRuns(file);
    const order = inOrder(runs, names);
    process.stderr.write(`${order.map((name) => `${name}-s${seed}`).join(", ")}\n`);
    const signal = interruption();
    for (const name of order) {
      const recipe = recipeOf(file, runs, name, { seed, runsDir });
      const changes = Object.entries(runs[name]!.set).map(([path, value]) => ` ${path}=${JSON.stringify(value)}`);
      process.stderr.write(`\n${recipe.recipe.name}: ${runs[name]!.recipe}${changes.join("")}\n`);
      const runDir = join(runsDir, recipe.recipe.name);
      await trainWithProgress(recipe, { runDir, signal, threads, spinning: false });
      if (signal.aborted) return;
    }
  });

try {
  await command.parseAsync();
} catch (error) {
  if (!(error instanceof IfpruneError)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
}
