/** The path from prompt to answer, with text at both ends: a bundle, its tokenizer and the engine joined. */
import { type Answer, type AnswerOptions, answer, openPredictor, type Predictor } from "../engine/answer.ts";
import { Bundle } from "../formats/bundle.ts";
import { fullMask, type Mask } from "../mask/mask.ts";
import { instructionOf, predictorIds, promptIds } from "../text/prompt.ts";
import { loadTokenizer, type Tokenizer } from "../text/tokenizer.ts";

export interface AskOptions extends Omit<AnswerOptions, "maxTokens"> {
  /** Default: 128 */
  maxTokens?: number;
  /** A given mask instead of the predicted one; "dense" keeps every channel. */
  mask?: Mask | "dense";
}

/** A text answer under way. Disposing it early stops it. */
export interface TextAnswer extends Pick<Answer, "mask" | "ms" | "tokens">, AsyncDisposable {
  promptTokens: number;
  /** Turns each token into the text it completes; see `StreamDecoder`. */
  decoder: ReturnType<Tokenizer["stream"]>;
}

/** A model that answers each prompt with the sub-network that its instruction needs. */
export class InstructionModel implements Disposable {
  readonly bundle: Bundle;
  readonly tokenizer: Tokenizer;

  /** @throws {FileError} if the folder is not a whole bundle */
  constructor(path: string) {
    this.bundle = new Bundle(path);
    try {
      this.tokenizer = loadTokenizer(this.bundle.tokenizerPath);
    } catch (error) {
      this.bundle[Symbol.dispose]();
      throw error;
    }
  }

  /** What the predictor reads of a prompt: all of it, or its instruction, as it was trained. */
  predictorIds(prompt: string): Int32Array {
    const { predictorInput } = this.bundle.manifest;
    return predictorIds(this.tokenizer, predictorInput === "instruction" ? instructionOf(prompt) : prompt);
  }

  /**
   * The predicted masks of prompts, in order.
   *
   * @throws {FileError} if the bundle has no predictor
   * @throws {InputError} on an empty prompt, or one longer than the predictor reads
   */
  async masks(prompts: readonly string[], options: { threads?: number } = {}): Promise<Mask[]> {
    await using predictor: Predictor = await openPredictor(this.bundle, options);
    const masks: Mask[] = [];
    for (const prompt of prompts) masks.push(await predictor.predict(this.predictorIds(prompt)));
    return masks;
  }

  /**
   * Answers a prompt. The mask is chosen once, from the prompt alone, and stays for the whole answer.
   *
   * @throws {InputError} on an empty prompt, or one longer than the model reads
   * @throws {FileError} if the bundle has no predictor and no mask is given
   */
  async ask(prompt: string, { mask, maxTokens = 128, ...options }: AskOptions = {}): Promise<TextAnswer> {
    const ids = promptIds(this.tokenizer, prompt, this.bundle.manifest.promptTemplate);
    const { numLayers, ffnWidth } = this.bundle;
    const choice = mask === "dense" ? fullMask(numLayers, ffnWidth) : (mask ?? this.predictorIds(prompt));
    const result = await answer(this.bundle, ids, choice, { ...options, maxTokens });
    return {
      mask: result.mask,
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
