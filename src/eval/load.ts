/** Opening what is to be evaluated: a checkpoint or a run, exactly with ONNX Runtime, or a bundle as it is served. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { InstructionModel } from "../answer/instructionModel.ts";
import { isMasked } from "../answer/maskSource.ts";
import type { Form } from "../bundle/formOptions.ts";
import { modelFolder } from "../bundle/pulledModels.ts";
import { ContextLengthError, FileError, OptionError } from "../errors.ts";
import { readSafetensors } from "../formats/safetensors.ts";
import type { SessionOptions } from "../graph/session.ts";
import { formatOfFolder, IMPORT_RECIPE, manifestHash, manifestName, whatIs } from "../manifest.ts";
import { randomMask } from "../mask/baselines.ts";
import { type DenseMask, type Mask, maskFromScores, toDenseMask } from "../mask/mask.ts";
import { channelScores } from "../mask/standardize.ts";
import { inMemory } from "../model/source.ts";
import { Evaluator } from "../net/evaluator.ts";
import { type Parts, parameterArrays } from "../net/parameters.ts";
import {
  checkpointFolders,
  loadCheckpoint,
  loadModel,
  type SavedModel,
  savedFormat,
  savedPredictor,
} from "../train/checkpoint.ts";
import { parseRecipe } from "../train/recipe/read.ts";
import { BundleEvaluator } from "./bundleEvaluator.ts";
import type { MaskedModel, OpenedModel } from "./evaluate.ts";

/**
 * Opens a checkpoint, a run or a bundle.
 *
 * @param name its folder, or the id of a model that was pulled
 * @param form of a bundle's masks, which are all of whole blocks in the resident one
 * @throws {FileError} if it is none of these, or damaged
 * @throws {OptionError} if the resident form is wanted of a checkpoint
 */
export async function openModel(name: string, session: SessionOptions, form: Form = "gathered"): Promise<OpenedModel> {
  const path = modelFolder(name);
  if (existsSync(join(path, "base.gguf"))) return openBundle(path, session, form);
  const format = formatOfFolder(path);
  if (format === undefined && !existsSync(join(path, manifestName)) && checkpointFolders(path).length === 0)
    throw new FileError(path, `wanted a bundle, a checkpoint or a run that has one, got ${whatIs(path)}`);
  if (format === "ifprune-bundle") return openBundle(path, session, form);
  if (form === "resident")
    throw new OptionError("eval: wanted a bundle for the resident form, got a checkpoint. Leave it out.");
  return await openCheckpoint(path, session);
}

function openBundle(path: string, { threads }: SessionOptions, form: Form): OpenedModel {
  const model = new InstructionModel(path);
  return {
    model,
    evaluator: new BundleEvaluator(model.engines, model.bundle, { threads, form }),
    own: isMasked(model, {}) ? "source" : "dense",
    threads,
    [Symbol.asyncDispose]: async () => model[Symbol.dispose](),
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
  const parts: Parts = {
    llm: llm.weights,
    ...(predictor && { predictor: { backbone: predictor.backbone.weights, head: predictor.head } }),
  };
  const predictorConfig = savedPredictor(saved, folder);
  const evaluator = new Evaluator(
    {
      llm: llm.config,
      predictor: predictorConfig,
      softTopK: card.tFfn && card.epsilon ? { tFfn: card.tFfn, epsilon: card.epsilon } : undefined,
      parameters: parameterArrays(parts),
    },
    session,
  );
  return {
    model: {
      weights: inMemory(folder, llm),
      hash: manifestHash(folder),
      manifest: card,
      format: savedFormat(saved, folder),
      hasPredictor: predictor !== undefined,
      block: predictorConfig?.block ?? 1,
      verify: async () => {}, // it was as it was loaded
      openPredictor: async () => ({
        scores: (ids) => predictedScores(evaluator, ids, predictor!.backbone.config.contextLength),
        [Symbol.asyncDispose]: async () => {},
      }),
    },
    evaluator: onGraph(evaluator),
    own: await ownMasks(folder, saved),
    threads: session.threads,
    [Symbol.asyncDispose]: () => evaluator.release(),
  };
}

async function predictedScores(evaluator: Evaluator, ids: Int32Array, contextLength: number): Promise<Float32Array> {
  if (ids.length >= contextLength) throw new ContextLengthError(ids.length, contextLength);
  const [predicted] = await evaluator.predict([ids], { batch: 1 });
  return predicted!.scores;
}

function onGraph(evaluator: Evaluator): MaskedModel {
  const known = new Map<Mask, DenseMask>();
  const dense = (mask: Mask) => {
    const found = known.get(mask) ?? toDenseMask(mask);
    known.set(mask, found);
    return found;
  };
  const score: MaskedModel["score"] = (sequences, masks, signal) =>
    evaluator.score(sequences, masks?.map(dense), signal);
  return {
    score,
    async answer(questions, { masks, ...options }) {
      const sequences = questions.map(({ sequence }) => sequence);
      const scores = await score(sequences, masks, options.signal);
      const answers = await evaluator.generate(
        questions.map(({ prompt }) => prompt),
        {
          ...options,
          masks: masks?.map(dense),
          maxTokens: questions.map(({ maxTokens }) => maxTokens),
          drafts: sequences.map(({ labels }) => labels.filter((label) => label >= 0)),
        },
      );
      return answers.map((answer, i) => ({ answer, score: scores[i]! }));
    },
  };
}

async function ownMasks(folder: string, { card, llm, predictor }: SavedModel): Promise<OpenedModel["own"]> {
  if (predictor) return "source";
  if (card.provenance.recipe === IMPORT_RECIPE || !existsSync(join(folder, "state.json"))) return "dense"; // of no run
  const { recipe: json } = await loadCheckpoint(folder);
  const { mask, seed } = parseRecipe(json, folder);
  const { numLayers, ffnWidth: dFfn } = llm.config;
  if (mask?.kind === "learned-static") {
    const scores = readSafetensors(join(folder, "static.safetensors")).get("scores");
    if (!scores) throw new FileError(join(folder, "static.safetensors"), 'wanted the tensor "scores", got none.');
    return maskFromScores(channelScores(scores.data, { ffnWidth: dFfn, block: mask.block }), { dFfn, ...mask });
  }
  if (mask?.kind === "random-per-domain") {
    const masks = new Map<string, Mask>();
    return (task) => {
      const known = masks.get(task) ?? randomMask({ numLayers, dFfn, ...mask }, seed, task);
      masks.set(task, known);
      return known;
    };
  }
  return "dense";
}
