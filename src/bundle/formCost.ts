/**
 * Which form of a mask answers a request sooner. Pure: sizes, what is there already, and what this machine took so far, against a first guess, are all
 * that it knows.
 *
 * Shapes: K kept FFN channels · V vocabulary
 */
import type { Form } from "./formOptions.ts";

/** What a form takes for a request, one after the other. `gather` is writing its files; `open` is taking the mask, where the model is loaded. */
const COST_STAGES = ["gather", "load", "open", "prefill", "decode"] as const;
/** `gather` is writing the files of a form, `open` taking the mask where the model is loaded. */
export type CostStage = (typeof COST_STAGES)[number];

/** What stages depend on, of one form of one mask. */
export interface FormSizes {
  /** Bytes that gathering writes. */
  gathered: number;
  /** Bytes that loading reads. */
  loaded: number;
  /** V: llama.cpp builds the vocabulary at every loading. */
  vocabSize: number;
  /** Bytes of weights that a token passes. */
  perToken: number;
}

/** How much of a form is there already. */
export interface FormState {
  /** Its files are on disk. */
  isWritten: boolean;
  /** Its weights are in memory. */
  isLoaded: boolean;
  /** It has the mask: of the gathered form, the same as loaded. */
  isOpen: boolean;
}

/** What is asked, and said. */
export interface FormRequest {
  promptTokens: number;
  /** Expected, or those that came. */
  answerTokens: number;
}

type Key = `${Form} ${CostStage}`;

/** What this machine took so far of a bundle. */
export interface FormSpeeds {
  /** Of each stage, measured time over the guess: see {@link guessedMs}. */
  factors: Partial<Record<Key, number>>;
  /** Of an answer, lately. */
  answerTokens?: number | undefined;
}

/** Milliseconds of each stage. */
export type FormCost = Record<CostStage, number>;

/** Bytes in a millisecond, of a Q8_0 model of 135M on two cores with AVX2 (docs/log.md, 2026-11-29). What it is elsewhere is learned. */
const guessed = {
  gather: 1e5,
  load: 1e6,
  vocabularyMs: 0.02, // for each token
  openMs: { gathered: 0, resident: 20 },
  prefill: { gathered: 4e7, resident: 1.6e7 },
  decode: { gathered: 5e6, resident: 4.6e6 },
};

/** What a stage of one request may take before anything was measured. */
export function guessedMs(form: Form, stage: CostStage, sizes: FormSizes, request: FormRequest): number {
  switch (stage) {
    case "gather":
      return sizes.gathered / guessed.gather;
    case "load":
      return sizes.loaded / guessed.load + guessed.vocabularyMs * sizes.vocabSize;
    case "open":
      return guessed.openMs[form];
    case "prefill":
      return (request.promptTokens * sizes.perToken) / guessed.prefill[form];
    case "decode":
      return (request.answerTokens * sizes.perToken) / guessed.decode[form];
    default:
      return stage satisfies never;
  }
}

const other = { gathered: "resident", resident: "gathered" } as const;

/** What was not measured of a form is as far off the guess as with the other one: the machine is the same. */
function factorOf({ factors }: FormSpeeds, form: Form, stage: CostStage): number {
  return factors[`${form} ${stage}`] ?? factors[`${other[form]} ${stage}`] ?? 1;
}

/** What a request is expected to take in a form. */
export function formCost(
  form: Form,
  sizes: FormSizes,
  state: FormState,
  request: FormRequest,
  speeds: FormSpeeds,
): FormCost {
  const isDone: Partial<Record<CostStage, boolean>> = {
    gather: state.isWritten || state.isLoaded,
    load: state.isLoaded,
    open: state.isOpen,
  };
  const cost = { gather: 0, load: 0, open: 0, prefill: 0, decode: 0 };
  for (const stage of COST_STAGES)
    if (!isDone[stage]) cost[stage] = guessedMs(form, stage, sizes, request) * factorOf(speeds, form, stage);
  return cost;
}

export const totalMs = (cost: FormCost): number => COST_STAGES.reduce((sum, stage) => sum + cost[stage], 0);

/** The form that costs less, and the stage in which it wins most; the gathered one where both cost the same. */
export function cheaperForm(costs: Record<Form, FormCost>): { form: Form; reason: CostStage } {
  const form = totalMs(costs.resident) < totalMs(costs.gathered) ? "resident" : "gathered";
  const gain = (stage: CostStage) => costs[other[form]][stage] - costs[form][stage];
  const reason = COST_STAGES.reduce((best, stage) => (gain(stage) > gain(best) ? stage : best));
  return { form, reason };
}

/** Weights of the latest measurement, in means of logarithms: of what was measured, of the form that was not, and of answers' lengths. */
const [ownWeight, otherWeight, lengthWeight] = [0.3, 0.03, 0.2];
/** A clock's step or a machine that slept is not believed. */
const farthest = 100;

/**
 * What is known after a stage of a request was measured. The first measurement counts whole. What is not measured for long, as its form is not chosen, is slowly
 * believed to be as far off the guess as what is: a measurement in a bad moment would keep its form from ever being measured again.
 */
export function learnStage(
  speeds: FormSpeeds,
  form: Form,
  stage: CostStage,
  ms: number,
  sizes: FormSizes,
  request: FormRequest,
): FormSpeeds {
  const ratio = ms / guessedMs(form, stage, sizes, request);
  if (!(ratio > 1 / farthest && ratio < farthest)) return speeds;
  const towards = (key: Key, weight: number) => {
    const before = speeds.factors[key];
    return before === undefined ? {} : { [key]: before ** (1 - weight) * ratio ** weight };
  };
  const key: Key = `${form} ${stage}`;
  const factors = {
    ...speeds.factors,
    [key]: ratio,
    ...towards(key, ownWeight),
    ...towards(`${other[form]} ${stage}`, otherWeight),
  };
  return { ...speeds, factors };
}

/** What is known after an answer. */
export function learnLength(speeds: FormSpeeds, answerTokens: number): FormSpeeds {
  const { answerTokens: before = answerTokens } = speeds;
  return { ...speeds, answerTokens: Math.max(1, before + lengthWeight * (answerTokens - before)) };
}

/** Tokens that are expected of an answer before any was seen. */
const usualAnswer = 128;

/** Tokens that are expected of an answer. */
export function expectedAnswer({ answerTokens = usualAnswer }: FormSpeeds, maxTokens: number): number {
  return Math.min(maxTokens, answerTokens);
}
