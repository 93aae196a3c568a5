/**
 * The graph of one micro-batch: masks, loss and every gradient. One graph per batch shape; the optimiser has its own graph.
 * Paper: Hou et al. 2025, arXiv:2501.02086.
 *
 * Shapes: B rows · T tokens · Tp tokens of a predictor input · Dp feature width · L layers · F FFN channels · K kept ones
 */
import { gradients } from "../graph/autodiff.ts";
import { Graph, type Tensor } from "../graph/graph.ts";
import * as n from "../graph/nodes.ts";
import { type KeptChannels, ops, type Sees } from "../graph/ops.ts";
import { SCORE_EPSILON } from "../mask/standardize.ts";
import type { ModelConfig } from "../model/config.ts";
import type { PredictorConfig } from "../model/predictorConfig.ts";
import { decoder, type LayerMask, logits, parameterInputs } from "./decoder.ts";
import { backboneInputs, headInputs, masksPerLayer, predictScores, spreadBlockScores } from "./predictor.ts";

/** Names of the parameters of each part, as graph inputs: prefix + Hugging Face name (or head name). */
export const PREFIX = {
  llm: "llm.",
  backbone: "backbone.",
  head: "head.",
  static: "static.",
  teacher: "teacher.",
} as const;

/** Kept channels of a layer, and the temperature of SoftTopK. */
export interface SoftTopKConfig {
  tFfn: number;
  epsilon: number;
}

/** One mask for all rows, from scores that are learned. */
export interface LearnedStaticMask {
  kind: "learned-static";
  softTopK: SoftTopKConfig;
  /** Channels that share a score. */
  block: number;
}

/** A mask of each row, from the instruction that the predictor reads. */
export interface PredictorMasks {
  kind: "predictor";
  predictor: PredictorConfig;
  softTopK: SoftTopKConfig;
  /** Weight of `contrastLoss`, per label; the predictor then reads two inputs per row. Absent: none. */
  contrast?: number | undefined;
}

/** Masks that are fed with the batch, of `tFfn` channels a layer. */
export interface GivenMasks {
  kind: "given";
  tFfn: number;
}

/** How training gets the mask of a row. `none`: every channel is used. */
export type MaskConfig = { kind: "none" } | GivenMasks | LearnedStaticMask | PredictorMasks;

/** What makes a teacher's logits of its hidden states after the final norm. */
export type TeacherHead = Pick<ModelConfig, "width" | "vocabSize" | "logitSoftCap">;

export interface StepConfig {
  llm: ModelConfig;
  masks: MaskConfig;
  /**
   * Share of the loss that is the divergence from a teacher, a dense model of the same shape that does not learn; the rest is the loss
   * on the labels. Absent: no teacher.
   */
  distil?: number | undefined;
  /**
   * The loss is the divergence from a teacher of any shape and the same vocabulary, whose hidden states are fed with the batch; labels only say
   * which positions count. Absent: the loss above.
   */
  teacher?: TeacherHead | undefined;
  /**
   * `plain`: compute all channels and multiply by the mask · `compact`: gather the kept channels' weights first; equal in value and
   * gradient. Absent: what is faster for the shape.
   */
  ffn?: "plain" | "compact";
}

export interface StepShape {
  B: number;
  T: number;
  /** Tokens of a predictor input. */
  Tp: number;
  /**
   * Chunks per row. 1: one mask per row (SFT). More: continued pre-training (Hou et al., §3.3, eq. 4-5), where the mask of chunk k is
   * used for the labels of chunk k+1 and the predictor reads all chunks of a row but the last.
   */
  chunks: number;
  /**
   * Positions whose logits are computed, at most `B·T`. Absent: all. In SFT few positions carry a label, and the logits of the
   * others would be the largest product of the step.
   */
  labelled?: number;
}

/** Masks for the LLM and, from the predictor, its raw feature and the contrast between masks, to be added for each label. */
interface MaskNodes {
  masks?: LayerMask[];
  feature?: Tensor;
  contrast?: { loss: Tensor; weight: number };
}

