/**
 * Masks for a pretrained model, before any training: which channels each kind of prompt needs, a codebook of masks made of that, and a router that chooses among them by the
 * mean of the model's own embeddings over the prompt. Healing them is a `distil` stage.
 *
 *   1. importance of every channel for the answers of sampled prompts (`src/net/importance.ts`)
 *   2. channels in another order, so that those that matter for the same prompts make a block (`src/mask/blocks.ts`): the same model
 *   3. prompts in groups: all, by domain, or Ward's clusters of their blocks' importance
 *   4. an entry of the codebook for each group: the mean importance of its prompts, and as much of all prompts' as it has few of its own; behind a core that all share, if wanted
 *   5. the router: softmax regression on the features of the prompts in several wordings
 *   6. if wanted, a new `down` that makes up for what the masks drop (`reconstruct.ts`)
 *
 * Shapes: N prompts · L layers · F channels of a layer, in k = F/block blocks · R entries · D width
 */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { FileError, OptionError } from "../errors.ts";
import { asBytes, makeFile } from "../files.ts";
import { readSafetensors, writeSafetensors } from "../formats/safetensors.ts";
import type { SessionOptions } from "../graph/session.ts";
import { type ChannelOrder, groupChannels, storedOrder } from "../mask/blocks.ts";
import { maskFromScores } from "../mask/mask.ts";
import { topK } from "../mask/softTopK.ts";
import { spreadBlocks } from "../mask/standardize.ts";
import { firstLayers, firstLayersConfig } from "../model/backbone.ts";
import type { ModelConfig, Weights } from "../model/config.ts";
import { permuteChannels } from "../model/permute.ts";
import type { LabelledSequence } from "../net/evaluator.ts";
import { importanceScores } from "../net/importance.ts";
import { labelledTurns } from "../net/labels.ts";
import { parameterArrays } from "../net/parameters.ts";
import { Random } from "../random.ts";
import type { SavedModel } from "./checkpoint.ts";
import { meanOf, means, wardClusters } from "./cluster.ts";
import type { Question, SftData } from "./data.ts";
import { STD_FLOOR } from "./featureStatistics.ts";
import { type ReconstructionError, reconstructDown } from "./reconstruct.ts";
import { mostLikely, softmaxRegression } from "./softmaxRegression.ts";

export interface PruneOptions extends SessionOptions {
  /** Prompts whose answers importance is taken over, in all; of each domain its weight's share, rounded up. */
  prompts: number;
  /** Channels that are kept or dropped together. */
  block: number;
  /** Channels that are kept in each layer (t_ffn): a default of the model, which use may change. */
  tFfn: number;
  /** Entries of the codebook: one for each domain, or as many clusters at most; 1 is one mask for all. */
  masks: "domains" | number;
  /** Share of the channels kept at `tFfn` that all entries keep: those that matter most to all prompts. Default: 0. */
  core?: number | undefined;
  /** Control: entries of random blocks for the same groups, behind the same core. */
  random?: boolean | undefined;
  /** Fit each layer's `down` to the masks at `tFfn`, on the sampled prompts and their answers. */
  reconstruct?: boolean | undefined;
  seed: number;
  /** Folder in which importance is kept, under a hash of model and prompts, and found again. Absent: it is not. */
  importance?: string | undefined;
  /** Data that the prompts are from, for the provenance. */
  data: readonly { name: string; licence: string }[];
  signal?: AbortSignal | undefined;
  onProgress?: ((phase: PrunePhase, done: number, total: number) => void) | undefined;
}

/** What takes its time. */
export type PrunePhase = "importance" | "reconstruction";

/** What was found. */
export interface PruneReport {
  prompts: number;
  /** Entries of the codebook, with the domains of their prompts, most frequent first. */
  entries: readonly { prompts: number; domains: Readonly<Record<string, number>> }[];
  /** Share of a fifth of the prompts, which the router has not learned from, whose group it finds. Absent: there are fewer than five. */
  routed?: number;
  /**
   * Share of its own importance that a prompt's entry keeps, as the other prompts of its group would make it; that one mask for all the others would, and the entry of another group; and the most, a
   * mask of that prompt alone: more than that no choice of masks can give. Means over prompts.
   */
  kept: { own: number; generic: number; foreign: number; most: number };
  /** Of FFN outputs, each prompt and answer under its group's mask. */
  reconstruction?: ReconstructionError;
}

