/** What a stage measures while it trains: held-out questions under the mask in use and its controls. */
import type { SessionOptions } from "../graph/session.ts";
import { foreignPartners } from "../mask/baselines.ts";
import { type DenseMask, fromDenseMask, type Mask, maskFromScores, toDenseMask } from "../mask/mask.ts";
import { channelScores } from "../mask/standardize.ts";
import { DivergenceMeter } from "../net/divergenceMeter.ts";
import { Evaluator } from "../net/evaluator.ts";
import { type LearnedStaticMask, PREFIX } from "../net/step.ts";
import { diagnoseMasks, type Score, summarize, summarizeDivergence } from "./diagnose.ts";
import { type HeldOutExample, kindsOf, taughtSequences } from "./heldOut.ts";
import type { EvaluationRow, MaskRow } from "./runLog.ts";
import type { DistilStage, StageConfig } from "./stage.ts";

type Unplaced<Row> = Omit<Row, "stage" | "step">;

/** Evaluates a stage's model as its parameters change. */
export class StageEvaluation {
  readonly #stage: StageConfig;
  readonly #parameters: Readonly<Record<string, Float32Array>>;
  readonly #evaluator: Evaluator;
  readonly #session: SessionOptions;
  #meter: DivergenceMeter | undefined;

  /** @param parameters by graph input; shared with whoever updates them */
  constructor(stage: StageConfig, parameters: Readonly<Record<string, Float32Array>>, session: SessionOptions) {
    this.#stage = stage;
    this.#parameters = parameters;
    this.#session = session;
    const { llm, masks } = stage;
    const predictor = masks.kind === "predictor" && { predictor: masks.predictor, softTopK: masks.softTopK };
    this.#evaluator = new Evaluator({ llm, ...predictor, parameters }, session);
  }

  /** Rows for the log, if this is a step after which the stage is evaluated. @param step done, within the stage */
  async after(step: number): Promise<(Unplaced<EvaluationRow> | Unplaced<MaskRow>)[]> {
    const stage = this.#stage;
    const isDue = (every: number) => step % every === 0 || step === stage.steps;
    if (stage.kind === "distil") {
      const { heldOut } = stage;
      return heldOut && isDue(heldOut.every) ? [await this.#measureDivergence(stage, heldOut)] : [];
    }
    const { evaluation } = stage;
    return evaluation && isDue(evaluation.every) ? this.#evaluate(evaluation.examples) : [];
  }

  async release(): Promise<void> {
    await this.#meter?.release();
    await this.#evaluator.release();
  }

  /** Divergence from the teacher over the answers of held-out questions, under the mask in use and, if masks are fixed, another kind's. */
  async #measureDivergence(
    stage: DistilStage,
    { examples, states, entryOf }: NonNullable<DistilStage["heldOut"]>,
  ): Promise<Unplaced<EvaluationRow>> {
    const { llm, masks, fixed, teacher } = stage;
    this.#meter ??= new DivergenceMeter(
      llm,
      this.#parameters,
      { ...teacher, weight: states.headWeight },
      this.#session,
    );
    const sequences = await taughtSequences(examples, states);
    const kinds = kindsOf(examples);
    const under = async (own?: readonly Mask[]) =>
      summarizeDivergence(await this.#meter!.measure(sequences, own), kinds);
    const scores: Record<string, Score> = { dense: await under() };
    if (fixed && entryOf) {
      const own = entryOf.map((entry) => fixed.masks[entry]!.get(fixed.tFfn)!);
      scores.own = await under(own);
      if (new Set(kinds).size > 1) scores.foreign = await under(foreignPartners(kinds).map((partner) => own[partner]!));
    } else if (masks.kind === "predictor") {
      const predicted = await this.#evaluator.predict(
        examples.map((one) => (masks.input === "instruction" ? one.predictorInstruction : one.predictorPrompt)),
      );
      const own = predicted.map(({ mask }) => fromDenseMask(mask, llm.ffnWidth));
      scores.perInput = await under(own);
      if (new Set(kinds).size > 1) scores.foreign = await under(foreignPartners(kinds).map((partner) => own[partner]!));
    } else if (masks.kind === "learned-static") scores.own = await under(examples.map(() => this.#staticMask(masks)));
    return evaluationRow(examples.length, scores);
  }

  #staticMask({ block, softTopK }: LearnedStaticMask): Mask {
    const dFfn = this.#stage.llm.ffnWidth;
    const ofBlocks = this.#parameters[`${PREFIX.static}scores`]!;
    return maskFromScores(channelScores(ofBlocks, { ffnWidth: dFfn, block }), { dFfn, ...softTopK });
  }

  /** Scores under the mask in use and its controls; with a predictor also how its masks differ. */
  async #evaluate(examples: readonly HeldOutExample[]): Promise<(Unplaced<EvaluationRow> | Unplaced<MaskRow>)[]> {
    const { llm, masks } = this.#stage;
    const dFfn = llm.ffnWidth;
    const under = async (dense?: readonly DenseMask[]) => summarize(await this.#evaluator.score(examples, dense));
    switch (masks.kind) {
      case "none":
        return [evaluationRow(examples.length, { dense: await under() })];
      case "given": {
        const maskOf = new Map(masks.domains.map(({ domain, mask }) => [domain, toDenseMask(mask)]));
        const own = await under(examples.map(({ domain }) => maskOf.get(domain)!));
        return [evaluationRow(examples.length, { own, dense: await under() })];
      }
      case "learned-static": {
        const mask = toDenseMask(this.#staticMask(masks));
        return [evaluationRow(examples.length, { own: await under(examples.map(() => mask)), dense: await under() })];
      }
      case "predictor": {
        const budget = { dFfn, ...masks.softTopK };
        const report = await diagnoseMasks(this.#evaluator, examples, masks.input, budget);
        const { perInputMasks, perTaskMasks, ...scores } = report;
        return [
          evaluationRow(examples.length, scores),
          { kind: "masks", predictorInput: "prompt", ...perInputMasks },
          { kind: "masks", predictorInput: "instruction", ...perTaskMasks },
        ];
      }
      default:
        return masks satisfies never;
    }
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
