/**
 * The graph of one micro-batch: masks, loss and every gradient. One graph per batch shape; the optimiser has its own graph.
 *
 * Shapes: B rows · T tokens · N chunks of a row · Tp predictor tokens · L layers · F FFN channels · V vocabulary
 */
import { gradients } from "../graph/autodiff.ts";
import { Graph, type Tensor } from "../graph/graph.ts";
import * as n from "../graph/nodes.ts";
import { type KeptChannels, ops } from "../graph/ops.ts";
import { SCORE_EPSILON } from "../mask/standardize.ts";
import type { ModelConfig } from "../model/config.ts";
import type { PredictorConfig } from "../model/predictorConfig.ts";
import { decoder, type LayerMask, logits, parameterInputs } from "./decoder.ts";
import { headInputs, masksPerLayer, predictScores, spreadBlockScores } from "./predictor.ts";

/** Names of the parameters of each part, as graph inputs: prefix + Hugging Face name (or head name). */
export const PREFIX = {
  llm: "llm.",
  backbone: "backbone.",
  head: "head.",
  static: "static.",
  teacher: "teacher.",
} as const;

/**
 * Where the mask of a row comes from.
 * `predictor`: learned, from the row's instruction · `static`: one learned mask for all · `given`: fed with the batch (fixed
 * random masks per domain, or masks of any other source) · `none`: dense.
 */
export type MaskSource = "predictor" | "static" | "given" | "none";

export interface StepConfig {
  llm: ModelConfig;
  source: MaskSource;
  predictor?: PredictorConfig;
  /** Kept channels and the temperature of SoftTopK; for all sources but `none`. */
  softTopK?: { tFfn: number; epsilon: number };
  /** Channels that share a score of the `static` source; 1 if absent. */
  block?: number;
  /**
   * Share of the loss that is the divergence from a teacher, a dense model of the same shape that does not learn; the rest is the loss
   * on the labels. Absent: no teacher.
   */
  distil?: number | undefined;
  /** Weight of `contrastLoss`, per label; the predictor then reads two inputs per row. Absent: none. */
  contrast?: number | undefined;
  /**
   * `plain`: compute all channels and multiply by the mask · `compact`: gather the kept channels' weights first; equal in value and
   * gradient. Absent: what is faster for the shape.
   */
  ffn?: "plain" | "compact";
}

export interface StepShape {
  B: number;
  T: number;
  /** Tokens of a predictor input; for the `predictor` source. */
  Tp: number;
  /**
   * Chunks per row. 1: one mask per row (SFT). More: continued pre-training (P §3.3 eq. 4-5), where the mask of chunk k is used
   * for the labels of chunk k+1 and the predictor reads N − 1 chunks per row.
   */
  chunks: number;
  /**
   * Positions whose logits are computed, at most `B·T`. Absent: all. In SFT few positions carry a label, and the logits of the
   * others would be the largest product of the step.
   */
  labelled?: number;
}

/** Masks for the LLM and, from the predictor, its raw feature and the contrast between masks. */
interface MaskNodes {
  masks?: LayerMask[];
  feature?: Tensor;
  contrast?: Tensor | undefined;
}

/** The predictor reading the instructions of a batch, `predictorIds` [rows, Tp] with `predictorLastRows` [rows]. */
function predictorNodes(graph: Graph, predictor: PredictorConfig, rows: number, Tp: number) {
  const ids = graph.input("predictorIds", [rows, Tp], "int32");
  const lastRows = graph.input("predictorLastRows", [rows], "int32");
  const backbone = parameterInputs(graph, predictor.backbone, PREFIX.backbone);
  return predictScores(predictor, { backbone, ...headInputs(graph, predictor, PREFIX.head) }, ids, lastRows);
}

