/**
 * What a predictor learns before it makes masks: which channels the dense LLM activates when it answers a prompt (the statistic of
 * GRIFFIN, over the prompt's own answer or those of a conversation that it begins). A linear head learns the statistic itself; a
 * codebook's router learns which cluster of prompts, by that statistic, a prompt belongs to. So masks differ between kinds of prompts,
 * and agree within one, from the first joint step on: the two properties that a predictor does not find by itself. Domain labels are
 * used to draw prompts and to continue conversations, not to form clusters.
 *
 * Shapes: L layers · F channels of a layer, in F/block blocks of one score · R entries of the codebook
 */

import { blockMeans, standardizeScores } from "../mask/standardize.ts";
import type { PredictorConfig } from "../model/predictorConfig.ts";
import type { Evaluator } from "../net/evaluator.ts";
import { labelledTurns } from "../net/labels.ts";
import { Random } from "../random.ts";
import { addTurns } from "./batches.ts";
import { kMeans, meanOf, means, wardClusters } from "./cluster.ts";
import type { Question, SftData, Turn } from "./data.ts";

/** What the predictor shall say of each of the sampled questions: of a codebook the entry, of a linear head the scores [L·F/block]. */
export type WarmStart =
  | {
      kind: "clusters";
      clusterOf: ReadonlyMap<Question, number>;
      /** Start values of the codebook, [L·F/block, R]. */
      codebook: Float32Array;
      numClusters: number;
      /** Share of the questions whose domain is the most frequent one of their cluster. */
      purity: number;
    }
  | { kind: "statistics"; scoresOf: ReadonlyMap<Question, Float32Array> };

export interface WarmStartOptions {
  seed: string;
  predictor: PredictorConfig;
  tFfn: number;
  /** Statistics are taken over conversations of so many tokens; of single questions if absent. */
  sequenceLength?: number | undefined;
  /** First scores of the codebook's entries: drawn at random, or the cluster's own statistic against all clusters'; spare ones at random. */
  entries: "random" | "statistics";
  /** How a codebook's prompts are grouped. Ward's clusters may be fewer than its entries; the others are spare. */
  clusters: "ward" | "k-means";
  /** Share of t_ffn that every entry keeps at first: the channels that are most active over all prompts. */
  core: number;
}

/** The same data with about `count` questions in it, each in one wording: domains alike, questions and wordings at random. */
export function sampleQuestions(data: SftData, count: number, seed: string): SftData {
  const random = new Random(`${seed}/examples`);
  const domains = data.questions.filter((questions) => questions.length > 0).length;
  const questions = data.questions.map((ofDomain) => {
    const order = random.permutation(ofDomain.length).subarray(0, Math.ceil(count / domains));
    return Array.from(order, (question) => {
      const drawn = ofDomain[question]!;
      return { ...drawn, wordings: [drawn.wordings[random.int(drawn.wordings.length)]!] };
    });
  });
  return { ...data, questions };
}

/** @param evaluator of the LLM, dense */
export async function prepareWarmStart(
  data: SftData,
  evaluator: Evaluator,
  options: WarmStartOptions,
): Promise<WarmStart> {
  const { predictor, seed, sequenceLength } = options;
  const random = new Random(`${seed}/turns`);
  const questions = data.questions.flat();
  const sequences = data.questions.flatMap((ofDomain) =>
    ofDomain.map((question) => {
      const turns: Turn[] = [data.encode(question, question.wordings[0]!)];
      if (sequenceLength)
        addTurns(turns, sequenceLength, () => data.encodeTurn(ofDomain[random.int(ofDomain.length)]!));
      return labelledTurns(turns);
    }),
  );
  const perChannel = await evaluator.statistics(sequences);
  const statistics = perChannel.map((channels) => blockMeans(channels, predictor.block));
  if (predictor.head === "linear") {
    const numBlocks = predictor.ffnWidth / predictor.block;
    const scores = deviationsFromMean(statistics).map((row) => standardizeScores(row, numBlocks));
    const scoresOf = new Map(questions.map((question, i) => [question, scores[i]!]));
    return { kind: "statistics", scoresOf };
  }
  const points = statistics.map(unitLength);
  const clusterOf =
    options.clusters === "ward"
      ? wardClusters(points, predictor.rank)
      : kMeans(points, predictor.rank, new Random(`${seed}/clusters`)).clusterOf;
  const numClusters = new Set(clusterOf).size;
  return {
    kind: "clusters",
    clusterOf: new Map(questions.map((question, i) => [question, clusterOf[i]!])),
    codebook: firstEntries(statistics, clusterOf, numClusters, options),
    numClusters,
    purity: purity(
      clusterOf,
      questions.map(({ domain }) => domain),
    ),
  };
}

