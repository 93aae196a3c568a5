/**
 * How the next token is drawn from logits. llama.cpp does it for plain answers; here is the same in TypeScript for answers with log-probabilities, as
 * llama.cpp's interface gives either the token that it draws or the model's own logits.
 *
 * Shapes: V vocabulary
 */
import { OptionError } from "../errors.ts";

/** Penalties look at the answer's own tokens. */
export interface Sampling {
  /** 0 is greedy, and so is what is below 0.001. */
  temperature: number;
  /** The likeliest tokens that have this probability together; the likeliest one always. */
  topP: number;
  /** 0 is no limit. */
  topK: number;
  /** Of the likeliest token's probability. */
  minP: number;
  /** An integer, of which the lowest 32 bits count. */
  seed: number;
  frequencyPenalty: number;
  presencePenalty: number;
  /** 1 is none. */
  repeatPenalty: number;
  /** Added to logits, by token id. */
  logitBias: ReadonlyMap<number, number>;
}

export const greedySampling: Sampling = {
  temperature: 0,
  topP: 1,
  topK: 0,
  minP: 0,
  seed: 0,
  frequencyPenalty: 0,
  presencePenalty: 0,
  repeatPenalty: 1,
  logitBias: new Map(),
};

const minTemperature = 1e-3;

/**
 * A sampling with its defaults and in range for llama.cpp: a 32-bit seed, a temperature of 0 or one that logits can be divided by.
 *
 * @throws {OptionError} if a number is out of range
 */
export function completeSampling(given: Partial<Sampling>): Sampling {
  const entries = Object.entries(given).filter(([, value]) => value !== undefined);
  const sampling: Sampling = { ...greedySampling, ...Object.fromEntries(entries) };
  const check = (name: keyof Sampling, wanted: string, isRight: (value: number) => boolean) => {
    const value = sampling[name] as number;
    if (!isRight(value)) throw new OptionError(`sampling: "${name}" must be ${wanted}, got ${value}.`);
  };
  check("temperature", "a number of at least 0", (value) => value >= 0 && value < Infinity);
  check("topP", "a number in 0..1", (value) => value >= 0 && value <= 1);
  check("topK", "an integer of at least 0", (value) => Number.isSafeInteger(value) && value >= 0);
  check("minP", "a number in 0..1", (value) => value >= 0 && value <= 1);
  check("seed", "an integer", Number.isSafeInteger);
  check("frequencyPenalty", "a number", Number.isFinite);
  check("presencePenalty", "a number", Number.isFinite);
  check("repeatPenalty", "a number above 0", (value) => value > 0 && value < Infinity);
  for (const [id, bias] of sampling.logitBias) {
    if (!Number.isFinite(bias))
      throw new OptionError(`sampling: the bias of token ${id} must be a number, got ${bias}.`);
  }
  return {
    ...sampling,
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
