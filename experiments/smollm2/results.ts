/**
 * What was measured, as it is committed in `results/`, and `experiments.json`, which says in words what each file is. A file that is not there is shown as not run; one that nothing
 * names is refused, so that no result is left out in silence.
 */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { FileError } from "../../src/errors.ts";
import { readJson } from "../../src/json.ts";

const words = z.string().min(1);
const count = z.int().positive();
const share = z.number().min(0).max(1);
const kl = z.number(); // nats a token; of a model and itself as likely a little below 0 as above
const score = z.strictObject({ kl, agreement: share });
const maskName = z.enum(["own", "foreign", "generic", "dense"]);
export type MaskName = z.infer<typeof maskName>;

/** Means over kinds, and each kind. */
const scores = z.strictObject({
  ...score.shape,
  byKind: z.record(words, score),
  /** Of each prompt of a kind the sum of its KL and how many tokens that is over. Absent of results that are older. */
  byPrompt: z.record(words, z.array(z.tuple([kl, count]))).optional(),
});
export type Scores = z.infer<typeof scores>;

const matrix = z
  .strictObject({
    model: words,
    keep: share,
    kinds: z.array(words).min(2),
    /** Of the prompts of a kind (row) under masks of another's (column). [kinds, kinds] */
    kl: z.array(z.array(kl)),
    /** Overlap of masks drawn at random. */
    chance: share,
    /** Mean overlap of two prompts' masks, of one kind and of two, by layer; null where no kind has two prompts. [L] */
    overlapWithin: z.array(share.nullable()).min(1),
    overlapAcross: z.array(share).min(1),
  })
  .refine(({ kinds, kl }) => [kl, ...kl].every(({ length }) => length === kinds.length), {
    path: ["kl"],
    error: "wanted a row and a column of each kind",
  })
  .refine(({ overlapWithin, overlapAcross }) => overlapWithin.length === overlapAcross.length, {
    path: ["overlapAcross"],
    error: "wanted as many layers as in overlapWithin",
  });

/** What `evaluate.ts` writes. */
const evaluation = z.strictObject({
  /** The dense checkpoint. */
  dense: words,
  /** How many. */
  prompts: count,
  rows: z.array(z.strictObject({ model: words, mask: maskName, keep: share, ...scores.shape })).min(1),
  matrices: z.array(matrix).min(1).optional(),
});
export type Evaluation = z.infer<typeof evaluation>;

/** Runs measured on held-out answers while they were healed, by name. */
const byStep = z.record(
  words,
  z.strictObject({
    /** Learned from to the end. */
    tokens: count,
    heldOut: z
      .array(
        z.strictObject({
          step: count,
          examples: count,
          kl: z.partialRecord(maskName, kl),
          agreement: z.partialRecord(maskName, share),
        }),
      )
      .min(1),
    trainLoss: z.array(z.strictObject({ steps: words, loss: z.number() })),
  }),
);
export type ByStep = z.infer<typeof byStep>;

/** What `ifprune eval BUNDLE data/questions.jsonl --json` prints, as far as it is shown. */
const questions = z.looseObject({
  tasks: z.array(z.looseObject({ task: words, count, accuracy: share })).min(1),
});
export type Questions = z.infer<typeof questions>;

const armSchema = z.strictObject({
  name: words,
  /** In `results`. */
  file: words,
  /** Of the file, where it holds several. */
  model: words.optional(),
  /** What it was healed with; `run`: its name in `byStep`, which says steps and tokens. */
  healed: z
    .union([
      z.strictObject({ rate: z.number().positive(), run: words }),
      z.strictObject({ rate: z.number().positive(), steps: count, tokens: count }),
    ])
    .optional(),
});
const experiments = z.strictObject({
  tables: z.array(z.strictObject({ title: words, note: words.optional(), arms: z.array(armSchema).min(1) })),
  /** Files of arms that were measured on the same prompts, the one against the other under its own masks. */
  pairs: z.array(z.strictObject({ name: words, file: words, against: words })).default([]),
  /** File of held-out answers while healing. */
  byStep: words,
  /** File of the arm that figures and the card are of, at the first share that it holds. */
  best: words,
  /** Files of answers to the plain questions, in the order of the card's columns. */
  questions: z.array(z.strictObject({ name: words, file: words })).min(1),
  /** With tables of ours between marks (`experiments/report/documents.ts`), relative to `experiments.json`; those that are not there yet are left out. */
  documents: z.array(words),
});

