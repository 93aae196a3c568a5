/** What `specialize` tells while it works, and what it found: all of it is data, which the card and the report show. */
import type { MetricsRow } from "../train/runLog.ts";

/** What takes its time, in this order, beside the runs. */
export type SpecializePhase = "import" | "trial" | "draft" | "answers" | "cut" | "compare" | "export";

/** What {@link specialize} tells while it goes. */
export type SpecializeEvent =
  | SpecializeProgress
  | { kind: "note"; text: string }
  | { kind: "estimate"; estimate: JobEstimate }
  /** Inputs, or whole prompts, that the model has drafted. */
  | { kind: "drafted"; prompts: readonly string[] }
  /** Of a run: a short one of `keep: "auto"`, or the long one. */
  | { kind: "row"; run: string; row: MetricsRow; totalSteps: number }
  | { kind: "point"; point: CurvePoint }
  | { kind: "result"; path: string; result: Specialization };

/** How far a phase is. */
export interface SpecializeProgress {
  kind: "progress";
  phase: SpecializePhase;
  done: number;
  total: number;
  /** Which part of it. */
  detail?: string | undefined;
}

/** What a job takes on this machine, by a few steps of it. */
export interface JobEstimate {
  /** By phase, about. */
  seconds: { answers: number; tuning: number; pruning: number; healing: number; compare: number };
  totalSeconds: number;
  /** Most memory that the process had in the trial; what tuning the whole model takes, where that is more. */
  memoryBytes: number;
  memoryAvailable: number;
  /** Of the job at its largest. */
  diskBytes: number;
  diskAvailable: number;
}

/** Against the whole model, over the answers of held-out prompts. */
export interface Distance {
  /** KL(whole model, smaller model), nats a token. */
  kl: number;
  /** Share of tokens at which both find the same one likeliest. */
  agreement: number;
}

/** Held-out distance after a step of healing. Step 0 is before any. */
export interface StepDistance extends Distance {
  step: number;
}

/** Held-out loss after a step of any run: of "tuned", which learns right answers, on those; of all others the KL from the whole model. Step 0 is before any. */
export interface StepLoss {
  step: number;
  /** Nats a token. */
  loss: number;
  /** Share of tokens at which the right one is the likeliest, or the whole model's likeliest is. */
  accuracy: number;
}

const tuningWords = {
  loss: "loss",
  accuracy: "of its tokens found",
  title: "Held-out loss of the whole model on right answers, nats a token",
};
const healingWords = {
  loss: "KL",
  accuracy: "the same token",
  title: "Held-out KL from the whole model, nats a token",
};

/** What the loss and the accuracy of a {@link StepLoss} are called. */
export const lossWords = (run: string) => (run === "tuned" ? tuningWords : healingWords);

/** A share that `keep: "auto"` tried in a short run. */
export interface CurvePoint extends Distance {
  tFfn: number;
  /** Of the FFN. */
  keep: number;
}

/** Answers with gold beside them: share that is the same text, and share that has it as whole words. */
export interface GoldScore {
  exact: number;
  contains: number;
}

/** Of held-out prompts in turns, medians. */
export interface Speed {
  /** From the prompt to the first token. */
  firstTokenMs: number;
  /** After it; absent where no answer has two tokens. */
  tokensPerSecond?: number | undefined;
}

/** The whole model and the smaller one. */
export interface Both<T> {
  dense: T;
  small: T;
}

/** `specialize.json`: what was asked, what came, and how it was found. */
export interface Specialization {
  format: "ifprune-specialization";
  version: 1;
  /** Version of the package. */
  ifprune: string;
  /** ISO 8601. */
  created: string;
  /** Of the whole job, without the time between two calls. */
  seconds: number;
  options: Record<string, string | number | undefined>;
  model: { name: string; data: readonly { name: string; licence: string }[] };
  data: {
    name: string;
    licence: string;
    /** How many prompts were given, and how many the model drafted; of those drafted none is held out where some are given. */
    prompts: { given: number; drafted: number };
    /** Where the answers are from. */
    answers: "gold" | "own";
    train: number;
    heldOut: number;
    /** Prompts whose answer had no end, or no text, or was too long for the model. */
    unanswered: number;
    /** Whose answer repeats itself. */
    looping: number;
    /** Longer than most, with their answers, or than there is room for. */
    tooLong: number;
    /** Of those given, the same as one before. */
    twice: number;
  };
  tFfn: number;
  dFfn: number;
  parameters: Both<number>;
  /** Where right answers are given: the whole model after it has learned them, or at step 0 as it came, if that made it no better; what is called the whole model from here on. */
  tuned?: (StepLoss & { before: StepLoss }) | undefined;
  /** Of `keep: "auto"`: the bound, whether a share was within it, and what was tried. */
  auto?: { maxLoss: number; isReached: boolean; curve: readonly CurvePoint[] } | undefined;
  /** Error of FFN outputs on the training data: channels dropped, and after least squares. */
  reconstruction?: { before: number; after: number } | undefined;
  /** Before any training. */
  before: Distance;
  /** Of the checkpoint that was taken; at step 0 if training made it no better. */
  after: StepDistance;
  training: {
    steps: number;
    planned: number;
    tokens: number;
    /** From step 0 on. */
    evaluations: readonly StepDistance[];
  };
  /** Of the answers to held-out prompts: those given, or the whole model's own. */
  perplexity: Both<number>;
  gold?: Both<GoldScore> | undefined;
  /** Of F16 weights as they are served. */
  bytes: Both<number>;
  speed: Both<Speed>;
  /** GGUF files, and how far each is from F16 in the same engine. */
  quantized: readonly (Distance & { type: string; bytes: number })[];
  answers: readonly ({ prompt: string; gold?: string | undefined } & Both<string>)[];
}
