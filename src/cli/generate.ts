import { type GeneratedAnswers, generateAnswers } from "../answer/generate.ts";
import { InstructionModel } from "../answer/instructionModel.ts";
import type { Form } from "../bundle/formOptions.ts";
import { interruption, stopped } from "./interruption.ts";
import { checkOut, type MaskFlags, printJson, readMask, readMaskFlags } from "./options.ts";
import { Progress } from "./progress.ts";

interface Options extends MaskFlags {
  maxTokens: number;
  temperature: number;
  topP: number;
  seed: number;
  samples: number;
  slots: number;
  mask?: string;
  form: Form;
  threads?: number;
  force?: boolean;
  json?: boolean;
}

/** `ifprune generate` */
export async function generateAction(path: string, prompts: string, out: string, options: Options): Promise<void> {
  const { mask, json, source, keep, maxLoss, tFfn, text, examples, ...rest } = options;
  checkOut(out, [prompts]);
  const signal = interruption();
  using model = new InstructionModel(path);
  await Promise.all([model.bundle.verify(), model.engines.start()]);
  const given = mask === undefined ? undefined : readMask(mask);
  let progress: Progress | undefined;
  const onProgress = (done: number, total: number, tokens: number) => {
    if (progress) progress.update(done, (seconds) => `${Math.round(tokens / seconds)} tokens/s`);
    else progress = new Progress({ label: "answers", total, done });
  };
  let report: GeneratedAnswers;
  try {
    const how = await readMaskFlags({ source, keep, maxLoss, tFfn, text, examples });
    report = await generateAnswers(model, prompts, out, { ...rest, ...how, mask: given, signal, onProgress });
  } finally {
    progress?.finish();
  }
  if (json) printJson(report);
  if (!report.isWhole)
    throw stopped(`stopped and saved after ${report.asked} of ${report.prompts} prompts; the same command goes on`);
  if (!json) process.stderr.write(`${summary(report, out)}\n`);
}

function summary(report: GeneratedAnswers, out: string): string {
  const { rows, tokens, newTokens, seconds, cut, empty, tooLong } = report;
  const left = [
    cut > 0 && `${cut} cut at --max-tokens`,
    empty > 0 && `${empty} without text`,
    tooLong > 0 && `${tooLong} prompts longer than the context`,
  ].filter(Boolean);
  const speed = newTokens > 0 ? ` · ${Math.round(newTokens / seconds)} tokens/s` : "";
  return `${out}: ${rows} rows · ${tokens} tokens${speed}${left.length > 0 ? ` · left out: ${left.join(", ")}` : ""}`;
}
