import { Command, Option } from "commander";
import { compareAnswers } from "../answer/compareAnswers.ts";
import { InstructionModel } from "../answer/instructionModel.ts";
import { ENGINE_OPTIONS, MAX_TOKENS } from "../engine/engineOptions.ts";
import { SAMPLING_OPTIONS } from "../engine/sampling.ts";
import { printComparison } from "./comparison.ts";
import { numberFlag } from "./numberFlag.ts";
import {
  addMaskFlags,
  DEFAULT_MODEL,
  interruption,
  type MaskFlags,
  MODEL_HELP,
  milliseconds,
  percent,
  printJson,
  readMask,
  scoresLine,
  withMaskFlags,
} from "./options.ts";

interface Options extends MaskFlags {
  model?: string;
  input?: string;
  maxTokens: number;
  temperature: number;
  seed: number;
  dense?: boolean;
  compare?: boolean;
  mask?: string;
  threads?: number;
  force?: boolean;
  json?: boolean;
}

export function runCommand(): Command {
  const command = new Command("run")
    .description("Answer an instruction with the sub-network that it needs.")
    .argument("<instruction>", 'what to do, e.g. "What is the plural of wolf?"')
    .option("--input <text>", "what to do it to: where the instruction says {input}, else as `Input: <text>` after it")
    .option("--model <folder>", MODEL_HELP)
    .addOption(numberFlag("--max-tokens <n>", MAX_TOKENS))
    .addOption(numberFlag("--temperature <t>", SAMPLING_OPTIONS.temperature))
    .addOption(numberFlag("--seed <n>", { ...SAMPLING_OPTIONS.seed, words: "of sampling, and of --source random" }))
    .option("--dense", "run the unpruned model")
    .addOption(
      new Option(
        "--compare",
        "run both, greedily, and show both answers, how far they agree and what each took",
      ).conflicts(["dense", "temperature"]),
    )
    .addOption(new Option("--mask <file>", "run under a mask that `ifprune mask --json` printed").conflicts("dense"))
    .addOption(numberFlag("--threads <n>", ENGINE_OPTIONS.threads))
    .option("--force", "load even what does not seem to fit into memory")
    .option("--json", "print one JSON document instead of the streamed answer")
    .action(run);
  return addMaskFlags(command);
}

async function run(instruction: string, options: Options): Promise<void> {
  const {
    model: path = DEFAULT_MODEL,
    input,
    dense,
    compare,
    mask,
    json,
    source,
    tFfn,
    text,
    examples,
    ...engine
  } = options;
  const signal = interruption();
  using model = new InstructionModel(path);
  await Promise.all([model.bundle.verify(), model.engines.start()]); // a damaged file is told from a bad answer; both take a while
  if (compare) {
    const { temperature: _, ...greedy } = engine;
    const given = mask === undefined ? undefined : readMask(mask);
    const comparison = await withMaskFlags({ source, tFfn, text, examples }, (how) =>
      compareAnswers(model, instruction, { ...greedy, ...how, input, mask: given, signal }),
    );
    return json ? printJson(comparison) : printComparison(comparison, process.stdout);
  }
  const choice = dense ? "dense" : mask === undefined ? undefined : readMask(mask);
  await using answer = await withMaskFlags({ source, tFfn, text, examples }, (how) =>
    model.ask(instruction, { ...engine, ...how, input, mask: choice, signal }),
  );

  let said = "";
  for await (const piece of answer) {
    said += piece;
    if (!json) process.stdout.write(piece);
  }

  const { chosen, ms, promptTokens, answerTokens } = answer;
  const { tFfn: kept, dFfn } = answer.mask;
  const keptShare = kept / dFfn;
  if (json) {
    printJson({ answer: said, keptShare, ...chosen, ms, promptTokens, answerTokens });
    return;
  }
  const { predict, gather, load, prefill, decode } = ms;
  const stages = [
    ...(chosen ? [scoresLine(chosen, predict)] : []),
    ...[milliseconds("gather", gather), milliseconds("load", load), milliseconds("prefill", prefill)],
  ];
  // The first token comes out of prefill.
  const speed = answerTokens > 1 ? ` · ${((1000 * (answerTokens - 1)) / decode).toFixed(0)} tokens/s` : "";
  const line = `${percent(keptShare)} of the FFN (${kept} of ${dFfn} channels) · ${stages.join(" · ")}${speed}`;
  process.stdout.write("\n");
  process.stderr.write(process.stderr.isTTY ? `\x1b[2m${line}\x1b[0m\n` : `${line}\n`);
}
