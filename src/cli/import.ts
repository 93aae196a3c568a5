import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { Command } from "commander";
import { importModel } from "../bundle/importModel.ts";
import type { PackOptions } from "../bundle/packBundle.ts";
import { FileError, OptionError } from "../errors.ts";
import { measureBundle } from "./measuring.ts";
import { interruption, oneOf } from "./options.ts";
import { Progress } from "./progress.ts";

interface Options {
  type?: PackOptions["type"];
  checkpoint?: boolean;
  tokenizer?: string;
  licence?: string;
  text?: string;
  measure: boolean;
}

const TYPES = ["keep", "F32", "BF16", "F16", "Q8_0", "Q4_0"] as const satisfies PackOptions["type"][];

export function importCommand(): Command {
  return new Command("import")
    .description(
      "Turn a model into a bundle, which is run, pruned and exported. Reads Hugging Face folders (safetensors) and GGUF files of Llama, Mistral, SmolLM2, Qwen2, Qwen2.5, Qwen3, Gemma 2 and Gemma 3, and llama2.c checkpoints.",
    )
    .argument("<source>", "Hugging Face folder, .gguf file (of a split one, the first), or llama2.c .bin file")
    .argument("<out>", "folder to make")
    .option(
      "--type <type>",
      `type of the weights: ${TYPES.join(", ")} (default: keep for GGUF; else Q8_0, where the widths allow it)`,
      oneOf(TYPES),
    )
    .option(
      "--checkpoint",
      "make a float32 checkpoint instead, which `ifprune train` starts from (4 bytes a parameter)",
    )
    .option("--tokenizer <file>", "of a llama2.c checkpoint")
    .option("--licence <text>", "licence of the weights, for the provenance (default: what the model says)")
    .option("--text <file>", "measure what masks by --source glass and text cost too, made of this text")
    .option("--no-measure", "do not measure what masks that need no training cost")
    .action(importSource);
}

async function importSource(
  source: string,
  out: string,
  { checkpoint, text, measure, ...options }: Options,
): Promise<void> {
  if (text !== undefined && (checkpoint || !measure))
    throw new OptionError("import: wanted no --text where nothing is measured, got one. Leave it out.");
  if (text !== undefined && !existsSync(text)) throw new FileError(text, "wanted a text, got no file. Check the path.");
  let progress: Progress | undefined;
  const onProgress = (done: number, total: number) => {
    progress ??= new Progress({ label: "import", total, unit: "bytes" });
    progress.update(done);
  };
  const as = checkpoint ? "checkpoint" : "bundle";
  const importing = importModel(source, out, {
    ...options,
    as,
    onProgress,
    signal: interruption("import: stopped. Nothing was written."),
  });
  const { notes } = await importing.finally(() => progress?.finish());
  for (const note of notes) process.stderr.write(`${note}\n`);
  if (!checkpoint && measure) await measureBundle(out, text);
  process.stderr.write(
    checkpoint
      ? `${out}: checkpoint. Name it in a recipe as "init": {"run": "${resolve(out)}"}, or by its path from the recipe's folder.\n`
      : `${out}: bundle. It has no trained masks: \`ifprune run --model ${out} "…"\` answers with the whole model, with --keep 75% by what the prompt activates.\n`,
  );
}
