/** What was measured, as it is committed in `results/`: a file for each model. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { FileError } from "../../src/errors.ts";
import { readJson } from "../../src/json.ts";
import { zodWords } from "../../src/words.ts";

/** Tasks and arms in the order of tables; what they are says `README.md`. */
export const TASK_NAMES = ["sql", "sql-3500", "rewriting", "answers"] as const;
export const ARMS = [
  "dense",
  "tuned",
  "ours",
  "general",
  "activations",
  "no-least-squares",
  "unhealed",
  "griffin",
] as const;
/** Arms of the whole model: one of each task. */
export const WHOLE: readonly string[] = ["dense", "tuned"];

const share = z.number().min(0).max(1);
const result = z.strictObject({
  task: z.enum(TASK_NAMES),
  arm: z.enum(ARMS),
  /** Commit whose `specialize` healed it so. Absent: as it is. */
  recipe: z.string().min(1).optional(),
  keep: share,
  seed: z.int(),
  /** Trained on, padding included: each of tuning and healing. */
  tokens: z.int().positive(),
  /** Nats a token, from the teacher. */
  kl: z.number(),
  agreement: share,
  perplexity: z.number().positive(),
  /** Share of right answers of those asked for, where there are right ones. */
  exact: z.strictObject({ share, asked: z.int().positive() }).optional(),
  minutes: z.number().positive(),
});
export type Result = z.infer<typeof result>;
export type Measured = Pick<Result, "kl" | "agreement" | "perplexity" | "exact">;

/** By task, then tokens, then arm, the whole model before its parts and the largest share first. @throws {FileError} if one is not what it should be */
export function readResults(folder: string): Result[] {
  const read = (file: string) => {
    const path = join(folder, file);
    const parsed = result.safeParse(readJson(path));
    if (!parsed.success) throw new FileError(path, `wanted a result of suite.ts, got: ${zodWords(parsed.error)}.`);
    return parsed.data;
  };
  const places = ({ task, tokens, arm, recipe, keep, seed }: Result) => [
    TASK_NAMES.indexOf(task),
    Number(recipe !== undefined),
    tokens,
    WHOLE.includes(arm) ? 0 : 1,
    -keep,
    ARMS.indexOf(arm),
    seed,
  ];
  const difference = (a: Result, b: Result) => {
    const other = places(b);
    return places(a)
      .map((place, i) => place - other[i]!)
      .find((one) => one !== 0);
  };
  return readdirSync(folder)
    .filter((file) => file.endsWith(".json"))
    .map(read)
    .sort((a, b) => difference(a, b) ?? 0);
}
