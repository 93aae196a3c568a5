/**
 * One step of learning: gradients of its batches, then AdamW. Where masks do not change, a batch's gradients are those of its mask's channels alone, an ordinary
 * step of a model of the activated width; a step of one batch updates these alone too, one of several batches, each under its own mask, what any of them keeps.
 */
import type { SessionOptions } from "../graph/session.ts";
import type { Mask } from "../mask/mask.ts";
import type { Weights } from "../model/config.ts";
import { joinParts, type Parts } from "../net/parameters.ts";
import { Random } from "../random.ts";
import type { Batch, BatchStream } from "./batches.ts";
import { GradientStep, type StepSums } from "./gradientStep.ts";
import { addKept, KeptWeights } from "./keptWeights.ts";
import { adamW, type Optimizer, type Trained } from "./optimizer.ts";
import { type RateGroup, rateGroup } from "./schedule.ts";
import type { DistilStage, FixedMasks, StageConfig, StageState } from "./stage.ts";

export interface Learned extends StepSums {
  /** Before clipping. */
  gradientNorm: number;
  /** Channels that were kept in each layer, where the stage draws budgets. */
  tFfn?: number;
}

/** Takes a stage's steps. Parameters and moments are updated in place. */
export interface Learner {
  /** @param step 1 at the first of the stage */
  step(stream: BatchStream, step: number, rates: Readonly<Record<RateGroup, number>>): Promise<Learned>;
  release(): Promise<void>;
}

export function openLearner(
  stage: StageConfig,
  parts: Parts,
  state: StageState,
  session: SessionOptions,
): Promise<Learner> {
  if (stage.kind === "distil" && stage.fixed) {
    const { fixed } = stage;
    if (stage.accumulate > 1) return MixedLearner.open(stage, fixed, parts, state, session);
    return Promise.resolve(new KeptLearner(stage, fixed, parts, state, session));
  }
  return WholeLearner.open(stage, joinParts(parts), state, session);
}

/** Of whatever there are moments of. */
class WholeLearner implements Learner {
  readonly #gradients: GradientStep;
  readonly #optimizer: Optimizer;

  private constructor(gradients: GradientStep, optimizer: Optimizer) {
    this.#gradients = gradients;
    this.#optimizer = optimizer;
  }

  /** @param weights all parameters, by graph input */
  static async open(
    stage: StageConfig,
    weights: Weights,
    { m, v }: Pick<StageState, "m" | "v">,
    session: SessionOptions,
  ): Promise<WholeLearner> {
    const trained = trainedOf(weights, { m, v });
    const optimizer = await adamW(trained, stage.optimizer, session);
    return new WholeLearner(new GradientStep(stage, arraysOf(weights), trained.keys(), session), optimizer);
  }

  async step(
    stream: Pick<BatchStream, "next">,
    step: number,
    rates: Readonly<Record<RateGroup, number>>,
  ): Promise<Learned> {
    const sums = await this.#gradients.run(stream);
    const gradientNorm = await this.#optimizer.update(this.#gradients.gradients, 1 / sums.labels, step, rates);
    return { ...sums, gradientNorm };
  }

