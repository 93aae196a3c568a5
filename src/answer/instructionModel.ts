/** The path from prompt to answer, with text at both ends: a bundle, its tokenizer, its masks and the engine joined. */

import { join } from "node:path";
import type { Budget } from "../bundle/budget.ts";
import { Bundle } from "../bundle/bundle.ts";
import { WANTED_FORMS } from "../bundle/formOptions.ts";
import type { MaskForm } from "../bundle/maskModel.ts";
import { KV_TYPES } from "../bundle/memory.ts";
import { DEFAULT_MODEL } from "../bundle/pulledModels.ts";
import type { EngineProvider, FeatureEngine } from "../engine/engine.ts";
import { GPUS, MAX_TOKENS } from "../engine/engineOptions.ts";
import { OptionError } from "../errors.ts";
import { boundaryOf, type VerifyFilesOptions } from "../manifest.ts";
import { checkMask, fullMask, type Mask } from "../mask/mask.ts";
import { checkChoice, checkNumber } from "../options.ts";
import { atOnce, inTurns, type Steps } from "../steps.ts";
import { chatTemplateName } from "../text/chatTemplate.ts";
import {
  composePrompt,
  type FormatSource,
  openingFormat,
  type PromptFormat,
  type TaskExample,
} from "../text/prompt.ts";
import type { StreamDecoder, Tokenizer } from "../text/tokenizer.ts";
import { type Answer, type AnswerOptions, answer } from "./answer.ts";
import { openBundleFeature, openBundlePredictor } from "./bundlePredictor.ts";
import { DEFAULT_ENGINES } from "./defaultEngines.ts";
import {
  type ChosenMask,
  checkMasked,
  chooseMask,
  defaultSource,
  isMasked,
  type MaskSource,
  maskQuality,
  modelTFfn,
  openFlaggedSource,
  openMaskSource,
  type ScoreOptions,
  type SourceChoice,
  type SourceFlags,
  type SourceOptions,
  saysHow,
} from "./maskSource.ts";
import type { OpenPredictor, PredictorOptions, PromptedModel } from "./promptedModel.ts";
import type { ScoreCacheOptions } from "./scoreCache.ts";
import type { SourceName } from "./sourceNames.ts";

/** What is asked beside the instruction. */
interface TaskOptions {
  /** What to do it to: where the instruction says {input}, else after it. */
  input?: string | undefined;
  /** Solved cases of the task, which the instruction shows; the mask is made for them too. */
  examples?: readonly TaskExample[] | undefined;
}

/** How a prompt's mask is made. */
interface MaskChoice extends TaskOptions, ScoreOptions, Budget, Omit<SourceFlags, "seed"> {
  scoreCache?: ScoreCacheOptions | undefined;
}

/** How {@link InstructionModel.mask} makes a mask. */
export interface MaskOptions extends MaskChoice, PredictorOptions {
  /** Of the source `random`. Default: 0. */
  seed?: number | undefined;
}

/** `seed` is that of sampling, and of random masks. */
export interface AskOptions extends Omit<AnswerOptions, "maxTokens">, MaskChoice {
  /** Default: 128 */
  maxTokens?: number | undefined;
  /**
   * A given mask instead of one that is made for the prompt; "dense" keeps every channel. Default: one that is made; of a model without trained masks
   * "dense", unless something says how to make one.
   */
  mask?: Mask | "dense" | undefined;
}

/** A text answer under way, read once: `for await` gives its text as it comes, in whole characters. Disposing it early stops it. */
export interface TextAnswer
  extends AsyncIterable<string>,
    AsyncDisposable,
    Pick<Answer, "mask" | "ms" | keyof MaskForm> {
  /** Where the mask comes from; undefined where it was given. */
  chosen: Omit<ChosenMask, "mask"> | undefined;
  promptTokens: number;
  /** Those that have come. */
  answerTokens: number;
  /** Ids, instead of text. */
  tokens: Answer["tokens"];
  /** All of the text that is still to come. */
  text(): Promise<string>;
}

/** How an {@link InstructionModel} is opened. */
export interface ModelOptions {
  /** What runs the sub-networks, and the predictor. Default: llama.cpp. */
  engines?: EngineProvider | undefined;
}

