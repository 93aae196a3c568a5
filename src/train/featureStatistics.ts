/**
 * Running statistics that the predictor's feature is centred and scaled by.
 *
 * Shapes: P predictor inputs · Dp width of the predictor's feature
 */
import { FEATURE_MEAN, FEATURE_STD } from "../net/parameters.ts";

/** Weight of the past. */
const MOMENTUM = 0.99;
/** Keeps a constant feature from being blown up. */
export const STD_FLOOR = 1e-3;

/**
 * Moves mean and standard deviation, which are among the parameters, towards those of a batch: feature [P, Dp].
 *
 * @param options `isSettled`: the feature of a text does not change with training, so a new head takes over those of its first batch: the mean, and one
 *   deviation for the whole width, as a few rows say too little of each place
 */
export function followFeature(
  parameters: Readonly<Record<string, Float32Array>>,
  feature: Float32Array,
  { isSettled = false }: { isSettled?: boolean } = {},
): void {
  const [mean, std] = [parameters[FEATURE_MEAN]!, parameters[FEATURE_STD]!];
  const Dp = mean.length;
  const P = feature.length / Dp;
  const isFirst = isSettled && P > 1 && mean.every((value) => value === 0) && std.every((value) => value === 1);
  const momentum = isFirst ? 0 : MOMENTUM;
  let total = 0; // of the batch's own variance
  for (let i = 0; i < Dp; i++) {
    let [sum, squares] = [0, 0];
    for (let row = 0; row < P; row++) {
      const deviation = feature[row * Dp + i]! - mean[i]!;
      sum += deviation;
      squares += deviation * deviation;
    }
    const variance = MOMENTUM * std[i]! ** 2 + (1 - MOMENTUM) * (squares / P);
    total += (squares - sum ** 2 / P) / (P - 1);
    mean[i]! += (1 - momentum) * (sum / P);
    std[i] = Math.max(STD_FLOOR, Math.sqrt(variance));
  }
  if (isFirst) std.fill(Math.max(STD_FLOOR, Math.sqrt(total / Dp)));
}
