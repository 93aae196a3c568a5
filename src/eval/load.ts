/** Opening what is to be evaluated: a checkpoint or a run, exactly with ONNX Runtime, or a bundle as the engine serves it. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { DEFAULT_ENGINES } from "../answer/instructionModel.ts";
import { Bundle } from "../bundle/bundle.ts";
import { FileError, OptionError } from "../errors.ts";
import { readSafetensors } from "../formats/safetensors.ts";
import type { SessionOptions } from "../graph/session.ts";
import { boundaryOf } from "../manifest.ts";
import { randomMask, weightNorms } from "../mask/baselines.ts";
import { type DenseMask, maskFromScores, toDenseMask } from "../mask/mask.ts";
import { spreadBlocks, standardizeScores } from "../mask/standardize.ts";
import { headConfig, type PredictorConfig } from "../model/predictorConfig.ts";
import { Evaluator } from "../net/evaluator.ts";
import { joinParts, type Parts } from "../net/parameters.ts";
import { createTokenizer, loadTokenizer } from "../text/tokenizer.ts";
import { checkpointFolders, loadCheckpoint, loadModel, type SavedModel } from "../train/checkpoint.ts";
import { parseRecipe } from "../train/recipe/read.ts";
import { BundleEvaluator } from "./bundleEvaluator.ts";
import type { EvaluatedText, MaskChoice, MaskedModel } from "./evaluate.ts";

export interface OpenedModel {
  model: MaskedModel;
  text: EvaluatedText;
  /** The mask that the model was trained to run under. */
  ownChoice: MaskChoice;
  numLayers: number;
  /** A mask without training or predictor, of `tFfn` channels. @throws {OptionError} if it cannot be made */
  untrainedChoice(kind: UntrainedMask, tFfn: number): MaskChoice;
  close(): Promise<void>;
}

/**
 * `griffin`, `activations`: by activations, per prompt or over all · `weights`: by the norms of each channel's weights · `random`: one
 * set drawn at random.
 */
export type UntrainedMask = "griffin" | "activations" | "weights" | "random";

/** Opens a checkpoint, a run or a bundle. @throws {FileError} if the path is none of these, or damaged */
export function openModel(path: string, session: SessionOptions): Promise<OpenedModel> {
  return existsSync(join(path, "base.gguf")) ? openBundle(path, session) : openCheckpoint(path, session);
}

async function openBundle(path: string, { threads }: SessionOptions): Promise<OpenedModel> {
  const bundle = new Bundle(path);
  const { tFfn, epsilon, promptTemplate, predictorInput } = bundle.manifest;
  const { contextLength, ffnWidth, numLayers } = bundle;
  const softTopK = tFfn && epsilon ? { tFfn, epsilon } : undefined;
  return {
    model: new BundleEvaluator(DEFAULT_ENGINES, bundle, { threads }),
    text: {
      tokenizer: loadTokenizer(bundle.tokenizerPath, boundaryOf(bundle.manifest, bundle.config)),
      promptTemplate,
      predictorInput,
      softTopK,
      contextLength,
      ffnWidth,
    },
    untrainedChoice(kind, tFfn) {
      if (kind === "random") return { fixed: toDenseMask(randomMask({ numLayers, dFfn: ffnWidth, tFfn }, 0, kind)) };
      throw new OptionError(`${path}: wanted a checkpoint for ${kind} masks, got a bundle.`);
    },
    ownChoice: !bundle.predictor ? "dense" : predictorInput === "instruction" ? "task" : "input",
    numLayers,
    close: async () => bundle[Symbol.dispose](),
  };
}

/**
 * Opens a checkpoint folder, or a run's newest checkpoint. What mask it runs under follows from the recipe in it; an imported one
 * is dense.
 *
 * @throws {FileError} if the path is neither, or damaged
 */
