/**
 * Training, stage by stage: dense pre-training, continued pre-training with chunk-wise masks, a warm start of the predictor, SFT with
 * masks from the instruction.
 * One step (`learner.ts`): batches → masks, loss and gradients (`gradientStep.ts`) → AdamW (`optimizer.ts`). Everything that a step depends on is in the
 * checkpoint or follows from the recipe and the step number, so that a resumed run repeats an uninterrupted one bit for bit.
 */
import type { SessionOptions } from "../graph/session.ts";
import { type Parts, parameterArrays } from "../net/parameters.ts";
import type { BatchStream } from "./batches.ts";
import { openLearner } from "./learner.ts";
import type { EvaluationRow, MaskRow, TrainRow } from "./runLog.ts";
import { learningRates } from "./schedule.ts";
import type { StageConfig, StageState } from "./stage.ts";
import { StageEvaluation } from "./stageEvaluation.ts";

export interface StageOptions {
  /** Steps of the run's earlier stages, for the rows. */
  stepsBefore: number;
  session: SessionOptions;
  /** Sees every step before it is evaluated, and throws to end the run there. */
  check(row: TrainRow): void;
}

/**
 * Runs a stage from `state.step` to its end. Parameters in `parts` and moments in `state` are updated in place; when a step's rows are
 * yielded they are consistent, so the caller may save them, or stop.
 *
 * @param stream batches, already at the first batch that is not yet used
 */
export async function* runStage(
  stage: StageConfig,
  parts: Parts,
  state: StageState,
  stream: BatchStream,
  { stepsBefore, session, check }: StageOptions,
): AsyncGenerator<[TrainRow, ...(EvaluationRow | MaskRow)[]]> {
  const learner = await openLearner(stage, parts, state, session);
  const evaluation = new StageEvaluation(stage, parameterArrays(parts), session);
  try {
    while (state.step < stage.steps) {
      const start = performance.now();
      const rates = learningRates(state.step + 1, stage.steps, stage.schedule);
      const { loss, labels, tokens, positions, gradientNorm, tFfn } = await learner.step(stream, state.step + 1, rates);
      state.step++;
      const position = { stage: stage.name, step: stepsBefore + state.step };
      const row: TrainRow = {
        kind: "train",
        ...position,
        loss: loss / labels,
        tokens,
        positions,
        labels,
        gradientNorm,
        ...(tFfn !== undefined && { tFfn }),
        learningRate: { llm: rates.llm, predictor: rates.predictor },
        ms: performance.now() - start,
      };
      check(row);
      const evaluations = await evaluation.after(state.step);
      yield [row, ...evaluations.map((evaluated) => ({ ...evaluated, ...position }))];
    }
  } finally {
    await Promise.all([learner.release(), evaluation.release()]);
  }
}
