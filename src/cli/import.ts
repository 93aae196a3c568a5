import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { findChannelGroups } from "../answer/channelGroups.ts";
import { InstructionModel } from "../answer/instructionModel.ts";
import { groupBundle } from "../bundle/groupBundle.ts";
import { importModel } from "../bundle/importModel.ts";
import type { PackOptions } from "../bundle/packBundle.ts";
import { FileError, OptionError } from "../errors.ts";
import { checkNewFolder } from "../files.ts";
import { measureBundle } from "./measuring.ts";
import { interruption, percent } from "./options.ts";
import { Progress } from "./progress.ts";

interface Options {
  type?: PackOptions["type"];
  checkpoint?: boolean;
  blocks?: number;
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
  { checkpoint, blocks, text, threads, measure, ...options }: Options,
): Promise<void> {
  if (text !== undefined && (checkpoint || !measure))
    throw new OptionError("import: wanted no --text where nothing is measured, got one. Leave it out.");
  if (text !== undefined && !existsSync(text)) throw new FileError(text, "wanted a text, got no file. Check the path.");
  let progress: Progress | undefined;
  const onProgress = (done: number, total: number) => {
    progress ??= new Progress({ label: "import", total, unit: "bytes" });
    progress.update(done);
  };
  const as = checkpoint ? "checkpoint" : "bundle";
  if (blocks !== undefined) checkNewFolder(out, "import");
  // Blocks are found by what the model does: first it is imported as it is, beside its place.
  const first = blocks === undefined ? out : `${resolve(out)}.ungrouped-${process.pid}`;
  const signal = interruption("import: stopped. Nothing was written.");
  try {
    const importing = importModel(source, first, { ...options, as, onProgress, signal });
    const { notes } = await importing.finally(() => progress?.finish());
    for (const note of notes) process.stderr.write(`${note}\n`);
    if (!checkpoint && measure) await measureBundle(first, { text, threads });
    if (blocks !== undefined) {
      await group(first, out, blocks);
      if (measure) await measureBundle(out, { text, threads });
    }
  } finally {
    if (blocks !== undefined) rmSync(first, { recursive: true, force: true });
  }
  process.stderr.write(
    checkpoint
      ? `${out}: checkpoint. Name it in a recipe as "init": {"run": "${resolve(out)}"}, or by its path from the recipe's folder.\n`
      : `${out}: bundle. It has no trained masks: \`ifprune run --model ${out} "…"\` answers with the whole model, with --keep 90% by what the prompt activates.\n`,
  );
}

/** A bundle with its channels in blocks, and what that is worth. */
async function group(path: string, out: string, block: number): Promise<void> {
  const signal = interruption("import: stopped. Nothing was written.");
  const root = mkdtempSync(join(tmpdir(), "ifprune-group-"));
  let progress: Progress | undefined;
  try {
    using model = new InstructionModel(path);
    const onProgress = (done: number, total: number) => {
      progress ??= new Progress({ label: "blocks", total });
      progress.update(done);
    };
    const { order, kept } = await findChannelGroups(model, block, { cache: { root }, signal, onProgress });
    await groupBundle(model.bundle, order, block, out, signal);
    const [grouped, free, stored] = [kept.grouped, kept.free, kept.stored].map(percent);
    process.stderr.write(
      `Half of the channels, in blocks of ${block}, keep ${grouped} of what contributes to a prompt; one by one they keep ${free}, in blocks as stored ${stored}.\n`,
    );
  } finally {
    progress?.finish();
    rmSync(root, { recursive: true, force: true });
  }
}
