/** The path from prompt to answer, with text at both ends: a bundle, its tokenizer, its masks and the engine joined. */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Bundle } from "../bundle/bundle.ts";
import type { EngineOptions, EngineProvider } from "../engine/engine.ts";
import { llamaCpp } from "../engine/llamaCpp.ts";
import { OptionError } from "../errors.ts";
import { boundaryOf } from "../manifest.ts";
import { fullMask, type Mask } from "../mask/mask.ts";
import { ChatTemplate } from "../text/chatTemplate.ts";
import { promptIds } from "../text/prompt.ts";
import { loadTokenizer, type Tokenizer } from "../text/tokenizer.ts";
import { type Answer, type AnswerOptions, answer } from "./answer.ts";
import {
  bundleTFfn,
  type ChosenMask,
  chooseMask,
  type MaskSource,
  openMaskSource,
  type ScoreOptions,
  type SourceChoice,
  type SourceName,
  type SourceOptions,
} from "./maskSource.ts";
import type { ScoreCacheOptions } from "./scoreCache.ts";

/** How a prompt's mask is made. */
interface MaskChoice extends ScoreOptions {
  /** Default: the predictor where the bundle has one, else griffin. An open source is used as it is, and stays open. */
  source?: SourceName | MaskSource | undefined;
  /** Channels kept per layer. Default: as the predictor was trained, else half of them. */
  tFfn?: number | undefined;
  /** What the source `static` takes activations from. */
  text?: string | undefined;
  scoreCache?: ScoreCacheOptions | undefined;
}

export interface MaskOptions extends MaskChoice, Omit<EngineOptions, "contextLength"> {
  /** Of the source `random`. Default: 0. */
  seed?: number | undefined;
}

/** `seed` is that of sampling, and of random masks. */
export interface AskOptions extends Omit<AnswerOptions, "maxTokens">, MaskChoice {
  /** Default: 128 */
  maxTokens?: number;
  /** A given mask instead of one that is made for the prompt; "dense" keeps every channel. */
  mask?: Mask | "dense";
}

/** A text answer under way. Disposing it early stops it. */
export interface TextAnswer extends Pick<Answer, "mask" | "ms" | "tokens">, AsyncDisposable {
  /** Where the mask comes from; undefined where it was given. */
  chosen: Omit<ChosenMask, "mask"> | undefined;
  promptTokens: number;
  /** Turns each token into the text it completes; see `StreamDecoder`. */
  decoder: ReturnType<Tokenizer["stream"]>;
}

/** The bundle that comes with the package. */
export const DEFAULT_MODEL = fileURLToPath(new URL("../../models/default", import.meta.url));

/** What runs models unless another is given: the one place that names it. */
export const DEFAULT_ENGINES: EngineProvider = llamaCpp;

export interface ModelOptions {
  /** What runs the sub-networks, and the predictor. Default: llama.cpp. */
  engines?: EngineProvider | undefined;
}

/** A model that answers each prompt with the sub-network that its instruction needs. */
export class InstructionModel implements Disposable {
  readonly engines: EngineProvider;
  readonly bundle: Bundle;
  readonly tokenizer: Tokenizer;
  /** How the LLM is prompted: a text with "{prompt}" in it, or a chat template. */
  readonly format: string | ChatTemplate;

  /** @throws {FileError} if the folder is not a whole bundle */
  constructor(path = DEFAULT_MODEL, { engines = DEFAULT_ENGINES }: ModelOptions = {}) {
    this.engines = engines;
    this.bundle = new Bundle(path);
    try {
      const { manifest, tokenizerPath } = this.bundle;
      this.tokenizer = loadTokenizer(tokenizerPath, boundaryOf(manifest, this.bundle.config));
      const template = this.bundle.text(templateName);
      this.format =
        template === undefined ? manifest.promptTemplate : new ChatTemplate(template, join(path, templateName));
    } catch (error) {
      this.bundle[Symbol.dispose]();
      throw error;
    }
  }

  /** What the LLM reads of a prompt. @throws {InputError} if it is empty, or the bundle's chat template refuses it */
  promptIds(prompt: string): Int32Array {
    return promptIds(this.tokenizer, prompt, this.format);
  }

