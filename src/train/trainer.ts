/**
 * Training, stage by stage: dense pre-training, continued pre-training with chunk-wise masks, a warm start of the predictor, SFT with
 * masks from the instruction.
 * One step: batches → masks, loss and gradients (`step.ts`) → AdamW (`optimizer.ts`). Everything that a step depends on is in the
 * checkpoint or follows from the recipe and the step number, so that a resumed run repeats an uninterrupted one bit for bit.
 */

import { SessionCache, type SessionOptions } from "../graph/session.ts";
import { type DenseMask, type Mask, maskFromScores, toDenseMask } from "../mask/mask.ts";
import { spreadBlocks, standardizeScores } from "../mask/standardize.ts";
import type { Weight } from "../model/config.ts";
import { Evaluator } from "../net/evaluator.ts";
import { FEATURE_MEAN, FEATURE_STD, joinParts, type Parts } from "../net/parameters.ts";
import { PREFIX, type StepConfig, type StepShape, trainingGraph, warmStartGraph } from "../net/step.ts";
import { type Batch, type BatchStream, IGNORED } from "./batches.ts";
import type { PredictorInput } from "./data.ts";
import { diagnoseMasks, type Score, summarize } from "./diagnose.ts";
import type { HeldOutExample } from "./heldOut.ts";
import { type AdamWOptions, adamW, type Trained } from "./optimizer.ts";
import type { EvaluationRow, MaskRow, TrainRow } from "./runLog.ts";
import { learningRate } from "./schedule.ts";
import type { WarmStart } from "./warmStart.ts";

/** Weight of the past in the running statistics of the predictor's feature. */
const FEATURE_MOMENTUM = 0.99;
/** Keeps a constant feature from being blown up. */
const FEATURE_STD_FLOOR = 1e-3;

export interface StageConfig {
  name: string;
  step: StepConfig;
  /** Chunks per row: 1 but for CPT. */
  chunks: number;
  steps: number;
  /** Batches per step; their gradients add up. */
  accumulate: number;
  /** Which parts learn. */
  trains: { llm: boolean; predictor: boolean };
  optimizer: AdamWOptions;
  schedule: { llm: number; predictor: number; downShare: number; warmupSteps: number; minShare: number };
  /** The part of a prompt that the predictor is trained to read. */
  predictorInput: PredictorInput;
  /** Whether the feature's running statistics follow the feature. */
  centred: boolean;
  /** For a warm start: what the predictor learns of each example. The LLM takes no part. */
  targets?: WarmStart | undefined;
  /** Domains, as batches number them. */
  domains: readonly string[];
  /** Mask of each domain, for `step.source` "given". */
  domainMasks?: readonly Mask[];
  evaluation?: { every: number; examples: readonly HeldOutExample[] };
}

/** Moments of AdamW by parameter name; with the parameters themselves, all that changes in a stage. */
export interface StageState {
  /** Steps done in this stage. */
  step: number;
  m: Map<string, Weight>;
  v: Map<string, Weight>;
}

/** Moments at zero, for a stage that begins. */
export function newStageState(parts: Parts, stage: StageConfig): StageState {
  const zeros = () =>
    new Map(
      trainedNames(parts, stage).map((name) => {
        const { shape, data } = joinParts(parts).get(name)!;
        return [name, { shape, data: new Float32Array(data.length) }] as const;
      }),
    );
  return { step: 0, m: zeros(), v: zeros() };
}

/** What a warm start reaches: all of the predictor but a codebook's entries. */
const PREDICTOR_ALONE = /^(backbone\.|head\.(router|w1|w2|importance)\b)/;

/** Graph inputs that the stage trains. The feature's statistics are not among them. */
function trainedNames(parts: Parts, { step, trains, targets }: StageConfig): string[] {
  const isUsed = (name: string) => {
    if (name.startsWith(PREFIX.llm)) return trains.llm;
    if (name.startsWith(PREFIX.teacher)) return false;
    if (name === FEATURE_MEAN || name === FEATURE_STD || !trains.predictor) return false;
    if (targets && !PREDICTOR_ALONE.test(name)) return false;
    return step.source === "static"
      ? name.startsWith(PREFIX.static)
      : step.source === "predictor" && !name.startsWith(PREFIX.static);
  };
  return [...joinParts(parts).keys()].filter(isUsed);
}

/**
 * Runs a stage from `state.step` to its end, or until aborted. Parameters in `parts` and moments in `state` are updated in place;
 * when a step's rows are yielded they are consistent, so the caller may save them.
 *
 * @param stepsBefore steps of the run's earlier stages, for the rows
 * @param stream batches, already at the first batch that is not yet used
 * @param check sees every step before it is evaluated, and throws to end the run there
 */
