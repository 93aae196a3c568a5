/**
 * Instructions whose answers a program can judge, after IFEval's kinds (Zhou et al. 2023, arXiv:2311.07911), with prompts of our own:
 * `data/constraints.jsonl`. Judged strictly, on the answer as it is but for white space around it; whether it says anything sensible is not asked.
 */
import { z } from "zod";

const text = z.string().min(1);
const count = z.int().min(1);

const counted = <T extends string>(type: T) =>
  z
    .strictObject({ type: z.literal(type), min: count.optional(), max: count.optional() })
    .refine(({ min, max }) => min !== undefined || max !== undefined, 'wanted "min", "max" or both');

/** What an answer must have; `contains` and `excludes` of words ignore case and take whole words. */
export const constraint = z.union([
  counted("words"),
  counted("sentences"),
  counted("paragraphs"),
  counted("bullets"),
  counted("lines"),
  z.strictObject({ type: z.literal("case"), is: z.enum(["lower", "upper"]) }),
  z.strictObject({ type: z.literal("contains"), text, times: count.optional() }),
  z.strictObject({ type: z.literal("excludes"), text }),
  z.strictObject({ type: z.literal("starts"), text }),
  z.strictObject({ type: z.literal("ends"), text }),
  /** One JSON object, alone or in a fence, with these keys. */
  z.strictObject({ type: z.literal("json"), keys: z.array(text).min(1) }),
  /** All of it in double quotation marks. */
  z.strictObject({ type: z.literal("quoted") }),
  /** One of these and nothing else, ignoring case and a full stop. */
  z.strictObject({ type: z.literal("choice"), of: z.array(text).min(2) }),
  /** `<<A title>>`. */
  z.strictObject({ type: z.literal("title") }),
  /** `[name]`, at least so many. */
  z.strictObject({ type: z.literal("placeholders"), min: count }),
]);
export type Constraint = z.infer<typeof constraint>;

export const constrainedRow = z.strictObject({
  task: text,
  instruction: text,
  constraints: z.array(constraint).min(1),
});

/** Whether an answer keeps a constraint. Empty answers keep none. */
export function keeps(constraint: Constraint, given: string): boolean {
  const answer = given.trim();
  if (answer === "") return false;
  switch (constraint.type) {
    case "words":
    case "sentences":
    case "paragraphs":
    case "bullets":
    case "lines": {
      const { min = 0, max = Number.POSITIVE_INFINITY } = constraint;
      const n = COUNTS[constraint.type](answer);
      return min <= n && n <= max;
    }
    case "case":
      return answer === (constraint.is === "lower" ? answer.toLowerCase() : answer.toUpperCase());
    case "contains":
      return occurrences(answer, constraint.text) >= (constraint.times ?? 1);
    case "excludes":
      return occurrences(answer, constraint.text) === 0;
    case "starts":
      return answer.startsWith(constraint.text);
    case "ends":
      return answer.endsWith(constraint.text);
    case "json":
      return hasKeys(answer.replace(/^```(?:json)?\n([\s\S]*)\n```$/, "$1"), constraint.keys);
    case "quoted":
      return /^(?:"[^"]+"|“[^“”]+”)$/.test(answer);
    case "choice": {
      const said = answer.toLowerCase().replace(/\.$/, "");
      return constraint.of.some((option) => option.toLowerCase() === said);
    }
    case "title":
      return /<<[^<>\n]+>>/.test(answer);
    case "placeholders":
      return (answer.match(/\[[^[\]\n]+\](?!\()/g) ?? []).length >= constraint.min; // not a link's text
    default:
      return constraint satisfies never;
  }
}

const parts = (answer: string, separator: RegExp) =>
  answer.split(separator).filter((part) => part.trim() !== "").length;

const COUNTS = {
  words: (answer: string) => answer.split(/\s+/).filter((word) => /[\p{L}\p{N}]/u.test(word)).length,
  /** An ending mark within a word or number ("3.5", "e.g.,") ends nothing; titles with a full stop ("Mr.") do. */
  sentences: (answer: string) => parts(answer, /(?<=[.!?]["'”’)]*)\s+|\n+/),
  paragraphs: (answer: string) => parts(answer, /\n\s*\n/),
  bullets: (answer: string) => (answer.match(/^\s*[-*•] \S/gm) ?? []).length,
  lines: (answer: string) => parts(answer, /\n/),
};

/** Of a text, as whole words where it begins and ends with a letter. */
function occurrences(answer: string, text: string): number {
  const pattern = text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  return (answer.match(new RegExp(`(?<!\\p{L}(?=\\p{L}))${pattern}(?!(?<=\\p{L})\\p{L})`, "giu")) ?? []).length;
}

function hasKeys(answer: string, keys: readonly string[]): boolean {
  try {
    const value: unknown = JSON.parse(answer);
    return typeof value === "object" && value !== null && keys.every((key) => Object.hasOwn(value, key));
  } catch {
    return false;
  }
}