/** What is read of a bundle before anything is asked. */
interface Opened {
  bundle: Bundle;
  formatSource: FormatSource;
  format: PromptFormat;
}

function* opening(name: string): Steps<Opened> {
  const bundle = new Bundle(name);
  yield;
  try {
    const { manifest, tokenizerPath, path } = bundle;
    const source = bundle.text(chatTemplateName);
    const formatSource = {
      tokenizer: tokenizerPath,
      boundary: boundaryOf(manifest, bundle.config),
      promptTemplate: manifest.promptTemplate,
      chatTemplate: source === undefined ? undefined : { source, where: join(path, chatTemplateName) },
    };
    return { bundle, formatSource, format: yield* openingFormat(formatSource) };
  } catch (error) {
    bundle[Symbol.dispose]();
    throw error;
  }
}

/** A model that answers each prompt with the sub-network that its instruction needs. */
export class InstructionModel implements PromptedModel, Disposable {
  readonly engines: EngineProvider;
  readonly bundle: Bundle;
  readonly format: PromptFormat;
  /** Of {@link InstructionModel.format}. @internal */
  readonly formatSource: FormatSource;

  /**
   * @param name a bundle's folder, or the id of a model that was pulled
   * @param opened internal
   * @throws {FileError} if it is not a whole bundle
   */
  constructor(name = DEFAULT_MODEL, options: ModelOptions = {}, opened = atOnce(opening(name))) {
    this.engines = options.engines ?? DEFAULT_ENGINES;
    this.bundle = opened.bundle;
    this.format = opened.format;
    this.formatSource = opened.formatSource;
  }

  /** As the constructor, in steps: a server answers others in between. @internal */
  static async openInTurns(name: string, options: ModelOptions): Promise<InstructionModel> {
    return new InstructionModel(name, options, await inTurns(opening(name)));
  }

  get tokenizer(): Tokenizer {
    return this.format.tokenizer;
  }

  get weights(): Bundle {
    return this.bundle;
  }

  get hash(): string {
    return this.bundle.hash;
  }

  get manifest(): Bundle["manifest"] {
    return this.bundle.manifest;
  }

  get hasPredictor(): boolean {
    return this.bundle.predictor !== undefined;
  }

  get block(): number {
    return this.bundle.block;
  }

  verify(options?: VerifyFilesOptions): Promise<void> {
    return this.bundle.verify(options);
  }

  openPredictor(options: PredictorOptions): Promise<OpenPredictor> {
    return openBundlePredictor(this.engines, this.bundle, options);
  }

  /** Loads what masks are chosen from, the feature of a predictor, or of a model without one the mean of its embedding rows. */
  openFeature(options: PredictorOptions): Promise<FeatureEngine> {
    return openBundleFeature(this.engines, this.bundle, options);
  }

  /** What the LLM reads of a prompt. @throws {InputError} if it is empty, or the bundle's chat template refuses it */
  promptIds(prompt: string): Int32Array {
    return this.format.promptIds(prompt);
  }

  /**
   * The mask that a prompt gets.
   *
   * @throws {OptionError} if an option is out of range, or not one of the source, or nothing says how to mask a model that was not trained for it
   * @throws {InputError} on an empty prompt, or one longer than the predictor reads
   * @throws {FileError} if the bundle is damaged, or has no predictor where one is wanted
   */
  async mask(instruction: string, options: MaskOptions = {}): Promise<ChosenMask> {
    const { input, examples, keep, maxLoss, tFfn, source, text, seed, scoreCache, ...rest } = options;
    const { signal, onProgress, ...engine } = rest;
    checkMasked("mask", this, options);
    const kept = modelTFfn(this, { keep, maxLoss, tFfn }, source);
    const prompt = composePrompt(instruction, input, examples);
    await using open = await openFlaggedSource(this, { source, text, seed }, { ...engine, cache: scoreCache });
    const how = { signal, onProgress, tFfn: kept, ffnWidth: this.bundle.ffnWidth };
    const chosen = await chooseMask(open, this.format.instruction(prompt), how);
    const quality = maskQuality(this, chosen.source, kept);
    return { ...chosen, ...(quality && { quality }) };
  }

