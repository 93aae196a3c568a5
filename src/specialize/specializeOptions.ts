/** Numbers that `specialize` takes. */
import { KEEP } from "../bundle/budget.ts";
import { ENGINE_OPTIONS, MAX_TOKENS } from "../engine/engineOptions.ts";
import { SAMPLING_OPTIONS } from "../engine/sampling.ts";
import type { NumberOption } from "../options.ts";

const { temperature, seed } = SAMPLING_OPTIONS;

export const SPECIALIZE_OPTIONS = {
  maxLoss: {
    words: "of --keep auto: nats that a token of held-out answers may be away from the whole model",
    min: 0,
    isAboveMin: true,
  },
  tokens: {
    words: "tokens that the smaller model learns from, padding included; as 200k",
    example: "200000 or 200k",
    isInteger: true,
    min: 1,
    fallback: 200_000,
  },
  draft: {
    words:
      "prompts that the model drafts itself: in the manner of those given, or inputs of the task from its words alone",
    isInteger: true,
    min: 32,
    fallback: 256,
  },
  maxTokens: { ...MAX_TOKENS, words: "longest answer, in tokens; those without an end are left out" },
  temperature: { ...temperature, words: "of the whole model's own answers" },
  seed: { ...seed, words: "of all that is drawn" },
  threads: { ...ENGINE_OPTIONS.threads, otherwise: "one per core" },
} as const satisfies Record<string, NumberOption>;

/** The share of each layer's FFN that stays. */
export const KEPT_SHARE = {
  ...KEEP,
  words: "share of the FFN that stays, as 50% or 0.5; auto: the smallest within --max-loss, found by short runs",
  example: "75%, 0.75 or auto",
  otherwise: "half",
} as const satisfies NumberOption;

/** "200k", "1.5M" or a plain number; NaN of all else. */
export function parseCount(text: string): number {
  const [, digits, unit] = /^(\d+\.?\d*)([kM]?)$/.exec(text.trim()) ?? [];
  return Math.round(Number(digits) * (unit === "M" ? 1e6 : unit === "k" ? 1e3 : 1));
}
