/** What a stage of training is: its model and masks, what learns in it and how, and the state that it is in. */
import type { Mask } from "../mask/mask.ts";
import type { ModelConfig, Weight } from "../model/config.ts";
import { FEATURE_MEAN, FEATURE_STD, joinParts, type Parts } from "../net/parameters.ts";
import {
  type GivenMasks,
  type LearnedStaticMask,
  PREFIX,
  type PredictorMasks,
  type StepConfig,
  type TeacherHead,
} from "../net/step.ts";
import type { PredictorInput } from "./data.ts";
import type { HeldOutExample } from "./heldOut.ts";
import type { AdamWOptions } from "./optimizer.ts";
import type { StageSchedule } from "./schedule.ts";
import type { Teacher } from "./teacher.ts";
import type { WarmStart } from "./warmStart.ts";

/** The fixed mask of a domain. */
export interface DomainMask {
  domain: string;
  mask: Mask;
}

/** Masks that stay as they are in a stage, and how many channels they keep. */
export interface FixedMasks {
  /** By t_ffn, each mask at each budget and at `tFfn`. */
  masks: readonly ReadonlyMap<number, Mask>[];
  /** One is drawn for every step. */
  budgets: readonly number[];
  seed: string;
  /** What is measured. */
  tFfn: number;
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

/** What stages have that train the LLM. */
export interface LlmStage extends AnyStage, StepConfig {
  masks: StageMasks;
  /** Which parts learn; `predictor` stands for the scores of a static mask, too. */
  trains: { llm: boolean; predictor: boolean };
  /** Whether the embedding and the output matrix stay as they are. */
  freezesEmbedding: boolean;
}

/** The LLM predicts tokens, of texts or answers, under masks. */
export interface NextTokenStage extends LlmStage {
  kind: "next-token";
  /** Chunks per row: 1 but for CPT. */
  chunks: number;
}

/** The predictor learns what is known of each example beforehand. The LLM takes no part. */
export interface WarmStartStage extends AnyStage {
  kind: "warm-start";
  masks: StagePredictor;
  targets: WarmStart;
}

/** The LLM learns what a teacher says after every token of fixed rows, under masks. */
export interface DistilStage extends LlmStage {
  kind: "distil";
  /** Masks that do not change in the stage, by the number that a batch gives of its own; then `masks` is of kind `none`, and only kept channels are trained. */
  fixed?: FixedMasks | undefined;
  teacher: TeacherHead;
  states: Teacher;
  /** Questions to be measured on, with the teacher's states of each, and the number of its mask where masks are fixed. */
  heldOut?:
    | { every: number; examples: readonly HeldOutExample[]; states: Teacher; entryOf: readonly number[] | undefined }
    | undefined;
}

export type StageConfig = NextTokenStage | WarmStartStage | DistilStage;

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

/** The embedding, and an output matrix of its own. */
const EMBEDDING = /^llm\.(model\.embed_tokens|lm_head)\.weight$/;

/** Parameters that the stage trains, by graph input. The feature's statistics are not among them. */
function trainedWeights(stage: StageConfig, parts: Parts): [string, Weight][] {
  const isTrained = (name: string): boolean => {
    if (name === FEATURE_MEAN || name === FEATURE_STD) return false;
    if (name.startsWith(PREFIX.backbone) && stage.masks.kind === "predictor" && !stage.masks.backboneLearns)
      return false;
    if (stage.kind === "warm-start") return PREDICTOR_ALONE.test(name);
    if (name.startsWith(PREFIX.llm)) return stage.trains.llm && !(stage.freezesEmbedding && EMBEDDING.test(name));
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
