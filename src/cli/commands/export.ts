import { Command, InvalidArgumentError, Option } from "commander";
import { ENGINE_OPTIONS } from "../../engine/engineOptions.ts";
import { EXPORT_FORMATS, EXPORT_TYPES, type ExportFormat } from "../../export/exportTypes.ts";
import { addMaskFlags, integer, late, MODEL_NAME } from "./flags.ts";
import { numberFlag } from "./numberFlag.ts";

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
    .addOption(
      new Option("--type <type>", 'type of the GGUF\'s weights; "keep": as in the bundle')
        .choices(EXPORT_TYPES)
        .default("keep"),
    )
    .addOption(numberFlag("--threads <n>", { ...ENGINE_OPTIONS.threads, words: "worker threads of the source" }))
    .addHelpText(
      "after",
      `
One of --task, --instruction and --mask must be given. The Hugging Face folder has BF16 or F32 weights where the bundle has, else F16, of Gemma BF16.

Examples:
  ifprune export tiny plurals --task "Write the plural form of the given word."
  ifprune export bundle small --mask mask.json --format gguf --type Q4_0
  ifprune verify small
`,
    )
    .action(late(async () => (await import("../export.ts")).exportAction));
  return addMaskFlags(command);
}

function formats(text: string): ExportFormat[] {
  const list = text.split(",").map((name) => {
    const format = EXPORT_FORMATS.find((one) => one === name.trim());
    if (format === undefined) throw new InvalidArgumentError(`Wanted some of ${EXPORT_FORMATS.join(", ")}.`);
    return format;
  });
  if (new Set(list).size !== list.length) throw new InvalidArgumentError("Wanted each format once.");
  return list;
}
