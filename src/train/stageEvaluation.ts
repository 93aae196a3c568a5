/** What a stage measures while it trains: held-out questions under the mask in use and its controls. */
import type { SessionOptions } from "../graph/session.ts";
import { type DenseMask, maskFromScores, toDenseMask } from "../mask/mask.ts";
import { spreadBlocks, standardizeScores } from "../mask/standardize.ts";
import { Evaluator } from "../net/evaluator.ts";
import { PREFIX } from "../net/step.ts";
import { diagnoseMasks, type Score, summarize } from "./diagnose.ts";
import type { HeldOutExample } from "./heldOut.ts";
import type { EvaluationRow, MaskRow } from "./runLog.ts";
import type { StageConfig } from "./stage.ts";

type Unplaced<Row> = Omit<Row, "stage" | "step">;

/** Evaluates a stage's model as its parameters change. */
export class StageEvaluation {
  readonly #stage: StageConfig;
  readonly #parameters: Readonly<Record<string, Float32Array>>;
  readonly #evaluator: Evaluator;

  /** @param parameters by graph input; shared with whoever updates them */
  constructor(stage: StageConfig, parameters: Readonly<Record<string, Float32Array>>, session: SessionOptions) {
    this.#stage = stage;
    this.#parameters = parameters;
    const { llm, masks } = stage;
    const predictor = masks.kind === "predictor" && { predictor: masks.predictor, softTopK: masks.softTopK };
    this.#evaluator = new Evaluator({ llm, ...predictor, parameters }, session);
  }

  /** Rows for the log, if this is a step after which the stage is evaluated. @param step done, within the stage */
  async after(step: number): Promise<(Unplaced<EvaluationRow> | Unplaced<MaskRow>)[]> {
    const { evaluation, steps } = this.#stage;
    if (!evaluation || (step % evaluation.every !== 0 && step !== steps)) return [];
    return this.#evaluate(evaluation.examples);
  }

  release(): Promise<void> {
    return this.#evaluator.release();
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
        const { block, softTopK } = masks;
        const ofBlocks = standardizeScores(this.#parameters[`${PREFIX.static}scores`]!, dFfn / block);
        const mask = toDenseMask(maskFromScores(spreadBlocks(ofBlocks, block), { dFfn, ...softTopK }));
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
