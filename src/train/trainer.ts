/**
 * Training, stage by stage: dense pre-training, continued pre-training with chunk-wise masks, a warm start of the predictor, SFT with
 * masks from the instruction.
 * One step: batches → masks, loss and gradients (`gradientStep.ts`) → AdamW (`optimizer.ts`). Everything that a step depends on is in the
 * checkpoint or follows from the recipe and the step number, so that a resumed run repeats an uninterrupted one bit for bit.
 */
import type { SessionOptions } from "../graph/session.ts";
import { joinParts, type Parts, parameterArrays } from "../net/parameters.ts";
import type { BatchStream } from "./batches.ts";
import { GradientStep } from "./gradientStep.ts";
import { adamW, type Trained } from "./optimizer.ts";
import type { EvaluationRow, MaskRow, TrainRow } from "./runLog.ts";
import { learningRates, rateGroup } from "./schedule.ts";
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
  const parameters = parameterArrays(parts);
  const trained = trainedTensors(parts, state);
  const optimizer = await adamW(trained, stage.optimizer, session);
  const gradientStep = new GradientStep(stage, parameters, trained.keys(), session);
  const evaluation = new StageEvaluation(stage, parameters, session);
  try {
    while (state.step < stage.steps) {
      const start = performance.now();
      const { loss, labels, tokens, positions } = await gradientStep.run(stream);
      const rates = learningRates(state.step + 1, stage.steps, stage.schedule);
      const gradientNorm = await optimizer.update(gradientStep.gradients, 1 / labels, state.step + 1, rates);
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
        learningRate: { llm: rates.llm, predictor: rates.predictor },
        ms: performance.now() - start,
      };
      check(row);
      const evaluations = await evaluation.after(state.step);
      yield [row, ...evaluations.map((evaluated) => ({ ...evaluated, ...position }))];
    }
  } finally {
    await Promise.all([optimizer.release(), gradientStep.release(), evaluation.release()]);
  }
}

/** What the optimiser updates: the parameters that there are moments of. */
function trainedTensors(parts: Parts, state: StageState): Map<string, Trained> {
  const weights = joinParts(parts);
  return new Map(
    [...state.m].map(([name, m]) => {
      const { shape, data } = weights.get(name)!;
      const moments = { m: m.data, v: state.v.get(name)!.data };
      return [name, { shape, data, ...moments, group: rateGroup(name), decays: shape.length > 1 }];
    }),
  );
}