/** Temperature of SoftTopK that the codebook's scores are good for, should masks be soft. */
const EPSILON = 0.3;
/** Prompts' worth of the importance of all prompts that every entry has in it: a group of few prompts says little of its own. */
const PRIOR = 4;
/** Wordings of a question that the router learns from, at most. */
const WORDINGS = 4;

/**
 * @param model dense
 * @param data its questions, with what a predictor reads of them
 * @returns the model with a codebook and its router, its channels in the new order
 * @throws {OptionError} if blocks do not divide the channels or those kept, or there are fewer prompts than entries
 */
export async function prune(
  model: SavedModel,
  data: SftData,
  options: PruneOptions,
): Promise<{ model: SavedModel; report: PruneReport }> {
  const { config } = model.llm;
  const { numLayers: L, ffnWidth: F } = config;
  const { block, tFfn, seed } = options;
  if (tFfn > F) throw new OptionError(`prune: wanted t_ffn of at most ${F} channels, got ${tFfn}.`);
  if (F % block !== 0 || tFfn % block !== 0 || tFfn < block)
    throw new OptionError(
      `prune: wanted blocks that divide ${F} channels and t_ffn = ${tFfn} of them, got blocks of ${block}.`,
    );
  const { questions, domainOf } = sample(data, options.prompts, new Random(`prune/${seed}/prompts`));
  const perChannel = await importanceOf(model, data, questions, domainOf, options);
  const profiles = means(perChannel, domainOf, Math.max(...domainOf) + 1);
  const order = block === 1 ? storedOrder(L, F) : groupChannels(profiles, { dFfn: F, block });
  const perBlock = perChannel.map((scores) => blockSums(scores, order, block));
  const groupOf = groups(perBlock, domainOf, options.masks);
  const { entries, without } = codebook(perBlock, groupOf, L, options);
  const permuted = block === 1 ? model.llm : { config, weights: permuteChannels(model.llm.weights, order) };
  const reconstructed = options.reconstruct
    ? await reconstruct(permuted, sequencesOf(data, questions), groupOf, entries, options)
    : undefined;
  const llm = { config, weights: reconstructed?.weights ?? permuted.weights };
  const { head, ...router } = learnRouter(llm.weights, data, questions, groupOf, entries);
  const backbone = firstLayersConfig(config, 0);
  const predictor = { backbone: { config: backbone, weights: firstLayers(backbone, llm.weights) }, head };
  return {
    model: { ...model, card: prunedCard(model.card, options), llm, predictor },
    report: {
      prompts: questions.length,
      entries: entries.map((_, group) => membersOf(group, groupOf, domainOf, data.domains)),
      ...router,
      kept: keptByMasks(perBlock, groupOf, { entries, without }, { L, count: tFfn / block }),
      ...(reconstructed && { reconstruction: reconstructed.error }),
    },
  };
}

/**
 * Scores of the blocks [L, k] for each group: logarithms, which have the same order and a spread that is not that of a few blocks, of the mean importance to its prompts;
 * the blocks of the core come before all others, in their own order.
 */
function codebook(
  perBlock: readonly Float64Array[],
  groupOf: Int32Array,
  L: number,
  { block, tFfn, core = 0, random: isRandom, seed }: PruneOptions,
): Codebook {
  const general = meanOf(perBlock);
  const shared = bestBlocks(general, { L, count: Math.round(core * (tFfn / block)) });
  const random = new Random(`prune/${seed}/random`);
  const sums = means(perBlock, groupOf, Math.max(...groupOf) + 1).map((mean, group) => {
    const count = groupOf.filter((of) => of === group).length;
    return { mean, count };
  });
  const coreFirst = (scores: Float64Array) => {
    const highest = scores.reduce((most, score) => Math.max(most, score));
    const lowest = scores.reduce((least, score) => Math.min(least, score));
    for (const i of shared) scores[i]! += highest - lowest + 1;
    return scores;
  };
  const ofGroup = (group: number, all: Float64Array, left?: Float64Array) => {
    const { mean, count } = sums[group]!;
    const own = left ? count - 1 : count;
    return mean.map((value, i) => {
      const sum = count * value - (left ? left[i]! : 0);
      return Math.log((sum + PRIOR * all[i]!) / (own + PRIOR) + TINY);
    });
  };
  const entries = sums.map(({ mean }, group) =>
    coreFirst(isRandom ? mean.map(() => random.normal()) : ofGroup(group, general)),
  );
  const without = (prompt: number) => {
    const left = perBlock[prompt]!;
    const others = Math.max(1, perBlock.length - 1);
    const generic = general.map((value, i) => (perBlock.length * value - left[i]!) / others);
    const group = groupOf[prompt]!;
    return { generic, own: isRandom ? entries[group]! : coreFirst(ofGroup(group, generic, left)) };
  };
  return { entries, without };
}

