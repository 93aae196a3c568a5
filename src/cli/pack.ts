import { packBundle } from "../bundle/packBundle.ts";
import type { WeightType } from "../formats/quantize.ts";
import { checkpointFolders } from "../train/checkpoint.ts";
import { makeInBlocks } from "./grouping.ts";
import { interruption } from "./interruption.ts";
import { Progress } from "./progress.ts";

interface Options {
  type: WeightType;
  ffnType?: WeightType;
  block?: number;
}

/** `ifprune pack` */
export async function packAction(checkpoint: string, out: string, { type, ffnType, block }: Options): Promise<void> {
  const signal = interruption("pack: stopped. Nothing was written.");
  let progress: Progress | undefined;
  const onProgress = (done: number, total: number) => {
    progress ??= new Progress({ label: "pack", total, unit: "bytes" });
    progress.update(done);
  };
  const make = async (folder: string) => {
    const options = { type, ffnType, block, signal, onProgress };
    const packing = packBundle(checkpointFolders(checkpoint)[0] ?? checkpoint, folder, options);
    const notes = await packing.finally(() => progress?.finish());
    for (const note of notes) process.stderr.write(`${note}\n`);
  };
  await makeInBlocks("pack", out, block, make, signal);
  process.stderr.write(`${out}: ${type} bundle${ffnType === undefined ? "" : `, gate and up in ${ffnType}`}\n`);
}
