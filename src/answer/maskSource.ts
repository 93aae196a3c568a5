/**
 * Where masks come from, behind one interface: something that scores the FFN channels of a model for a prompt. The mask of any budget
 * follows from the scores. (A mask from a file needs no source.) Serving and evaluation have the same sources.
 *
 * Shapes: L layers · F FFN channels
 */
import { createHash } from "node:crypto";
import { type Budget, budgetTFfn, defaultTFfn, hasBudget } from "../bundle/budget.ts";
import { FileError, OptionError } from "../errors.ts";
import type { BundleManifest, Quality } from "../manifest.ts";
import { meanRanks, randomScores, weightNorms } from "../mask/baselines.ts";
import { type Mask, maskFromScores } from "../mask/mask.ts";
import { blockMeans, spreadBlocks } from "../mask/standardize.ts";
import type { Window } from "../net/activations.ts";
import { type Instruction, instructionOf, predictorIds } from "../text/prompt.ts";
import type { PredictorOptions, PromptedModel } from "./promptedModel.ts";
import { cachedScores, type ScoreCacheOptions } from "./scoreCache.ts";
import { SOURCE_NAMES, type SourceName } from "./sourceNames.ts";
import { promptWindows, textWindows } from "./windows.ts";

/**
 * - `predictor`: learned, from the instruction
 * - `griffin`: the channels that are most active at the user's text when the dense model reads the prompt
 * - `glass`: those that are most active at the user's text and on another text together, by the mean of their ranks; `maxTokens` of the text count (default: 4096)
 * - `text`: the channels that contribute most when it reads a text, for all prompts; `maxTokens` as for glass
 * - `weights`: the channels of largest weights
 * - `random`: the same for the same seed (default: 0)
 */
export type SourceChoice =
  | { source: "predictor" | "griffin" | "weights" }
  | { source: "glass" | "text"; text: string; maxTokens?: number | undefined }
  | { source: "random"; seed?: number | undefined };

/** How a {@link MaskSource} is opened. */
export interface SourceOptions extends PredictorOptions {
  /** Of the scores of griffin, glass, text and weights. */
  cache?: ScoreCacheOptions | undefined;
}

/** How scores are made. */
export interface ScoreOptions {
  signal?: AbortSignal | undefined;
  /** Of griffin, glass and text: parts done, and all. */
  onProgress?: ((done: number, total: number) => void) | undefined;
}

/** An open source of masks. */
export interface MaskSource extends AsyncDisposable {
  readonly name: SourceName;
  /** ε of SoftTopK, where kept channels are scaled by λ. Undefined: masks are hard. */
  readonly epsilon?: number | undefined;
  /**
   * Masking scores z [L·F] of a prompt, and whether they came from the cache.
   *
   * @throws {InputError} if the prompt is empty, longer than the source reads, or not of the model's vocabulary
   * @throws {FileError} if the model is damaged
   */
  scores(prompt: Instruction, options?: ScoreOptions): Promise<{ scores: Float32Array; cached: boolean }>;
}

/** A mask and where it comes from. */
export interface ChosenMask {
  mask: Mask;
  source: SourceName;
  /** Whether its scores were in the cache. */
  cached: boolean;
  /** What masks of this source and size cost the model, where that was measured. */
  quality?: MaskQuality;
}

/** What masks of a source and size cost a model, by {@link Quality}. */
export type MaskQuality = Pick<Quality["rows"][number], "loss" | "agreement">;

export function maskQuality(
  { manifest }: { manifest: Pick<BundleManifest, "quality"> },
  source: string,
  tFfn: number,
): MaskQuality | undefined {
  const row = manifest.quality?.rows.find((one) => one.source === source && one.tFfn === tFfn);
  return row && { loss: row.loss, agreement: row.agreement };
}

/** How a mask source is made, as commands and calls say it. */
export interface SourceFlags {
  /** Default: the predictor where the model has one, else griffin. An open source is used as it is, and stays open. */
  source?: SourceName | MaskSource | undefined;
  /** What the sources `glass` and `text` take activations from. */
  text?: string | undefined;
  /** Of the source `random`. Default: 0. */
  seed?: number | undefined;
}

/** Changes with every change of what scores mean, so that old ones are not found. */
const scoresVersion = 1;

/**
 * @throws {OptionError} if there is no such source
 * @throws {FileError} if the model has no predictor where one is wanted, or it is damaged
 * @throws {InputError} if the text of `glass` or `text` is empty
 */
