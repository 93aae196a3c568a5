import { Command, Option } from "commander";
import { startBackend } from "../engine/engine.ts";
import { InstructionModel } from "../serve/model.ts";
import { composePrompt } from "../text/prompt.ts";
import { DEFAULT_MODEL, integer, interruption, MODEL_HELP, numberFrom, printJson, readMask } from "./options.ts";

interface Options {
  model?: string;
  input?: string;
  maxTokens: number;
  temperature: number;
  seed: number;
  dense?: boolean;
  mask?: string;
  threads?: number;
  json?: boolean;
}

export function runCommand(): Command {
  return new Command("run")
    .description("Answer an instruction with the sub-network that it needs.")
    .argument("<instruction>", 'what to do, e.g. "Write the plural form of the given word. Input: wolf"')
    .option("--input <text>", "what to do it to; the same as writing `Input: <text>` after the instruction")
    .option("--model <folder>", MODEL_HELP)
    .option("--max-tokens <n>", "longest answer", integer(1), 128)
    .option("--temperature <t>", "0 is greedy", numberFrom(0), 0)
    .option("--seed <n>", "of sampling", integer(0), 0)
    .option("--dense", "run the unpruned model")
    .addOption(new Option("--mask <file>", "run under a mask that `ifprune mask --json` printed").conflicts("dense"))
    .option("--threads <n>", "worker threads", integer(1))
    .option("--json", "print one JSON document instead of the streamed answer")
    .action(run);
}

async function run(instruction: string, options: Options): Promise<void> {
  const { model: path = DEFAULT_MODEL, input, dense, mask, json, ...engine } = options;
  const signal = interruption();
  using model = new InstructionModel(path);
  await Promise.all([model.bundle.verify(), startBackend()]); // a damaged file is told from a bad answer; both take a while
  const choice = dense ? "dense" : mask === undefined ? undefined : readMask(mask);
  await using answer = await model.ask(composePrompt(instruction, input), { ...engine, mask: choice, signal });

  let text = "";
  let answerTokens = 0;
  const print = (piece: string) => {
    text += piece;
    if (!json) process.stdout.write(piece);
  };
  for await (const id of answer.tokens) {
    answerTokens++;
    print(answer.decoder.push(id));
  }
  print(answer.decoder.end());

  const { tFfn, dFfn } = answer.mask;
  const keptShare = tFfn / dFfn;
  if (json) {
    const { promptTokens, ms } = answer;
    printJson({ answer: text, keptShare, ms, promptTokens, answerTokens });
    return;
  }
  const { predict, gather, load, prefill, decode } = answer.ms;
  const stage = (name: string, ms: number) => `${name} ${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
  const stages = [stage("predict", predict), stage("gather", gather), stage("load", load), stage("prefill", prefill)];
  // The first token comes out of prefill.
  const speed = answerTokens > 1 ? ` · ${((1000 * (answerTokens - 1)) / decode).toFixed(0)} tokens/s` : "";
  const line = `${(100 * keptShare).toFixed(keptShare < 0.1 ? 1 : 0)} % of the FFN (${tFfn} of ${dFfn} channels) · ${stages.join(" · ")}${speed}`;
  process.stdout.write("\n");
  process.stderr.write(process.stderr.isTTY ? `\x1b[2m${line}\x1b[0m\n` : `${line}\n`);
}