interface Codebook {
  entries: Float64Array[];
  /** The entry of a prompt's group, and one for all, as they are made without that prompt. */
  without(prompt: number): { own: Float64Array; generic: Float64Array };
}

/** What a model says of itself once it has masks. */
function prunedCard(card: SavedModel["card"], { tFfn, seed, data }: PruneOptions): SavedModel["card"] {
  return {
    ...card,
    tFfn,
    epsilon: EPSILON,
    lambda: "hard",
    predictorInput: "prompt",
    predictorPooling: "mean",
    provenance: {
      recipe: "prune",
      seed,
      data: [...card.provenance.data, ...data],
      created: new Date().toISOString(),
    },
  };
}

/** The prompts of a group, counted by domain. */
function membersOf(
  group: number,
  groupOf: Int32Array,
  domainOf: Int32Array,
  domains: readonly string[],
): PruneReport["entries"][number] {
  const counts: Record<string, number> = {};
  for (const [i, of] of groupOf.entries()) {
    const name = domains[domainOf[i]!]!;
    if (of === group) counts[name] = (counts[name] ?? 0) + 1;
  }
  const sorted = Object.entries(counts).sort(([, a], [, b]) => b - a);
  return { prompts: sorted.reduce((sum, [, count]) => sum + count, 0), domains: Object.fromEntries(sorted) };
}

/** What masks keep of prompts' importance; `foreign` is the entry of half the number of groups on. */
function keptByMasks(
  perBlock: readonly Float64Array[],
  groupOf: Int32Array,
  { entries, without }: Codebook,
  size: { L: number; count: number },
): PruneReport["kept"] {
  const sums = { own: 0, generic: 0, foreign: 0, most: 0 };
  for (const [prompt, important] of perBlock.entries()) {
    const foreign = entries[(groupOf[prompt]! + (entries.length >> 1)) % entries.length]!;
    const scores = { ...without(prompt), foreign: entries.length > 1 ? foreign : without(prompt).own, most: important };
    for (const key of Object.keys(sums) as (keyof typeof sums)[]) sums[key] += keptShare(important, scores[key], size);
  }
  const mean = (sum: number) => sum / perBlock.length;
  return { own: mean(sums.own), generic: mean(sums.generic), foreign: mean(sums.foreign), most: mean(sums.most) };
}

/** `down` fitted to the masks of the entries, blocks of which are as many channels each. */
function reconstruct(
  llm: { config: ModelConfig; weights: Weights },
  sequences: readonly LabelledSequence[],
  groupOf: Int32Array,
  entries: readonly Float64Array[],
  { tFfn, block, signal, onProgress, threads, spinning }: PruneOptions,
) {
  const dFfn = llm.config.ffnWidth;
  return reconstructDown(
    llm,
    sequences.map(({ ids }, i) => ({ ids, mask: groupOf[i]! })),
    entries.map((scores) => maskFromScores(spreadBlocks(Float32Array.from(scores), block), { dFfn, tFfn })),
    {
      ...(threads !== undefined && { threads }),
      ...(spinning !== undefined && { spinning }),
      signal,
      onProgress: (done, total) => onProgress?.("reconstruction", done, total),
    },
  );
}

