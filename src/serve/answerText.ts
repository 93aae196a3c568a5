/** From tokens to the text that a client gets: whole characters, nothing of a stop text, and of JSON nothing after its end. */
import { OptionError } from "../errors.ts";
import type { StreamDecoder } from "../text/tokenizer.ts";
import type { TokenLogprob } from "./service.ts";

/** Text that is final, and the tokens that end in it. */
export interface TextPiece {
  text: string;
  logprobs: TokenLogprob[];
}

interface HeldToken {
  scored: TokenLogprob;
  start: number;
  end: number;
}

/** The text of one answer, token by token. Text that may yet become a stop text is held back. */
export class AnswerText {
  readonly #decoder: StreamDecoder;
  readonly #stops: readonly string[];
  readonly #isJson: boolean;
  /** All text, of which `#released` characters were given out. */
  #text = "";
  #released = 0;
  /** Tokens that were not given out, with the stretch of text that they added. */
  #tokens: HeldToken[] = [];
  #isDone = false;

  /**
   * @param stops texts that end the answer, before them
   * @param isJson whether the answer ends with the JSON that it is
   * @throws {OptionError} if a stop text is empty, or holds half a character
   */
  constructor(decoder: StreamDecoder, stops: readonly string[], isJson: boolean) {
    if (stops.some((stop) => stop === "" || /\p{Surrogate}/u.test(stop)))
      throw new OptionError("stop: wanted texts of whole characters, got an empty or a broken one.");
    this.#decoder = decoder;
    this.#stops = stops;
    this.#isJson = isJson;
  }

  /** Whether the answer is at its end: a stop text has come, or the end of the JSON. */
  get isDone(): boolean {
    return this.#isDone;
  }

  /** @param scored of the token, where log-probabilities are wanted */
  push(id: number, scored?: TokenLogprob): TextPiece {
    const start = this.#text.length;
    this.#text += this.#decoder.push(id);
    if (scored) this.#tokens.push({ scored, start, end: this.#text.length });
    const end = this.#stopAt() ?? this.#jsonEnd();
    this.#isDone = end !== undefined;
    return this.#release(end ?? this.#text.length - this.#heldBack());
  }

  /** What was held back, after the last token. */
  end(): TextPiece {
    if (this.#isDone) return { text: "", logprobs: [] };
    this.#text += this.#decoder.end();
    const end = this.#stopAt();
    this.#isDone = true;
    return this.#release(end ?? (this.#isJson ? this.#text.trimEnd().length : this.#text.length));
  }

  /** Where the first stop text begins: the one that ends first, of those the longest. */
  #stopAt(): number | undefined {
    let [best, bestEnd] = [undefined as number | undefined, Infinity];
    for (const stop of this.#stops) {
      const at = this.#text.indexOf(stop, this.#released);
      const end = at + stop.length;
      if (at < 0 || end > bestEnd || (end === bestEnd && at > best!)) continue;
      [best, bestEnd] = [at, end];
    }
    return best;
  }

  #jsonEnd(): number | undefined {
    if (!this.#isJson) return undefined;
    const json = this.#text.trimEnd();
    const couldGrow = json === this.#text && /^\s*[-\d]/.test(json);
    if (couldGrow || !/[}\]"\del]$/.test(json)) return undefined;
    try {
      JSON.parse(json);
      return json.length;
    } catch {
      return undefined;
    }
  }

  /** Characters at the end that may not be part of the answer. */
  #heldBack(): number {
    const text = this.#text.slice(this.#released);
    const space = this.#isJson ? text.length - text.trimEnd().length : 0;
    const begun = this.#stops.map((stop) => {
      let length = Math.min(stop.length - 1, text.length);
      while (length > 0 && !text.endsWith(stop.slice(0, length))) length--;
      return length;
    });
    return Math.max(space, ...begun);
  }

  /** Gives out text up to `end`, with the tokens that end there; at the end of the answer, those that begin before it. */
  #release(end: number): TextPiece {
    const text = this.#text.slice(this.#released, end);
    this.#released = end;
    const isOut = ({ start, end: last }: HeldToken) => last <= end || (this.#isDone && start < end);
    const logprobs = this.#tokens.filter(isOut).map(({ scored }) => scored);
    this.#tokens = this.#tokens.filter((token) => !isOut(token));
    return { text, logprobs };
  }
}
