/** What `bench` measures, as it may be chosen. */
import { ENGINE_OPTIONS } from "../engine/engineOptions.ts";
import type { NumberOption } from "../options.ts";

export const BENCH_OPTIONS = {
  answerTokens: { words: "tokens of each answer", isInteger: true, min: 2, fallback: 64 },
  repeats: { words: "rounds", isInteger: true, min: 1, fallback: 3 },
  threads: ENGINE_OPTIONS.threads,
} as const satisfies Record<string, NumberOption>;

/** Tokens. */
export const PROMPT_LENGTHS = [32, 128, 512, 1024];
