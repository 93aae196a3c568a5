import { Command, Option } from "commander";
import type { PackOptions } from "../../bundle/packBundle.ts";
import { ENGINE_OPTIONS } from "../../engine/engineOptions.ts";
import { blockFlag, late } from "./flags.ts";
import { numberFlag } from "./numberFlag.ts";

const TYPES = ["keep", "F32", "BF16", "F16", "Q8_0", "Q4_0"] as const satisfies PackOptions["type"][];

export function importCommand(): Command {
  return new Command("import")
    .description(
      "Turn a model into a bundle, which is run, pruned and exported. Reads Hugging Face folders (safetensors) and GGUF files of Llama, Mistral, SmolLM2, Qwen2, Qwen2.5, Qwen3, Gemma 2 and Gemma 3, and llama2.c checkpoints.",
    )
    .argument("<source>", "Hugging Face folder, .gguf file (of a split one, the first), or llama2.c .bin file")
    .argument("<out>", "folder to make")
    .addOption(
      new Option(
        "--type <type>",
        "type of the weights (default: keep for GGUF; else Q8_0, where the widths allow it)",
      ).choices(TYPES),
    )
    .option(
      "--checkpoint",
      "make a float32 checkpoint instead, which `ifprune train` starts from (4 bytes a parameter), also of a bundle",
    )
    .addOption(blockFlag().conflicts("checkpoint"))
    .option("--tokenizer <file>", "of a llama2.c checkpoint")
    .option("--licence <text>", "licence of the weights, for the provenance (default: what the model says)")
    .option("--text <file>", "measure what masks by --source glass and text cost too, made of this text")
    .addOption(numberFlag("--threads <n>", { ...ENGINE_OPTIONS.threads, words: "worker threads of the measurement" }))
    .option("--no-measure", "do not measure what masks that need no training cost")
    .action(late(async () => (await import("../import.ts")).importAction));
}