  /**
   * Opens a source of masks, to be used for many prompts.
   *
   * @throws {OptionError} if an option is out of range
   * @throws {FileError} if the bundle is damaged, or has no predictor where one is wanted
   */
  openSource(choice: SourceChoice, options: SourceOptions = {}): Promise<MaskSource> {
    return openMaskSource(this, choice, options);
  }

  get defaultSource(): SourceName {
    return defaultSource(this);
  }

  /**
   * Answers a prompt. The mask is chosen once, from the prompt alone, and stays for the whole answer.
   *
   * @throws {OptionError} if a mask is given beside what says how to make one
   * @throws {InputError} on an empty prompt, or one longer than the model reads
   * @throws as {@link InstructionModel.mask}
   */
  async ask(instruction: string, options: AskOptions = {}): Promise<TextAnswer> {
    const { input, examples, mask, source, keep, maxLoss, tFfn, text, scoreCache, onProgress, ...rest } = options;
    const { maxTokens = MAX_TOKENS.fallback, ...engine } = rest;
    checkNumber("ask", "maxTokens", maxTokens, MAX_TOKENS);
    checkChoice("ask", "kvType", engine.kvType, KV_TYPES);
    checkChoice("ask", "form", engine.form, WANTED_FORMS);
    checkChoice("ask", "gpu", engine.gpu, GPUS);
    if (mask !== undefined && saysHow(options))
      throw new OptionError("ask: wanted a mask, or how to make one, got both.");
    const prompt = composePrompt(instruction, input, examples);
    const ids = this.promptIds(prompt);
    let chosen: TextAnswer["chosen"];
    const make = async () => {
      const { threads, kvType, gpu, signal } = engine;
      const seed = source === "random" ? engine.seed : undefined;
      const how = { source, keep, maxLoss, tFfn, text, seed, scoreCache, onProgress };
      const { mask: made, ...rest } = await this.mask(prompt, { ...how, threads, kvType, gpu, signal });
      chosen = rest;
      return made;
    };
    const { numLayers, ffnWidth } = this.bundle;
    if (mask !== undefined && mask !== "dense") checkMask(mask, "ask: mask", { numLayers, ffnWidth });
    const isWhole = () => keep === "auto" && modelTFfn(this, { keep, maxLoss, tFfn }, source) === this.bundle.ffnWidth;
    const isDense = mask === "dense" || (mask === undefined && (!isMasked(this, options) || isWhole()));
    const choice = isDense ? fullMask(numLayers, ffnWidth) : (mask ?? make);
    const result = await answer(this.engines, this.bundle, ids, choice, { ...engine, maxTokens });
    async function* counted(): Answer["tokens"] {
      for await (const id of result.tokens) {
        told.answerTokens++;
        yield id;
      }
    }
    let isRead = false;
    const told: TextAnswer = {
      mask: result.mask,
      form: result.form,
      formReason: result.formReason,
      formFlaw: result.formFlaw,
      formMs: result.formMs,
      chosen,
      ms: result.ms,
      promptTokens: ids.length,
      answerTokens: 0,
      tokens: counted(),
      async text() {
        let text = "";
        for await (const piece of told) text += piece;
        return text;
      },
      [Symbol.asyncIterator]: () => {
        if (isRead)
          throw new OptionError("answer: wanted to be read once, got asked for its text again. Keep what came.");
        isRead = true;
        return textOf(told.tokens, this.tokenizer.stream());
      },
      [Symbol.asyncDispose]: () => result[Symbol.asyncDispose](),
    };
    return told;
  }

  [Symbol.dispose](): void {
    this.bundle[Symbol.dispose]();
  }
}

async function* textOf(tokens: AsyncIterable<number>, decoder: StreamDecoder): AsyncGenerator<string, void, void> {
  for await (const id of tokens) {
    const piece = decoder.push(id);
    if (piece !== "") yield piece;
  }
  const rest = decoder.end();
  if (rest !== "") yield rest;
}
