/** Static sequence lengths: graphs are built for few of them, examples are padded to the next one. */

export interface BucketPlan {
  /** T of each bucket, ascending; the last is the longest length that occurs. */
  lengths: number[];
  /** Share of padding among all positions, in [0, 1). */
  waste: number;
}

/**
 * The at most `maxBuckets` lengths that waste least, by dynamic programming over the lengths that occur:
 * `best[j] = min_i best'[i] + length_j · weight(i..j]`, where `best'` has one bucket fewer. O(maxBuckets · n²) for n lengths.
 *
 * @param weightOf how often each length occurs: any positive weights
 * @param maxBuckets an integer of at least 1
 */
export function planBuckets(weightOf: ReadonlyMap<number, number>, maxBuckets: number): BucketPlan {
  const lengths = [...weightOf.keys()].sort((a, b) => a - b);
  const n = lengths.length;
  const weightUpTo = new Float64Array(n + 1); // of the first i lengths
  let tokens = 0;
  for (const [i, length] of lengths.entries()) {
    weightUpTo[i + 1] = weightUpTo[i]! + weightOf.get(length)!;
    tokens += length * weightOf.get(length)!;
  }

  // best[j]: fewest positions that hold the first j lengths; cuts[b][j]: where the last of b + 1 buckets then begins
  let best = new Float64Array(n + 1).fill(Number.POSITIVE_INFINITY);
  best[0] = 0;
  const cuts: Int32Array[] = [];
  for (let b = 0; b < Math.min(maxBuckets, n); b++) {
    const next = new Float64Array(n + 1).fill(Number.POSITIVE_INFINITY);
    const cut = new Int32Array(n + 1);
    for (let j = b + 1; j <= n; j++) {
      for (let i = b; i < j; i++) {
        const positions = best[i]! + lengths[j - 1]! * (weightUpTo[j]! - weightUpTo[i]!);
        if (positions < next[j]!) {
          next[j] = positions;
          cut[j] = i;
        }
      }
    }
    best = next;
    cuts.push(cut);
  }

  const chosen: number[] = [];
  for (let b = cuts.length - 1, end = n; b >= 0; end = cuts[b]![end]!, b--) chosen.unshift(lengths[end - 1]!);
  return { lengths: chosen, waste: n === 0 ? 0 : 1 - tokens / best[n]! };
}
