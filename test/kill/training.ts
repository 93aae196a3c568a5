/** `ifprune train` of a tiny recipe with every kind of stage, in a process that may be killed, and what it leaves. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { loadLatestCheckpoint } from "../../src/train/checkpoint.ts";
import { readRunLog } from "../../src/train/runLog.ts";
import { entry } from "../support/cli.ts";
import { type KilledRun, runKilled } from "./kill.ts";

export const tinyRecipe = fileURLToPath(new URL("../fixtures/tiny/recipe.json", import.meta.url));

/** @param under path of the run that writes are counted of */
export function trainTiny(
  runs: string,
  { under = "", ...moment }: { under?: string; killAt?: number; laterMs?: number } = {},
): Promise<KilledRun> {
  return runKilled(entry, ["train", tinyRecipe, "--runs", runs], { under: join(runs, "tiny", under), ...moment });
}

/** All that a run leaves, without what time it was. */
export async function remainsOf(runs: string) {
  const runDir = join(runs, "tiny");
  const { card, metricsBytes, ...checkpoint } = (await loadLatestCheckpoint(runDir))!;
  const { created, ...provenance } = card.provenance;
  const rows = readRunLog(join(runDir, "metrics.jsonl")).map((row) => ({ ...row, ms: 0 }));
  const files = readdirSync(runDir, { recursive: true }).sort();
  return { checkpoint, card: { ...card, provenance }, rows, files };
}

export type Remains = Awaited<ReturnType<typeof remainsOf>>;
