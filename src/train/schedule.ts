/** The learning rate over a stage: linear warm-up, then half a cosine down to a share of the peak. */

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