export async function* runStage(
  parts: Parts,
  stage: StageConfig,
  state: StageState,
  stepsBefore: number,
  stream: BatchStream,
  session: SessionOptions,
  check: (row: TrainRow) => void,
): AsyncGenerator<[TrainRow, ...(EvaluationRow | MaskRow)[]]> {
  const weights = joinParts(parts);
  const parameters = Object.fromEntries([...weights].map(([name, { data }]) => [name, data]));
  const trained = new Map<string, Trained>();
  for (const [name, m] of state.m) {
    const { shape, data } = weights.get(name)!;
    const isDown = name.startsWith(PREFIX.llm) && name.endsWith("down_proj.weight");
    const group = isDown ? "down" : name.startsWith(PREFIX.llm) ? "llm" : "predictor";
    trained.set(name, { shape, data, m: m.data, v: state.v.get(name)!.data, group, decays: shape.length > 1 });
  }
  const names = new Set(trained.keys());
  const gradientBuffers = () =>
    Object.fromEntries([...trained].map(([name, { data }]) => [`d:${name}`, new Float32Array(data.length)]));
  const total = gradientBuffers();
  const part = stage.accumulate > 1 ? gradientBuffers() : total;
  const gradients = Object.fromEntries([...names].map((name) => [name, total[`d:${name}`]!]));

  const optimizer = await adamW(trained, stage.optimizer, session);
  const sessions = new SessionCache(session);
  const evaluator = new Evaluator(
    { llm: stage.step.llm, predictor: stage.step.predictor, softTopK: stage.step.softTopK, parameters },
    session,
  );
  try {
    while (state.step < stage.steps) {
      const start = performance.now();
      let [loss, labels, tokens, positions] = [0, 0, 0, 0];
      for (let i = 0; i < stage.accumulate; i++) {
        const batch = stream.next();
        const shape = stepShape(stage, batch);
        const key = stage.targets ? { B: shape.B, Tp: shape.Tp } : shape; // what the graph depends on
        const run = await sessions.get(JSON.stringify(key), () =>
          stage.targets ? warmStartGraph(stage.step.predictor!, shape, names) : trainingGraph(stage.step, shape, names),
        );
        const into = i === 0 ? total : part;
        const outputs = await run.run({ ...parameters, ...batchFeeds(stage, batch, shape) }, into);
        if (into !== total) addInto(total, part);
        loss += outputs.loss![0]!;
        labels += stage.targets ? batch.B : batch.labelled; // what the loss sums over
        tokens += batch.tokens;
        positions += batch.B * batch.T;
        if (outputs.feature && stage.trains.predictor && stage.centred)
          updateFeatureStatistics(parameters, outputs.feature as Float32Array, batch.P);
      }
      const rates = {
        llm: learningRate(state.step + 1, { ...stage.schedule, peak: stage.schedule.llm, totalSteps: stage.steps }),
        predictor: learningRate(state.step + 1, {
          ...stage.schedule,
          peak: stage.schedule.predictor,
          totalSteps: stage.steps,
        }),
      };
      const byGroup = { ...rates, down: rates.llm * stage.schedule.downShare };
      const gradientNorm = await optimizer.update(gradients, 1 / labels, state.step + 1, byGroup);
      state.step++;
      const position = { stage: stage.name, step: stepsBefore + state.step };
      const ms = performance.now() - start;
      const row: TrainRow = {
        kind: "train",
        ...position,
        loss: loss / labels,
        tokens,
        positions,
        labels,
        gradientNorm,
        learningRate: rates,
        ms,
      };
      check(row);
      const isEvaluated = stage.evaluation && (state.step % stage.evaluation.every === 0 || state.step === stage.steps);
      const evaluations = isEvaluated ? await evaluateStage(stage, evaluator, parameters) : [];
      yield [row, ...evaluations.map((evaluation) => ({ ...evaluation, ...position }))];
    }
  } finally {
    await Promise.all([optimizer.release(), sessions.release(), evaluator.release()]);
  }
}

/** Labelled positions are rounded up to a multiple of this, so that few graphs are needed. */
const LABELLED_STEP = 128;

function stepShape({ chunks }: StageConfig, { B, T, Tp, labelled }: Batch): StepShape {
  const rounded = Math.ceil(labelled / LABELLED_STEP) * LABELLED_STEP;
  return { B, T, Tp, chunks, ...(rounded < B * T && { labelled: rounded }) };
}

/** The labelled positions of a batch and their labels, filled up to `count` with position 0 and no label. */
function labelledRows({ labels }: Batch, count: number): { labelRows: Int32Array; labels: Int32Array } {
  const compact = { labelRows: new Int32Array(count), labels: new Int32Array(count).fill(IGNORED) };
  let at = 0;
  for (const [row, label] of labels.entries()) {
    if (label < 0) continue;
    compact.labelRows[at] = row;
    compact.labels[at++] = label;
  }
  return compact;
}