export async function openMaskSource(
  model: PromptedModel,
  choice: SourceChoice,
  options: SourceOptions = {},
): Promise<MaskSource> {
  const source = await openChannelSource(model, choice, options);
  const { block = 1 } = model.manifest;
  if (choice.source === "predictor" || block === 1) return source;
  const scores: MaskSource["scores"] = async (prompt, how) => {
    const { scores: ofChannels, cached } = await source.scores(prompt, how);
    return { scores: spreadBlocks(blockMeans(ofChannels, block), block), cached };
  };
  return { name: source.name, scores, [Symbol.asyncDispose]: () => source[Symbol.asyncDispose]() };
}

/** Without training a source scores channels one by one. */
async function openChannelSource(
  model: PromptedModel,
  choice: SourceChoice,
  options: SourceOptions,
): Promise<MaskSource> {
  const { cache = {}, ...engine } = options;
  const { weights } = model;
  const { numLayers, ffnWidth } = weights.config;
  const name = choice.source;
  const none = async () => {};
  const cached = (name: SourceName, windows: readonly Window[], make: () => Promise<Float32Array>) =>
    cachedScores({ hash: model.hash, numLayers, ffnWidth }, scoresKey(name, windows), cache, async () => {
      await model.verify(); // what is kept is of the content that the hash stands for
      return await make();
    });
  const run = { threads: engine.threads, spinning: false };
  const griffin = (windows: readonly Window[], how: ScoreOptions | undefined) =>
    cached("griffin", windows, async () => {
      const { griffinScores } = await import("../net/activations.ts"); // ONNX Runtime, which other sources do not need
      return griffinScores(weights, windows, { ...run, ...how });
    });

  switch (choice.source) {
    case "predictor":
      return await openPredictor(model, engine);
    case "griffin":
      return {
        name,
        scores: (prompt, how) => griffin(promptWindows(weights.config, prompt), how),
        [Symbol.asyncDispose]: none,
      };
    case "glass": {
      const windows = textWindows(weights.config, model.format.tokenizer, choice.text, choice.maxTokens);
      return {
        name,
        async scores(prompt, how) {
          const ofText = await griffin(windows, how); // the long pass: where it runs, its progress is what is shown
          const ofPrompt = await griffin(
            promptWindows(weights.config, prompt),
            ofText.cached ? how : { signal: how?.signal },
          );
          return {
            scores: meanRanks([ofText.scores, ofPrompt.scores], ffnWidth),
            cached: ofText.cached && ofPrompt.cached,
          };
        },
        [Symbol.asyncDispose]: none,
      };
    }
    case "text": {
      const windows = textWindows(weights.config, model.format.tokenizer, choice.text, choice.maxTokens);
      return {
        name,
        scores: (_, how) =>
          cached(name, windows, async () => {
            const { contributionScores } = await import("../net/activations.ts");
            return contributionScores(weights, windows, { ...run, ...how });
          }),
        [Symbol.asyncDispose]: none,
      };
    }
    case "weights":
      return {
        name,
        scores: () => cached(name, [], async () => weightNorms((parameter) => weights.read(parameter), weights.config)),
        [Symbol.asyncDispose]: none,
      };
    case "random": {
      const scores = randomScores({ numLayers, dFfn: ffnWidth }, choice.seed ?? 0, name);
      return { name, scores: async () => ({ scores, cached: false }), [Symbol.asyncDispose]: none };
    }
    default:
      throw new OptionError(
        `mask: wanted one of ${SOURCE_NAMES.join(", ")} as a source, got ${JSON.stringify((choice satisfies never as SourceChoice).source)}.`,
      );
  }
}

/** The learned source: the predictor reads the prompt, or its instruction, as it was trained. */
async function openPredictor(model: PromptedModel, options: PredictorOptions): Promise<MaskSource> {
  const { manifest } = model;
  if (!model.hasPredictor || manifest.epsilon === undefined) {
    const wanted = "wanted a model with a predictor, got one without.";
    throw new FileError(model.weights.path, `${wanted} Sources without training: ${untrained.join(", ")}.`);
  }
  const predictor = await model.openPredictor(options);
  return {
    name: "predictor",
    epsilon: manifest.lambda === "soft" ? manifest.epsilon : undefined,
    async scores({ text, predictorIds }) {
      await model.verify();
      return { scores: await predictor.scores(predictorIds ?? readByPredictor(model, text)), cached: false };
    },
    [Symbol.asyncDispose]: () => predictor[Symbol.asyncDispose](),
  };
}

/** What the predictor reads of a prompt. @throws {InputError} when that is empty */
export function readByPredictor(
  { manifest, format }: Pick<PromptedModel, "manifest" | "format">,
  prompt: string,
): Int32Array {
  return predictorIds(format.tokenizer, manifest.predictorInput === "instruction" ? instructionOf(prompt) : prompt);
}

export function defaultSource({ hasPredictor }: Pick<PromptedModel, "hasPredictor">): SourceName {
  return hasPredictor ? "predictor" : "griffin";
}

