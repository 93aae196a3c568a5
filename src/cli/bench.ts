import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runBench } from "../bench/bench.ts";
import { benchFigure, benchMarkdown } from "../bench/benchReport.ts";
import type { Budget } from "../bundle/budget.ts";
import { interruption, printJson } from "./options.ts";
import { Progress } from "./progress.ts";

interface Options extends Budget {
  promptLengths?: number[];
  tokens: number;
  repeats: number;
  threads?: number;
  out?: string;
  json?: boolean;
}

/** `ifprune bench` */
export async function benchAction(
  bundle: string,
  { promptLengths, tokens, repeats, out, json, ...options }: Options,
): Promise<void> {
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
