/** The recipes of the test bed: a dense source, and what is trained from it, each as one change of a recipe before it. */
import type { FactsOptions } from "./facts.ts";

export interface Settings extends FactsOptions {
  /** Steps of everything that starts from the source. */
  steps: number;
}

export interface Variant {
  name: string;
  /** What changes, in a line. */
  change: string;
  /** The recipe that is changed. */
  from?: string;
  /** As in a recipe with `extends`. */
  patch: Record<string, unknown>;
}

/** d_ffn and t_ffn. With twice as many kept, a static mask comes so close to the source that nothing is left to gain. */
const [D_FFN, T_FFN] = [256, 16];
const SOURCE_STEPS = 1800;
const EVALUATE_EVERY = 400;
/** Rows of a batch × tokens of a row. */
const TOKENS_PER_BATCH = 256 * 6;
const LEARNING_RATE = { llm: 4e-3, predictor: 1e-3 };
/** Run of another variant, to start from; `testbed.ts` puts its folder here. */
export const runOf = (name: string) => `{run of ${name}}`;

const data = {
  data: [{ domain: "tables", path: "data/train.jsonl", licence: "CC0-1.0" }],
  instructions: "data/instructions.json",
  tokensPerBatch: TOKENS_PER_BATCH,
};

function source({ seed }: Settings): Record<string, unknown> {
  return {
    seed,
    tokenizer: { path: "data/tokenizer.json" },
    llm: {
      width: 32,
      numLayers: 2,
      numHeads: 2,
      numKvHeads: 2,
      headWidth: 16,
      ffnWidth: D_FFN,
      contextLength: 16,
      tieEmbeddings: false,
    },
    stages: [
      {
        name: "facts",
        kind: "sft",
        steps: SOURCE_STEPS,
        ...data,
        learningRate: { llm: LEARNING_RATE.llm },
        warmupSteps: 20,
        minLearningRateShare: 0.05,
        weightDecay: 0,
        evaluate: { every: EVALUATE_EVERY, path: "data/held-out.jsonl" },
      },
    ],
    checkpointEvery: 1_000_000, // none but at the end: a run of a minute or two begins anew
  };
}