function batchFeeds(
  { step, domainMasks, targets }: StageConfig,
  batch: Batch,
  shape: StepShape,
): Record<string, Float32Array | Int32Array> {
  const feeds: Record<string, Float32Array | Int32Array> = targets
    ? { targets: batchTargets(targets, batch) }
    : { ids: batch.ids, ...(shape.labelled ? labelledRows(batch, shape.labelled) : { labels: batch.labels }) };
  if (step.source === "predictor") {
    feeds.predictorIds = batch.predictorIds;
    feeds.predictorLastRows = batch.predictorLast.map((last, row) => row * batch.Tp + last);
  }
  if (step.source === "given") {
    const masks = Array.from(batch.domains, (domain) => domainMasks![domain]!);
    feeds.maskIndices = Int32Array.from(masks.flatMap(({ layers }) => layers.flatMap((kept) => [...kept])));
    feeds.maskLambda = new Float32Array(feeds.maskIndices.length).fill(1);
  }
  return feeds;
}

function batchTargets(targets: WarmStart, { questions }: Batch): Float32Array | Int32Array {
  if (targets.kind === "clusters") return Int32Array.from(questions, (question) => targets.clusterOf.get(question)!);
  const rows = questions.map((question) => targets.scoresOf.get(question)!);
  const scores = new Float32Array(rows.length * rows[0]!.length);
  for (const [i, row] of rows.entries()) scores.set(row, i * row.length);
  return scores;
}

function addInto(total: Record<string, Float32Array>, part: Record<string, Float32Array>): void {
  for (const [name, sum] of Object.entries(total)) {
    const more = part[name]!;
    for (let i = 0; i < sum.length; i++) sum[i]! += more[i]!;
  }
}

/** Moves the running mean and standard deviation of the feature [P, Dp] towards those of a batch. */
function updateFeatureStatistics(parameters: Record<string, Float32Array>, feature: Float32Array, P: number): void {
  const [mean, std] = [parameters[FEATURE_MEAN]!, parameters[FEATURE_STD]!];
  const Dp = mean.length;
  for (let i = 0; i < Dp; i++) {
    let [sum, squares] = [0, 0];
    for (let row = 0; row < P; row++) {
      const deviation = feature[row * Dp + i]! - mean[i]!;
      sum += deviation;
      squares += deviation * deviation;
    }
    const variance = FEATURE_MOMENTUM * std[i]! ** 2 + (1 - FEATURE_MOMENTUM) * (squares / P);
    mean[i]! += (1 - FEATURE_MOMENTUM) * (sum / P);
    std[i] = Math.max(FEATURE_STD_FLOOR, Math.sqrt(variance));
  }
}

type Unplaced<Row> = Omit<Row, "stage" | "step">;

/** Scores of the held-out examples under the mask in use and its controls; with a predictor also how its masks differ. */
async function evaluateStage(
  { step, domains, domainMasks, evaluation, predictorInput }: StageConfig,
  evaluator: Evaluator,
  parameters: Readonly<Record<string, Float32Array>>,
): Promise<(Unplaced<EvaluationRow> | Unplaced<MaskRow>)[]> {
  const { examples } = evaluation!;
  const dFfn = step.llm.ffnWidth;
  const under = async (masks?: readonly DenseMask[]) => summarize(await evaluator.score(examples, masks));
  switch (step.source) {
    case "none":
      return [evaluationRow(examples.length, { dense: await under() })];
    case "given": {
      const masks = domainMasks!.map(toDenseMask);
      return [
        evaluationRow(examples.length, {
          own: await under(examples.map((e) => masks[domains.indexOf(e.domain)]!)),
          dense: await under(),
        }),
      ];
    }
    case "static": {
      const { block = 1 } = step;
      const scores = spreadBlocks(standardizeScores(parameters[`${PREFIX.static}scores`]!, dFfn / block), block);
      const mask = toDenseMask(maskFromScores(scores, { dFfn, ...step.softTopK! }));
      return [evaluationRow(examples.length, { own: await under(examples.map(() => mask)), dense: await under() })];
    }
    case "predictor": {
      const { perInputMasks, perTaskMasks, ...scores } = await diagnoseMasks(evaluator, examples, predictorInput, {
        dFfn,
        ...step.softTopK!,
      });
      return [
        evaluationRow(examples.length, scores),
        { kind: "masks", predictorInput: "prompt", ...perInputMasks },
        { kind: "masks", predictorInput: "instruction", ...perTaskMasks },
      ];
    }
    default:
      return step.source satisfies never;
  }
}

function evaluationRow(examples: number, scores: Readonly<Record<string, Score>>): Unplaced<EvaluationRow> {
  const column = (key: keyof Score) =>
    Object.fromEntries(Object.entries(scores).map(([name, score]) => [name, score[key]]));
  return {
    kind: "evaluation",
    examples,
    loss: column("loss"),
    accuracy: column("tokenAccuracy"),
    exactMatch: column("exactMatch"),
  };
}