/** What the predictor shall say of each question: entries [rows], or scores [rows·L, F/block]. */
export function warmStartTargets(targets: WarmStart, questions: readonly Question[]): Float32Array | Int32Array {
  if (targets.kind === "clusters") return Int32Array.from(questions, (question) => targets.clusterOf.get(question)!);
  const rows = questions.map((question) => targets.scoresOf.get(question)!);
  const scores = new Float32Array(rows.length * rows[0]!.length);
  for (const [i, row] of rows.entries()) scores.set(row, i * row.length);
  return scores;
}

/** So that a long answer is not far from a short one. */
function unitLength(point: Float32Array): Float32Array {
  const length = Math.sqrt(point.reduce((sum, value) => sum + value * value, 0)) || 1;
  return point.map((value) => value / length);
}

/** (x − mean)/std of each column over the rows: what is special about a row, not what all have in common. */
function deviationsFromMean(rows: readonly ArrayLike<number>[]): Float32Array[] {
  const columns = rows[0]!.length;
  const mean = meanOf(rows);
  const variance = new Float64Array(columns);
  for (const row of rows) for (let i = 0; i < columns; i++) variance[i]! += (row[i]! - mean[i]!) ** 2 / rows.length;
  return rows.map((row) => Float32Array.from(row, (x, i) => (x - mean[i]!) / Math.sqrt(variance[i]! + 1e-12)));
}

/** Scores of core channels, in standard deviations of the others: above any that is drawn. */
const CORE_SCORE = 5;

function firstEntries(
  statistics: readonly Float32Array[],
  clusterOf: Int32Array,
  numClusters: number,
  { seed, predictor, tFfn, entries, core }: WarmStartOptions,
): Float32Array {
  const { rank: R, ffnWidth, block } = predictor;
  const random = new Random(`${seed}/entries`);
  const numBlocks = ffnWidth / block; // of a layer
  const rows = statistics[0]!.length; // L·numBlocks
  const scale = R ** -0.5; // as any matrix that reads R values
  const contrast = entries === "statistics" ? deviationsFromMean(means(statistics, clusterOf, numClusters)) : undefined;
  const codebook = new Float32Array(rows * R);
  for (let i = 0; i < rows; i++) {
    for (let entry = 0; entry < R; entry++)
      codebook[i * R + entry] = scale * (contrast?.[entry]?.[i] ?? random.normal());
  }
  const numCore = Math.round((core * tFfn) / block);
  const overall = meanOf(statistics);
  for (let layer = 0; layer < rows; layer += numBlocks) {
    const order = Array.from({ length: numBlocks }, (_, i) => layer + i).sort((a, b) => overall[b]! - overall[a]!);
    for (const i of order.slice(0, numCore)) codebook.fill(scale * CORE_SCORE, i * R, (i + 1) * R);
  }
  return codebook;
}

function purity(clusterOf: Int32Array, domainOf: readonly string[]): number {
  const counts = new Map<number, Map<string, number>>();
  for (const [i, cluster] of clusterOf.entries()) {
    const own = counts.get(cluster) ?? new Map<string, number>();
    counts.set(cluster, own.set(domainOf[i]!, (own.get(domainOf[i]!) ?? 0) + 1));
  }
  return [...counts.values()].reduce((sum, own) => sum + Math.max(...own.values()), 0) / clusterOf.length;
}