/** Prompts, in the first wording of their questions, with their answers. */
function sequencesOf(data: SftData, questions: readonly Question[]): LabelledSequence[] {
  return questions.map((question) => labelledTurns([data.encode(question, question.wordings[0]!)]));
}

/** Keeps logarithms finite. */
const TINY = 1e-12;

/** Importance of each question's channels for its answer, each layer of each question with the sum 1. Kept domain by domain. */
async function importanceOf(
  { llm }: SavedModel,
  data: SftData,
  questions: readonly Question[],
  domainOf: Int32Array,
  { importance: folder, signal, onProgress, threads, spinning }: PruneOptions,
): Promise<Float32Array[]> {
  const { ffnWidth: F, numLayers: L } = llm.config;
  const model = { llm: llm.config, parameters: parameterArrays({ llm: llm.weights }) };
  const weights = createHash("sha256");
  for (const { data } of llm.weights.values()) weights.update(asBytes(data));
  const identity = weights.digest("hex");
  const all: Float32Array[] = [];
  for (let domain = 0; all.length < questions.length; domain++) {
    const sequences = sequencesOf(
      data,
      questions.filter((_, i) => domainOf[i] === domain),
    );
    const hash = createHash("sha256").update(identity);
    for (const { ids, labels } of sequences) hash.update(asBytes(ids)).update(asBytes(labels));
    const path = folder && join(folder, `importance-${hash.digest("hex").slice(0, 32)}.safetensors`);
    const known = path && readImportance(path, [sequences.length, L * F]);
    if (known) all.push(...sequences.map((_, i) => known.subarray(i * L * F, (i + 1) * L * F)));
    else {
      const done = all.length;
      const scores = await importanceScores(model, sequences, {
        ...(threads !== undefined && { threads }),
        ...(spinning !== undefined && { spinning }),
        signal,
        onProgress: (count) => onProgress?.("importance", done + count, questions.length),
      });
      for (const row of scores) normaliseLayers(row, F);
      if (path) writeImportance(path, scores);
      all.push(...scores);
    }
  }
  return all;
}

/** Divides each layer [F] of a prompt's scores by its sum. */
function normaliseLayers(scores: Float32Array, F: number): void {
  for (let start = 0; start < scores.length; start += F) {
    const layer = scores.subarray(start, start + F);
    const sum = layer.reduce((total, value) => total + value, 0);
    for (let i = 0; i < F; i++) layer[i]! /= sum || 1;
  }
}

/** What was kept, if that is sound and of this shape: else it is found and kept anew. */
function readImportance(path: string, [N, LF]: readonly [number, number]): Float32Array | undefined {
  if (!existsSync(path)) return undefined;
  try {
    const kept = readSafetensors(path).get("importance");
    return kept?.shape[0] === N && kept.shape[1] === LF ? kept.data : undefined;
  } catch (error) {
    if (error instanceof FileError) return undefined;
    throw error;
  }
}

function writeImportance(path: string, scores: readonly Float32Array[]): void {
  const shape = [scores.length, scores[0]!.length];
  const data = new Float32Array(shape[0]! * shape[1]!);
  for (const [i, row] of scores.entries()) data.set(row, i * row.length);
  makeFile(path, (partial) => writeSafetensors(partial, new Map([["importance", { shape, data }]])));
}

/** Scores of channels [L, F] as those of blocks [L, k], in the given order. */
function blockSums(scores: Float32Array, order: ChannelOrder, block: number): Float64Array {
  const F = order[0]!.length;
  const sums = new Float64Array(scores.length / block);
  for (const [layer, channels] of order.entries()) {
    for (const [place, channel] of channels.entries())
      sums[Math.floor((layer * F + place) / block)]! += scores[layer * F + channel]!;
  }
  return sums;
}

/** Group of each prompt, [N], numbered without gaps. */
function groups(perBlock: readonly Float64Array[], domainOf: Int32Array, masks: PruneOptions["masks"]): Int32Array {
  if (masks === "domains") return domainOf;
  if (masks > perBlock.length)
    throw new OptionError(`prune: wanted at least ${masks} prompts, one for each mask, got ${perBlock.length}.`);
  // square roots of shares that sum to 1 are of one length, and few large ones do not decide alone
  return wardClusters(
    perBlock.map((scores) => Float32Array.from(scores, Math.sqrt)),
    masks,
  );
}

