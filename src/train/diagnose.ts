/**
 * What a training run measures on held-out examples while it trains: the loss under the mask in use and under its controls, and
 * whether masks follow the prompt at all (method: the traps of mask collapse).
 */
import { foreignPartners, genericMask } from "../eval/evaluate.ts";
import type { Evaluator, LabelledSequence, SequenceScore } from "../eval/evaluator.ts";
import { type DenseMask, fromDenseMask } from "../mask/mask.ts";
import { type MaskDiagnostics, maskDiagnostics } from "../mask/overlap.ts";

export interface HeldOutExample extends LabelledSequence {
  domain: string;
  /** What the predictor reads, when it reads the whole prompt. */
  predictorPrompt: Int32Array;
  /** What the predictor reads, when it reads the instruction only. */
  predictorInstruction: Int32Array;
}

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

/** Scores under the prompt's own mask and under the controls that tell whether the masks matter. */
export interface MaskReport {
  /** Own mask, from the whole prompt. */
  perInput: Score;
  /** Own mask, from the instruction only. */
  perTask: Score;
  /** Own mask from the whole prompt with λ = 1. */
  hard: Score;
  /** The mask of the mean scores over all examples: one fixed mask from the same predictor. */
  generic: Score;
  /** The per-input mask of an example of another domain. */
  foreign: Score;
  /** Every channel kept. */
  dense: Score;
  perInputMasks: MaskDiagnostics;
  perTaskMasks: MaskDiagnostics;
}

/** @param examples of at least two domains */
export async function diagnoseMasks(
  evaluator: Evaluator,
  examples: readonly HeldOutExample[],
  { dFfn, tFfn, epsilon }: { dFfn: number; tFfn: number; epsilon: number },
): Promise<MaskReport> {
  const domains = examples.map(({ domain }) => domain);
  const perInput = await evaluator.predict(examples.map((e) => e.predictorPrompt));
  const perTask = await evaluator.predict(examples.map((e) => e.predictorInstruction));
  const own = perInput.map(({ mask }) => mask);
  const generic = genericMask(
    perInput.map(({ scores }) => scores),
    { dFfn, tFfn, epsilon },
  );
  const under = async (masks?: readonly DenseMask[]) => summarize(await evaluator.score(examples, masks));
  const diagnostics = (predicted: typeof perInput) =>
    maskDiagnostics(
      predicted.map(({ mask }) => fromDenseMask(mask, dFfn)),
      domains,
      predicted.map(({ scores }) => scores),
    );
  return {
    perInput: await under(own),
    perTask: await under(perTask.map(({ mask }) => mask)),
    hard: await under(own.map((mask) => mask.map((lambda) => (lambda > 0 ? 1 : 0)))),
    generic: await under(own.map(() => generic)),
    foreign: await under(foreignPartners(domains).map((partner) => own[partner]!)),
    dense: await under(),
    perInputMasks: diagnostics(perInput),
    perTaskMasks: diagnostics(perTask),
  };
}
