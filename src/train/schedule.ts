/** Learning rates over a stage: linear warm-up, then half a cosine down to a share of the peak. */
import { PREFIX } from "../net/step.ts";

export interface Schedule {
  /** Highest learning rate, reached at step `warmupSteps`. */
  peak: number;
  /** 0: the first step already runs near the peak. */
  warmupSteps: number;
  totalSteps: number;
  /** Learning rate at `totalSteps`, as a share of the peak. */
  minShare: number;
}

/** @param step counts from 1 within the stage; beyond `totalSteps` the rate stays at its minimum */
export function learningRate(step: number, { peak, warmupSteps, totalSteps, minShare }: Schedule): number {
  if (step <= warmupSteps) return (peak * step) / warmupSteps;
  const progress = Math.min(1, (step - warmupSteps) / (totalSteps - warmupSteps));
  return peak * (minShare + ((1 - minShare) * (1 + Math.cos(Math.PI * progress))) / 2);
}

/** The schedule of all that learns in a stage. */
export interface StageSchedule extends Omit<Schedule, "peak" | "totalSteps"> {
  peaks: { llm: number; predictor: number };
  /** Rate of the LLM's down projections, as a share of its own. */
  downShare: number;
}

/** What has a learning rate of its own. */
export type RateGroup = "llm" | "down" | "predictor";

/** The group of a parameter, by graph input. */
export function rateGroup(name: string): RateGroup {
  if (!name.startsWith(PREFIX.llm)) return "predictor";
  return name.endsWith("down_proj.weight") ? "down" : "llm";
}

/** @param step as in {@link learningRate} */
export function learningRates(
  step: number,
  totalSteps: number,
  { peaks, downShare, ...schedule }: StageSchedule,
): Record<RateGroup, number> {
  const rate = (peak: number) => learningRate(step, { ...schedule, peak, totalSteps });
  const llm = rate(peaks.llm);
  return { llm, down: llm * downShare, predictor: rate(peaks.predictor) };
}
