/**
 * How the next token is drawn from logits. llama.cpp does it for plain answers; here is the same in TypeScript for answers with log-probabilities, as
 * llama.cpp's interface gives either the token that it draws or the model's own logits.
 *
 * Shapes: V vocabulary
 */
import { OptionError } from "../errors.ts";
import { type Complete, type NumberOption, readNumbers } from "../options.ts";

/** Penalties look at the answer's own tokens. */
export const SAMPLING_OPTIONS = {
  temperature: { words: "0 is greedy", min: 0, fallback: 0 },
  topP: {
    words: "the likeliest tokens that have this probability together; the likeliest one always",
    min: 0,
    max: 1,
    fallback: 1,
  },
  topK: { words: "so many of the likeliest tokens; 0 is no limit", isInteger: true, min: 0, fallback: 0 },
  minP: { words: "tokens of at least this share of the likeliest one's probability", min: 0, max: 1, fallback: 0 },
  /** The lowest 32 bits count. */
  seed: { words: "of sampling", isInteger: true, fallback: 0 },
  frequencyPenalty: { words: "taken from a logit for each time that the token came", fallback: 0 },
  presencePenalty: { words: "taken from a logit once the token came", fallback: 0 },
  repeatPenalty: { words: "divides the logits of tokens that came; 1 is none", min: 0, isAboveMin: true, fallback: 1 },
} as const satisfies Record<string, NumberOption>;

/** How tokens are drawn; a temperature of 0 is greedy. */
export interface Sampling extends Complete<typeof SAMPLING_OPTIONS> {
  /** Added to logits, by token id. */
  logitBias: ReadonlyMap<number, number>;
}

export const greedySampling: Sampling = { ...readNumbers("sampling", SAMPLING_OPTIONS, {}), logitBias: new Map() };

/** Temperatures below are greedy: logits cannot be divided by them. */
const minTemperature = 1e-3;

/**
 * A sampling with its defaults and in range for llama.cpp: a 32-bit seed, a temperature of 0 or one that logits can be divided by.
 *
 * @throws {OptionError} if a number is out of range
 */
export function completeSampling(given: Partial<Sampling>): Sampling {
  const { logitBias = greedySampling.logitBias } = given;
  const sampling = readNumbers("sampling", SAMPLING_OPTIONS, given);
  for (const [id, bias] of logitBias) {
    if (!Number.isFinite(bias))
      throw new OptionError(`sampling: the bias of token ${id} must be a number, got ${bias}.`);
  }
  return {
    ...sampling,
    logitBias,
    temperature: sampling.temperature < minTemperature ? 0 : sampling.temperature,
    topK: Math.min(sampling.topK, 2 ** 31 - 1),
    seed: Number(BigInt.asUintN(32, BigInt(sampling.seed))),
  };
}

/** Natural logarithms of the probabilities of logits. [V] */
export function logProbabilities(logits: Float32Array): Float64Array {
  let max = -Infinity;
  for (const logit of logits) if (logit > max) max = logit;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - max);
  const shift = max + Math.log(sum);
  return Float64Array.from(logits, (logit) => logit - shift);
}

/** The ids of the `count` largest of `values`, the largest first; of equal ones the lower id. */
export function largest(values: ArrayLike<number>, count: number): number[] {
  const best: number[] = [];
  if (count === 0) return best;
  for (let id = 0; id < values.length; id++) {
    if (best.length === count && values[id]! <= values[best.at(-1)!]!) continue;
    if (best.length === count) best.pop();
    const at = best.findIndex((other) => values[other]! < values[id]!);
    best.splice(at < 0 ? best.length : at, 0, id);
  }
  return best;
}

/**
 * Draws a token as llama.cpp does: bias, penalties, then top-k, top-p and min-p of the probabilities at temperature 1, then the temperature.
 *
 * @param logits of the model, [V]
 * @param sampling complete
 * @param answer tokens that the penalties look at
 * @param chance a number in [0, 1) that decides
 */
export function drawToken(logits: Float32Array, sampling: Sampling, answer: readonly number[], chance: number): number {
  const { temperature, topP, topK, minP, logitBias } = sampling;
  const biased = Float32Array.from(logits);
  for (const [id, bias] of logitBias) biased[id]! += bias;
  penalize(biased, sampling, answer);
  if (temperature === 0) return largest(biased, 1)[0]!;
  const logProbs = logProbabilities(biased);
  let kept = Array.from(logProbs.keys()).sort((a, b) => logProbs[b]! - logProbs[a]! || a - b);
  if (topK > 0) kept = kept.slice(0, topK);
  if (topP < 1) {
    const probs = kept.map((id) => Math.exp(logProbs[id]!));
    kept = kept.slice(0, 1 + reach(probs, topP * sumOf(probs)));
  }
  if (minP > 0) kept = kept.filter((id) => logProbs[id]! >= logProbs[kept[0]!]! + Math.log(minP));
  const weights = kept.map((id) => Math.exp((logProbs[id]! - logProbs[kept[0]!]!) / temperature));
  return kept[reach(weights, chance * sumOf(weights))]!;
}

const sumOf = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0);

/** Index of the value at which the sum of those up to it reaches `wanted`, the last one if rounding keeps it from that. */
function reach(values: readonly number[], wanted: number): number {
  let sum = 0;
  const index = values.findIndex((value) => {
    sum += value;
    return sum >= wanted;
  });
  return index < 0 ? values.length - 1 : index;
}

function penalize(logits: Float32Array, sampling: Sampling, answer: readonly number[]): void {
  const { frequencyPenalty, presencePenalty, repeatPenalty } = sampling;
  const counts = new Map<number, number>();
  for (const id of answer) counts.set(id, (counts.get(id) ?? 0) + 1);
  for (const [id, count] of counts) {
    const logit = logits[id]!;
    const repeated = logit > 0 ? logit / repeatPenalty : logit * repeatPenalty;
    logits[id] = repeated - count * frequencyPenalty - presencePenalty;
  }
}
