import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { runBench } from "../bench/bench.ts";
import { benchFigure, benchMarkdown } from "../bench/benchReport.ts";
import type { Budget } from "../bundle/budget.ts";
import { makeFile, makeFolders } from "../files.ts";
import { interruption } from "./interruption.ts";
import { checkOutFolder, printJson } from "./options.ts";
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
  if (out !== undefined) checkOutFolder(out);
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
  if (json) printJson(result);
  else process.stdout.write(markdown);
  if (out !== undefined) {
    makeFolders(out);
    const written = { "bench.json": `${JSON.stringify(result, null, 1)}\n`, "bench.md": markdown };
    for (const [name, text] of Object.entries({ ...written, "bench.svg": benchFigure(result) }))
      makeFile(join(out, name), (partial) => writeFileSync(partial, text));
  }
}
