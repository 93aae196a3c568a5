/**
 * One step of learning: gradients of its batches, then AdamW. Either of all parameters that learn, or, where all batches of a step share a mask that does
 * not change, of the kept channels alone: an ordinary step of a model of the activated width.
 */
import type { SessionOptions } from "../graph/session.ts";
import type { Mask } from "../mask/mask.ts";
import type { Weights } from "../model/config.ts";
import { joinParts, type Parts } from "../net/parameters.ts";
import { Random } from "../random.ts";
import type { Batch, BatchStream } from "./batches.ts";
import { GradientStep, type StepSums } from "./gradientStep.ts";
import { KeptWeights } from "./keptWeights.ts";
import { adamW, type Optimizer, type Trained } from "./optimizer.ts";
import { type RateGroup, rateGroup } from "./schedule.ts";
import type { DistilStage, StageConfig, StageState } from "./stage.ts";

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
  if (stage.kind === "distil" && stage.fixed)
    return Promise.resolve(new KeptLearner(stage, stage.fixed, parts, state, session));
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
    const trained = new Map(
      [...m].map(([name, moment]): [string, Trained] => {
        const { shape, data } = weights.get(name)!;
        const moments = { m: moment.data, v: v.get(name)!.data };
        return [name, { shape, data, ...moments, group: rateGroup(name), decays: shape.length > 1 }];
      }),
    );
    const parameters = Object.fromEntries([...weights].map(([name, { data }]) => [name, data]));
    const optimizer = await adamW(trained, stage.optimizer, session);
    return new WholeLearner(new GradientStep(stage, parameters, trained.keys(), session), optimizer);
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

/** Kept channels of parameters and both moments, at one budget, and who learns them. */
interface Lane {
  kept: readonly KeptWeights[];
  learner: WholeLearner;
}

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
    const batches = Array.from({ length: this.#stage.accumulate }, () => stream.next());
    const { budgets, masks, seed } = this.#fixed;
    const tFfn = budgets[new Random(`${seed}/budgets/${step}`).int(budgets.length)]!;
    const mask = masks[sharedMask(batches)]!.get(tFfn)!;
    const { kept, learner } = await this.#lane(mask);
    for (const part of kept) part.take(mask);
    const learned = await learner.step({ next: () => batches.shift()! }, step, rates);
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

function sharedMask(batches: readonly Batch[]): number {
  const [first, ...others] = batches.map(({ mask }) => mask);
  if (first === undefined || others.some((mask) => mask !== first))
    throw new Error("internal: batches of a step under different masks");
  return first;
}
