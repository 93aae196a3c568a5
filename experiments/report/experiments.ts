/**
 * Experiments: training runs with several seeds, evaluated under one or several masks. `experiments.json` says what is compared,
 * `results/results.jsonl` beside it what was measured; tables and figures follow from these two.
 */
import { renameSync, writeFileSync } from "node:fs";
import { z } from "zod";
import { FileError, OptionError } from "../../src/errors.ts";
import { readJson } from "../../src/json.ts";
import { readJsonLines } from "../../src/text/jsonl.ts";
import { mean } from "./statistics.ts";

/** The test that judges tasks which follow a rule, and the one that judges tasks of facts: see {@link suiteTasks}. */
export const RULES_TEST = "unseen inputs";
export const FACTS_TEST = "unseen wordings";

/** Masks that a run can be evaluated under; `own` is what it was trained with. Name the masks of one run in one way. */
const MASKS = [
  "own",
  "input",
  "task",
  "foreign",
  "generic",
  "dense",
  "griffin",
  "weights",
  "activations",
  "random",
] as const;
export type Mask = (typeof MASKS)[number];

const words = z.string().min(1);
const source = {
  /** Its runs are the folders `RUN-s0`, `RUN-s1`, … */
  run: z.string().regex(/^(?!.*-s\d+$)[\w.-]+$/, 'wanted a run\'s name without its seed, such as "suite-ifp"'),
  mask: z.enum(MASKS),
};
const figure = {
  /** Name of its file. */
  name: z.string().regex(/^[\w-]+$/, "wanted letters, digits and hyphens"),
  title: words,
  /** Below the title. */
  note: words.optional(),
};

const figureSchema = z.discriminatedUnion("kind", [
  /** Overlap of masks by pairs of tasks, at the first, a middle and the last layer. */
  z.strictObject({
    kind: z.literal("overlap"),
    ...figure,
    ...source,
    test: words.default(FACTS_TEST),
    /** Tasks that come first, in this order; the others follow by name. */
    order: z.array(words).default([]),
  }),
  /** Suite score against a quantity, a line per series. */
  z.strictObject({
    kind: z.literal("lines"),
    ...figure,
    xLabel: words,
    xTicks: z.array(z.number()).min(2).optional(),
    /** Logarithmic x axis. */
    log: z.boolean().default(false),
    points: z.array(z.strictObject({ series: words, x: z.number(), ...source })).min(1),
  }),
  /** Suite score of variants beside that of the headline. */
  z.strictObject({
    kind: z.literal("bars"),
    ...figure,
    headline: z.strictObject({ name: words, ...source }),
    bars: z.array(z.strictObject({ name: words, ...source })).min(1),
  }),
]);

const experimentsSchema = z.strictObject({
  /** Task files by the name of the test, relative to this file. */
  tests: z.object({ [RULES_TEST]: words, [FACTS_TEST]: words }).catchall(words),
  /** Channels per layer that masks without a predictor keep. */
  tFfn: z.int().positive(),
  /** Wordings of each task's instruction, trained and held out, relative to this file. */
  instructions: words,
  /** Tasks that the suite score judges on unseen wordings: their unseen inputs follow from nothing. */
  facts: z.array(words),
  /** Tasks that a seed finds out as a whole or not at all, which moves the mean of all: scores are also shown without them. */
  allOrNothing: z.array(words).default([]),
  tables: z.array(
    z.strictObject({
      title: words,
      note: words.optional(),
      /** What every row is compared with, seed by seed. */
      headline: z.strictObject({ name: words, ...source }).optional(),
      /** The seeds that count; absent: all there are. */
      seeds: z.array(z.int().nonnegative()).min(1).optional(),
      rows: z.array(z.strictObject({ name: words, ...source, /** What the mask is made from. */ sees: words })).min(1),
    }),
  ),
  /** Differences that are claimed, over seeds that no choice was made on. */
  claims: z
    .array(
      z.strictObject({
        title: words,
        note: words.optional(),
        of: z.strictObject({ name: words, ...source }),
        over: z.array(z.strictObject({ name: words, ...source })).min(1),
        /** Seeds of which nothing was looked at before. */
        fresh: z.array(z.int().nonnegative()).min(1),
        /** Seeds that hyper-parameters were chosen on: shown, and left out of every mean. */
        chosenOn: z.array(z.int().nonnegative()).default([]),
      }),
    )
    .default([]),
  /** The tiny model, judged item by item: see tinyModel.ts. */
  tinyModel: z
    .strictObject({
      /** Its answers, relative to this file. */
      results: words,
      /** Tasks that it knows beside those of the suite. */
      further: z.array(words),
      tests: z
        .array(z.strictObject({ name: words, /** Task files. */ files: z.array(words).min(1), shows: words }))
        .min(1),
    })
    .optional(),
  /** Documents with tables of ours between marks, relative to this file: see documents.ts. */
  documents: z.array(words).default([]),
  figures: z
    .array(figureSchema)
    .refine((list) => new Set(list.map(({ name }) => name)).size === list.length, "wanted figures of different names"),
});

