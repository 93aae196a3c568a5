import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Command, InvalidArgumentError } from "commander";
import { BENCH_OPTIONS, PROMPT_LENGTHS, runBench } from "../bench/bench.ts";
import { benchFigure, benchMarkdown } from "../bench/benchReport.ts";
import { numberFlag } from "./numberFlag.ts";
import { interruption, MODEL_NAME, printJson } from "./options.ts";
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
    .argument("<bundle>", `${MODEL_NAME}; the dense model must fit into memory, and into the cache folder on disk`)
    .addOption(numberFlag("--t-ffn <n>", BENCH_OPTIONS.tFfn))
    .option(
      "--prompt-lengths <list>",
      `tokens, e.g. 32,512 (default: ${PROMPT_LENGTHS}, as far as the model reads)`,
      lengths,
    )
    .addOption(numberFlag("--tokens <n>", BENCH_OPTIONS.answerTokens))
    .addOption(numberFlag("--repeats <n>", BENCH_OPTIONS.repeats))
    .addOption(numberFlag("--threads <n>", BENCH_OPTIONS.threads))
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
