import { Command, Option } from "commander";
import { compareAnswers } from "../answer/compareAnswers.ts";
import { InstructionModel } from "../answer/instructionModel.ts";
import { isMasked } from "../answer/maskSource.ts";
import { ENGINE_OPTIONS, MAX_TOKENS } from "../engine/engineOptions.ts";
import { SAMPLING_OPTIONS } from "../engine/sampling.ts";
import { OptionError } from "../errors.ts";
import { readText } from "../files.ts";
import { printComparison } from "./comparison.ts";
import { numberFlag } from "./numberFlag.ts";
import {
  addMaskFlags,
  DEFAULT_MODEL,
  denseNote,
  interruption,
  keptLine,
  type MaskFlags,
  MODEL_HELP,
  milliseconds,
  printJson,
  qualityWords,
  readNamedMask,
  scoresLine,
  withMaskFlags,
} from "./options.ts";

interface Options extends MaskFlags {
  model?: string;
  input?: string;
  file?: string[];
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
    .argument(
      "[instruction...]",
      'what to do, e.g. "What is the plural of wolf?"; several words are one instruction; - or none: standard input',
    )
    .addOption(
      new Option(
        "--input <text>",
        "what to do it to: where the instruction says {input}, else as `Input: <text>` after it",
      ).conflicts("file"),
    )
    .option("--file <path>", "the same from a file, - for standard input; may be given more than once", appended)
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
    .addOption(
      new Option(
        "--mask <mask>",
        "run under a mask: a file that `ifprune mask --json` printed, or task:NAME, a saved task",
      ).conflicts("dense"),
    )
    .addOption(numberFlag("--threads <n>", ENGINE_OPTIONS.threads))
    .option("--force", "load even what does not seem to fit into memory")
    .option("--json", "print one JSON document instead of the streamed answer")
    .action(run);
  return addMaskFlags(command);
}

function appended(path: string, before: readonly string[] = []): string[] {
  return [...before, path];
}

/** What is asked, and what it is done to: words and files, one of which may be standard input. */
async function readAsked(words: readonly string[], input: string | undefined, files: readonly string[] | undefined) {
  const isPiped = words.length === 0 || (words.length === 1 && words[0] === "-");
  if (words.length === 0 && process.stdin.isTTY)
    throw new OptionError('run: wanted an instruction, got none. As: ifprune run "What is the plural of wolf?"');
  if (Number(isPiped) + (files ?? []).filter((path) => path === "-").length > 1)
    throw new OptionError("run: wanted standard input once, got it for more.");
  const instruction = isPiped ? (await standardInput()).trim() : words.join(" ");
  if (files === undefined) return { instruction, input };
  const texts: string[] = [];
  for (const path of files) texts.push(path === "-" ? await standardInput() : readText(path));
  return { instruction, input: texts.map((text) => text.trim()).join("\n\n") };
}

async function standardInput(): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks).toString();
}

async function run(words: string[], options: Options): Promise<void> {
  const {
    model: path = DEFAULT_MODEL,
    input: given,
    file: files,
    dense,
    compare,
    mask,
    json,
    source,
    keep,
    maxLoss,
    tFfn,
    text,
    examples,
    ...engine
  } = options;
  const { instruction, input } = await readAsked(words, given, files); // Ctrl-C ends it
  const signal = interruption();
  using model = new InstructionModel(path);
  await Promise.all([model.bundle.verify(), model.engines.start()]); // a damaged file is told from a bad answer; both take a while
  const flags = { source, keep, maxLoss, tFfn, text, examples };
  if (compare) {
    const { temperature: _, ...greedy } = engine;
    const given = mask === undefined ? undefined : await readNamedMask(mask, model.bundle);
    const comparison = await withMaskFlags(flags, (how) =>
      compareAnswers(model, instruction, { ...greedy, ...how, input, mask: given, signal }),
    );
    return json ? printJson(comparison) : printComparison(comparison, process.stdout);
  }
  if (!dense && mask === undefined && !isMasked(model, flags))
    process.stderr.write(denseNote({ dFfn: model.bundle.ffnWidth, quality: model.manifest.quality }));
  const choice = dense ? "dense" : mask === undefined ? undefined : await readNamedMask(mask, model.bundle);
  await using answer = await withMaskFlags(flags, (how) =>
    model.ask(instruction, { ...engine, ...how, input, mask: choice, signal }),
  );

  let said = "";
  for await (const piece of answer) {
    said += piece;
    if (!json) process.stdout.write(piece);
  }

  const { chosen, ms, promptTokens, answerTokens } = answer;
  const keptShare = answer.mask.tFfn / answer.mask.dFfn;
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
  const line = `${keptLine(answer.mask, flags)}${qualityWords(chosen?.quality)} · ${stages.join(" · ")}${speed}`;
  process.stdout.write("\n");
  process.stderr.write(process.stderr.isTTY ? `\x1b[2m${line}\x1b[0m\n` : `${line}\n`);
}