  async release(): Promise<void> {
    await Promise.all([this.#gradients.release(), this.#optimizer.release()]);
  }
}

function trainedOf(weights: Weights, { m, v }: Pick<StageState, "m" | "v">): Map<string, Trained> {
  return new Map(
    [...m].map(([name, moment]): [string, Trained] => {
      const { shape, data } = weights.get(name)!;
      const moments = { m: moment.data, v: v.get(name)!.data };
      return [name, { shape, data, ...moments, group: rateGroup(name), decays: shape.length > 1 }];
    }),
  );
}

const arraysOf = (weights: Weights): Record<string, Float32Array> =>
  Object.fromEntries([...weights].map(([name, { data }]) => [name, data]));

/** Kept channels of parameters and both moments, at one budget, and who learns them. */
interface Lane {
  kept: readonly KeptWeights[];
  learner: WholeLearner;
}

/** A step is one batch: one mask. */
class KeptLearner implements Learner {
  readonly #stage: DistilStage;
  readonly #fixed: NonNullable<DistilStage["fixed"]>;
  readonly #weights: Weights;
  readonly #state: StageState;
  readonly #session: SessionOptions;
  readonly #lanes = new Map<number, Promise<Lane>>();
  /** Of kept channels, by array and matrix, large enough for the largest budget. */
  readonly #buffers = new Map<string, Float32Array>();

  constructor(
    stage: DistilStage,
    fixed: NonNullable<DistilStage["fixed"]>,
    parts: Parts,
    state: StageState,
    session: SessionOptions,
  ) {
    this.#stage = stage;
    this.#fixed = fixed;
    this.#weights = joinParts({ llm: parts.llm });
    this.#state = state;
    this.#session = session;
  }

  async step(stream: BatchStream, step: number, rates: Readonly<Record<RateGroup, number>>): Promise<Learned> {
    const batch = stream.next();
    const tFfn = drawBudget(this.#fixed, step);
    const mask = maskOf(this.#fixed, batch, tFfn);
    const { kept, learner } = await this.#lane(mask);
    for (const part of kept) part.take(mask);
    const learned = await learner.step({ next: () => batch }, step, rates);
    for (const part of kept) part.put(mask);
    return { ...learned, tFfn };
  }

  async release(): Promise<void> {
    for (const lane of this.#lanes.values()) await (await lane).learner.release();
  }

  #lane({ tFfn }: Mask): Promise<Lane> {
    const known = this.#lanes.get(tFfn) ?? this.#openLane(tFfn);
    this.#lanes.set(tFfn, known);
    return known;
  }

  async #openLane(tFfn: number): Promise<Lane> {
    const { llm } = this.#stage;
    const { m, v } = this.#state;
    const largest = Math.max(...this.#fixed.budgets) * llm.width;
    const kept = Object.entries({ weights: this.#weights, m, v }).map(
      ([kind, whole]) =>
        new KeptWeights(llm, tFfn, whole, (name) => {
          const key = `${kind}/${name}`;
          const buffer = this.#buffers.get(key) ?? new Float32Array(largest);
          this.#buffers.set(key, buffer);
          return buffer;
        }),
    );
    const [weights, keptM, keptV] = kept.map((part) => part.weights) as [Weights, Weights, Weights];
    const stage = { ...this.#stage, llm: { ...llm, ffnWidth: tFfn } };
    return { kept, learner: await WholeLearner.open(stage, weights, { m: keptM, v: keptV }, this.#session) };
  }
}

/** A step is several batches, each under its own mask: their gradients are added, then all parameters updated, of the FFN those that any mask keeps. */
class MixedLearner implements Learner {
  readonly #stage: DistilStage;
  readonly #fixed: NonNullable<DistilStage["fixed"]>;
  readonly #weights: Weights;
  readonly #optimizer: Optimizer;
  readonly #session: SessionOptions;
  /** Sums over the batches of a step, by parameter. */
  readonly #gradients: Readonly<Record<string, Float32Array>>;
  readonly #lanes = new Map<number, { kept: KeptWeights; gradients: GradientStep }>();

  private constructor(
    stage: DistilStage,
    fixed: NonNullable<DistilStage["fixed"]>,
    weights: Weights,
    trained: ReadonlyMap<string, Trained>,
    optimizer: Optimizer,
    session: SessionOptions,
  ) {
    this.#stage = stage;
    this.#fixed = fixed;
    this.#weights = weights;
    this.#optimizer = optimizer;
    this.#session = session;
    this.#gradients = Object.fromEntries([...trained].map(([name, { data }]) => [name, new Float32Array(data.length)]));
  }

  static async open(
    stage: DistilStage,
    fixed: NonNullable<DistilStage["fixed"]>,
    parts: Parts,
    state: StageState,
    session: SessionOptions,
  ): Promise<MixedLearner> {
    const weights = joinParts({ llm: parts.llm });
    const trained = trainedOf(weights, state);
    const optimizer = await adamW(trained, stage.optimizer, session);
    return new MixedLearner(stage, fixed, weights, trained, optimizer, session);
  }

  async step(stream: BatchStream, step: number, rates: Readonly<Record<RateGroup, number>>): Promise<Learned> {
    const tFfn = drawBudget(this.#fixed, step);
    const { kept, gradients } = this.#lane(tFfn);
    const sums: StepSums = { loss: 0, labels: 0, tokens: 0, positions: 0 };
    for (const total of Object.values(this.#gradients)) total.fill(0);
    for (let i = 0; i < this.#stage.accumulate; i++) {
      const batch = stream.next();
      const mask = maskOf(this.#fixed, batch, tFfn);
      kept.take(mask);
      const own = await gradients.run({ next: () => batch });
      addKept(this.#gradients, gradients.gradients, mask);
      for (const key of Object.keys(sums) as (keyof StepSums)[]) sums[key] += own[key];
    }
    const gradientNorm = await this.#optimizer.update(this.#gradients, 1 / sums.labels, step, rates);
    return { ...sums, gradientNorm, tFfn };
  }

  async release(): Promise<void> {
    for (const { gradients } of this.#lanes.values()) await gradients.release();
    await this.#optimizer.release();
  }

  #lane(tFfn: number): { kept: KeptWeights; gradients: GradientStep } {
    const known = this.#lanes.get(tFfn);
    if (known) return known;
    const { llm } = this.#stage;
    const kept = new KeptWeights(llm, tFfn, this.#weights, () => new Float32Array(tFfn * llm.width));
    const stage = { ...this.#stage, accumulate: 1, llm: { ...llm, ffnWidth: tFfn } };
    const gradients = new GradientStep(stage, arraysOf(kept.weights), Object.keys(this.#gradients), this.#session);
    const lane = { kept, gradients };
    this.#lanes.set(tFfn, lane);
    return lane;
  }
}

/** Channels that the masks of a step keep. */
function drawBudget({ budgets, seed }: FixedMasks, step: number): number {
  return budgets[new Random(`${seed}/budgets/${step}`).int(budgets.length)]!;
}

function maskOf({ masks }: FixedMasks, { mask }: Batch, tFfn: number): Mask {
  if (mask === undefined) throw new Error("internal: a batch without a mask");
  return masks[mask]!.get(tFfn)!;
}