/**
 * The source that flags ask for; disposing it leaves one that was open before.
 *
 * @throws {OptionError} if a source lacks what it needs, or is given what it does not use
 * @throws as {@link openMaskSource}
 */
export async function openFlaggedSource(
  model: PromptedModel,
  { source = defaultSource(model), text, seed }: SourceFlags,
  options: SourceOptions = {},
): Promise<MaskSource> {
  if (typeof source === "string") return await openMaskSource(model, choiceOf(source, text, seed), options);
  if (text !== undefined || seed !== undefined)
    throw new OptionError("mask: wanted no text and no seed beside an open source, got one.");
  const { name, epsilon } = source;
  const scores: MaskSource["scores"] = (prompt, how) => source.scores(prompt, how);
  return { name, epsilon, scores, [Symbol.asyncDispose]: async () => {} };
}

/** What says how the masks of prompts are made. */
type MaskFlags = Pick<SourceFlags, "source" | "text"> & Budget;

/** Whether anything was said of how to make them. */
export function saysHow({ source, text, ...budget }: MaskFlags): boolean {
  return source !== undefined || text !== undefined || hasBudget(budget);
}

/** Whether prompts get masks: unless told how, only those of a model that was trained under masks. Others would answer nonsense. */
export function isMasked({ hasPredictor }: Pick<PromptedModel, "hasPredictor">, flags: MaskFlags): boolean {
  return hasPredictor || saysHow(flags);
}

/** For what is of no use without a mask. @throws {OptionError} unless prompts get masks */
export function checkMasked(where: string, model: Pick<PromptedModel, "hasPredictor">, flags: MaskFlags): void {
  if (isMasked(model, flags)) return;
  throw new OptionError(
    `${where}: wanted a source of masks, or a share to keep, as the model has no trained masks, got neither. Train some, or try keep = 0.75 (--keep 75%).`,
  );
}

const untrained = SOURCE_NAMES.filter((name) => name !== "predictor");

function choiceOf(source: SourceName, text: string | undefined, seed: number | undefined): SourceChoice {
  const readsText = source === "text" || source === "glass";
  if (text !== undefined && !readsText)
    throw new OptionError(`mask: wanted no text for the source ${source}, got one. Only glass and text take one.`);
  if (seed !== undefined && source !== "random")
    throw new OptionError(`mask: wanted no seed for the source ${source}, got ${seed}. Only random takes it.`);
  if (source === "random") return { source, seed };
  if (!readsText) return { source };
  if (text === undefined)
    throw new OptionError(`mask: wanted a text for the source ${source}, got none. On the command line: --text FILE.`);
  return { source, text };
}

/**
 * The mask of a prompt, of `tFfn` channels per layer.
 *
 * @throws {OptionError} if `tFfn` is out of range
 * @throws as {@link MaskSource.scores}
 */
export async function chooseMask(
  source: MaskSource,
  prompt: Instruction,
  { tFfn, ffnWidth, ...options }: ScoreOptions & { tFfn: number; ffnWidth: number },
): Promise<ChosenMask> {
  checkTFfn(tFfn, ffnWidth);
  const { scores, cached } = await source.scores(prompt, options);
  options.signal?.throwIfAborted();
  const mask = maskFromScores(scores, { dFfn: ffnWidth, tFfn, epsilon: source.epsilon });
  return { mask, source: source.name, cached };
}

/** @throws {OptionError} if so many channels cannot be kept */
export function checkTFfn(tFfn: number, ffnWidth: number): void {
  if (!Number.isInteger(tFfn) || tFfn < 1 || tFfn > ffnWidth)
    throw new OptionError(`mask: wanted t_ffn in 1..${ffnWidth} (d_ffn), got ${tFfn}.`);
}

/**
 * Channels per layer that a model's masks keep.
 *
 * @throws {OptionError} if the budget is out of range, or given in both ways
 */
export function modelTFfn(
  model: Pick<PromptedModel, "manifest" | "weights" | "block" | "hasPredictor">,
  budget: Budget = {},
  source: SourceFlags["source"] = defaultSource(model),
): number {
  const { manifest, weights, block } = model;
  const { ffnWidth } = weights.config;
  const { quality } = manifest;
  const name = typeof source === "string" ? source : source.name;
  return (
    budgetTFfn(budget, { ffnWidth, block, quality, source: name }) ?? manifest.tFfn ?? defaultTFfn(ffnWidth, block)
  );
}

/** A name for scores by all that they depend on beside the model. */
function scoresKey(name: SourceName, windows: readonly Window[]): string {
  const hash = createHash("sha256").update(JSON.stringify([scoresVersion, name]));
  for (const { ids, skipped } of windows) {
    hash.update(JSON.stringify([ids.length, skipped]));
    hash.update(new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength));
  }
  return hash.digest("hex").slice(0, 32);
}