/** The whole table, first row the source. */
export function variants(settings: Settings): Variant[] {
  const { steps, tables: numTables } = settings;
  const joint = (changes: Record<string, unknown>) => ({ stages: { joint: changes } });
  const predictorRate = (predictor: number) => joint({ learningRate: { predictor } });
  /** Warm start, then the joint stage as it is in `from`: a change that adds a stage gives all of them. */
  const warmStart = {
    name: "warm-start",
    kind: "warm-start",
    steps: 500,
    ...data,
    learningRate: { predictor: 3e-3 },
    warmupSteps: 20,
    weightDecay: 0,
    examples: 20 * numTables,
  };
  /** A setting of the mask that changes on the way: one run goes on from the other, the last for half of the steps, at the full rate until then. */
  const schedule = (
    name: string,
    what: string,
    values: readonly number[],
    mask: (value: number) => object,
  ): Variant[] =>
    values.map((value, i) => {
      const isLast = i === values.length - 1;
      const own = isLast ? Math.ceil(steps / 2) : Math.floor(steps / 2 / (values.length - 1));
      const nameOf = (j: number) => `${name}-${j + 1}`;
      const before = nameOf(i - 1);
      return {
        name: isLast ? name : nameOf(i),
        change: i === 0 ? `${what} ${value} for ${own} steps` : `then ${what} ${value} for ${own} steps`,
        from: i === 0 ? "linear" : before,
        patch: {
          mask: mask(value),
          ...(i > 0 && { init: { run: runOf(before) } }),
          ...joint({
            steps: own,
            ...(isLast ? { minLearningRateShare: 0.05 } : { minLearningRateShare: 1 }),
            ...(i > 0 && { warmupSteps: 0 }),
          }),
        },
      };
    });
  const sourceRecipe = source(settings);
  const [facts] = sourceRecipe.stages as [Record<string, unknown>];
  const warmStages = { stages: [warmStart, { ...facts, name: "joint", steps, learningRate: LEARNING_RATE }] };

  return [
    { name: "source", change: "dense source", patch: sourceRecipe },
    {
      name: "small",
      change: "dense model of the activated size, all steps from scratch",
      from: "source",
      patch: { llm: { ffnWidth: T_FFN }, stages: { facts: { steps: SOURCE_STEPS + steps } } },
    },
    {
      name: "continued",
      change: "dense source, trained on",
      from: "source",
      patch: { init: { run: runOf("source") }, tokenizer: null, stages: { facts: { name: "joint", steps } } },
    },
    {
      name: "static",
      change: "one learned mask for all",
      from: "continued",
      patch: {
        mask: { kind: "learned-static", tFfn: T_FFN, epsilon: 0.3 },
        ...predictorRate(LEARNING_RATE.predictor),
      },
    },
    {
      name: "random-per-table",
      change: "a fixed random mask per table, chosen by its label (oracle)",
      from: "continued",
      patch: { mask: { kind: "random-per-domain", tFfn: T_FFN } },
    },
    {
      name: "linear-usual",
      change: "linear head as usually built: feature not centred, output bias",
      from: "static",
      patch: {
        predictor: {
          backbone: { width: 32, numLayers: 1, numHeads: 2, numKvHeads: 2, headWidth: 16, ffnWidth: 64 },
          head: "linear",
          rank: 64,
          input: "prompt",
          centred: false,
          importance: true,
        },
        mask: { kind: "predictor" },
      },
    },
    {
      name: "linear",
      change: "feature centred and scaled, no bias",
      from: "linear-usual",
      patch: { predictor: { centred: true, importance: false } },
    },
    {
      name: "linear-instruction",
      change: "reads the instruction only",
      from: "linear",
      patch: { predictor: { input: "instruction" } },
    },
    { name: "linear-warm", change: "warm start by activation statistics", from: "linear", patch: warmStages },
    {
      name: "linear-warm-instruction",
      change: "reads the instruction only",
      from: "linear-warm",
      patch: { predictor: { input: "instruction" } },
    },
    {
      name: "codebook",
      change: `chooses one of ${numTables} masks, random ones at first`,
      from: "linear",
      patch: { predictor: { head: "codebook", rank: numTables } },
    },
    { name: "codebook-warm", change: "warm start by clusters", from: "codebook", patch: warmStages },
    {
      name: "codebook-warm-core",
      change: "half of the channels in all entries at first",
      from: "codebook-warm",
      patch: { stages: { "warm-start": { core: 0.5 } } },
    },
    {
      name: "codebook-warm-statistics",
      change: "first entries from the clusters' statistics",
      from: "codebook-warm",
      patch: { stages: { "warm-start": { entries: "statistics" } } },
    },
    {
      name: "codebook-warm-frozen",
      change: "predictor frozen after the warm start",
      from: "codebook-warm",
      patch: joint({ train: "llm", learningRate: { predictor: null } }),
    },
    {
      name: "codebook-warm-frozen-instruction",
      change: "reads the instruction only",
      from: "codebook-warm-frozen",
      patch: { predictor: { input: "instruction" } },
    },
    {
      name: "codebook-warm-few",
      change: "a fourth of the entries",
      from: "codebook-warm",
      patch: { predictor: { rank: numTables / 4 } },
    },
    { name: "linear-blocks", change: "blocks of 4 channels", from: "linear", patch: { mask: { block: 4 } } },
    { name: "linear-epsilon-0.1", change: "ε 0.1 instead of 0.3", from: "linear", patch: { mask: { epsilon: 0.1 } } },
    { name: "linear-epsilon-1", change: "ε 1 instead of 0.3", from: "linear", patch: { mask: { epsilon: 1 } } },
    ...schedule("linear-annealed", "budget", [8 * T_FFN, 4 * T_FFN, 2 * T_FFN, T_FFN], (tFfn) => ({ tFfn })),
    ...schedule("linear-at-once", "budget", [T_FFN, T_FFN, T_FFN, T_FFN], (tFfn) => ({ tFfn })),
    ...schedule("linear-epsilon-falling", "ε", [1, 0.3, 0.1], (epsilon) => ({ epsilon })),
    {
      name: "linear-rate-high",
      change: "predictor learns 10 × faster",
      from: "linear",
      patch: predictorRate(10 * LEARNING_RATE.predictor),
    },
    {
      name: "linear-rate-low",
      change: "predictor learns 10 × slower",
      from: "linear",
      patch: predictorRate(LEARNING_RATE.predictor / 10),
    },
  ];
}
