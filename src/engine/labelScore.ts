/** What a loaded model makes of the tokens of a text that count. */
import type { Engine } from "./engine.ts";

/** A sum over labels. */
export interface LabelScore {
  /** Sum of −ln p(label), nats. */
  nll: number;
  tokens: number;
  /** Labels that are the likeliest token. */
  correctTokens: number;
}

/**
 * @param text ids, and the label of each position: the next token, or a negative number where it does not count
 * @throws as {@link Engine.score}
 */
export async function labelScore(
  engine: Engine,
  { ids, labels }: { ids: Int32Array; labels: Int32Array },
  signal?: AbortSignal,
): Promise<LabelScore> {
  const score = { nll: 0, tokens: 0, correctTokens: 0 };
  const counts = (label: number) => label >= 0;
  const [first, last] = [labels.findIndex(counts), labels.findLastIndex(counts)];
  if (first < 0) return score;
  const text = new Int32Array(last + 2); // the last label is of no position's id
  text.set(ids.subarray(0, last + 1));
  text[last + 1] = labels[last]!;
  const scored = await engine.score(text, { top: 1, from: first + 1, ...(signal && { signal }) });
  for (const [i, { id, logprob, top }] of scored.entries()) {
    if (labels[first + i]! < 0) continue;
    score.nll -= logprob;
    score.tokens++;
    if (top[0]!.id === id) score.correctTokens++;
  }
  return score;
}
