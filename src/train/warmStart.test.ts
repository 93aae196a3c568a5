import { describe, expect, test } from "vitest";
import { goldenModel } from "../../test/support/models.ts";
import { maskFromScores } from "../mask/mask.ts";
import type { PredictorConfig } from "../model/predictorConfig.ts";
import type { Evaluator } from "../net/evaluator.ts";
import { Random } from "../random.ts";
import { PromptFormat } from "../text/prompt.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { encodeQuestions, type Question, type SftData } from "./data.ts";
import { prepareWarmStart, sampleQuestions, type WarmStartOptions } from "./warmStart.ts";

/** One id per character: its code; BOS 0, EOS 1. */
const tokenizer = {
  bosId: 0,
  eosId: 1,
  encode: (text: string) => Int32Array.from(text, (character) => character.charCodeAt(0)),
} as Tokenizer;

/** Three tasks of 30, 10 and 50 questions in two wordings; the answer begins with the number of the task. */
const questions = [30, 10, 50].flatMap((count, task) =>
  Array.from({ length: count }, (_, i): Question => {
    const words = { domain: `task ${task}`, wordings: [`do ${task}`, `please do ${task}`] };
    return { ...words, weight: 1, input: `${i}`, answer: `${task}${i}` };
  }),
);
const data = encodeQuestions(questions, new PromptFormat(tokenizer, "{prompt}\n"), {
  predictorInput: "prompt",
  maxTokens: 100,
});

const [L, F] = [2, 24];
const predictorOf = (changes: Partial<PredictorConfig>): PredictorConfig => ({
  ...{ backbone: goldenModel("llama").config, head: "codebook", rank: 3, numLayers: L, ffnWidth: F, block: 1 },
  ...{ pooling: "last", importance: false, ...changes },
});
/** Channels 0 and 1 of a layer are always active, 4·task+2 .. 4·task+5 for the task whose answer is read, the rest a little. */
const evaluator = {
  statistics: async (sequences: Parameters<Evaluator["statistics"]>[0]) =>
    sequences.map(({ labels }, i) => {
      const random = new Random(`statistics ${i}`);
      const task = labels.find((label) => label >= 0)! - "0".charCodeAt(0);
      return Float32Array.from({ length: L * F }, (_, at) => {
        const channel = at % F;
        const base = channel < 2 ? 3 : Math.floor((channel - 2) / 4) === task ? 1 : 0.1;
        return base + 0.05 * random.float();
      });
    }),
} as unknown as Evaluator;

const sampled = sampleQuestions(data, 24, "1");
const options = {
  seed: "1",
  predictor: predictorOf({}),
  tFfn: 6,
  entries: "random",
  clusters: "ward",
  core: 0,
} as const;

describe("the sample", () => {
  test("has as many questions of every domain, each once and in one wording, the same again", () => {
    expect(sampled.questions.map((own) => own.length)).toEqual([8, 8, 8]);
    for (const own of sampled.questions) expect(new Set(own.map(({ input }) => input)).size).toBe(8);
    const wordings = sampled.questions.flat().map(({ wordings }) => wordings.length);
    expect(new Set(wordings)).toEqual(new Set([1]));
    expect(sampleQuestions(data, 24, "1").questions).toEqual(sampled.questions);
    expect(sampleQuestions(data, 24, "2").questions).not.toEqual(sampled.questions);
  });

  test("takes all questions of a domain that has too few", () => {
    expect(sampleQuestions(data, 60, "1").questions.map((own) => own.length)).toEqual([20, 10, 20]);
  });
});

/** The channels that an entry of the codebook keeps, per layer. */
function keptBy(codebook: Float32Array, entry: number, C: number, tFfn: number): number[][] {
  const scores = Float32Array.from({ length: codebook.length / C }, (_, i) => codebook[i * C + entry]!);
  return maskFromScores(scores, { dFfn: F, tFfn }).layers.map((kept) => [...kept]);
}
const taskOf = ({ domain }: Question) => Number(domain.at(-1));
const entriesByTask = (clusterOf: ReadonlyMap<Question, number>, of: SftData) =>
  [0, 1, 2].map((task) => new Set(of.questions[task]!.map((question) => clusterOf.get(question))));

