/** What the mask of a recipe means for one of its stages. */
import { randomMask } from "../mask/baselines.ts";
import type { ModelConfig } from "../model/config.ts";
import type { PredictorConfig } from "../model/predictorConfig.ts";
import { llmConfig, predictorConfig, type Recipe, type Stage } from "./recipe/schema.ts";
import type { StageMasks, StagePredictor } from "./stage.ts";

/** Pre-training the predictor is training its backbone as a language model of its own. */
export function trainsBackbone({ predictor }: Recipe, { kind, train }: Stage): boolean {
  return kind === "pretrain" && predictor !== undefined && train === "predictor";
}

/** The language model that the stage runs. */
export function stageModel(recipe: Recipe, stage: Stage, vocabSize: number): ModelConfig {
  return trainsBackbone(recipe, stage) ? predictorOf(recipe, vocabSize).backbone : llmConfig(recipe, vocabSize);
}

/** @param domains of the stage's data, in the order that batches number them in */
export function stageMasks(recipe: Recipe, stage: Stage, vocabSize: number, domains: readonly string[]): StageMasks {
  const { mask } = recipe;
  if (!mask || trainsBackbone(recipe, stage)) return { kind: "none" };
  switch (mask.kind) {
    case "predictor":
      return stage.kind === "pretrain" ? { kind: "none" } : predictorMasks(recipe, stage, vocabSize);
    case "learned-static": {
      const { tFfn, epsilon, block } = mask;
      return { kind: "learned-static", softTopK: { tFfn, epsilon }, block };
    }
    case "random-per-domain": {
      const { tFfn, block } = mask;
      const shape = { numLayers: recipe.llm.numLayers, dFfn: recipe.llm.ffnWidth, tFfn, block };
      const ofDomains = domains.map((domain) => ({ domain, mask: randomMask(shape, recipe.seed, domain) }));
      return { kind: "given", tFfn, domains: ofDomains };
    }
    default:
      return mask satisfies never;
  }
}

/** Masks of a stage that needs a predictor's. */
export function predictorMasks(recipe: Recipe, stage: Stage, vocabSize: number): StagePredictor {
  const { mask, predictor: own } = recipe;
  if (mask?.kind !== "predictor" || !own) throw new Error(`internal: no predictor for stage "${stage.name}"`);
  const { tFfn, epsilon } = mask;
  return {
    kind: "predictor",
    predictor: predictorOf(recipe, vocabSize),
    softTopK: { tFfn, epsilon },
    contrast: stage.kind === "sft" ? stage.contrast : undefined,
    input: own.input,
    centred: own.centred,
    backboneLearns: !("llmLayers" in own.backbone),
  };
}

function predictorOf(recipe: Recipe, vocabSize: number): PredictorConfig {
  const config = predictorConfig(recipe, vocabSize);
  if (!config) throw new Error(`internal: recipe "${recipe.name}" has no predictor`);
  return config;
}