/** A row of the tables: a model that keeps so much. */
export interface Arm {
  name: string;
  healed?: { rate: number; steps: number; tokens: number } | undefined;
  /** Nothing if it was not run. */
  result?: { keep: number; prompts: number; scores: Partial<Record<MaskName, Scores>>; matrix?: Matrix | undefined };
}
type Matrix = z.infer<typeof matrix>;

export interface Evidence {
  tables: { title: string; note?: string | undefined; arms: Arm[] }[];
  /** Under own masks; nothing where one was not run. */
  pairs: { name: string; own: Scores | undefined; against: Scores | undefined }[];
  byStep: ByStep;
  best: Arm;
  questions: { name: string; result: Questions | undefined }[];
  /** Paths. */
  documents: string[];
}

function read<T>(path: string, schema: z.ZodType<T>, wanted: string): T {
  const parsed = schema.safeParse(readJson(path));
  if (!parsed.success) throw new FileError(path, `wanted ${wanted}, got: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
}

/**
 * @param folder of `experiments.json` and `results`
 * @throws {FileError} if one of the files is not what it should be, or nothing names it
 */
export function readEvidence(folder: string): Evidence {
  const path = join(folder, "experiments.json");
  const plan = read(path, experiments, "experiments");
  const results = join(folder, "results");
  const listed = plan.tables.flatMap(({ arms }) => arms);
  const named = [...listed, ...plan.questions].map(({ file }) => file);
  const unnamed = readdirSync(results).find(
    (file) => file.endsWith(".json") && ![plan.byStep, ...named].includes(file),
  );
  if (unnamed !== undefined)
    throw new FileError(
      join(results, unnamed),
      `wanted a result that ${path} names, got another. Say there what it is.`,
    );

  const steps = read(join(results, plan.byStep), byStep, "runs by step");
  const healedOf = ({ healed }: z.infer<typeof armSchema>): Arm["healed"] => {
    if (!healed || "steps" in healed) return healed;
    const run = steps[healed.run];
    if (!run) throw new FileError(path, `wanted a run of ${plan.byStep}, got "${healed.run}".`);
    return { rate: healed.rate, steps: run.heldOut.at(-1)!.step, tokens: run.tokens };
  };
  const armsOf = (arm: z.infer<typeof armSchema>): Arm[] => {
    const about = { name: arm.name, healed: healedOf(arm) };
    const file = join(results, arm.file);
    if (!existsSync(file)) return [about];
    return resultsOf(file, arm.model).map((result) => ({ ...about, result }));
  };
  const ownOf = (file: string) => {
    const arm = listed.find((one) => one.file === file);
    if (!arm) throw new FileError(path, `"pairs": wanted files of arms, got "${file}".`);
    return armsOf(arm)[0]!.result?.scores.own;
  };
  const best = listed.find(({ file }) => file === plan.best);
  if (!best) throw new FileError(path, `"best": wanted the file of an arm, got "${plan.best}".`);
  return {
    tables: plan.tables.map((table) => ({ ...table, arms: table.arms.flatMap(armsOf) })),
    pairs: plan.pairs.map(({ name, file, against }) => ({ name, own: ownOf(file), against: ownOf(against) })),
    byStep: steps,
    best: armsOf(best)[0]!,
    questions: plan.questions.map(({ name, file }) => {
      const answers = join(results, file);
      return { name, result: existsSync(answers) ? read(answers, questions, "scores of questions") : undefined };
    }),
    documents: plan.documents.map((name) => join(folder, name)).filter((document) => existsSync(document)),
  };
}

/** A model's results, one for each share that its masks keep; one of all channels where it has no masks. */
function resultsOf(path: string, wanted: string | undefined): NonNullable<Arm["result"]>[] {
  const { rows, matrices, prompts } = read(path, evaluation, "an evaluation");
  const models = [...new Set(rows.map(({ model }) => model))];
  const model = wanted ?? models[0]!;
  if (!models.includes(model) || (wanted === undefined && models.length > 1))
    throw new FileError(path, `wanted ${wanted ?? "results of one model"}, got ${models.join(", ")}.`);
  const own = rows.filter((row) => row.model === model);
  const keeps = new Set(own.flatMap(({ mask, keep }) => (mask === "dense" ? [] : [keep])));
  return [...(keeps.size > 0 ? keeps : [1])].map((keep) => {
    const shown = own.filter((row) => row.mask === "dense" || row.keep === keep);
    const scores = Object.fromEntries(
      shown.map(({ mask, kl, agreement, byKind, byPrompt }) => [mask, { kl, agreement, byKind, byPrompt }]),
    );
    return {
      keep,
      prompts,
      scores,
      matrix: matrices?.find((one) => one.model === model && one.keep === keep),
    };
  });
}
