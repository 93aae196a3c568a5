/**
 * From batches to gradients: the graph of a batch's shape, what it is fed with, and the sums over the batches of a step.
 *
 * Shapes: B rows · T tokens of a row · Tp tokens of a predictor input
 */
import type { Graph } from "../graph/graph.ts";
import { SessionCache, type SessionOptions, type TensorData } from "../graph/session.ts";
import { IGNORED } from "../net/labels.ts";
import { type StepShape, TEACHER_HEAD, trainingGraph, warmStartGraph } from "../net/step.ts";
import type { Batch, BatchStream } from "./batches.ts";
import { followFeature } from "./featureStatistics.ts";
import { type StageConfig, type StageMasks, trainsPredictor } from "./stage.ts";
import { warmStartTargets } from "./warmStart.ts";

type Feeds = Record<string, TensorData>;

/** Sums over all batches of a step. */
export interface StepSums {
  /** Nats, or what a warm start counts. */
  loss: number;
  /** What the loss sums over: labels, or the questions of a warm start. */
  labels: number;
  /** Without padding, and with it. */
  tokens: number;
  positions: number;
}

/** Makes the gradients of a stage's steps; the feature's running statistics follow. */
export class GradientStep {
  /** Of the last step, by parameter: sums over labels, overwritten by the next. */
  readonly gradients: Readonly<Record<string, Float32Array>>;
  readonly #stage: StageConfig;
  readonly #parameters: Readonly<Record<string, Float32Array>>;
  readonly #sessions: SessionCache;
  readonly #trained: ReadonlySet<string>;
  /** Graph outputs: the sum, and a further batch's own. */
  readonly #total: Record<string, Float32Array>;
  readonly #part: Record<string, Float32Array>;

  /**
   * @param parameters all, by graph input; shared with whoever updates them
   * @param trained those that learn
   */
  constructor(
    stage: StageConfig,
    parameters: Readonly<Record<string, Float32Array>>,
    trained: Iterable<string>,
    session: SessionOptions,
  ) {
    this.#stage = stage;
    this.#parameters = parameters;
    this.#sessions = new SessionCache(session);
    this.#trained = new Set(trained);
    const buffers = () =>
      Object.fromEntries([...this.#trained].map((name) => [`d:${name}`, new Float32Array(parameters[name]!.length)]));
    this.#total = buffers();
    this.#part = stage.accumulate > 1 ? buffers() : this.#total;
    this.gradients = Object.fromEntries([...this.#trained].map((name) => [name, this.#total[`d:${name}`]!]));
  }

  async run(stream: Pick<BatchStream, "next">): Promise<StepSums> {
    const sums: StepSums = { loss: 0, labels: 0, tokens: 0, positions: 0 };
    for (let i = 0; i < this.#stage.accumulate; i++) {
      const batch = stream.next();
      const { shape, graph, feeds, labels } = await this.#work(batch);
      const session = await this.#sessions.get(JSON.stringify(shape), graph);
      const outputs = await session.run({ ...this.#parameters, ...feeds }, i === 0 ? this.#total : this.#part);
      if (i > 0) addInto(this.#total, this.#part);
      sums.loss += outputs.loss![0]!;
      sums.labels += labels;
      sums.tokens += batch.tokens;
      sums.positions += batch.B * batch.T;
      this.#follow(outputs.feature as Float32Array | undefined);
    }
    return sums;
  }

  release(): Promise<void> {
    return this.#sessions.release();
  }

  /** What is to be done with a batch. `shape` is all that the graph depends on. */
  async #work(batch: Batch): Promise<{ shape: object; graph: () => Graph; feeds: Feeds; labels: number }> {
    const [stage, trained] = [this.#stage, this.#trained];
    if (stage.kind === "warm-start") {
      const shape = { B: batch.B, Tp: batch.Tp };
      return {
        shape,
        graph: () => warmStartGraph(stage.masks.predictor, shape, trained),
        feeds: { targets: warmStartTargets(stage.targets, batch.questions), ...predictorFeeds(batch) },
        labels: batch.B,
      };
    }
    if (stage.kind === "distil") {
      const shape = { B: batch.B, T: batch.T, Tp: batch.Tp, chunks: 1 };
      const { states } = stage;
      return {
        shape,
        graph: () => trainingGraph(stage, shape, trained),
        feeds: {
          ids: batch.ids,
          starts: batch.starts!,
          shared: batch.shared!,
          labels: batch.labels,
          teacherStates: await states.states(batch.rows!),
          [TEACHER_HEAD]: states.headWeight,
          ...maskFeeds(batch, stage.masks),
        },
        labels: batch.labelled,
      };
    }
    const shape = stepShape(batch, stage.chunks);
    return {
      shape,
      graph: () => trainingGraph(stage, shape, trained),
      feeds: { ids: batch.ids, ...labelFeeds(batch, shape), ...maskFeeds(batch, stage.masks) },
      labels: batch.labelled,
    };
  }

  #follow(feature: Float32Array | undefined): void {
    const { masks } = this.#stage;
    if (feature && masks.kind === "predictor" && masks.centred && trainsPredictor(this.#stage))
      followFeature(this.#parameters, feature, { isSettled: !masks.backboneLearns });
  }
}

/** Labelled positions are rounded up to a multiple of this, so that few graphs are needed. */
const LABELLED_STEP = 128;

function stepShape({ B, T, Tp, labelled }: Batch, chunks: number): StepShape {
  const rounded = Math.ceil(labelled / LABELLED_STEP) * LABELLED_STEP;
  return { B, T, Tp, chunks, ...(rounded < B * T && { labelled: rounded }) };
}

/** The labels; where the shape counts labelled positions, these positions and their labels, filled up with position 0 and no label. */
function labelFeeds({ labels }: Batch, { labelled }: StepShape): Feeds {
  if (labelled === undefined) return { labels };
  const feeds = { labelRows: new Int32Array(labelled), labels: new Int32Array(labelled).fill(IGNORED) };
  let at = 0;
  for (const [row, label] of labels.entries()) {
    if (label < 0) continue;
    feeds.labelRows[at] = row;
    feeds.labels[at++] = label;
  }
  return feeds;
}

/** What the masks of a batch are made from. */
function maskFeeds(batch: Batch, masks: StageMasks): Feeds {
  if (masks.kind === "predictor") return predictorFeeds(batch);
  if (masks.kind !== "given") return {};
  const layers = Array.from(batch.domains).flatMap((domain) => masks.domains[domain]!.mask.layers);
  const maskIndices = Int32Array.from(layers.flatMap((kept) => [...kept]));
  return { maskIndices, maskLambda: new Float32Array(maskIndices.length).fill(1) };
}

function predictorFeeds({ predictorIds, predictorLast, Tp }: Batch): Feeds {
  return { predictorIds, predictorLastRows: predictorLast.map((last, row) => row * Tp + last) };
}

function addInto(total: Record<string, Float32Array>, part: Record<string, Float32Array>): void {
  for (const [name, sum] of Object.entries(total)) {
    const more = part[name]!;
    for (let i = 0; i < sum.length; i++) sum[i]! += more[i]!;
  }
}