export type Experiments = z.infer<typeof experimentsSchema>;
export type Table = Experiments["tables"][number];
export type Claims = Experiments["claims"][number];
export type TinyModel = NonNullable<Experiments["tinyModel"]>;
export type Figure = z.infer<typeof figureSchema>;
/** What a row, a bar or a point shows: a run, with all its seeds, under a mask. */
export interface Source {
  run: string;
  mask: Mask;
}

/** @throws {FileError} if the file is missing or something else; the message names every wrong key */
export function readExperiments(path: string): Experiments {
  const parsed = experimentsSchema.safeParse(readJson(path));
  if (!parsed.success) throw new FileError(path, `wanted experiments, got: ${z.prettifyError(parsed.error)}`);
  return parsed.data;
}

/** Every run and mask that a table or figure shows, once. */
export function sourcesOf({ tables, figures, claims }: Experiments): Source[] {
  const ofFigure = (f: Figure): Source[] =>
    f.kind === "overlap" ? [f] : f.kind === "lines" ? f.points : [f.headline, ...f.bars];
  const claimed = claims.flatMap(({ of, over }) => [of, ...over]);
  const shown: Source[] = [...tables.flatMap(({ rows }) => rows), ...claimed, ...figures.flatMap(ofFigure)];
  return [...new Map(shown.map(({ run, mask }) => [`${run} ${mask}`, { run, mask }])).values()];
}

/** A matrix by domains as its lower triangle: row a holds columns 0 to a, for it is symmetric. */
const triangle = z.array(z.array(z.number().nullable()));

const taskSchema = z.looseObject({ task: words, accuracy: z.number() });
const resultSchema = z.strictObject({
  run: words,
  seed: z.number().int().nonnegative(),
  mask: z.enum(MASKS),
  test: words,
  /** Hash of what the checkpoint computes with, and of the test's file: with the same of both, it is not evaluated again. */
  checkpoint: words,
  questions: words,
  /** `TaskReport` without its answers, and with `masks.matrices` as triangles in place of `masks.matrix`. */
  report: z.looseObject({
    tasks: z.array(taskSchema).min(1),
    mean: z.looseObject({ accuracy: z.number() }),
    masks: z
      .looseObject({
        domains: z.array(words),
        chance: z.number(),
        overlapWithin: z.array(z.number().nullable()),
        overlapAcross: z.array(z.number().nullable()),
        everUsed: z.array(z.number()),
        matrices: z.array(triangle).optional(),
        /** Of masks from the instruction alone: mean overlap of a trained wording's and a held-out one's, over tasks and layers. */
        unseenWordings: z.number().optional(),
      })
      .optional(),
  }),
});

/** What one run of one seed scores on one test under one mask. */
export type Result = z.infer<typeof resultSchema>;
type Task = z.infer<typeof taskSchema>;

const keyOf = ({ run, seed, mask, test }: Omit<Result, "checkpoint" | "questions" | "report">) =>
  JSON.stringify([run, seed, mask, test]);

/** Results by run, seed, mask and test. */
export class Results {
  readonly #byKey: Map<string, Result>;

  constructor(results: Iterable<Result> = []) {
    this.#byKey = new Map([...results].map((result) => [keyOf(result), result]));
  }

  /** @throws {FileError} that names the line which is not a result, or that repeats one */
  static async read(path: string): Promise<Results> {
    const results = new Results();
    for await (const { line, row } of readJsonLines(path, resultSchema)) {
      if (results.#byKey.has(keyOf(row))) {
        throw new FileError(path, `line ${line}: wanted one result per run, seed, mask and test, got a second.`);
      }
      results.set(row);
    }
    return results;
  }

  get(key: Parameters<typeof keyOf>[0]): Result | undefined {
    return this.#byKey.get(keyOf(key));
  }

  /** Adds a result, in place of an earlier one of the same run, seed, mask and test. */
  set(result: Result): void {
    this.#byKey.set(keyOf(result), result);
  }