/** The predictor reading the instructions of a batch, `predictorIds` [rows, Tp] with `predictorLastRows` [rows]. */
function predictorNodes(graph: Graph, predictor: PredictorConfig, rows: number, Tp: number) {
  const ids = graph.input("predictorIds", [rows, Tp], "int32");
  const lastRows = graph.input("predictorLastRows", [rows], "int32");
  const backbone = backboneInputs(graph, predictor, PREFIX.backbone);
  return predictScores(predictor, { backbone, ...headInputs(graph, predictor, PREFIX.head) }, ids, lastRows);
}

/** Declares what masks of this kind are made from, and returns one mask per layer, of `rows` rows. */
function maskNodes(graph: Graph, { llm, masks: config, ffn }: StepConfig, shape: StepShape): MaskNodes {
  if (config.kind === "none") return {};
  const { numLayers: L, ffnWidth: F } = llm;
  const { B, T, Tp, chunks } = shape;
  const K = config.kind === "given" ? config.tFfn : config.softTopK.tFfn;
  // Mask rows are used for this many tokens each. Where these are few, gathering weights costs more than the dropped channels.
  const tokensPerRow = config.kind === "learned-static" ? B * T : T / chunks;
  const isCompact = ffn ? ffn === "compact" : tokensPerRow * (F - K) > GATHER_COST * K;
  const fromScores = (scores: Tensor, { epsilon }: SoftTopKConfig): LayerMask[] =>
    isCompact ? keptPerLayer(ops.keptTopK(scores, K, epsilon), L) : masksPerLayer(ops.softTopK(scores, K, epsilon), L);
  switch (config.kind) {
    case "given": {
      const indices = graph.input("maskIndices", [B * L, K], "int32");
      const lambda = graph.input("maskLambda", [B * L, K]);
      if (isCompact) return { masks: keptPerLayer({ indices, lambda }, L) };
      const dense = n.scatterElements(n.zeros(lambda, [B * L, F]), indices, lambda, 1, "none");
      return { masks: masksPerLayer(dense, L) };
    }
    case "learned-static": {
      const own = graph.input(`${PREFIX.static}scores`, [L, F / config.block]);
      const scores = spreadBlockScores(ops.standardize(own, SCORE_EPSILON), config.block);
      return { masks: fromScores(scores, config.softTopK) };
    }
    case "predictor": {
      const { predictor, softTopK, contrast } = config;
      const rows = contrast ? 2 * B : B * Math.max(1, chunks - 1);
      const { feature, scores } = predictorNodes(graph, predictor, rows, Tp);
      if (contrast) {
        const ofPairs = contrastLoss(ops.softTopK(scores, K, softTopK.epsilon), L, K);
        const masks = fromScores(ops.slice(scores, 0, 0, B * L), softTopK);
        return { masks, feature, contrast: { loss: ofPairs, weight: contrast } };
      }
      const masks = fromScores(scores, softTopK);
      return { masks: chunks > 1 ? masks.map((mask) => delayByOneChunk(mask, B, chunks)) : masks, feature };
    }
    default:
      return config satisfies never;
  }
}

/** Overlap of masks, as a share of t_ffn, that counts as one nat. */
const CONTRAST_TEMPERATURE = 0.1;

/**
 * How hard it is to tell by the masks of a batch which of them are of the same question: of all others a mask shall overlap most with
 * its twin, the mask of row i with that of row i + B (InfoNCE, van den Oord et al. 2018, over kept channels). Masks that are the same
 * for all prompts cannot, nor can masks that waver with the wording. Not in the paper.
 *
 * @param masks [2B·L, F], of K channels a row
 * @returns scalar, the mean over the 2B masks, nats
 */
