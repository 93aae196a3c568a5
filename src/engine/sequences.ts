/** The sequences of a context of llama.cpp: each is one call's at a time, and the steps of all are computed in rounds. */
import type {
  ControlledEvaluateIndexOutput,
  ControlledEvaluateInputItem,
  LlamaContext,
  LlamaContextSequence,
  SequenceEvaluateOptions,
  Token,
} from "node-llama-cpp";
import { Rounds } from "./rounds.ts";

/** Tokens of a prompt that are read between two looks at its signal. */
const promptChunk = 128;

export class Sequences {
  /** The next one to take comes last. */
  readonly #free: { number: number; sequence: LlamaContextSequence }[];
  readonly #rounds = new Rounds();

  constructor(context: LlamaContext) {
    this.#free = Array.from({ length: context.totalSequences }, (_, number) => ({
      number,
      sequence: context.getSequence(),
    })).reverse();
  }

  /** One that has read nothing. Disposing frees it for the next call. */
  async take(): Promise<TakenSequence> {
    const free = this.#free.pop();
    if (!free) throw new Error("internal: more calls at a time than the engine has sequences");
    const taken = new TakenSequence(
      free.sequence,
      (work) => this.#rounds.step(free.number, work),
      () => {
        this.#free.push(free);
        this.#free.sort((a, b) => b.number - a.number);
      },
    );
    try {
      await taken.clear();
      return taken;
    } catch (error) {
      taken[Symbol.dispose]();
      throw error;
    }
  }
}

export class TakenSequence implements Disposable {
  readonly #sequence: LlamaContextSequence;
  readonly #step: <T>(work: () => Promise<T>) => Promise<T>;
  readonly #release: () => void;

  constructor(sequence: LlamaContextSequence, step: <T>(work: () => Promise<T>) => Promise<T>, release: () => void) {
    this.#sequence = sequence;
    this.#step = step;
    this.#release = release;
  }

  clear(): Promise<void> {
    return this.#step(() => this.#sequence.clearHistory());
  }

  /** Reads a prompt but for its end, which is returned. Without a signal nothing is read: one batch is fastest. */
  async read(ids: Int32Array, signal?: AbortSignal): Promise<Token[]> {
    const tokens = Array.from(ids) as Token[];
    if (!signal) return tokens;
    let from = 0;
    for (; tokens.length - from > promptChunk; from += promptChunk) {
      const chunk = tokens.slice(from, from + promptChunk);
      await this.#step(() => this.#sequence.evaluateWithoutGeneratingNewTokens(chunk));
      signal.throwIfAborted();
    }
    return tokens.slice(from);
  }

  /** Reads tokens, then says those that llama.cpp draws, until one ends the answer. */
  async *generate(
    input: Token[],
    options: SequenceEvaluateOptions,
    signal?: AbortSignal,
  ): AsyncGenerator<Token, void, void> {
    const tokens = this.#sequence.evaluate(input, options);
    try {
      for (;;) {
        const { value, done } = await this.#step(() => tokens.next());
        signal?.throwIfAborted();
        if (done) return;
        yield value;
      }
    } finally {
      await tokens.return();
    }
  }

  /** Reads tokens, and gives what is asked for at each. */
  evaluate(input: ControlledEvaluateInputItem[]): Promise<(ControlledEvaluateIndexOutput | undefined)[]> {
    return this.#step(() => this.#sequence.controlledEvaluate(input));
  }

  [Symbol.dispose](): void {
    this.#release();
  }
}
