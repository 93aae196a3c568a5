/**
 * Exact evaluation of a model with ONNX Runtime: masks, losses and greedy answers for many sequences, under any mask. The
 * plain reference of what the engine does fast.
 *
 * Shapes: B rows of a batch · T tokens · L layers · F FFN channels · K kept channels · Dp width of the predictor's feature
 */
import { Graph, type Tensor } from "../graph/graph.ts";
import * as n from "../graph/nodes.ts";
import { SessionCache, type SessionOptions } from "../graph/session.ts";
import { joinedIds } from "../ids.ts";
import type { DenseMask } from "../mask/mask.ts";
import type { ModelConfig } from "../model/config.ts";
import { featureWidth, type PredictorConfig } from "../model/predictorConfig.ts";
import { decoder, logits, parameterInputs } from "./decoder.ts";
import { IGNORED } from "./labels.ts";
import { BATCH, batches, padded, rowsWithin } from "./padding.ts";
import { masksPerLayer } from "./predictor.ts";
import { activations, griffinShares } from "./statistics.ts";
import { PREFIX, predictorGraph } from "./step.ts";

/** A model in memory: parameters by graph input name (prefix + name), shared with whoever trains it. */
export interface EvaluatedModel {
  llm: ModelConfig;
  predictor?: PredictorConfig;
  softTopK?: { tFfn: number; epsilon: number };
  parameters: Readonly<Record<string, Float32Array>>;
}

/** Token ids with the label of each position (the next token, or a negative number where none is wanted). */
export interface LabelledSequence {
  ids: Int32Array;
  labels: Int32Array;
}

export interface SequenceScore {
  /** Sum of −ln p(label), nats. */
  nll: number;
  /** Labelled positions. */
  tokens: number;
  /** Labelled positions whose label is the most likely token. */
  correctTokens: number;
}

/** Rows of a batch of sequences of T tokens: of 2,048 positions, unless one sequence alone has more, which is what the memory of a pass grows with. */
const rowsFor = rowsWithin(2048, BATCH);

/** Size of a batch when few answers are still being written. */
const FEW = 8;

/** How long answers may get, and under which masks they are given. */
export interface GreedyOptions {
  masks?: readonly DenseMask[] | undefined;
  maxTokens: number | readonly number[];
  drafts?: readonly Int32Array[] | undefined;
  /** Tokens that end an answer. */
  endIds: readonly number[];
  signal?: AbortSignal | undefined;
}

/** What the predictor says of an instruction. */
export interface Prediction {
  /** [L, F], as SoftTopK gives it. */
  mask: DenseMask;
  /** [L, F] */
  scores: Float32Array;
  /** [R]; of a codebook the logits of its entries. */
  inner: Float32Array;
  /** Raw, [Dp]. */
  feature: Float32Array;
}

export class Evaluator {
  private readonly model: EvaluatedModel;
  private readonly sessions: SessionCache;

  constructor(model: EvaluatedModel, options: SessionOptions = {}) {
    this.model = model;
    this.sessions = new SessionCache(options);
  }

  /**
   * The predictor's masks for instructions (token ids, BOS first).
   *
   * @param options `batch`: instructions that are read at a time
   * @returns per instruction the mask, the scores it came from, both [L, F], what the head's first matrix makes of it [R], and the raw feature [Dp]
   */
  async predict(
    instructions: readonly Int32Array[],
    { batch: B = BATCH }: { batch?: number } = {},
  ): Promise<Prediction[]> {
    const { predictor, softTopK, parameters } = this.model;
    if (!predictor || !softTopK) throw new Error("internal: this model has no sparsity predictor");
    const [LF, Dp] = [predictor.numLayers * predictor.ffnWidth, featureWidth(predictor)];
    const results: Prediction[] = new Array(instructions.length);
    const lengths = instructions.map((ids) => ids.length);
    for (const { indices, T } of batches(lengths, B)) {
      const session = await this.sessions.get(`predict ${B} ${T}`, () => predictorGraph(predictor, softTopK, B, T));
      const predictorIds = padded(
        indices.map((i) => instructions[i]!),
        T,
        B,
      );
      const predictorLastRows = Int32Array.from(
        { length: B },
        (_, row) => row * T + (instructions[indices[row] ?? indices[0]!]!.length - 1),
      );
      const { masks, scores, inner, feature } = (await session.run({
        ...parameters,
        predictorIds,
        predictorLastRows,
      })) as Record<string, Float32Array>;
      indices.forEach((i, row) => {
        results[i] = {
          mask: masks!.slice(row * LF, (row + 1) * LF),
          scores: scores!.slice(row * LF, (row + 1) * LF),
          inner: inner!.slice(row * predictor.rank, (row + 1) * predictor.rank),
          feature: feature!.slice(row * Dp, (row + 1) * Dp),
        };
      });
    }
    return results;
  }

