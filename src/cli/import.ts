import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { importModel } from "../bundle/importModel.ts";
import type { PackOptions } from "../bundle/packBundle.ts";
import { FileError, OptionError } from "../errors.ts";
import { shellWord } from "../words.ts";
import { makeInBlocks } from "./grouping.ts";
import { interruption } from "./interruption.ts";
import { measureBundle } from "./measuring.ts";
import { Progress } from "./progress.ts";

interface Options {
  type?: PackOptions["type"];
  checkpoint?: boolean;
  block?: number;
  tokenizer?: string;
  licence?: string;
  text?: string;
  threads?: number;
  measure: boolean;
}

/** `ifprune import` */
export async function importAction(
  source: string,
  out: string,
  { checkpoint, block, text, threads, measure, ...options }: Options,
): Promise<void> {
  if (text !== undefined && (checkpoint || !measure))
    throw new OptionError("import: wanted no --text where nothing is measured, got one. Leave it out.");
  if (threads !== undefined && (checkpoint || !measure))
    throw new OptionError("import: wanted no --threads where nothing is measured, got some. Leave it out.");
  if (text !== undefined && !existsSync(text)) throw new FileError(text, "wanted a text, got no file. Check the path.");
  let progress: Progress | undefined;
  const onProgress = (done: number, total: number) => {
    progress ??= new Progress({ label: "import", total, unit: "bytes" });
    progress.update(done);
  };
  const as = checkpoint ? "checkpoint" : "bundle";
  const signal = interruption("import: stopped. Nothing was written.");
  const make = async (folder: string) => {
    const importing = importModel(source, folder, { ...options, as, block, onProgress, signal });
    const { notes } = await importing.finally(() => progress?.finish());
    for (const note of notes) process.stderr.write(`${note}\n`);
  };
  await makeInBlocks("import", out, block, make, signal);
  if (!checkpoint && measure) await measureBundle(out, { text, threads });
  process.stderr.write(
    checkpoint
      ? `${out}: checkpoint. Name it in a recipe as "init": {"run": "${resolve(out)}"}, or by its path from the recipe's folder.\n`
      : `${out}: bundle. It has no trained masks: \`ifprune run --model ${shellWord(out)} "…"\` answers with the whole model, with --keep 90% by what the prompt activates.\n`,
  );
}