async function openCheckpoint(path: string, session: SessionOptions): Promise<OpenedModel> {
  const folder = checkpointFolders(path)[0] ?? path;
  const saved = await loadModel(folder);
  const { card, llm, predictor } = saved;
  const tokenizerPath = join(folder, "llm/tokenizer.json");
  const tokenizer = createTokenizer(
    JSON.parse(new TextDecoder().decode(saved.tokenizer)),
    tokenizerPath,
    boundaryOf(saved.card, llm.config),
  );
  const parts: Parts = {
    llm: llm.weights,
    ...(predictor && { backbone: predictor.backbone.weights, head: predictor.head }),
  };
  const softTopK = card.tFfn && card.epsilon ? { tFfn: card.tFfn, epsilon: card.epsilon } : undefined;
  const evaluator = new Evaluator(
    {
      llm: llm.config,
      predictor: predictorOf(saved, folder),
      softTopK,
      parameters: Object.fromEntries([...joinParts(parts)].map(([name, { data }]) => [name, data])),
    },
    session,
  );
  return {
    model: evaluator,
    text: {
      tokenizer,
      promptTemplate: card.promptTemplate,
      predictorInput: card.predictorInput,
      softTopK,
      contextLength: llm.config.contextLength,
      ffnWidth: llm.config.ffnWidth,
    },
    untrainedChoice(kind, tFfn) {
      const { numLayers, ffnWidth: dFfn } = llm.config;
      if (!(tFfn >= 1 && tFfn <= dFfn))
        throw new OptionError(`${path}: wanted t_ffn in 1..${dFfn} (d_ffn), got ${tFfn}.`);
      if (kind === "random") return { fixed: toDenseMask(randomMask({ numLayers, dFfn, tFfn }, 0, kind)) };
      if (kind === "weights") {
        const scores = weightNorms((name) => llm.weights.get(name), llm.config);
        return { fixed: toDenseMask(maskFromScores(scores, { dFfn, tFfn })) };
      }
      return { statistics: kind, tFfn };
    },
    ownChoice: await ownChoice(folder, saved),
    numLayers: llm.config.numLayers,
    close: () => evaluator.release(),
  };
}

function predictorOf({ llm, predictor }: SavedModel, folder: string): PredictorConfig | undefined {
  if (!predictor) return undefined;
  const { numLayers, ffnWidth } = llm.config;
  const backbone = predictor.backbone.config;
  const shapes = new Map([...predictor.head].map(([name, { shape }]) => [name, shape]));
  const path = join(folder, "predictor/head.safetensors");
  return {
    backbone,
    numLayers,
    ffnWidth,
    ...headConfig(path, shapes, { backboneWidth: backbone.width, numLayers, ffnWidth }),
  };
}

async function ownChoice(folder: string, { card, llm, predictor }: SavedModel): Promise<MaskChoice> {
  if (predictor) return card.predictorInput === "instruction" ? "task" : "input";
  if (card.provenance.recipe === "import") return "dense";
  const { recipe: json } = await loadCheckpoint(folder);
  const { mask, seed } = parseRecipe(json, folder);
  const { numLayers, ffnWidth: dFfn } = llm.config;
  if (mask?.kind === "learned-static") {
    const scores = readSafetensors(join(folder, "static.safetensors")).get("scores");
    if (!scores) throw new FileError(join(folder, "static.safetensors"), 'wanted the tensor "scores", got none.');
    const scoresOf = (own: Float32Array) => spreadBlocks(standardizeScores(own, dFfn / mask.block), mask.block);
    return { fixed: toDenseMask(maskFromScores(scoresOf(scores.data), { dFfn, ...mask })) };
  }
  if (mask?.kind === "random-per-domain") {
    const masks = new Map<string, DenseMask>();
    const byTask = (task: string) => {
      const known = masks.get(task) ?? toDenseMask(randomMask({ numLayers, dFfn, ...mask }, seed, task));
      masks.set(task, known);
      return known;
    };
    return { byTask };
  }
  return "dense";
}
