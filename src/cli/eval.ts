import { writeFileSync } from "node:fs";
import { Command, Option } from "commander";
import { ENGINE_OPTIONS } from "../engine/engineOptions.ts";
import {
  CONTROLS,
  type Control,
  type EvaluatedMasks,
  evaluateTasks,
  evaluateText,
  isTaskFile,
  SCOPES,
  type Scope,
  type TaskReport,
} from "../eval/evaluate.ts";
import { openModel } from "../eval/load.ts";
import { numberFlag } from "./numberFlag.ts";
import {
  addMaskFlags,
  checkOut,
  integer,
  interruption,
  type MaskFlags,
  MODEL_NAME,
  oneOf,
  printJson,
  readMask,
  withMaskFlags,
} from "./options.ts";

interface Options extends MaskFlags {
  seed?: number;
  per?: Scope;
  control?: Control;
  dense?: boolean;
  mask?: string;
  threads?: number;
  out?: string;
  json?: boolean;
}

export function evalCommand(): Command {
  const command = new Command("eval")
    .description(
      "Score a model on a task file (accuracy per task) or a text (perplexity): a checkpoint exactly, in float32; a bundle as it is served. Prompts and masks are made as `run` makes them.",
    )
    .argument("<model>", `checkpoint folder, run folder (its newest checkpoint), ${MODEL_NAME}`)
    .argument(
      "<data>",
      'task file (.jsonl, .jsonl.gz) of {"instruction", "input"?, "examples"?, "output" or "answers": [], "task"?, "scorer"?}, or plain text',
    );
  addMaskFlags(command, "what the model was trained under; of others griffin for --keep or --t-ffn, else dense");
  const conflicting = [
    new Option("--seed <n>", "of --source random, and of --control random").argParser(integer(0)),
    new Option(
      "--per <what>",
      "make masks per input, from the whole prompt, or per task, from the instruction without its input; one with {input} in it stays whole (default: as the predictor was trained, else input)",
    ).argParser(oneOf(SCOPES)),
    new Option(
      "--control <name>",
      "instead of each prompt's own mask, of the same scores: foreign (the mask of another task's prompt), generic (one for all, of the mean scores), random (the scores of each layer in a random order)",
    ).argParser(oneOf(CONTROLS)),
  ];
  for (const flag of conflicting) command.addOption(flag.conflicts(["dense", "mask"]));
  return command
    .option("--dense", "run the unpruned model")
    .addOption(new Option("--mask <file>", "run under a mask that `ifprune mask --json` printed").conflicts("dense"))
    .addOption(numberFlag("--threads <n>", ENGINE_OPTIONS.threads))
    .option("--out <file>", "also write the whole report, with every answer, as JSON")
    .option("--json", "print JSON instead of a table")
    .action(evaluate);
}

async function evaluate(path: string, data: string, options: Options): Promise<void> {
  const { seed, per, control, dense, mask, threads, out, json } = options;
  checkOut(out);
  const signal = interruption();
  await using opened = await openModel(path, { threads, spinning: false });
  const given: EvaluatedMasks = {
    seed,
    per,
    control,
    mask: dense ? "dense" : mask === undefined ? undefined : readMask(mask),
  };
  const header = { model: path, data, mask: maskLabel(options) };
  const isTasks = isTaskFile(data);
  const report = await withMaskFlags(options, async (how) => {
    const evaluated = { ...how, ...given, signal };
    return isTasks ? await evaluateTasks(opened, data, evaluated) : await evaluateText(opened, data, evaluated);
  });
  if (out) writeFileSync(out, `${JSON.stringify({ ...header, ...report }, null, 2)}\n`);
  if ("perplexity" in report) {
    if (json) return printJson({ ...header, ...report });
    process.stdout.write(
      `perplexity ${report.perplexity.toFixed(3)} · ${report.loss.toFixed(4)} nats · ${(100 * report.tokenAccuracy).toFixed(1)} % of ${report.tokens} tokens\n`,
    );
    return;
  }
  if (json) {
    const { answers, ...scores } = report;
    printJson({ ...header, ...scores });
  } else process.stdout.write(table(report));
}

/** For reports: `own`, `dense`, a file, or what makes the masks, as `griffin, 64 channels, generic`. */
function maskLabel({ source, keep, tFfn, text, seed, per, control, dense, mask, examples }: Options): string {
  const words = [
    dense ? "dense" : (mask ?? source),
    text,
    keep && `keep ${keep}`,
    tFfn && `${tFfn} channels`,
    seed !== undefined && `seed ${seed}`,
    per && `per ${per}`,
    control,
    examples && `examples of ${examples}`,
  ].filter(Boolean);
  return words.join(", ") || "own";
}
function table({ tasks, mean, masks, numTooLong }: TaskReport): string {
  const width = Math.max(...tasks.map(({ task }) => task.length), "mean over tasks".length);
  const row = (name: string, { count, accuracy, tokenAccuracy, loss }: TaskReport["mean"]) =>
    `${name.padEnd(width)}  ${String(count).padStart(5)}  ${(100 * accuracy).toFixed(1).padStart(8)}  ${(100 * tokenAccuracy).toFixed(1).padStart(8)}  ${loss.toFixed(3).padStart(6)}\n`;
  const head = `${"task".padEnd(width)}  count  answer %   token %    nats\n`;
  const layers = (shares: readonly number[]) =>
    shares.map((share) => (Number.isNaN(share) ? "–" : (100 * share).toFixed(0))).join(" "); // of a single task there are no others
  const overlap = masks
    ? `kept channels in common, % per layer: within a task ${layers(masks.overlapWithin)}, across ${layers(masks.overlapAcross)} (chance ${(100 * masks.chance).toFixed(1)}); ever used ${layers(masks.everUsed)}\n`
    : "";
  const tooLong = numTooLong > 0 ? `${numTooLong} questions longer than the context are left out\n` : "";
  return head + tasks.map((task) => row(task.task, task)).join("") + row("mean over tasks", mean) + overlap + tooLong;
}
