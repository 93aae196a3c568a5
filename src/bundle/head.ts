/**
 * The predictor's head at inference: from the feature of an instruction to masking scores. The same numbers as the graph's in
 * `predictor.ts`, without an engine.
 *
 * Shapes: Dp feature width · R head rank · L layers, F FFN channels of the big model, in blocks of so many that have one score
 */
import { ShapeError } from "../errors.ts";
import { SafetensorsFile } from "../formats/safetensors.ts";
import { channelScores } from "../mask/standardize.ts";
import { HEAD_MATRICES, headConfig, type PredictorConfig } from "../model/predictorConfig.ts";

export interface PredictorHead extends Pick<PredictorConfig, "head" | "rank" | "block" | "numLayers"> {
  /** Mean and standard deviation of the feature over training prompts, [Dp] each. */
  featureMean: Float32Array;
  featureStd: Float32Array;
  /** From the feature, [R, Dp]. */
  inner: Float32Array;
  /** To the scores, [L·F/block, R]. */
  outer: Float32Array;
  /** [L, F/block], added to the scores. */
  importance?: Float32Array;
}

/**
 * Reads `head.safetensors` for a feature of width Dp and a model of L layers with F channels.
 *
 * @throws {FileError} if it is damaged, reads another feature or scores another model's channels
 */
export function readHead(
  path: string,
  { featureWidth, numLayers, ffnWidth }: { featureWidth: number; numLayers: number; ffnWidth: number },
): PredictorHead {
  using file = new SafetensorsFile(path);
  const config = headConfig(path, file.shapes, { featureWidth, numLayers, ffnWidth });
  const [inner, outer] = HEAD_MATRICES[config.head];
  const read = (name: string) => file.read(name).data;
  return {
    ...config,
    numLayers,
    featureMean: read("feature.mean"),
    featureStd: read("feature.std"),
    inner: read(inner),
    outer: read(outer),
    importance: config.importance ? read("importance") : undefined,
  };
}

/** Channels that have one score. @throws {FileError} if the head is damaged, or scores another model's channels */
export function headBlock(path: string, { numLayers, ffnWidth }: { numLayers: number; ffnWidth: number }): number {
  using file = new SafetensorsFile(path);
  const featureWidth = file.shapes.get("feature.mean")?.[0] ?? 0;
  return headConfig(path, file.shapes, { featureWidth, numLayers, ffnWidth }).block;
}

/**
 * Masking scores z [L·F] of a feature [Dp], as `predictScores` makes them in the graph: `(feature − mean) / std` through both
 * matrices, or the codebook's entry of the largest logit; standardised per layer (population variance), plus importance.
 *
 * @throws {ShapeError} if the feature is of another width
 */
export function scoreFeature(
  { featureMean, featureStd, head, rank, inner, outer, importance, numLayers, block }: PredictorHead,
  feature: Float32Array,
): Float32Array {
  const Dp = featureMean.length;
  if (feature.length !== Dp) throw new ShapeError("predictor", `a feature [Dp=${Dp}]`, [feature.length]);
  const centred = Float64Array.from(feature, (value, i) => (value - featureMean[i]!) / featureStd[i]!);
  const logits = matVec(inner, centred);
  const z = head === "codebook" ? column(outer, rank, logits.indexOf(Math.max(...logits))) : matVec(outer, logits);
  return channelScores(z, { ffnWidth: (z.length / numLayers) * block, block, importance });
}

/** One of a matrix of so many columns. */
function column(matrix: Float32Array, columns: number, index: number): Float64Array {
  const values = new Float64Array(matrix.length / columns);
  for (let row = 0; row < values.length; row++) values[row] = matrix[row * columns + index]!;
  return values;
}

/** `[rows, columns] · [columns]`, summed in float64. */
function matVec(matrix: Float32Array, vector: Float64Array): Float64Array {
  const columns = vector.length;
  const result = new Float64Array(matrix.length / columns);
  for (let row = 0; row < result.length; row++) {
    let sum = 0;
    for (let i = 0; i < columns; i++) sum += matrix[row * columns + i]! * vector[i]!;
    result[row] = sum;
  }
  return result;
}
