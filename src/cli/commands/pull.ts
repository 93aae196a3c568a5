import { Command } from "commander";
import { late } from "./flags.ts";

export function pullCommand(): Command {
  return new Command("pull")
    .description(
      "Bring a model from the Hugging Face Hub: a bundle, or what becomes one, a checkpoint in safetensors or a GGUF file. Its id then names it wherever a model is wanted.",
    )
    .argument("<id>", "OWNER/NAME on the Hub")
    .option("--revision <name>", "branch, tag or commit (default: main)")
    .option(
      "--file <name>",
      "of a repository with GGUF files, the one to take (default: that of Q8_0, else of the next best type)",
    )
    .option("--out <folder>", "folder to make the bundle in (default: one in the cache, which the id names)")
    .option("--no-measure", "do not measure what masks that need no training cost")
    .option("--offline", "ask nobody: make it of what is in the Hub's cache (default: as HF_HUB_OFFLINE says)")
    .addHelpText(
      "after",
      `
Files come into the cache that the Hub's Python tools share (HF_HUB_CACHE, HF_HOME). Gated and private models need HF_TOKEN, another Hub HF_ENDPOINT.

Examples:
  ifprune pull HuggingFaceTB/SmolLM2-135M-Instruct
  ifprune run --model HuggingFaceTB/SmolLM2-135M-Instruct "Name three rivers."
`,
    )
    .action(late(async () => (await import("../pull.ts")).pullAction));
}
