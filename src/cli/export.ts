import { InstructionModel } from "../answer/instructionModel.ts";
import { OptionError } from "../errors.ts";
import { exportSubnetwork } from "../export/export.ts";
import type { ExportFormat, ExportType } from "../export/exportTypes.ts";
import { composePrompt } from "../text/prompt.ts";
import { interruption } from "./interruption.ts";
import { keptLine, type MaskFlags, readMaskFlags, readNamedMask, STAGES } from "./options.ts";
import { Progress, Waiting } from "./progress.ts";

interface Options extends MaskFlags {
  task?: string;
  instruction?: string;
  mask?: string;
  seed?: number;
  format: ExportFormat[];
  type: ExportType;
  threads?: number;
}

/** `ifprune export` */
export async function exportAction(path: string, out: string, options: Options): Promise<void> {
  const { task, instruction, mask: maskFile, seed, format, type, threads } = options;
  const asked = task ?? instruction;
  if (asked === undefined && maskFile === undefined)
    throw new OptionError("export: wanted one of --task, --instruction and --mask, got none.");
  const signal = interruption("export: stopped. Nothing was written.");
  using waiting = new Waiting("checking the bundle", { since: 0 });
  using model = new InstructionModel(path);
  await model.bundle.verify(); // before hours of use, not after
  const how = await readMaskFlags(options, waiting);
  waiting.say(STAGES.predict);
  const { mask, source } =
    asked === undefined
      ? { mask: await readNamedMask(maskFile!, model.bundle), source: undefined }
      : await model.mask(asked, { ...how, seed, threads, signal });
  waiting.end();
  let progress: Progress | undefined;
  try {
    const onProgress = (done: number, total: number) => {
      progress ??= new Progress({ label: "export", total, unit: "bytes" });
      progress.update(done);
    };
    const shown = (text: string | undefined) => text && composePrompt(text, undefined, how.examples);
    const about = { task: shown(task), instruction: shown(instruction), maskSource: source };
    await exportSubnetwork(model.bundle, mask, out, { formats: format, type, ...about, signal, onProgress });
  } finally {
    progress?.finish();
  }
  const models = format.map((name) => (name === "hf" ? "Hugging Face folder" : "GGUF")).join(" and ");
  process.stderr.write(`${out}: ${models}, ${keptLine(mask, options)}\n`);
}
