import type { Form } from "../bundle/formOptions.ts";
import type { Control, Scope } from "../eval/controls.ts";
import {
  type EvaluatedMasks,
  evaluateTasks,
  evaluateText,
  isTaskFile,
  type TaskReport,
  type TextReport,
} from "../eval/evaluate.ts";
import { openModel } from "../eval/load.ts";
import { writeWhole } from "../files.ts";
import { interruption } from "./interruption.ts";
import { checkOut, type MaskFlags, printJson, readMask, readMaskFlags } from "./options.ts";
import { Waiting } from "./progress.ts";

interface Options extends MaskFlags {
  seed?: number;
  per?: Scope;
  control?: Control;
  dense?: boolean;
  mask?: string;
  form: Form;
  threads?: number;
  out?: string;
  json?: boolean;
}

/** `ifprune eval` */
export async function evalAction(path: string, data: string, options: Options): Promise<void> {
  const { seed, per, control, dense, mask, form, threads, out, json } = options;
  checkOut(out, [data, mask, options.text, options.examples]);
  const signal = interruption();
  using waiting = new Waiting("loading", { isQuiet: json, since: 0 });
  await using opened = await openModel(path, { threads, spinning: false }, form);
  const given: EvaluatedMasks = {
    seed,
    per,
    control,
    mask: dense ? "dense" : mask === undefined ? undefined : readMask(mask),
  };
  const header = { model: path, data, mask: maskLabel(options), ...(form === "resident" && { form }) };
  const evaluated = { ...(await readMaskFlags(options, waiting)), ...given, signal };
  waiting.say("evaluating");
  const evaluate = isTaskFile(data) ? evaluateTasks : evaluateText;
  const report = await evaluate(opened, data, evaluated);
  waiting.end();
  if (json) printJson({ ...header, ...report, answers: undefined });
  else process.stdout.write("tasks" in report ? table(report) : textLine(report));
  if (out !== undefined) writeWhole(out, `${JSON.stringify({ ...header, ...report }, null, 2)}\n`);
}

const textLine = ({ perplexity, loss, tokenAccuracy, tokens }: TextReport) =>
  `perplexity ${perplexity.toFixed(3)} · ${loss.toFixed(4)} nats · ${(100 * tokenAccuracy).toFixed(1)} % of ${tokens} tokens\n`;

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
