/** Which of R classes a feature is of: a linear map whose softmax says so, found by gradient descent over all points at once. */

/** Steps of Adam over all points, and their rate: within a fifth of the least loss, where what is left to gain is large weights. */
const STEPS = 150;
const RATE = 0.02;
const [BETA1, BETA2] = [0.9, 0.99];
/** Of the squared weights, so that points that can be told apart by many lines are told apart by the plainest. */
const DECAY = 1e-3;

/**
 * Weights [R, D] that make the mean of −ln softmax(W x)[class] small. No bias: features are centred. Deterministic.
 *
 * @param features N, each [D], of unit scale
 * @param classOf of each, in 0..R−1
 */
export function softmaxRegression(
  features: readonly Float32Array[],
  classOf: readonly number[],
  R: number,
): Float32Array {
  const D = features[0]!.length;
  const size = R * D;
  const [weights, m, v] = [new Float32Array(size), new Float64Array(size), new Float64Array(size)];
  for (let step = 1; step <= STEPS; step++) {
    const gradient = new Float64Array(size);
    for (const [i, feature] of features.entries()) {
      const p = softmax(scores(weights, feature, R));
      p[classOf[i]!]! -= 1;
      for (let r = 0; r < R; r++) for (let d = 0; d < D; d++) gradient[r * D + d]! += p[r]! * feature[d]!;
    }
    for (let j = 0; j < size; j++) {
      const g = gradient[j]! / features.length + DECAY * weights[j]!;
      m[j] = BETA1 * m[j]! + (1 - BETA1) * g;
      v[j] = BETA2 * v[j]! + (1 - BETA2) * g * g;
      weights[j]! -= (RATE * (m[j]! / (1 - BETA1 ** step))) / (Math.sqrt(v[j]! / (1 - BETA2 ** step)) + 1e-12);
    }
  }
  return weights;
}

/** The class that weights [R, D] find most likely; the first of equals. */
export function mostLikely(weights: Float32Array, feature: Float32Array, R: number): number {
  return scores(weights, feature, R).reduce((best, score, r, all) => (score > all[best]! ? r : best), 0);
}

function scores(weights: Float32Array, feature: Float32Array, R: number): Float64Array {
  const D = feature.length;
  const all = new Float64Array(R);
  for (let r = 0; r < R; r++) {
    let sum = 0;
    for (let d = 0; d < D; d++) sum += weights[r * D + d]! * feature[d]!;
    all[r] = sum;
  }
  return all;
}

function softmax(logits: Float64Array): Float64Array {
  const max = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const e = logits.map((logit) => Math.exp(logit - max));
  const sum = e.reduce((a, b) => a + b, 0);
  return e.map((value) => value / sum);
}