  /** Teacher-forced scores. `masks`: one per sequence, or absent for the dense model. */
  async score(
    sequences: readonly LabelledSequence[],
    masks?: readonly DenseMask[],
    signal?: AbortSignal,
  ): Promise<SequenceScore[]> {
    const results: SequenceScore[] = new Array(sequences.length);
    const lengths = sequences.map(({ ids }) => ids.length);
    for (const { indices, T } of batches(lengths, rowsFor)) {
      signal?.throwIfAborted();
      const rows = indices.map((i) => sequences[i]!);
      const ownLabels = rows.map(({ labels }) => labels);
      const labels = padded(ownLabels, T, rowsFor(T), IGNORED);
      const { nll, best } = await this.forward(
        rows.map(({ ids }) => ids),
        labels,
        T,
        masks && indices.map((i) => masks[i]!),
      );
      indices.forEach((i, row) => {
        const score = { nll: 0, tokens: 0, correctTokens: 0 };
        sequences[i]!.labels.forEach((label, t) => {
          if (label < 0) return;
          score.nll += nll[row * T + t]!;
          score.tokens++;
          if (best[row * T + t] === label) score.correctTokens++;
        });
        results[i] = score;
      });
    }
    return results;
  }

  /**
   * Greedy answers, up to and without one of `endIds`. Recomputes the prefix at every token: exact and plain, for short answers.
   *
   * @param options `maxTokens`: at most so many, for all or for each · `drafts`: what the answers may turn out to be, with the token that ends them. One pass
   *   finds how far each is what the model would say; the answer goes on from there, and does not depend on the draft
   */
  async generate(
    prompts: readonly Int32Array[],
    { masks, maxTokens, drafts, endIds, signal }: GreedyOptions,
  ): Promise<Int32Array[]> {
    const texts = prompts.map((ids) => [...ids]);
    const maxOf = (i: number) => (typeof maxTokens === "number" ? maxTokens : maxTokens[i]!);
    const limit = (i: number) => Math.min(prompts[i]!.length + maxOf(i), this.model.llm.contextLength);
    const done = new Set<number>();
    const say = (i: number, next: number): void => {
      if (endIds.includes(next)) done.add(i);
      else texts[i]!.push(next);
      if (texts[i]!.length >= limit(i)) done.add(i);
    };
    let open = prompts.flatMap((ids, i) => (ids.length < limit(i) ? [i] : []));
    if (drafts) {
      const drafted = (i: number) => joinedIds(prompts[i]!, drafts[i]!.subarray(0, -1));
      for (const { indices: places, T } of batches(
        open.map((i) => drafted(i).length),
        rowsFor,
      )) {
        signal?.throwIfAborted();
        const indices = places.map((place) => open[place]!);
        const { best } = await this.forward(
          indices.map(drafted),
          padded([], T, rowsFor(T), IGNORED),
          T,
          masks && indices.map((i) => masks[i]!),
        );
        for (const [row, i] of indices.entries()) {
          const start = row * T + prompts[i]!.length - 1;
          const draft = drafts[i]!;
          let at = 0; // the draft is right before here
          while (!done.has(i) && at < draft.length) {
            const next = best[start + at]!;
            say(i, next);
            if (next !== draft[at++]) break;
          }
        }
      }
      open = open.filter((i) => !done.has(i));
    }
    while (open.length > 0) {
      for (const { indices: places, T } of batches(
        open.map((i) => texts[i]!.length),
        rowsFor,
      )) {
        signal?.throwIfAborted();
        const indices = places.map((place) => open[place]!);
        const ids = indices.map((i) => Int32Array.from(texts[i]!));
        const next = await this.nextTokens(ids, T, masks && indices.map((i) => masks[i]!));
        for (const [row, i] of indices.entries()) say(i, next[row]!);
      }
      open = open.filter((i) => !done.has(i));
    }
    return texts.map((ids, i) => Int32Array.from(ids.slice(prompts[i]!.length)));
  }

  /**
   * The statistic of GRIFFIN for every sequence, of the dense model: each token's activations `act(gate) · up` are normalised to
   * length 1, and a channel scores the L2 norm of its activations over the tokens where the answer is written (at the labels).
   *
   * @returns per sequence [L, F]
   * @see Dong, Chen & Chi 2024, arXiv:2404.01365
   */
  async statistics(sequences: readonly LabelledSequence[]): Promise<Float32Array[]> {
    const { llm, parameters } = this.model;
    const LF = llm.numLayers * llm.ffnWidth;
    const results: Float32Array[] = new Array(sequences.length);
    const lengths = sequences.map(({ ids }) => ids.length);
    for (const { indices, T } of batches(lengths, rowsFor)) {
      const B = rowsFor(T);
      const session = await this.sessions.get(`statistics ${T}`, () => statisticsGraph(llm, B, T));
      const counted = new Float32Array(B * T);
      for (const [row, i] of indices.entries())
        counted.set(
          Array.from(sequences[i]!.labels, (label) => Number(label >= 0)),
          row * T,
        );
      const ids = padded(
        indices.map((i) => sequences[i]!.ids),
        T,
        B,
      );
      const { statistics } = (await session.run({ ...parameters, ids, counted })) as { statistics: Float32Array };
      indices.forEach((i, row) => {
        results[i] = statistics.slice(row * LF, (row + 1) * LF);
      });
    }
    return results;
  }

