import { packBundle } from "../bundle/packBundle.ts";
import type { WeightType } from "../formats/quantize.ts";
import { checkpointFolders } from "../train/checkpoint.ts";
import { makeInBlocks } from "./grouping.ts";
import { interruption } from "./interruption.ts";

interface Options {
  type: WeightType;
  ffnType?: WeightType;
  block?: number;
}

/** `ifprune pack` */
export async function packAction(checkpoint: string, out: string, { type, ffnType, block }: Options): Promise<void> {
  const make = async (folder: string) => {
    const notes = await packBundle(checkpointFolders(checkpoint)[0] ?? checkpoint, folder, {
      type,
      ffnType,
      block,
    });
    for (const note of notes) process.stderr.write(`${note}\n`);
  };
  await makeInBlocks("pack", out, block, make, interruption("pack: stopped. Nothing was written."));
  process.stderr.write(`${out}: ${type} bundle${ffnType === undefined ? "" : `, gate and up in ${ffnType}`}\n`);
}