  /**
   * The mask that a prompt gets.
   *
   * @throws {OptionError} if an option is out of range, or not one of the source
   * @throws {InputError} on an empty prompt, or one longer than the predictor reads
   * @throws {FileError} if the bundle is damaged, or has no predictor where one is wanted
   */
  async mask(prompt: string, options: MaskOptions = {}): Promise<ChosenMask> {
    const { source = this.defaultSource, text, seed, tFfn = bundleTFfn(this.bundle), scoreCache, ...rest } = options;
    const { signal, onProgress, ...engine } = rest;
    const read = { text: prompt, ids: this.promptIds(prompt) };
    const how = { signal, onProgress, tFfn, ffnWidth: this.bundle.ffnWidth };
    if (typeof source !== "string") {
      if (text !== undefined || seed !== undefined)
        throw new OptionError("mask: wanted no text and no seed beside an open source, got one.");
      return chooseMask(source, read, how);
    }
    const choice = choiceOf(source, text, seed);
    await using own = await this.openSource(choice, { ...engine, cache: scoreCache });
    return await chooseMask(own, read, how);
  }

  /**
   * Opens a source of masks, to be used for many prompts.
   *
   * @throws as {@link openMaskSource}
   */
  openSource(choice: SourceChoice, options: SourceOptions = {}): Promise<MaskSource> {
    return openMaskSource(this.engines, this.bundle, this.tokenizer, choice, options);
  }

  get defaultSource(): SourceName {
    return this.bundle.predictor ? "predictor" : "griffin";
  }

  /**
   * Answers a prompt. The mask is chosen once, from the prompt alone, and stays for the whole answer.
   *
   * @throws {OptionError} if a mask is given beside what says how to make one
   * @throws {InputError} on an empty prompt, or one longer than the model reads
   * @throws as {@link InstructionModel.mask}
   */
  async ask(prompt: string, options: AskOptions = {}): Promise<TextAnswer> {
    const { mask, source, tFfn, text, scoreCache, onProgress, maxTokens = 128, ...engine } = options;
    if (mask !== undefined && [source, tFfn, text].some((option) => option !== undefined))
      throw new OptionError("ask: wanted a mask, or how to make one, got both.");
    const ids = this.promptIds(prompt);
    let chosen: TextAnswer["chosen"];
    const make = async () => {
      const { threads, kvType, gpu, signal } = engine;
      const seed = source === "random" ? engine.seed : undefined;
      const how = { source, tFfn, text, seed, scoreCache, onProgress };
      const { mask: made, ...rest } = await this.mask(prompt, { ...how, threads, kvType, gpu, signal });
      chosen = rest;
      return made;
    };
    const { numLayers, ffnWidth } = this.bundle;
    const choice = mask === "dense" ? fullMask(numLayers, ffnWidth) : (mask ?? make);
    const result = await answer(this.engines, this.bundle, ids, choice, { ...engine, maxTokens });
    return {
      mask: result.mask,
      chosen,
      ms: result.ms,
      tokens: result.tokens,
      promptTokens: ids.length,
      decoder: this.tokenizer.stream(),
      [Symbol.asyncDispose]: () => result[Symbol.asyncDispose](),
    };
  }

  [Symbol.dispose](): void {
    this.bundle[Symbol.dispose]();
  }
}

const templateName = "chat_template.jinja";

/** @throws {OptionError} if a source lacks what it needs, or is given what it does not use */
function choiceOf(source: SourceName, text: string | undefined, seed: number | undefined): SourceChoice {
  if (text !== undefined && source !== "static")
    throw new OptionError(`mask: wanted no text for the source ${source}, got one. Only static takes it.`);
  if (seed !== undefined && source !== "random")
    throw new OptionError(`mask: wanted no seed for the source ${source}, got ${seed}. Only random takes it.`);
  if (source === "random") return { source, seed };
  if (source !== "static") return { source };
  if (text === undefined) throw new OptionError("mask: wanted a text for the source static, got none.");
  return { source, text };
}