  release(): Promise<void> {
    return this.sessions.release();
  }

  /** The most likely token after each text. */
  private async nextTokens(ids: readonly Int32Array[], T: number, masks?: readonly DenseMask[]): Promise<Int32Array> {
    const B = Math.min(ids.length <= FEW ? FEW : BATCH, rowsFor(T));
    const { llm, parameters } = this.model;
    const session = await this.sessions.get(`next ${B} ${T} ${masks ? "masked" : "dense"}`, () =>
      nextGraph(llm, B, T, masks !== undefined),
    );
    const lastRows = Int32Array.from({ length: B }, (_, row) => row * T + (ids[row] ?? ids[0]!).length - 1);
    const feeds = { ...parameters, ids: padded(ids, T, B), lastRows, ...(masks && { masks: this.rowsOf(masks, B) }) };
    return ((await session.run(feeds)) as { best: Int32Array }).best;
  }

  /** Masks of a batch, [B·L, F]; rows without a mask keep nothing. */
  private rowsOf(masks: readonly DenseMask[], B: number): Float32Array {
    const LF = this.model.llm.numLayers * this.model.llm.ffnWidth;
    const all = new Float32Array(B * LF);
    for (const [row, mask] of masks.entries()) all.set(mask, row * LF);
    return all;
  }

  private async forward(ids: readonly Int32Array[], labels: Int32Array, T: number, masks?: readonly DenseMask[]) {
    const { llm, parameters } = this.model;
    const B = rowsFor(T);
    const session = await this.sessions.get(`forward ${T} ${masks ? "masked" : "dense"}`, () =>
      forwardGraph(llm, B, T, masks !== undefined),
    );
    const feeds = { ...parameters, ids: padded(ids, T, B), labels, ...(masks && { masks: this.rowsOf(masks, B) }) };
    return (await session.run(feeds)) as { nll: Float32Array; best: Int32Array };
  }
}

/** Inputs: the LLM's parameters, `ids` [B, T], `counted` [B·T], 1 for positions that count, else 0. Output: `statistics` [B, L·F]. */
function statisticsGraph(llm: ModelConfig, B: number, T: number): Graph {
  const graph = new Graph(`statistics B=${B} T=${T}`);
  const ids = graph.input("ids", [B, T], "int32");
  const counted = n.reshape(graph.input("counted", [B * T]), [B * T, 1]);
  const layers: Tensor[] = [];
  decoder(llm, parameterInputs(graph, llm, PREFIX.llm), ids, undefined, (x, ffn) => {
    const shares = n.mul(griffinShares(activations(x, ffn)), counted); // [B·T, F]
    layers.push(n.sqrt(n.reduceSum(n.reshape(shares, [B, T, llm.ffnWidth]), [1]))); // [B, F]
  });
  graph.output("statistics", n.concat(layers, 1));
  return graph;
}

/** Inputs: the LLM's parameters, `ids` [B, T], `labels` [B·T], `masks` [B·L, F] if masked. Outputs: `nll`, `best` [B·T]. */
function forwardGraph(llm: ModelConfig, B: number, T: number, masked: boolean): Graph {
  const graph = new Graph(`forward B=${B} T=${T}`);
  const ids = graph.input("ids", [B, T], "int32");
  const labels = n.reshape(graph.input("labels", [B * T], "int32"), [B * T, 1]);
  const parameters = parameterInputs(graph, llm, PREFIX.llm);
  const y = logits(llm, parameters, decoder(llm, parameters, ids, maskInputs(graph, llm, B, masked)));
  const zero = graph.constant(Int32Array.of(0), []);
  const labelled = n.where(n.less(labels, zero), zero, labels);
  graph.output("nll", n.reshape(n.neg(n.gatherElements(n.logSoftmax(y), labelled)), [B * T]));
  graph.output("best", n.reshape(n.cast(n.argMax(y), "int32"), [B * T]));
  return graph;
}

/** Inputs: the LLM's parameters, `ids` [B, T], `lastRows` [B], `masks` [B·L, F] if masked. Output: `best` [B]. */
function nextGraph(llm: ModelConfig, B: number, T: number, masked: boolean): Graph {
  const graph = new Graph(`next B=${B} T=${T}`);
  const ids = graph.input("ids", [B, T], "int32");
  const lastRows = graph.input("lastRows", [B], "int32");
  const parameters = parameterInputs(graph, llm, PREFIX.llm);
  const hidden = decoder(llm, parameters, ids, maskInputs(graph, llm, B, masked));
  const y = logits(llm, parameters, n.gather(hidden, lastRows));
  graph.output("best", n.reshape(n.cast(n.argMax(y), "int32"), [B]));
  return graph;
}

function maskInputs(graph: Graph, { numLayers: L, ffnWidth: F }: ModelConfig, B: number, masked: boolean) {
  return masked ? masksPerLayer(graph.input("masks", [B * L, F]), L) : undefined;
}
