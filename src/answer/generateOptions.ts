/** Numbers that `generateAnswers` takes, beside those of a mask. */
import { ENGINE_OPTIONS, MAX_TOKENS } from "../engine/engineOptions.ts";
import { SAMPLING_OPTIONS } from "../engine/sampling.ts";
import type { NumberOption } from "../options.ts";

const { temperature, topP } = SAMPLING_OPTIONS;

export const GENERATE_OPTIONS = {
  maxTokens: MAX_TOKENS,
  temperature,
  topP,
  seed: { ...SAMPLING_OPTIONS.seed, words: "of sampling, and of --source random" },
  samples: { words: "answers to each prompt", isInteger: true, min: 1, fallback: 1 },
  slots: { ...ENGINE_OPTIONS.sequences, words: "answers under way at a time, computed in batches", fallback: 4 },
} as const satisfies Record<string, NumberOption>;
