/** What `bench` and its processes tell each other. The processes' own file starts the engine when it is imported; this one does not. */

import { randomMask } from "../mask/baselines.ts";
import type { Mask } from "../mask/mask.ts";

/** What a variant runs. */
export type Run =
  /** An ordinary model file, loaded for every prompt. */
  | { kind: "model"; path: string }
  /** The same, loaded once. */
  | { kind: "loaded"; path: string; contextLength: number }
  /** The sub-network of a mask that lies in the cache, loaded for every prompt. */
  | { kind: "cached"; bundle: string; tFfn: number; root: string }
  /** That of a mask that does not: a new one for every prompt, predicted from it or drawn at random. */
  | { kind: "cold"; bundle: string; tFfn: number; root: string; masks: "predictor" | "random" };

export interface Job {
  run: Run;
  /** Of the prompt, and of a random mask. */
  seed: string;
  promptTokens: number;
  answerTokens: number;
  threads: number | undefined;
}

export interface Measurement {
  /** Stages before the first token; 0 where a variant has none. */
  ms: { predict: number; gather: number; load: number; prefill: number };
  /** From the prompt to the first token. */
  ttftMs: number;
  /** Tokens per second after the first. */
  decodeTps: number;
  /** Peak resident set of the process since the job began, bytes. Null where the system does not say. */
  peakRss: number | null;
  /** Bytes from read calls, of the page cache or not. Null where the system does not say. */
  bytesRead: number | null;
}

/** The mask that all cached variants share. */
export function fixedMask({ numLayers, ffnWidth }: { numLayers: number; ffnWidth: number }, tFfn: number): Mask {
  return randomMask({ numLayers, dFfn: ffnWidth, tFfn }, 0, "bench");
}