function contrastLoss(masks: Tensor, L: number, K: number): Tensor {
  const { graph } = masks;
  const rows = masks.shape[0]! / L;
  const flat = ops.reshape(masks, [rows, L * masks.shape[1]!]);
  const overlap = ops.scale(ops.linear(flat, flat), 1 / (L * K * CONTRAST_TEMPERATURE));
  const itself = Float32Array.from({ length: rows * rows }, (_, i) => (i % (rows + 1) === 0 ? -1e4 : 0));
  const twins = Int32Array.from({ length: rows }, (_, row) => (row + rows / 2) % rows);
  const y = ops.add(overlap, graph.constant(itself, [rows, rows]));
  return ops.scale(ops.crossEntropy(y, graph.constant(twins, [rows])), 1 / rows);
}

/**
 * What gathering a channel's weights and scattering their gradients costs, in tokens that do not compute a dropped channel. Measured
 * (bench/compactFfn.ts): gathering loses at 120 tokens and wins at 288.
 */
const GATHER_COST = 200;

/** Kept channels of all layers, [B·L, K], one [B, K] per layer. */
function keptPerLayer({ indices, lambda }: KeptChannels, numLayers: number): KeptChannels[] {
  const [places, weights] = [masksPerLayer(indices, numLayers), masksPerLayer(lambda, numLayers)];
  return weights.map((own, layer) => ({ indices: places[layer]!, lambda: own }));
}

/**
 * Masks of all chunks of each row but the last, [B·(chunks−1), F], to the masks that its chunks of labels run under, [B·chunks, F]:
 * labels of chunk k+1 run under the mask made from chunk k; labels of chunk 1 under its own, since no chunk comes before it, and they carry no
 * loss. Where this differs from the paper (Hou et al., eq. 5): one forward pass per row, in which the attention
 * keys of earlier chunks come from earlier masks; eq. 5 would recompute the prefix under m^(k).
 */
function delayByOneChunk(mask: LayerMask, B: number, chunks: number): LayerMask {
  if ("lambda" in mask) {
    const [indices, lambda] = [mask.indices, mask.lambda].map((own) => delayByOneChunk(own, B, chunks) as Tensor);
    return { indices: indices!, lambda: lambda! };
  }
  const F = mask.shape[1]!;
  const perRow = ops.reshape(mask, [B, chunks - 1, F]);
  return ops.reshape(ops.concat([ops.slice(perRow, 1, 0, 1), perRow], 1), [B * chunks, F]);
}

/**
 * Inputs: parameters, `ids` [B, T], `labels` [B·T] and what masks are made from; with `shape.labelled`, `labels` [labelled] and
 * `labelRows` [labelled], the position b·T + t of each; with `config.teacher`, what {@link teacherLogits} and {@link seesInputs} read.
 * Outputs: `loss` (sum over labels), `feature` [rows, Dp] (predictor only), and `d:NAME` for each parameter of `trained`.
 */
export function trainingGraph(config: StepConfig, shape: StepShape, trained: ReadonlySet<string>): Graph {
  const graph = new Graph(`train B=${shape.B} T=${shape.T}`);
  const { masks, feature, contrast } = maskNodes(graph, config, shape);
  const ids = graph.input("ids", [shape.B, shape.T], "int32");
  const labels = graph.input("labels", [shape.labelled ?? shape.B * shape.T], "int32");
  const llm = parameterInputs(graph, config.llm, PREFIX.llm);
  const hidden = decoder(config.llm, llm, ids, masks, undefined, config.teacher && seesInputs(graph, shape));
  const labelRows = shape.labelled ? graph.input("labelRows", [shape.labelled], "int32") : undefined;
  const read = labelRows ? ops.embedding(hidden, labelRows) : hidden;
  const y = logits(config.llm, llm, read);
  let loss = config.teacher
    ? ops.klDivergence(y, teacherLogits(graph, config.teacher, labels.shape[0]!), labels)
    : ops.crossEntropy(y, labels);
  if (config.distil) {
    const teacher = parameterInputs(graph, config.llm, PREFIX.teacher);
    const all = decoder(config.llm, teacher, ids);
    const taught = logits(config.llm, teacher, labelRows ? ops.embedding(all, labelRows) : all);
    const divergence = ops.klDivergence(y, taught, labels);
    loss = ops.add(ops.scale(loss, 1 - config.distil), ops.scale(divergence, config.distil));
  }
  if (contrast) {
    const isLabelled = n.cast(n.less(graph.constant(Int32Array.of(-1), []), labels), "float32");
    const numLabels = n.reshape(n.reduceSum(isLabelled, [0]), []);
    loss = ops.add(loss, ops.scale(ops.mul(contrast.loss, numLabels), contrast.weight));
  }
  if (feature) graph.output("feature", feature);
  outputGradients(graph, loss, trained);
  return graph;
}

