import { Command, InvalidArgumentError, Option } from "commander";
import { InstructionModel } from "../answer/instructionModel.ts";
import { ENGINE_OPTIONS } from "../engine/engineOptions.ts";
import { OptionError } from "../errors.ts";
import { EXPORT_FORMATS, type ExportFormat, exportSubnetwork } from "../export/export.ts";
import { EXPORT_TYPES, type ExportType } from "../export/exportManifest.ts";
import { composePrompt } from "../text/prompt.ts";
import { numberFlag } from "./numberFlag.ts";
import {
  addMaskFlags,
  integer,
  interruption,
  type MaskFlags,
  MODEL_NAME,
  oneOf,
  readNamedMask,
  withMaskFlags,
} from "./options.ts";
import { Progress } from "./progress.ts";

interface Options extends MaskFlags {
  task?: string;
  instruction?: string;
  mask?: string;
  seed?: number;
  format: ExportFormat[];
  type: ExportType;
  threads?: number;
}

export function exportCommand(): Command {
  const command = new Command("export")
    .description(
      "Write a sub-network as an ordinary small model: a Hugging Face folder and a GGUF file, with a model card.",
    )
    .argument("<model>", MODEL_NAME)
    .argument("<out>", "folder to make")
    .addOption(
      new Option("--task <description>", "keep what this kind of task needs, described in words").conflicts([
        "instruction",
        "mask",
      ]),
    )
    .addOption(new Option("--instruction <text>", "keep what this instruction needs").conflicts(["mask"]))
    .addOption(
      new Option(
        "--mask <mask>",
        "keep what a mask keeps: a file that `ifprune mask --json` printed, or task:NAME, a saved task",
      ).conflicts(["examples", "seed", "threads"]),
    )
    .option("--seed <n>", "of --source random", integer(0))
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
    .addOption(numberFlag("--threads <n>", { ...ENGINE_OPTIONS.threads, words: "worker threads of the source" }))
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
  return addMaskFlags(command);
}

async function run(path: string, out: string, options: Options): Promise<void> {
  const { task, instruction, mask: maskFile, seed, format, type, threads } = options;
  const asked = task ?? instruction;
  if (asked === undefined && maskFile === undefined)
    throw new OptionError("export: wanted one of --task, --instruction and --mask, got none.");
  const signal = interruption("export: stopped. Nothing was written.");
  using model = new InstructionModel(path);
  await model.bundle.verify(); // before hours of use, not after
  let progress: Progress | undefined;
  try {
    const { examples, ...chosen } = await withMaskFlags(options, async ({ examples, ...how }) => {
      if (asked === undefined)
        return { examples, mask: await readNamedMask(maskFile!, model.bundle), source: undefined };
      return { examples, ...(await model.mask(asked, { ...how, examples, seed, threads, signal })) };
    });
    const onProgress = (done: number, total: number) => {
      progress ??= new Progress({ label: "export", total, unit: "bytes" });
      progress.update(done);
    };
    const shown = (text: string | undefined) => text && composePrompt(text, undefined, examples);
    const about = { task: shown(task), instruction: shown(instruction), maskSource: chosen.source };
    await exportSubnetwork(model.bundle, chosen.mask, out, { formats: format, type, ...about, signal, onProgress });
  } finally {
    progress?.finish();
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
