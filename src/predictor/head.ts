/**
 * The predictor's head at inference: from the feature of an instruction to masking scores. The same numbers as the graph's in
 * `predictor.ts`, without an engine.
 *
 * Shapes: Dp backbone width · R head rank · L layers and F FFN channels of the big model
 */
import { FileError, ShapeError } from "../errors.ts";
import { SafetensorsFile } from "../formats/safetensors.ts";
import { standardizeScores } from "./standardize.ts";

export interface PredictorHead {
  /** Mean and standard deviation of the feature over training prompts, [Dp] each. */
  featureMean: Float32Array;
  featureStd: Float32Array;
  /** [R, Dp] */
  w1: Float32Array;
  /** [L·F, R] */
  w2: Float32Array;
  /** [L, F], added to the scores. */
  importance?: Float32Array;
  /** L */
  numLayers: number;
}

/**
 * Reads `head.safetensors` for a model of L layers with F channels.
 *
 * @throws {FileError} if it is damaged or scores another model's channels
 */
export function readHead(
  path: string,
  { numLayers: L, ffnWidth: F }: { numLayers: number; ffnWidth: number },
): PredictorHead {
  using file = new SafetensorsFile(path);
  const shapes = file.shapes;
  const Dp = shapes.get("feature.mean")?.[0] ?? 0;
  const R = shapes.get("w1.weight")?.[0] ?? 0;
  const read = (name: string, wanted: readonly number[]): Float32Array => {
    const { shape, data } = file.read(name);
    if (shape.join() === wanted.join()) return data;
    throw new FileError(
      path,
      `tensor "${name}": wanted [${wanted.join(", ")}], got [${shape.join(", ")}]. Is it another model's?`,
    );
  };
  return {
    featureMean: read("feature.mean", [Dp]),
    featureStd: read("feature.std", [Dp]),
    w1: read("w1.weight", [R, Dp]),
    w2: read("w2.weight", [L * F, R]),
    importance: shapes.has("importance") ? read("importance", [L, F]) : undefined,
    numLayers: L,
  };
}

/**
 * Masking scores z [L·F] of a feature [Dp]: `w2 · w1 · (feature − mean) / std`, standardised per layer over its channels (population
 * variance), plus importance.
 *
 * @throws {ShapeError} if the feature is of another width
 */
export function scoreFeature(
  { featureMean, featureStd, w1, w2, importance, numLayers }: PredictorHead,
  feature: Float32Array,
): Float32Array {
  const Dp = featureMean.length;
  if (feature.length !== Dp) throw new ShapeError("predictor", `a feature [Dp=${Dp}]`, [feature.length]);
  const centred = Float64Array.from(feature, (value, i) => (value - featureMean[i]!) / featureStd[i]!);
  const z = matVec(w2, matVec(w1, centred));
  const scores = standardizeScores(z, z.length / numLayers);
  return importance ? scores.map((score, i) => score + importance[i]!) : scores;
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