  /** Those of some seeds. */
  ofSeeds(seeds: readonly number[]): Results {
    return new Results([...this.#byKey.values()].filter(({ seed }) => seeds.includes(seed)));
  }

  /** Results of one seed of a run under a mask, by test. */
  seedOf({ run, seed, mask }: Source & { seed: number }): ReadonlyMap<string, Result> {
    const own = [...this.#byKey.values()].filter((r) => r.run === run && r.seed === seed && r.mask === mask);
    return new Map(own.map((result) => [result.test, result]));
  }

  /** The same of every seed there is, by ascending seed. */
  seedsOf({ run, mask }: Source): ReadonlyMap<string, Result>[] {
    const own = [...this.#byKey.values()].filter((result) => result.run === run && result.mask === mask);
    const seeds = [...new Set(own.map(({ seed }) => seed))].sort((a, b) => a - b);
    return seeds.map((seed) => this.seedOf({ run, seed, mask }));
  }

  /** Writes all results, one a line, in an order that does not depend on when they came; numbers with five digits. */
  write(path: string): void {
    const order = ({ run, seed, mask, test }: Result) => [run, String(seed).padStart(9, "0"), mask, test].join("\t");
    const sorted = [...this.#byKey.values()].map((result) => [order(result), result] as const);
    sorted.sort(([a], [b]) => (a < b ? -1 : 1));
    const short = (_: string, value: unknown) =>
      typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(5)) : value;
    const partial = `${path}.tmp`;
    writeFileSync(partial, sorted.map(([, result]) => `${JSON.stringify(result, short)}\n`).join(""));
    renameSync(partial, path);
  }
}

/**
 * The tasks of the suite score, each from the test that judges it: the `facts` from unseen wordings, all others from unseen inputs.
 *
 * @param byTest results of one seed under one mask
 * @returns nothing as long as one of the two tests is missing
 * @throws {OptionError} if a task is missing from the test that judges it
 */
export function suiteTasks(byTest: ReadonlyMap<string, Result>, facts: readonly string[]): Task[] | undefined {
  const [inputs, wordings] = [byTest.get(RULES_TEST)?.report.tasks, byTest.get(FACTS_TEST)?.report.tasks];
  if (!inputs || !wordings) return undefined;
  const names = [...new Set([...inputs, ...wordings].map(({ task }) => task)), ...facts];
  return [...new Set(names)].sort().map((name) => {
    const isFact = facts.includes(name);
    const found = (isFact ? wordings : inputs).find(({ task }) => task === name);
    if (found) return found;
    const test = isFact ? FACTS_TEST : RULES_TEST;
    throw new OptionError(`suite score: wanted the task "${name}" in "${test}", got none. Is "facts" right?`);
  });
}

/** Mean accuracy over the tasks of {@link suiteTasks}. @param without tasks that are left out */
export function suiteScore(
  byTest: ReadonlyMap<string, Result>,
  facts: readonly string[],
  without: readonly string[] = [],
): number | undefined {
  const tasks = suiteTasks(byTest, facts)?.filter(({ task }) => !without.includes(task));
  return tasks && mean(tasks.map(({ accuracy }) => accuracy));
}

/** What several seeds say. */
export interface Estimate {
  mean: number;
  /** Sample standard deviation; NaN of a single seed. */
  std: number;
  n: number;
}

/** Mean and spread of the values that are there; nothing if none is. */
export function estimate(values: readonly (number | undefined)[]): Estimate | undefined {
  const known = values.filter((value) => value !== undefined);
  if (known.length === 0) return undefined;
  const centre = mean(known);
  const squares = known.reduce((sum, value) => sum + (value - centre) ** 2, 0);
  return { mean: centre, std: Math.sqrt(squares / (known.length - 1)), n: known.length };
}

/** Suite score of a run under a mask, over its seeds, or those of `seeds`; nothing if it was not run. */
export function scoreOf(
  results: Results,
  facts: readonly string[],
  shown: Source,
  seeds?: readonly number[],
): Estimate | undefined {
  const wanted = results.seedsOf(shown).filter((byTest) => seeds?.includes(seedOf(byTest)) ?? true);
  return estimate(wanted.map((byTest) => suiteScore(byTest, facts)));
}

/** Seeds that every one of these runs has, of those that have any. */
export function commonSeeds(results: Results, shown: readonly Source[]): number[] {
  const seeds = shown.map((source) => results.seedsOf(source).map(seedOf)).filter((own) => own.length > 0);
  return (seeds[0] ?? []).filter((seed) => seeds.every((own) => own.includes(seed)));
}

const seedOf = (byTest: ReadonlyMap<string, Result>): number => [...byTest.values()][0]!.seed;

/** By how much the suite score of `shown` differs from that of `other`, over the seeds that both have. @param without as of {@link suiteScore} */
export function differenceOf(
  results: Results,
  facts: readonly string[],
  shown: Source,
  other: Source,
  without: readonly string[] = [],
): Estimate | undefined {
  const scores = [shown, other].map(
    (source) =>
      new Map(results.seedsOf(source).map((byTest) => [seedOf(byTest), suiteScore(byTest, facts, without)] as const)),
  );
  const paired = [...scores[0]!].map(([seed, score]) => {
    const counterpart = scores[1]!.get(seed);
    return score === undefined || counterpart === undefined ? undefined : score - counterpart;
  });
  return estimate(paired);
}

/** In percent: `71.9 ± 0.8`, `71.9 ± –` of a single seed. */
export function percent({ mean, std, n }: Estimate): string {
  return `${(100 * mean).toFixed(1)} ± ${n > 1 ? (100 * std).toFixed(1) : "–"}`;
}

export const NOT_RUN = "not run";
