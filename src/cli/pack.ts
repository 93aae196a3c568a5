import { packBundle } from "../bundle/packBundle.ts";
import type { WeightType } from "../formats/quantize.ts";
import { checkpointFolders } from "../train/checkpoint.ts";

/** `ifprune pack` */
export async function packAction(checkpoint: string, out: string, { type }: { type: WeightType }): Promise<void> {
  const notes = await packBundle(checkpointFolders(checkpoint)[0] ?? checkpoint, out, { type });
  for (const note of notes) process.stderr.write(`${note}\n`);
  process.stderr.write(`${out}: ${type} bundle\n`);
}