/** About `count` questions, domains by their weights and each in an order of its own, and their domains, numbered without gaps. */
function sample(data: SftData, count: number, random: Random): { questions: Question[]; domainOf: Int32Array } {
  const filled = data.questions.flatMap((questions, i) =>
    questions.length > 0 ? [{ questions, share: data.weights[i]! }] : [],
  );
  const drawn = filled.map(({ questions, share }) =>
    Array.from(random.permutation(questions.length).subarray(0, Math.ceil(count * share)), (i) => questions[i]!),
  );
  return {
    questions: drawn.flat(),
    domainOf: Int32Array.from(drawn.flatMap((questions, domain) => questions.map(() => domain))),
  };
}

/**
 * The codebook and its router: a linear map of the mean embedding of a prompt's tokens, centred and scaled, to the logits of groups. `routed` is measured on a fifth
 * of the questions, with a router that learned from the others; the one returned has learned from all.
 */
function learnRouter(
  llm: Weights,
  data: SftData,
  questions: readonly Question[],
  groupOf: Int32Array,
  entries: readonly Float64Array[],
): { head: Weights; routed?: number } {
  const R = entries.length;
  const { shape, data: table } = llm.get("model.embed_tokens.weight")!;
  const D = shape[1]!;
  const points = questions.flatMap((question, i) =>
    question.wordings.slice(0, WORDINGS).map((wording) => ({
      feature: meanRow(table, data.encode(question, wording).predictorInputs[0]!, D),
      group: groupOf[i]!,
      isTest: i % 5 === 4,
    })),
  );
  const all = points.map(({ feature }) => feature);
  const mean = Float32Array.from(meanOf(all));
  const std = mean.map((centre, d) => {
    const variance = all.reduce((sum, feature) => sum + (feature[d]! - centre) ** 2, 0) / all.length;
    return Math.max(STD_FLOOR, Math.sqrt(variance));
  });
  for (const feature of all) for (let d = 0; d < D; d++) feature[d] = (feature[d]! - mean[d]!) / std[d]!;
  const learn = (some: typeof points) =>
    softmaxRegression(
      some.map(({ feature }) => feature),
      some.map(({ group }) => group),
      R,
    );
  const [known, unknown] = [points.filter(({ isTest }) => !isTest), points.filter(({ isTest }) => isTest)];
  const tried = learn(known);
  const found = unknown.filter(({ feature, group }) => mostLikely(tried, feature, R) === group);
  const codebook = new Float32Array(entries[0]!.length * R);
  for (const [entry, scores] of entries.entries())
    for (const [i, score] of scores.entries()) codebook[i * R + entry] = score;
  return {
    head: new Map([
      ["router.weight", { shape: [R, D], data: learn(points) }],
      ["codebook.weight", { shape: [entries[0]!.length, R], data: codebook }],
      ["feature.mean", { shape: [D], data: mean }],
      ["feature.std", { shape: [D], data: std }],
    ]),
    ...(unknown.length > 0 && { routed: found.length / unknown.length }),
  };
}

/** Mean of a table's rows [V, D] at these tokens. */
function meanRow(table: Float32Array, ids: Int32Array, D: number): Float32Array {
  const sum = new Float64Array(D);
  for (const id of ids) for (let d = 0; d < D; d++) sum[d]! += table[id * D + d]!;
  return Float32Array.from(sum, (value) => value / ids.length);
}

/** The `count` blocks of highest score of each layer, by their place in `scores`. */
function bestBlocks(scores: Float64Array, { L, count }: { L: number; count: number }): number[] {
  const k = scores.length / L;
  if (count === 0) return [];
  return Array.from({ length: L }, (_, layer) =>
    Array.from(topK(scores.subarray(layer * k, (layer + 1) * k), count), (i) => layer * k + i),
  ).flat();
}

/** Share of a prompt's importance in the blocks that the highest scores of each layer keep, layers alike. */
function keptShare(importance: Float64Array, scores: Float64Array, size: { L: number; count: number }): number {
  return bestBlocks(scores, size).reduce((sum, i) => sum + importance[i]!, 0) / size.L;
}
