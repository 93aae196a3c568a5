import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Command, InvalidArgumentError } from "commander";
import { runBench } from "../bench/bench.ts";
import { benchFigure, benchMarkdown } from "../bench/benchReport.ts";
import { integer, interruption, printJson } from "./options.ts";
import { Progress } from "./progress.ts";

interface Options {
  tFfn?: number;
  promptLengths?: number[];
  tokens: number;
  repeats: number;
  threads?: number;
  out?: string;
  json?: boolean;
}

export function benchCommand(): Command {
  return new Command("bench")
    .description(
      "Measure the dense model, an ordinary model of the sub-network's shape, and the sub-network: time to first token, speed, memory, beside what bytes and arithmetic allow.",
    )
    .argument("<bundle>", "bundle folder; the dense model must fit into memory, and into the cache folder on disk")
    .option("--t-ffn <n>", "channels kept per layer (default: the predictor's, else about half)", integer(1))
    .option(
      "--prompt-lengths <list>",
      "tokens, e.g. 32,512 (default: 32,128,512,1024, as far as the model reads)",
      lengths,
    )
    .option("--tokens <n>", "of each answer", integer(2), 64)
    .option("--repeats <n>", "rounds", integer(1), 3)
    .option("--threads <n>", "worker threads (default: one per core)", integer(1))
    .option("--out <folder>", "write bench.json, bench.md and bench.svg there")
    .option("--json", "print one JSON document instead of tables")
    .action(run);
}

function lengths(list: string): number[] {
  const values = list.split(",").map(Number);
  if (!values.every((value) => Number.isInteger(value) && value >= 1))
    throw new InvalidArgumentError("Wanted positive integers with commas between them.");
  return values;
}

async function run(bundle: string, { promptLengths, tokens, repeats, out, json, ...options }: Options): Promise<void> {
  let progress: Progress | undefined;
  const onProgress = (done: number, total: number, next: string) => {
    progress ??= new Progress({ label: "bench", total });
    progress.update(done, () => next);
  };
  const given = { ...options, promptTokens: promptLengths, answerTokens: tokens, repeats };
  const result = await runBench(bundle, { ...given, signal: interruption(), onProgress }).finally(() =>
    progress?.finish(),
  );
  const markdown = benchMarkdown(result);
  if (out !== undefined) {
    mkdirSync(out, { recursive: true });
    writeFileSync(join(out, "bench.json"), `${JSON.stringify(result, null, 1)}\n`);
    writeFileSync(join(out, "bench.md"), markdown);
    writeFileSync(join(out, "bench.svg"), benchFigure(result));
  }
  if (json) printJson(result);
  else process.stdout.write(markdown);
}