/** Declares what the chosen mask source reads and returns one mask per layer, of `rows` rows. */
function maskNodes(graph: Graph, config: StepConfig, shape: StepShape): MaskNodes {
  const { llm, source, predictor, softTopK, block = 1, ffn } = config;
  const { numLayers: L, ffnWidth: F } = llm;
  const { B, T, Tp, chunks } = shape;
  if (source === "none") return {};
  const { tFfn: K, epsilon } = softTopK!;
  // Mask rows are used for this many tokens each. Where these are few, gathering weights costs more than the dropped channels.
  const tokensPerRow = source === "static" ? B * T : T / chunks;
  const isCompact = ffn ? ffn === "compact" : tokensPerRow * (F - K) > GATHER_COST * K;
  const fromScores = (scores: Tensor): LayerMask[] =>
    isCompact ? keptPerLayer(ops.keptTopK(scores, K, epsilon), L) : masksPerLayer(ops.softTopK(scores, K, epsilon), L);
  switch (source) {
    case "given": {
      const indices = graph.input("maskIndices", [B * L, K], "int32");
      const lambda = graph.input("maskLambda", [B * L, K]);
      if (isCompact) return { masks: keptPerLayer({ indices, lambda }, L) };
      const dense = n.scatterElements(n.zeros(lambda, [B * L, F]), indices, lambda, 1, "none");
      return { masks: masksPerLayer(dense, L) };
    }
    case "static": {
      const own = graph.input(`${PREFIX.static}scores`, [L, F / block]);
      return { masks: fromScores(spreadBlockScores(ops.standardize(own, SCORE_EPSILON), block)) };
    }
    case "predictor": {
      const rows = config.contrast ? 2 * B : B * Math.max(1, chunks - 1);
      const { feature, scores } = predictorNodes(graph, predictor!, rows, Tp);
      if (config.contrast) {
        const contrast = contrastLoss(ops.softTopK(scores, K, epsilon), L, K);
        return { masks: fromScores(ops.slice(scores, 0, 0, B * L)), feature, contrast };
      }
      const masks = fromScores(scores);
      return { masks: chunks > 1 ? masks.map((mask) => delayByOneChunk(mask, B, chunks)) : masks, feature };
    }
    default:
      return source satisfies never;
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
 * Masks of chunks 1..N−1 of each row, [B·(N−1), F], to the masks that its N chunks of labels run under, [B·N, F]: labels of
 * chunk k+1 run under the mask made from chunk k; labels of chunk 1 under its own, since no chunk comes before it, and they carry no
 * loss. Where this differs from the paper (P §3.3 eq. 5): one forward pass per row, in which the attention
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
 * Inputs: parameters, `ids` [B, T], `labels` [B·T] and what the mask source reads; with `shape.labelled` = N, `labels` [N] and
 * `labelRows` [N], the position b·T + t of each.
 * Outputs: `loss` (sum over labels), `feature` [rows, Dp] (predictor only), and `d:NAME` for each parameter of `trained`.
 */
export function trainingGraph(config: StepConfig, shape: StepShape, trained: ReadonlySet<string>): Graph {
  const graph = new Graph(`train B=${shape.B} T=${shape.T}`);
  const { masks, feature, contrast } = maskNodes(graph, config, shape);
  const ids = graph.input("ids", [shape.B, shape.T], "int32");
  const labels = graph.input("labels", [shape.labelled ?? shape.B * shape.T], "int32");
  const llm = parameterInputs(graph, config.llm, PREFIX.llm);
  const hidden = decoder(config.llm, llm, ids, masks);
  const labelRows = shape.labelled ? graph.input("labelRows", [shape.labelled], "int32") : undefined;
  const read = labelRows ? ops.embedding(hidden, labelRows) : hidden;
  const y = logits(config.llm, llm, read);
  let loss = ops.crossEntropy(y, labels);
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
    loss = ops.add(loss, ops.scale(ops.mul(contrast, numLabels), config.contrast!));
  }
  if (feature) graph.output("feature", feature);
  outputGradients(graph, loss, trained);
  return graph;
}

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
 * The masks of a batch and nothing else. Outputs: `masks` [rows·L, F] as SoftTopK gives them, `scores` [rows·L, F] and
 * `feature` [rows, Dp].
 */
export function predictorGraph(
  predictor: PredictorConfig,
  { tFfn, epsilon }: { tFfn: number; epsilon: number },
  rows: number,
  Tp: number,
): Graph {
  const graph = new Graph(`predict rows=${rows} Tp=${Tp}`);
  const { feature, scores } = predictorNodes(graph, predictor, rows, Tp);
  graph.output("feature", feature);
  graph.output("scores", scores);
  graph.output("masks", ops.softTopK(scores, tFfn, epsilon));
  return graph;
}
