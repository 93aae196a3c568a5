/** Numbers that a local service takes. */
import { DEFAULT_CONTEXT_LENGTH } from "../bundle/memory.ts";
import { ENGINE_OPTIONS } from "../engine/engineOptions.ts";
import type { NumberOption } from "../options.ts";

export const SERVICE_OPTIONS = {
  memoryBytes: {
    words: "bytes that loaded sub-networks may take, by estimate",
    isInteger: true,
    min: 1,
    otherwise: "60 % of what is available at the start",
  },
  contextLength: {
    ...ENGINE_OPTIONS.contextLength,
    otherwise: `the model's, at most ${DEFAULT_CONTEXT_LENGTH}`,
  },
  slots: {
    words: "requests that a sub-network answers at a time; each has a cache of its own, which counts as memory",
    isInteger: true,
    min: 1,
    fallback: 4,
  },
  maxRunning: { words: "requests that run at a time, loading included", isInteger: true, min: 1, fallback: 16 },
  maxQueued: { words: "requests that may wait; more are refused", isInteger: true, min: 0, fallback: 64 },
  /** A loaded sub-network that keeps at least so much of a new mask is taken instead, though its answers are another mask's. */
  reuseOverlap: {
    words: "take a loaded sub-network that keeps this share of a prompt's channels in each layer",
    min: 0,
    isAboveMin: true,
    max: 1,
    otherwise: "never",
  },
  threads: ENGINE_OPTIONS.threads,
} as const satisfies Record<string, NumberOption>;
