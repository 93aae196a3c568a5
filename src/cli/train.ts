import { join } from "node:path";
import { OptionError } from "../errors.ts";
import type { Assignment } from "../train/recipe/changes.ts";
import { type RecipeFile, readRecipe } from "../train/recipe/read.ts";
import { type RunEvent, type RunOptions, trainRecipe } from "../train/run.ts";
import { type MetricsRow, readRunLog } from "../train/runLog.ts";
import { interruption, stopped } from "./interruption.ts";
import { printJson } from "./options.ts";
import { Progress } from "./progress.ts";

interface Options {
  runs: string;
  seed?: number;
  set?: Assignment[];
  print?: boolean;
  threads?: number;
  spin?: boolean;
  acceptChangedData?: boolean;
  json?: boolean;
}

/** `ifprune train` */
export async function trainAction(recipePath: string, options: Options): Promise<void> {
  const { runs, seed, set, print, threads, spin, acceptChangedData, json } = options;
  if (seed !== undefined && set?.some(([path]) => path === "seed"))
    throw new OptionError('--set seed: wanted one seed, got "--seed" too. Leave out either.');
  const file = readRecipe(recipePath, { seed, set });
  if (print) {
    process.stdout.write(`${JSON.stringify(file.recipe, null, 2)}\n`);
    return;
  }
  const runDir = join(runs, file.recipe.name);
  if (json) printJson({ kind: "recipe", recipe: file.recipe, runDir });
  const how = { runDir, acceptChangedData, signal: interruption(), threads, spinning: spin ?? false };
  await trainWithProgress(file, how, json);
}

/**
 * Trains a recipe and shows its progress.
 *
 * @param options.threads instead of the recipe's
 * @param json also prints every metrics row
 */
export async function trainWithProgress(
  file: RecipeFile,
  options: RunOptions & { signal: AbortSignal },
  json = false,
): Promise<void> {
  const { recipe } = file;
  const { runDir, signal } = options;
  const settings = { ...options, threads: options.threads ?? recipe.threads };

  let progress: Progress | undefined;
  const say = (text: string): void => {
    if (progress) progress.note(text);
    else process.stderr.write(`${text}\n`);
  };
  const total = recipe.stages.reduce((sum, { steps }) => sum + steps, 0);
  let done = 0;
  let tokens = 0;
  const show = (event: RunEvent): void => {
    switch (event.kind) {
      case "damaged":
        say(`${event.error.message} Going back to the checkpoint before it.`);
        break;
      case "lost":
        say(
          `${event.path}: ${event.bytes} bytes of its rows are lost. The checkpoint has the steps that they were of: going on.`,
        );
        break;
      case "resumed":
        done = event.step;
        if (done < total) say(`resuming ${runDir} at step ${event.step} of ${total}`);
        break;
      case "data":
        say(`changed since the run began, and accepted: ${event.changed.join(", ")}`);
        break;
      case "stage": {
        const left = `; ${event.numTooLong} examples too long for the context or the stage's sequences are left out`;
        say(`stage "${event.name}": ${event.steps} steps${event.numTooLong > 0 ? left : ""}`);
        progress ??= new Progress({ label: recipe.name, total, done });
        break;
      }
      case "row":
        if (json) printJson(event.row);
        if (event.row.kind === "train") {
          const { step, loss } = event.row;
          tokens += event.row.tokens;
          progress?.update(step, (s) => `loss ${loss.toFixed(3)}  ${Math.round(tokens / s)} tokens/s`);
        } else say(describe(event.row));
        break;
      case "saved":
        done = event.step;
        break;
      default:
        event satisfies never;
    }
  };
  try {
    for await (const event of trainRecipe(file, settings)) show(event);
  } finally {
    progress?.finish();
  }
  if (signal.aborted) throw stopped(`stopped and saved at step ${done} of ${total}; the same command goes on`);
  const last = readRunLog(join(runDir, "metrics.jsonl")).findLast((row) => row.kind === "evaluation");
  say(`${runDir}: ${total} steps done${last ? `. ${describe(last)}` : ""}`);
}

/** One line for people. */
function describe(row: MetricsRow): string {
  const percent = (share: number | null) => (share === null ? "-" : (100 * share).toFixed(1));
  switch (row.kind) {
    case "evaluation": {
      const columns = Object.keys(row.loss).map(
        (mask) => `${mask} ${row.loss[mask]!.toFixed(3)} nats, ${percent(row.exactMatch[mask]!)} % exact`,
      );
      return `held out, step ${row.step}: ${columns.join(" · ")}`;
    }
    case "masks":
      return `masks from the ${row.predictorInput}, step ${row.step}: overlap within a domain ${row.overlapWithin.map(percent).join(" ")} %, across ${row.overlapAcross.map(percent).join(" ")} %, chance ${percent(row.chance)} %`;
    case "clusters":
      return `${row.examples} prompts in ${row.clusters} clusters by what they activate; ${percent(row.purity)} % of the prompts are of their cluster's most frequent domain`;
    default:
      return `step ${"step" in row ? row.step : 0}`;
  }
}
