/**
 * The sparsity predictor's shape: what reads the instruction, and a head that scores the FFN channels of a bigger model. What it
 * computes is in `src/net/predictor.ts`.
 *
 * Shapes: Dp feature width · R head rank · L layers and F FFN channels of the big model
 */
import { FileError } from "../errors.ts";
import type { ModelConfig } from "./config.ts";

/**
 * What of an instruction's tokens is its feature: the hidden state of the `last` one, as in the paper; the `mean` over all; or `both`, the mean first.
 * After layers of attention the mean leaves out the first token, if there are others: its hidden state is the same for all instructions that begin so,
 * and in many LMs a thousand times the others' (massive activations, arXiv:2402.17762).
 */
export type Pooling = "last" | "mean" | "both";

export interface PredictorConfig {
  /**
   * The LM whose hidden states after the final norm are pooled: a small one of its own, or a copy of the big model's first layers. Without any layer it
   * is the big model's embedding alone, whose rows are pooled as they are: see `backbone.ts`.
   */
  backbone: ModelConfig;
  pooling: Pooling;
  /**
   * How the feature becomes scores. `linear`, as in the paper: two linear layers, a mask of its own for every prompt.
   * `codebook`, ours: the feature chooses one of R rows of scores, a finite set of masks that can be cached and batched.
   */
  head: "linear" | "codebook";
  /** R: width between the two linear layers (paper: 128), or entries of the codebook. */
  rank: number;
  /** L of the big model */
  numLayers: number;
  /** F of the big model */
  ffnWidth: number;
  /** Neighbouring channels that share one score, so that they are kept or dropped together; divides F. */
  block: number;
  /** An input-independent term s0 [L, F/block] is added to the scores. Off by default: it invites masks that ignore the input. */
  importance: boolean;
}

/** Names of the two matrices of a head: from the feature, and to the scores. */
export const HEAD_MATRICES = {
  linear: ["w1.weight", "w2.weight"],
  codebook: ["router.weight", "codebook.weight"],
} as const;

/** Dp of a backbone of this width. */
export function featureWidth({ backbone, pooling }: { backbone: { width: number }; pooling: Pooling }): number {
  return pooling === "both" ? 2 * backbone.width : backbone.width;
}

/** Trained parameters of the head with their shapes: the matrix that reads the feature, the one that makes scores, the rest. */
export function headShapes(config: PredictorConfig): Map<string, readonly number[]> {
  return shapesOf(config, featureWidth(config));
}

function shapesOf(
  { head, rank, numLayers, ffnWidth, block, importance }: Omit<PredictorConfig, "backbone" | "pooling">,
  Dp: number,
): Map<string, readonly number[]> {
  const [inner, outer] = HEAD_MATRICES[head];
  return new Map<string, readonly number[]>([
    [inner, [rank, Dp]],
    [outer, [(numLayers * ffnWidth) / block, rank]],
    ...(importance ? [["importance", [numLayers, ffnWidth / block]] as const] : []),
  ]);
}

/**
 * The head that tensors of these shapes make, for a feature of width Dp and a model of L layers with F channels.
 *
 * @param path where they come from, for messages
 * @throws {FileError} if a tensor is missing or of another shape
 */
export function headConfig(
  path: string,
  shapes: ReadonlyMap<string, readonly number[]>,
  { featureWidth: Dp, numLayers: L, ffnWidth: F }: { featureWidth: number; numLayers: number; ffnWidth: number },
): Pick<PredictorConfig, "head" | "rank" | "block" | "importance"> {
  const head = shapes.has(HEAD_MATRICES.codebook[1]) ? "codebook" : "linear";
  const [rows = 0, rank = 0] = shapes.get(HEAD_MATRICES[head][1]) ?? [];
  const block = (L * F) / rows;
  if (!(rank > 0 && Number.isInteger(block) && F % block === 0)) {
    const wanted = `"${HEAD_MATRICES[head][1]}" with a row for each of the model's ${L} × ${F} channels or blocks of them`;
    throw new FileError(path, `wanted ${wanted}, got ${rows} rows of ${rank}. Is it another model's?`);
  }
  const config = { head, rank, block, importance: shapes.has("importance") } as const;
  const wanted = shapesOf({ ...config, numLayers: L, ffnWidth: F }, Dp);
  for (const name of ["feature.mean", "feature.std"]) wanted.set(name, [Dp]);
  for (const [name, shape] of wanted) {
    const got = shapes.get(name);
    if (got?.join() === shape.join()) continue;
    throw new FileError(
      path,
      `tensor "${name}": wanted [${shape.join(", ")}], got [${got?.join(", ") ?? "none"}]. Is it another model's?`,
    );
  }
  return config;
}
