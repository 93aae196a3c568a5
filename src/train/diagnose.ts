/**
 * What a training run measures on held-out examples while it trains: the loss under the mask in use and under its controls, and
 * whether masks follow the prompt at all, or have collapsed into one.
 */

import { foreignPartners, genericMask } from "../mask/baselines.ts";
import { type DenseMask, fromDenseMask } from "../mask/mask.ts";
import { type MaskDiagnostics, maskDiagnostics } from "../mask/overlap.ts";
import type { Divergence } from "../net/divergenceMeter.ts";
import type { Evaluator, SequenceScore } from "../net/evaluator.ts";
import type { PredictorInput } from "./data.ts";
import type { HeldOutExample } from "./heldOut.ts";

/** Mean loss per label in nats, share of labels that are the most likely token, share of examples with all of them right. */
export interface Score {
  loss: number;
  tokenAccuracy: number;
  exactMatch: number;
}

export function summarize(scores: readonly SequenceScore[]): Score {
  const sum = (f: (score: SequenceScore) => number) => scores.reduce((total, score) => total + f(score), 0);
  const tokens = sum((s) => s.tokens);
  return {
    loss: sum((s) => s.nll) / tokens,
    tokenAccuracy: sum((s) => s.correctTokens) / tokens,
    exactMatch: sum((s) => (s.correctTokens === s.tokens ? 1 : 0)) / scores.length,
  };
}

/** The same of a divergence: mean over domains of the KL per position and of the share of positions agreed on. */
export function summarizeDivergence(measured: readonly Divergence[], domains: readonly string[]): Score {
  const sums = new Map<string, Divergence>();
  for (const [i, { kl, agreed, positions }] of measured.entries()) {
    const sum = sums.get(domains[i]!) ?? { kl: 0, agreed: 0, positions: 0 };
    sums.set(domains[i]!, {
      kl: sum.kl + kl,
      agreed: sum.agreed + agreed,
      positions: sum.positions + positions,
    });
  }
  const mean = (f: (sum: Divergence) => number) =>
    [...sums.values()].reduce((total, sum) => total + f(sum), 0) / sums.size;
  return {
    loss: mean(({ kl, positions }) => kl / positions),
    tokenAccuracy: mean(({ agreed, positions }) => agreed / positions),
    exactMatch: measured.filter(({ agreed, positions }) => agreed === positions).length / measured.length,
  };
}

/** Scores under predicted masks and under the controls that tell whether the masks matter. */
export interface MaskReport {
  /** Mask from the whole prompt. */
  perInput: Score;
  /** Mask from the instruction without its input. */
  perTask: Score;
  /** The masks below are made from what the predictor was trained to read; from the whole prompt, if from both. λ = 1: */
  hard: Score;
  /** The mask of the mean scores over all examples: one fixed mask from the same predictor. */
  generic: Score;
  /** The mask of an example of another domain. Absent where all are of one. */
  foreign?: Score;
  /** Every channel kept. */
  dense: Score;
  perInputMasks: MaskDiagnostics;
  perTaskMasks: MaskDiagnostics;
}

/** @param examples at least one */
export async function diagnoseMasks(
  evaluator: Evaluator,
  examples: readonly HeldOutExample[],
  trainedInput: PredictorInput,
  { dFfn, tFfn, epsilon }: { dFfn: number; tFfn: number; epsilon: number },
): Promise<MaskReport> {
  const domains = examples.map(({ domain }) => domain);
  const perInput = await evaluator.predict(examples.map((e) => e.predictorPrompt));
  const perTask = await evaluator.predict(examples.map((e) => e.predictorInstruction));
  const own = trainedInput === "instruction" ? perTask : perInput;
  const masksOf = (predicted: typeof own) => predicted.map(({ mask }) => mask);
  const generic = genericMask(
    own.map(({ scores }) => scores),
    { dFfn, tFfn, epsilon },
  );
  const under = async (masks?: readonly DenseMask[]) => summarize(await evaluator.score(examples, masks));
  const diagnostics = (predicted: typeof own) =>
    maskDiagnostics(
      predicted.map(({ mask }) => fromDenseMask(mask, dFfn)),
      domains,
      predicted.map(({ scores }) => scores),
    );
  return {
    perInput: await under(masksOf(perInput)),
    perTask: await under(masksOf(perTask)),
    hard: await under(masksOf(own).map((mask) => mask.map((lambda) => (lambda > 0 ? 1 : 0)))),
    generic: await under(own.map(() => generic)),
    ...(new Set(domains).size > 1 && {
      foreign: await under(foreignPartners(domains).map((partner) => own[partner]!.mask)),
    }),
    dense: await under(),
    perInputMasks: diagnostics(perInput),
    perTaskMasks: diagnostics(perTask),
  };
}
