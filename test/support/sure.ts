/**
 * Answers that hang by a thread: where two tokens are nearly as likely, each engine, CPU and size of a batch takes the one that its rounding favours. So
 * answers are compared as far as every token is ahead of the next by more than rounding.
 */
import { expect } from "vitest";
import type { ScoredToken } from "../../src/engine/engine.ts";

/**
 * The tokens of a greedy answer before the first that is ahead of the next likeliest by less than `nats`.
 *
 * @param answer with its two likeliest tokens in each place, at least
 * @param atLeast how many there must be: else the comparison would say nothing
 */
export function sureTokens(answer: readonly ScoredToken[], nats: number, atLeast: number): number[] {
  const thin = answer.findIndex(({ top }) => top[0]!.logprob - top[1]!.logprob < nats);
  const sure = answer.slice(0, thin < 0 ? undefined : thin).map(({ id }) => id);
  expect(sure.length, `tokens that are ahead by ${nats} nats; take another prompt`).toBeGreaterThanOrEqual(atLeast);
  return sure;
}
