import { Command, InvalidArgumentError, Option } from "commander";
import { InstructionModel } from "../answer/instructionModel.ts";
import { SOURCE_NAMES, type SourceName } from "../answer/maskSource.ts";
import { OptionError } from "../errors.ts";
import { EXPORT_FORMATS, type ExportFormat, exportSubnetwork } from "../export/export.ts";
import { EXPORT_TYPES, type ExportType } from "../export/manifest.ts";
import { readText } from "../files.ts";
import { integer, interruption, oneOf, readMask } from "./options.ts";
import { Progress } from "./progress.ts";

interface Options {
  task?: string;
  instruction?: string;
  mask?: string;
  source?: SourceName;
  text?: string;
  seed?: number;
  tFfn?: number;
  format: ExportFormat[];
  type: ExportType;
  threads?: number;
}

export function exportCommand(): Command {
  return new Command("export")
    .description(
      "Write a sub-network as an ordinary small model: a Hugging Face folder and a GGUF file, with a model card.",
    )
    .argument("<model>", "bundle folder")
    .argument("<out>", "folder to make")
    .addOption(
      new Option("--task <description>", "keep what this kind of task needs, described in words").conflicts([
        "instruction",
        "mask",
      ]),
    )
    .addOption(new Option("--instruction <text>", "keep what this instruction needs").conflicts(["mask"]))
    .addOption(
      new Option("--mask <file>", "keep what a mask keeps that `ifprune mask --json` printed").conflicts([
        "source",
        "text",
        "seed",
        "tFfn",
        "threads",
      ]),
    )
    .option(
      "--source <source>",
      `what makes the mask: ${SOURCE_NAMES.join(", ")} (default: predictor where the bundle has one, else griffin)`,
      oneOf(SOURCE_NAMES),
    )
    .option("--text <file>", "text that the source `static` reads")
    .option("--seed <n>", "of the source `random`", integer(0))
    .option(
      "--t-ffn <n>",
      "channels to keep in each layer (default: as the predictor was trained, else about half)",
      integer(1),
    )
    .addOption(
      new Option("--format <formats>", "hf, gguf, or both with a comma between")
        .argParser(formats)
        .default([...EXPORT_FORMATS], EXPORT_FORMATS.join()),
    )
    .option(
      "--type <type>",
      `type of the GGUF's weights: ${EXPORT_TYPES.join(", ")} ("keep": as in the bundle)`,
      oneOf(EXPORT_TYPES),
      "keep",
    )
    .option("--threads <n>", "worker threads of the source", integer(1))
    .addHelpText(
      "after",
      `
One of --task, --instruction and --mask must be given. The Hugging Face folder has BF16 or F32 weights where the bundle has, else F16, of Gemma BF16.

Examples:
  ifprune export models/default plurals --task "Write the plural form of the given word."
  ifprune export bundle small --mask mask.json --format gguf --type Q4_0
  ifprune verify small
`,
    )
    .action(run);
}

async function run(path: string, out: string, options: Options): Promise<void> {
  const { task, instruction, mask: maskFile, source, text, seed, tFfn, format, type, threads } = options;
  const asked = task ?? instruction;
  if (asked === undefined && maskFile === undefined)
    throw new OptionError("export: wanted one of --task, --instruction and --mask, got none.");
  const signal = interruption();
  using model = new InstructionModel(path);
  await model.bundle.verify(); // before hours of use, not after
  const progress = new Map<string, Progress>();
  const show = (label: string, unit: "steps" | "bytes") => (done: number, total: number) => {
    if (!progress.has(label)) progress.set(label, new Progress({ label, total, unit }));
    progress.get(label)!.update(done);
  };
  try {
    const chosen =
      asked === undefined
        ? { mask: readMask(maskFile!), source: undefined }
        : await model.mask(asked, {
            source,
            tFfn,
            seed,
            text: text === undefined ? undefined : readText(text),
            threads,
            signal,
            onProgress: show("mask", "steps"),
          });
    const onProgress = show("export", "bytes");
    const about = { task, instruction, maskSource: chosen.source };
    await exportSubnetwork(model.bundle, chosen.mask, out, { formats: format, type, ...about, signal, onProgress });
  } finally {
    for (const line of progress.values()) line.finish();
  }
  process.stderr.write(
    `${out}: ${format.map((name) => (name === "hf" ? "Hugging Face folder" : "GGUF")).join(" and ")}\n`,
  );
}

function formats(text: string): ExportFormat[] {
  const one = oneOf(EXPORT_FORMATS);
  const list = text.split(",").map((name) => one(name.trim()));
  if (new Set(list).size !== list.length) throw new InvalidArgumentError("Wanted each format once.");
  return list;
}
