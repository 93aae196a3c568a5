/** What a model learns of a conversation: the tokens of its answers. */

/** The label of a position without loss. */
export const IGNORED = -100;

/**
 * Of turns: ids [T], the last end token left out, and the label of each position, the next token in answers and IGNORED elsewhere.
 */
export function labelledTurns(turns: readonly { prompt: Int32Array; answer: Int32Array }[]): {
  ids: Int32Array;
  labels: Int32Array;
} {
  const length = turns.reduce((sum, { prompt, answer }) => sum + prompt.length + answer.length, 0);
  const ids = new Int32Array(length);
  const labels = new Int32Array(length).fill(IGNORED);
  let at = 0;
  for (const { prompt, answer } of turns) {
    ids.set(prompt, at);
    at += prompt.length;
    ids.set(answer, at);
    labels.set(answer, at - 1);
    at += answer.length;
  }
  return { ids: ids.subarray(0, -1), labels: labels.subarray(0, -1) };
}
