/** A trainer that only saves: `checkpoints.ts RUN STEPS` goes on from the newest checkpoint and saves one at every step. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { lockRun } from "../../src/runLock.ts";
import { loadLatestCheckpoint, removeLeftovers, saveCheckpoint } from "../../src/train/checkpoint.ts";
import { RunLog } from "../../src/train/runLog.ts";
import { checkpointAt, rowAt } from "./state.ts";

const [run, steps] = process.argv.slice(2) as [string, string];
mkdirSync(run, { recursive: true });
using _ = lockRun(run);
removeLeftovers(run);
const latest = await loadLatestCheckpoint(run);
using log = new RunLog(join(run, "metrics.jsonl"), latest?.metricsBytes ?? 0);
for (let step = (latest?.step ?? 0) + 1; step <= Number(steps); step++) {
  log.append(rowAt(step));
  log.sync();
  await saveCheckpoint(run, { ...checkpointAt(step), metricsBytes: log.bytes });
  process.stdout.write(`${step}\n`);
}
