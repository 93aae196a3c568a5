/** GGUF files of other types beside that of F16: how far each is from it, in the engine that will run it. */
import { statSync } from "node:fs";
import type { EngineProvider } from "../engine/engine.ts";
import { logProbabilities } from "../engine/sampling.ts";
import type { LabelledSequence } from "../net/evaluator.ts";
import type { Distance } from "./specialization.ts";
import type { Hooks } from "./told.ts";

/** Sequences that are compared: all logits of each pass through memory. */
const SEQUENCES = 16;

/**
 * KL(reference, file) over the labelled positions of some sequences, and how often both find the same token likeliest.
 *
 * @param paths GGUF files; the first is the reference
 */
export async function compareFiles(
  engines: EngineProvider,
  [reference, ...others]: readonly string[],
  sequences: readonly LabelledSequence[],
  { threads, force }: { threads?: number | undefined; force?: boolean | undefined },
  { signal, onProgress }: Hooks,
): Promise<(Distance & { bytes: number })[]> {
  const some = sequences.slice(0, SEQUENCES);
  const contextLength = Math.max(...some.map(({ ids }) => ids.length)) + 1;
  const open = (path: string) => engines.open(path, { contextLength, threads, force, signal });
  await using exact = await open(reference!);
  const found: (Distance & { bytes: number })[] = [];
  let done = 0;
  for (const path of others) {
    await using engine = await open(path);
    let [kl, agreed, positions] = [0, 0, 0];
    for (const { ids, labels } of some) {
      signal.throwIfAborted();
      const [wanted, got] = [await exact.logits(ids), await engine.logits(ids)];
      for (const [t, label] of labels.entries()) {
        if (label < 0) continue;
        const [p, q] = [logProbabilities(wanted[t]!), logProbabilities(got[t]!)];
        for (const [id, log] of p.entries()) kl += Math.exp(log) * (log - q[id]!);
        if (largest(p) === largest(q)) agreed++;
        positions++;
      }
      onProgress(++done, some.length * others.length);
    }
    found.push({ bytes: statSync(path).size, kl: kl / positions, agreement: agreed / positions });
  }
  return found;
}

function largest(values: Float64Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}
