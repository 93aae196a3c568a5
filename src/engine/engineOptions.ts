/** Numbers that engines take, and those of an answer. */
import type { NumberOption } from "../options.ts";

const count = { isInteger: true, min: 1 } as const satisfies Partial<NumberOption>;

export const ENGINE_OPTIONS = {
  contextLength: { words: "most tokens of a prompt and its answer", isInteger: true, min: 2 },
  sequences: { ...count, words: "calls that run at a time, each with a cache of its own", fallback: 1 },
  threads: {
    ...count,
    words: "worker threads",
    otherwise: "one per core, or fewer where tokens come quicker; one for a model under 32 MiB",
  },
} as const satisfies Record<string, NumberOption>;

/** "auto" takes a GPU where there is one with its binaries installed. */
export const GPUS = ["auto", false] as const;

export const MAX_TOKENS = {
  ...count,
  words: "longest answer, in tokens",
  fallback: 128,
} as const satisfies NumberOption;