async function clusters(own: WarmStartOptions) {
  const warmStart = await prepareWarmStart(sampled, evaluator, own);
  if (warmStart.kind !== "clusters") throw new Error("wanted clusters");
  return warmStart;
}

describe("a codebook", () => {
  test("gets an entry per kind of activations, found without the domains", async () => {
    const { clusterOf, purity } = await clusters(options);
    const byTask = entriesByTask(clusterOf, sampled);
    expect(byTask.map((entries) => entries.size)).toEqual([1, 1, 1]);
    expect(new Set(byTask.flatMap((entries) => [...entries])).size).toBe(3);
    expect(purity).toBe(1);
  });

  test.each(["random", "statistics"] as const)(
    "has spare %s entries where the kinds are clearly fewer",
    async (entries) => {
      const spacious = { ...options, predictor: predictorOf({ rank: 8 }), entries };
      const { clusterOf, numClusters, purity, codebook } = await clusters(spacious);
      expect([numClusters, purity]).toEqual([3, 1]);
      expect(new Set(clusterOf.values())).toEqual(new Set([0, 1, 2]));
      const kept = Array.from({ length: 8 }, (_, entry) => keptBy(codebook, entry, 8, 6));
      expect(new Set(kept.map(String)).size).toBe(8);
      const byMeans = await clusters({ ...spacious, clusters: "k-means" });
      expect(byMeans.numClusters).toBe(8);
    },
  );

  test("with fewer entries than tasks says how impure they are", async () => {
    const { purity } = await clusters({ ...options, predictor: predictorOf({ rank: 2 }) });
    expect(purity).toBeCloseTo(2 / 3, 9);
  });

  test("begins with random entries that differ, and a core that all keep", async () => {
    const { codebook } = await clusters({ ...options, core: 1 / 3 });
    const kept = [0, 1, 2].map((entry) => keptBy(codebook, entry, 3, 6));
    for (const layers of kept) for (const own of layers) expect(own.slice(0, 2)).toEqual([0, 1]); // the most active two
    expect(new Set(kept.map(String)).size).toBe(3);
  });

  test("or with what is special about the activations of its cluster", async () => {
    const { codebook, clusterOf } = await clusters({ ...options, tFfn: 4, entries: "statistics" });
    for (const question of sampled.questions.flat()) {
      const task = taskOf(question);
      const own = keptBy(codebook, clusterOf.get(question)!, 3, 4);
      expect(own[0]).toEqual([0, 1, 2, 3].map((i) => 4 * task + 2 + i));
    }
  });

  test("of blocks has one score per block", async () => {
    const predictor = predictorOf({ block: 4 });
    const { codebook } = await clusters({ ...options, predictor, tFfn: 8 });
    expect(codebook.length).toBe((L * F * 3) / 4);
  });
});

test("a linear head learns what is special about each prompt, standardised per layer", async () => {
  const predictor = predictorOf({ head: "linear" });
  const warmStart = await prepareWarmStart(sampled, evaluator, { ...options, predictor });
  if (warmStart.kind !== "statistics") throw new Error("wanted statistics");
  for (const question of sampled.questions.flat()) {
    const scores = warmStart.scoresOf.get(question)!;
    for (let layer = 0; layer < L; layer++) {
      const own = scores.subarray(layer * F, (layer + 1) * F);
      expect(own.reduce((sum, value) => sum + value, 0)).toBeCloseTo(0, 3);
      expect(own.reduce((sum, value) => sum + value * value, 0) / F).toBeCloseTo(1, 3);
      for (let channel = 2; channel < 14; channel++) {
        expect(own[channel]! > 0.5).toBe(Math.floor((channel - 2) / 4) === taskOf(question)); // the others' are noise
      }
    }
  }
});
