/** When an answer counts as correct. Case, punctuation and accents count, but for `contains`; surrounding and repeated white space does not. */
import { z } from "zod";
import { asPattern } from "../words.ts";
import { taskExample } from "./examples.ts";

/**
 * - `any`: the output is one of the answers
 * - `comma-set`: the output's comma-separated items are those of an answer, in any order
 * - `word-set`: the output's words are those of an answer, in any order
 * - `contains`: an answer stands in the output, as whole words and numbers (5 not in 2.5, -5 or 1,500) and in any case: for models that answer in sentences
 */
const scorerName = z.enum(["any", "comma-set", "word-set", "contains"]);
export type ScorerName = z.infer<typeof scorerName>;

const answer = z.string().min(1);

/** A question that carries all that is needed to ask it and to judge its answer. A row of training data is one: its output is the answer. */
export const evalRow = z
  .object({
    task: z.string().min(1).default("questions"),
    instruction: z.string().min(1),
    input: z.string().optional(),
    /** What the instruction shows. */
    examples: z.array(taskExample).min(1).optional(),
    answers: z.array(answer).min(1).optional(),
    output: answer.optional(),
    scorer: scorerName.default("any"),
  })
  .transform(({ answers, output, ...row }, context) => {
    const all = answers ?? (output === undefined ? undefined : [output]);
    if (all) return { ...row, answers: all };
    context.addIssue('wanted "output", or "answers" that are right');
    return z.NEVER;
  });
export type EvalRow = z.infer<typeof evalRow>;

/** Is `output` right by `scorer`, given the accepted `answers`? In a set each item counts as often as it stands there. */
export function isCorrect(scorer: ScorerName, output: string, answers: readonly string[]): boolean {
  if (scorer === "contains") return answers.some((answer) => holdsWords(output, answer));
  const key = KEYS[scorer];
  const got = key(output);
  return answers.some((answer) => key(answer) === got);
}

/** NFC, trimmed, runs of white space as one space. */
function normalise(text: string): string {
  return text.normalize("NFC").trim().replace(/\s+/gu, " ");
}

function unordered(text: string, separator: string): string {
  return JSON.stringify(text.split(separator).map(normalise).sort());
}

function holdsWords(text: string, words: string): boolean {
  const fold = (one: string) => normalise(one).toLowerCase();
  const wanted = fold(words);
  const before = [/^\p{N}/u.test(wanted) && minusOrPoint, /^\p{N}{3}(?!\p{N})/u.test(wanted) && "(?<!\\p{N},)"];
  const after = /\p{N}$/u.test(wanted) && fraction;
  const parts = ["(?<![\\p{L}\\p{M}\\p{N}])", ...before, asPattern(wanted), "(?![\\p{L}\\p{M}\\p{N}])", after];
  return new RegExp(parts.filter(Boolean).join(""), "u").test(fold(text));
}

/** What no number begins after: a minus, which stands after no word, or the point of another number. */
const minusOrPoint = "(?<!(?<![\\p{L}\\p{N}])[-−]|\\p{N}\\.)";
/** What no number ends before: digits after a point, or thousands. */
const fraction = "(?!\\.\\p{N}|,\\p{N}{3}(?!\\p{N}))";

/** Outputs with equal keys are the same answer. */
const KEYS: Record<Exclude<ScorerName, "contains">, (text: string) => string> = {
  any: normalise,
  "comma-set": (text) => unordered(text, ","),
  "word-set": (text) => unordered(normalise(text), " "),
};