/** Inputs: `starts` and `shared` [B, T], what each token sees. */
export function seesInputs(graph: Graph, { B, T }: { B: number; T: number }): Sees {
  const input = (name: keyof Sees) => graph.input(name, [B, T], "int32");
  return { starts: input("starts"), shared: input("shared") };
}

/** Inputs: `teacherStates` [N, Dt], after the teacher's final norm, and `teacher.head` [V, Dt]. @returns [N, V] */
export function teacherLogits(graph: Graph, { width, vocabSize, logitSoftCap }: TeacherHead, N: number): Tensor {
  const states = graph.input("teacherStates", [N, width]);
  const y = n.matmul(states, graph.input(TEACHER_HEAD, [vocabSize, width]), { transB: true });
  return logitSoftCap === undefined ? y : ops.softCap(y, logitSoftCap);
}

/** Graph input of a teacher's output matrix. */
export const TEACHER_HEAD = `${PREFIX.teacher}head`;

function outputGradients(graph: Graph, loss: Tensor, trained: ReadonlySet<string>): void {
  graph.output("loss", loss);
  const parameters = graph.inputs.filter(({ name }) => trained.has(name));
  for (const [i, gradient] of gradients(loss, parameters).entries()) graph.output(`d:${parameters[i]!.name}`, gradient);
}

/**
 * The predictor alone, learning what is known of an instruction beforehand: of a codebook the entry, by cross-entropy; of a linear
 * head the scores, by their mean squared error.
 *
 * Inputs: the predictor's parameters and ids, `targets`: entries [rows], int32, or scores [rows·L, F/block].
 * Outputs: `loss` (sum over rows), `feature` [rows, Dp], and `d:NAME` for each parameter of `trained`.
 */
export function warmStartGraph(
  predictor: PredictorConfig,
  { B, Tp }: Pick<StepShape, "B" | "Tp">,
  trained: ReadonlySet<string>,
): Graph {
  const graph = new Graph(`warm start B=${B} Tp=${Tp}`);
  // the same predictor, but its scores stay those of blocks
  const ofBlocks = { ...predictor, block: 1, ffnWidth: predictor.ffnWidth / predictor.block };
  const { feature, inner, scores } = predictorNodes(graph, ofBlocks, B, Tp);
  graph.output("feature", feature);
  if (predictor.head === "codebook") {
    outputGradients(graph, ops.crossEntropy(inner, graph.input("targets", [B], "int32")), trained);
  } else {
    const error = ops.sub(scores, graph.input("targets", scores.shape));
    const perRow = scores.shape[1]! * predictor.numLayers;
    outputGradients(graph, ops.scale(ops.sum(ops.mul(error, error), [0, 1]), 1 / perRow), trained);
  }
  return graph;
}

/**
 * The masks of a batch and nothing else. Outputs: `masks` [rows·L, F] as SoftTopK gives them, `scores` [rows·L, F], `inner` [rows, R] (of a codebook the
 * logits of its entries) and `feature` [rows, Dp].
 */
export function predictorGraph(
  predictor: PredictorConfig,
  { tFfn, epsilon }: SoftTopKConfig,
  rows: number,
  Tp: number,
): Graph {
  const graph = new Graph(`predict rows=${rows} Tp=${Tp}`);
  const { feature, inner, scores } = predictorNodes(graph, predictor, rows, Tp);
  graph.output("feature", feature);
  graph.output("inner", inner);
  graph.output("scores", scores);
  graph.output("masks", ops.softTopK(scores, tFfn, epsilon));
  return graph;
}
