/** Intervals and tests for shares of right answers. All intervals are of 95 %, all tests two-sided. */
/** From `low` to `high`. */
export type Interval = readonly [low: number, high: number];

const CONFIDENCE = 0.95;
/** Quantile of the normal distribution for it. */
const Z = 1.959963984540054;

/** Wilson's score interval of a share, for `right` of `count` items. */
export function wilson(right: number, count: number): Interval {
  const share = right / count;
  const square = Z ** 2 / count;
  const centre = (share + square / 2) / (1 + square);
  const half = (Z / (1 + square)) * Math.sqrt((share * (1 - share)) / count + square / (4 * count));
  return [Math.max(0, centre - half), Math.min(1, centre + half)];
}

/**
 * Interval of the mean of per-task means, from the spread of the items within each task (normal, strata weighed alike); tasks are what they
 * are, not a sample. A task whose items are all alike adds no width, so it is a little narrow where many are.
 *
 * @param tasks per task the value of each item: 0 or 1, or the difference of two systems on it; at least two items
 */
export function itemsInterval(tasks: readonly (readonly number[])[]): Interval {
  const variances = tasks.map((items) => sampleVariance(items) / items.length);
  const half = (Z * Math.sqrt(variances.reduce((sum, variance) => sum + variance, 0))) / tasks.length;
  const centre = mean(tasks.map(mean));
  return [centre - half, centre + half];
}

/** Student's interval of a mean over independent values, such as seeds; nothing for fewer than two. */
export function tInterval(values: readonly number[]): Interval | undefined {
  const n = values.length;
  if (n < 2) return undefined;
  const centre = mean(values);
  const half = tQuantile(n - 1) * Math.sqrt(sampleVariance(values) / n);
  return [centre - half, centre + half];
}

/** t of which Student's distribution has 97.5 % below, by bisection. @param df degrees of freedom, a positive integer */
export function tQuantile(df: number): number {
  let [low, high] = [0, 1000];
  for (let i = 0; i < 100; i++) {
    const middle = (low + high) / 2;
    if (withinT(middle, df) < CONFIDENCE) low = middle;
    else high = middle;
  }
  return low;
}

/** P(|T| < t), the finite sums for whole degrees of freedom (Abramowitz & Stegun 26.7.3 and 26.7.4). */
function withinT(t: number, df: number): number {
  const angle = Math.atan(t / Math.sqrt(df));
  const isOdd = df % 2 === 1;
  const square = Math.cos(angle) ** 2;
  let [term, sum] = [isOdd ? Math.cos(angle) : 1, 0];
  for (let k = isOdd ? 3 : 2; k <= df; k += 2) {
    sum += term;
    term *= (square * (k - 1)) / k;
  }
  return isOdd ? (2 / Math.PI) * (angle + Math.sin(angle) * sum) : Math.sin(angle) * sum;
}

/** As many signs as can be flipped in all ways within a second. */
const MAX_FLIPPED = 20;

/**
 * Paired permutation test of "no difference": the share of all ways to flip the signs whose mean is at least as far from 0. Exact.
 *
 * @param differences one per unit, such as a task; at most 20
 */
export function signFlipTest(differences: readonly number[]): number {
  const n = differences.length;
  if (n === 0 || n > MAX_FLIPPED) throw new Error(`internal: wanted 1 to ${MAX_FLIPPED} differences, got ${n}`);
  let sum = differences.reduce((total, value) => total + value, 0);
  const observed = Math.abs(sum) - 1e-9; // sums that are equal but for rounding are as far
  const signs = differences.map(() => 1);
  let asFar = 0;
  for (let step = 0; step < 2 ** n; step++) {
    if (Math.abs(sum) >= observed) asFar++;
    const next = Math.min(n - 1, 31 - Math.clz32((step + 1) & -(step + 1))); // Gray code: one sign a step
    sum -= 2 * signs[next]! * differences[next]!;
    signs[next]! *= -1;
  }
  return asFar / 2 ** n;
}

/** McNemar's exact test, of items that only the one or only the other system has right. */
export function mcNemarTest(onlyFirst: number, onlySecond: number): number {
  const n = onlyFirst + onlySecond;
  let [logTerm, tail] = [-n * Math.LN2, 0]; // of the binomial distribution at a half
  for (let k = 0; k <= Math.min(onlyFirst, onlySecond); k++) {
    tail += Math.exp(logTerm);
    logTerm += Math.log((n - k) / (k + 1));
  }
  return Math.min(1, 2 * tail);
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function sampleVariance(values: readonly number[]): number {
  const centre = mean(values);
  return values.reduce((sum, value) => sum + (value - centre) ** 2, 0) / (values.length - 1);
}
