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
import type { StepThreads } from "./threads.ts";

/** Tokens of a prompt that are read between two looks at its signal. */
const promptChunk = 128;

export class Sequences {
  /** The next one to take comes last. */
  readonly #free: { number: number; sequence: LlamaContextSequence }[];
  readonly #rounds: Rounds;

  constructor(context: LlamaContext, threads: StepThreads) {
    this.#rounds = new Rounds((numTokens, work) => threads.step(numTokens, work));
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
      (numTokens, work) => this.#rounds.step(free.number, numTokens, work),
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

/** Runs what reads a number of tokens in the next round. */
type Step = <T>(numTokens: number, work: () => Promise<T>) => Promise<T>;

export class TakenSequence implements Disposable {
  readonly #sequence: LlamaContextSequence;
  readonly #step: Step;
  readonly #release: () => void;

  constructor(sequence: LlamaContextSequence, step: Step, release: () => void) {
    this.#sequence = sequence;
    this.#step = step;
    this.#release = release;
  }

  clear(): Promise<void> {
    return this.#step(0, () => this.#sequence.clearHistory());
  }

  /** Reads a prompt but for its end, which is returned. Without a signal nothing is read: one batch is fastest. */
  async read(ids: Int32Array, signal?: AbortSignal): Promise<Token[]> {
    const tokens = Array.from(ids) as Token[];
    if (!signal) return tokens;
    let from = 0;
    for (; tokens.length - from > promptChunk; from += promptChunk) {
      const chunk = tokens.slice(from, from + promptChunk);
      await this.#step(chunk.length, () => this.#sequence.evaluateWithoutGeneratingNewTokens(chunk));
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
      for (let numTokens = input.length; ; numTokens = 1) {
        const { value, done } = await this.#step(numTokens, () => tokens.next());
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
    return this.#step(input.length, () => this.#sequence.controlledEvaluate(input));
  }

  [Symbol.dispose](): void {
    this.#release();
  }
}
