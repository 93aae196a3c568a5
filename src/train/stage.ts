/** What a stage of training is: its model and masks, what learns in it and how, and the state that it is in. */
import type { Mask } from "../mask/mask.ts";
import type { ModelConfig, Weight } from "../model/config.ts";
import { FEATURE_MEAN, FEATURE_STD, joinParts, type Parts } from "../net/parameters.ts";
import { type GivenMasks, type LearnedStaticMask, PREFIX, type PredictorMasks, type StepConfig } from "../net/step.ts";
import type { PredictorInput } from "./data.ts";
import type { HeldOutExample } from "./heldOut.ts";
import type { AdamWOptions } from "./optimizer.ts";
import type { StageSchedule } from "./schedule.ts";
import type { WarmStart } from "./warmStart.ts";

/** The fixed mask of a domain. */
export interface DomainMask {
  domain: string;
  mask: Mask;
}

/** Masks from a predictor, and how it is trained. */
export interface StagePredictor extends PredictorMasks {
  /** The part of a prompt that it is trained to read. */
  input: PredictorInput;
  /** Whether the feature's running statistics follow the feature. */
  centred: boolean;
  /** Whether the backbone is an LM of its own, which learns with the head: the LLM's own layers do not. */
  backboneLearns: boolean;
}

/** How a stage gets its masks; given ones belong to domains, in the order that batches number them in. */
export type StageMasks =
  | { kind: "none" }
  | (GivenMasks & { domains: readonly DomainMask[] })
  | LearnedStaticMask
  | StagePredictor;

/** What stages of all kinds have. */
export interface AnyStage {
  name: string;
  llm: ModelConfig;
  steps: number;
  /** Batches per step; their gradients add up. */
  accumulate: number;
  optimizer: AdamWOptions;
  schedule: StageSchedule;
  evaluation?: { every: number; examples: readonly HeldOutExample[] } | undefined;
}

/** The LLM predicts tokens, of texts or answers, under masks. */
export interface NextTokenStage extends AnyStage, StepConfig {
  kind: "next-token";
  masks: StageMasks;
  /** Chunks per row: 1 but for CPT. */
  chunks: number;
  /** Which parts learn; `predictor` stands for the scores of a static mask, too. */
  trains: { llm: boolean; predictor: boolean };
}

/** The predictor learns what is known of each example beforehand. The LLM takes no part. */
export interface WarmStartStage extends AnyStage {
  kind: "warm-start";
  masks: StagePredictor;
  targets: WarmStart;
}

export type StageConfig = NextTokenStage | WarmStartStage;

/** Moments of AdamW by parameter name; with the parameters themselves, all that changes in a stage. */
export interface StageState {
  /** Steps done in this stage. */
  step: number;
  m: Map<string, Weight>;
  v: Map<string, Weight>;
}

/** Moments at zero, for a stage that begins. */
export function newStageState(stage: StageConfig, parts: Parts): StageState {
  const trained = trainedWeights(stage, parts);
  const zeros = () =>
    new Map(trained.map(([name, { shape, data }]) => [name, { shape, data: new Float32Array(data.length) }]));
  return { step: 0, m: zeros(), v: zeros() };
}

/** What a warm start reaches: all of the predictor but a codebook's entries. */
const PREDICTOR_ALONE = /^(backbone\.|head\.(router|w1|w2|importance)\b)/;

/** Parameters that the stage trains, by graph input. The feature's statistics are not among them. */
function trainedWeights(stage: StageConfig, parts: Parts): [string, Weight][] {
  const isTrained = (name: string): boolean => {
    if (name === FEATURE_MEAN || name === FEATURE_STD) return false;
    if (name.startsWith(PREFIX.backbone) && stage.masks.kind === "predictor" && !stage.masks.backboneLearns)
      return false;
    if (stage.kind === "warm-start") return PREDICTOR_ALONE.test(name);
    if (name.startsWith(PREFIX.llm)) return stage.trains.llm;
    if (name.startsWith(PREFIX.teacher) || !stage.trains.predictor) return false;
    const isStatic = name.startsWith(PREFIX.static);
    return stage.masks.kind === "learned-static" ? isStatic : stage.masks.kind === "predictor" && !isStatic;
  };
  return [...joinParts(parts)].filter(([name]) => isTrained(name));
}

/** Whether the predictor is among what learns. */
export function trainsPredictor(stage: StageConfig): boolean {
  return stage.kind === "warm-start" || (stage.masks.kind === "predictor" && stage.trains.predictor);
}
