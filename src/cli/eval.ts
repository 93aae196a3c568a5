import { writeFileSync } from "node:fs";
import { Command } from "commander";
import { OptionError } from "../errors.ts";
import { evaluateTasks, evaluateText, isTaskFile, type MaskChoice, type TaskReport } from "../eval/evaluate.ts";
import { type OpenedModel, openModel } from "../eval/load.ts";
import { checkMask, toDenseMask } from "../mask/mask.ts";
import { integer, printJson, readMask } from "./options.ts";

interface Options {
  mask: string;
  tFfn?: number;
  threads?: number;
  out?: string;
  json?: boolean;
}

const NAMED = ["input", "task", "foreign", "generic", "dense"] as const;
const UNTRAINED = ["griffin", "activations", "weights", "random"] as const;

export function evalCommand(): Command {
  return new Command("eval")
    .description(
      "Score a model on a task file (accuracy per task) or a text (perplexity): a checkpoint exactly, in float32; a bundle as it is served.",
    )
    .argument("<model>", "checkpoint folder, run folder (its newest checkpoint), or bundle folder")
    .argument(
      "<data>",
      'task file (.jsonl, .jsonl.gz) of {"instruction", "input"?, "output" or "answers": [], "task"?, "scorer"?}, or plain text',
    )
    .option(
      "--mask <choice>",
      "own (as it was trained), input (predicted from the whole prompt), task (from the instruction only), foreign (another task's), generic (one for all), dense, griffin / activations / weights / random (without a predictor), or a mask file",
      "own",
    )
    .option(
      "--t-ffn <n>",
      "channels per layer that griffin, activations, weights and random keep (default: as the predictor was trained)",
      integer(1),
    )
    .option("--threads <n>", "worker threads", integer(1))
    .option("--out <file>", "also write the whole report, with every answer, as JSON")
    .option("--json", "print JSON instead of a table")
    .action(evaluate);
}

async function evaluate(path: string, data: string, { mask, tFfn, threads, out, json }: Options): Promise<void> {
  const opened = await openModel(path, { threads, spinning: false });
  const choice = maskChoice(mask, tFfn, opened);
  const header = { model: path, data, mask };
  if (!isTaskFile(data)) {
    if (choice !== "input" && choice !== "dense" && !(typeof choice === "object" && "fixed" in choice)) {
      throw new OptionError(
        `eval: wanted --mask input, dense, weights, random or a mask file for a text, got "${mask}". Others need tasks.`,
      );
    }
    const report = { ...header, ...(await evaluateText(opened.model, data, choice, opened.text)) };
    if (out) writeFileSync(out, `${JSON.stringify(report, null, 2)}\n`);
    if (json) return printJson(report);
    process.stdout.write(
      `perplexity ${report.perplexity.toFixed(3)} · ${report.loss.toFixed(4)} nats · ${(100 * report.tokenAccuracy).toFixed(1)} % of ${report.tokens} tokens\n`,
    );
    return;
  }
  const report = await evaluateTasks(opened.model, data, choice, opened.text);
  if (out) writeFileSync(out, `${JSON.stringify({ ...header, ...report }, null, 2)}\n`);
  if (json) {
    const { answers, ...scores } = report;
    printJson({ ...header, ...scores });
  } else process.stdout.write(table(report));
}

function maskChoice(name: string, kept: number | undefined, opened: OpenedModel): MaskChoice {
  const { ownChoice, text, numLayers } = opened;
  const untrained = UNTRAINED.find((choice) => choice === name);
  if (kept !== undefined && untrained === undefined)
    throw new OptionError(`eval: wanted --t-ffn only with --mask ${UNTRAINED.join(", ")}, got it with "${name}".`);
  if (name === "own") return ownChoice;
  if (untrained !== undefined) {
    const tFfn = kept ?? text.softTopK?.tFfn;
    if (tFfn === undefined)
      throw new OptionError(`eval: wanted --t-ffn, how many channels --mask ${name} keeps, got none.`);
    return opened.untrainedChoice(untrained, tFfn);
  }
  const named = NAMED.find((choice) => choice === name);
  if (named !== undefined) {
    if (named !== "dense" && !text.softTopK)
      throw new OptionError(
        `eval: wanted a model with a predictor for --mask ${name}, got one without. Use own, dense, ${UNTRAINED.join(", ")} or a file.`,
      );
    return named;
  }
  const mask = readMask(name);
  checkMask(mask, name, { numLayers, ffnWidth: text.ffnWidth });
  return { fixed: toDenseMask(mask) };
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
