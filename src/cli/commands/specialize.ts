import { Command } from "commander";
import { MAX_LOSS, parseShare } from "../../bundle/budget.ts";
import { KEPT_SHARE, parseCount, SPECIALIZE_OPTIONS } from "../../specialize/specializeOptions.ts";
import { late } from "./flags.ts";
import { numberFlag } from "./numberFlag.ts";

export function specializeCommand(): Command {
  const { maxLoss, tokens, draft, maxTokens, temperature, seed, threads } = SPECIALIZE_OPTIONS;
  const keep = numberFlag("--keep <share>", KEPT_SHARE, parseShare);
  const share = keep.parseArg!;
  keep.argParser((text) => (text === "auto" ? text : share(text, undefined)));
  return new Command("specialize")
    .description(
      "Make a smaller model for one task of a model that you have: the channels that matter for the task's answers, trained to say what the whole model says. What comes is a bundle with a Hugging Face folder, GGUF files, a card and a report in it. Stopped or killed, the same command goes on.",
    )
    .argument(
      "<model>",
      "bundle folder or id of a pulled model, checkpoint or run, Hugging Face folder, or .gguf file; dense",
    )
    .requiredOption("--out <folder>", "folder to make; until it is whole, FOLDER.job is in its place")
    .option(
      "--task <text>",
      "the task in words, which is also asked of inputs that have no instruction: {input} is their place, else they follow as `Input: …`",
    )
    .option("--prompts <file>", 'prompts: JSON Lines of {"instruction"?, "input"?}, or plain text, one a line')
    .option(
      "--examples <file>",
      'prompts with right answers, which the whole model learns first: JSON Lines of {"instruction"?, "input"?, "output"}',
    )
    .addOption(
      numberFlag("--draft <n>", { ...draft, fallback: undefined, otherwise: `${draft.fallback}, none beside prompts` }),
    )
    .addOption(keep)
    .addOption(numberFlag("--max-loss <nats>", { ...maxLoss, otherwise: String(MAX_LOSS.fallback) }))
    .addOption(numberFlag("--tokens <n>", tokens, parseCount))
    .addOption(numberFlag("--max-tokens <n>", maxTokens))
    .addOption(
      numberFlag("--temperature <t>", { ...temperature, fallback: undefined, otherwise: String(temperature.fallback) }),
    )
    .addOption(numberFlag("--seed <n>", seed))
    .addOption(numberFlag("--threads <n>", threads))
    .option("--licence <text>", "licence of the prompts (default: unknown)")
    .option("--model-licence <text>", "licence of the model, where it does not say")
    .option("--yes", "take the drafts without asking")
    .option("--dry-run", "say what it would take on this machine, and do nothing")
    .option("--force", "go on where memory or disk seem too small")
    .option("--json", "print what happens as JSON Lines")
    .addHelpText(
      "after",
      `
Examples:
  ifprune specialize model.gguf --prompts questions.txt --out small --dry-run
  ifprune specialize model.gguf --task "Translate into SQL: {input}" --prompts questions.txt --out sql
  ifprune specialize model.gguf --task "Translate into SQL: {input}" --prompts twenty.txt --draft 256 --out sql
  ifprune run --model sql "Translate into SQL: How many films are from 1999?"
`,
    )
    .action(late(async () => (await import("../specialize.ts")).specializeAction));
}
