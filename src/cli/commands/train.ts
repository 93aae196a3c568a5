import { Command, InvalidArgumentError, Option } from "commander";
import type { Assignment } from "../../train/recipe/changes.ts";
import { integer, late } from "./flags.ts";

export function trainCommand(): Command {
  return new Command("train")
    .description("Train a recipe. A run that was interrupted goes on by itself; Ctrl-C saves and exits.")
    .argument("<recipe>", 'recipe file; with "extends", the changes to another recipe in its folder')
    .option("--runs <folder>", "where the run's folder is made, by the recipe's name", "runs")
    .option("--seed <n>", "seed instead of the recipe's, also where its strings say {seed}", integer(0))
    .addOption(
      new Option(
        "--set <path=value>",
        "a change to the recipe; again for more, made in this order. The path is that of a key, of a stage by its name or index; the value is JSON, else a string; null removes",
      ).argParser((text: string, earlier: Assignment[] = []) => [...earlier, assignment(text)]),
    )
    .addOption(
      new Option("--print", "print the recipe with all changes and defaults as JSON, and train nothing").conflicts([
        "runs",
        "threads",
        "spin",
        "acceptChangedData",
        "json",
      ]),
    )
    .option("--threads <n>", "worker threads (default: the recipe's, else all cores)", integer(1))
    .option("--spin", "let idle threads spin: faster on a machine without other work, ruinous beside any")
    .option("--accept-changed-data", "go on with data files that have changed since the run began")
    .option("--json", "print the final configuration and every metrics row as JSON lines")
    .addHelpText(
      "after",
      `
Examples:
  ifprune train recipe.json --seed 2 --set name=wide-s{seed} --set llm.ffnWidth=2048
  ifprune train recipe.json --set stages.joint.learningRate.llm=0.002 --set 'stages[0].evaluate=null' --print`,
    )
    .action(late(async () => (await import("../train.ts")).trainAction));
}

function assignment(text: string): Assignment {
  const at = text.indexOf("=");
  if (at <= 0) throw new InvalidArgumentError("Wanted path=value, such as mask.tFfn=64.");
  const value = text.slice(at + 1);
  try {
    return [text.slice(0, at), JSON.parse(value)];
  } catch {
    return [text.slice(0, at), value];
  }
}
