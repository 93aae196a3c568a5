/**
 * Reads prompts for a server: short ones at once, long ones in a thread of their own, which is given up when it takes too long or too much memory. What clients
 * send and what a model's chat template does with it then keeps nobody else waiting.
 */
import type { Worker } from "node:worker_threads";
import { readByPredictor } from "../answer/maskSource.ts";
import type { PromptedModel } from "../answer/promptedModel.ts";
import {
  checkEnds,
  decoderAfter,
  type Prompt,
  type PromptReading,
  type ReadPrompt,
  readPrompt,
} from "../answer/prompts.ts";
import { InputError } from "../errors.ts";
import { startThread } from "../processes.ts";
import type { FormatSource } from "../text/prompt.ts";
import { fromPlain, type PlainError } from "./threadErrors.ts";

/** The model whose prompts are read. */
export interface ReaderModel extends PromptReading, Pick<PromptedModel, "manifest"> {
  readonly formatSource: FormatSource;
}

/** What the thread is given: the model at its start, … */
export type ReaderData = Omit<ReaderModel, "format">;
/** … then prompts, one at a time, and texts that only the predictor reads, … */
export type ReaderTask = { contextLength: number } & ({ prompt: Prompt } | { text: string });
/** … of each of which it says what it read, or why it did not. */
export type ReaderAnswer = "ready" | { read: Omit<ReadPrompt, "decoder"> } | { error: PlainError };

/** What is read at once, in characters of JSON and messages: some 10 ms at most. */
const [SHORT_LENGTH, FEW_MESSAGES] = [8192, 32];
/** A prompt of 100,000 tokens takes a second. */
const MAX_MS = 30_000;
const MAX_HEAP_MB = 1024;

export class PromptReader implements AsyncDisposable {
  readonly #model: ReaderModel;
  readonly #maxMs: number;
  readonly #maxHeapMb: number;
  #worker: Promise<Worker> | undefined;
  #last: Promise<unknown> = Promise.resolve();

  /** @param maxMs of a prompt, from when its turn comes */
  constructor(model: ReaderModel, { maxMs = MAX_MS, maxHeapMb = MAX_HEAP_MB } = {}) {
    this.#model = model;
    this.#maxMs = maxMs;
    this.#maxHeapMb = maxHeapMb;
  }

  /** @throws as {@link readPrompt}; {InputError} if it takes too long or too much memory */
  async read(prompt: Prompt, contextLength: number, signal?: AbortSignal): Promise<ReadPrompt> {
    if (isShort(prompt)) return readPrompt(this.#model, prompt, contextLength);
    const read = await this.#inTurn({ prompt, contextLength }, signal);
    const { tokenizer } = this.#model.format;
    return { ...read, decoder: read.isContinued ? decoderAfter(read.ids, tokenizer) : tokenizer.stream() };
  }

  /** What the predictor reads of a text. @throws as {@link PromptReader.read} */
  async readByPredictor(text: string, contextLength: number, signal?: AbortSignal): Promise<Int32Array> {
    if (isShort({ kind: "text", text })) return readPredictorText(this.#model, text, contextLength);
    return (await this.#inTurn({ text, contextLength }, signal)).ids;
  }

  #inTurn(task: ReaderTask, signal?: AbortSignal): Promise<Omit<ReadPrompt, "decoder">> {
    const reading = this.#last.then(() => {
      signal?.throwIfAborted();
      return this.#readApart(task);
    });
    this.#last = reading.catch(() => {});
    return reading;
  }

  async #readApart(task: ReaderTask): Promise<Omit<ReadPrompt, "decoder">> {
    const worker = await this.#open();
    worker.ref();
    worker.postMessage(task);
    const answer = await nextAnswer(worker, this.#maxMs).catch((error) => {
      this.#worker = undefined; // the next one gets another
      throw error;
    });
    worker.unref(); // it keeps no process from ending
    if (answer === "ready") throw new Error("internal: a reader that is ready twice");
    if ("error" in answer) throw fromPlain(answer.error);
    return answer.read;
  }

  #open(): Promise<Worker> {
    if (this.#worker) return this.#worker;
    const starting = this.#start();
    this.#worker = starting;
    const forget = () => {
      if (this.#worker === starting) this.#worker = undefined;
    };
    starting.then((worker) => worker.once("exit", forget), forget);
    return starting;
  }

  async #start(): Promise<Worker> {
    const { formatSource, hasPredictor, manifest } = this.#model;
    const worker = startThread("promptWorker", import.meta.url, {
      workerData: { formatSource, hasPredictor, manifest } satisfies ReaderData,
      resourceLimits: { maxOldGenerationSizeMb: this.#maxHeapMb },
    });
    worker.on("error", () => {}); // who waits for it is told; between prompts it says nothing
    await nextAnswer(worker);
    return worker;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const worker = this.#worker;
    this.#worker = undefined;
    await worker?.then(
      (one) => one.terminate(),
      () => {},
    );
  }
}

export function readPredictorText(
  model: Omit<ReaderModel, "formatSource">,
  text: string,
  contextLength: number,
): Int32Array {
  checkEnds(model.format.tokenizer, { kind: "text", text }, contextLength);
  return readByPredictor(model, text);
}

function isShort(prompt: Prompt): boolean {
  if (prompt.kind === "ids") return true; // more than the context are refused at once
  if (prompt.kind === "text") return prompt.text.length <= SHORT_LENGTH;
  return prompt.messages.length <= FEW_MESSAGES && JSON.stringify(prompt).length <= SHORT_LENGTH;
}

/** What a thread says next. It ends where that is not within `maxMs`. */
function nextAnswer(worker: Worker, maxMs?: number): Promise<ReaderAnswer> {
  return new Promise((resolve, reject) => {
    const refuse = (words: string) => settle(() => reject(new InputError(`prompt: wanted ${words} Shorten it.`)));
    const message = (answer: ReaderAnswer) => settle(() => resolve(answer));
    const error = (cause: NodeJS.ErrnoException) =>
      cause.code === "ERR_WORKER_OUT_OF_MEMORY"
        ? refuse("one that is read in the memory that there is for it, got one that takes more.")
        : settle(() => reject(cause));
    const exit = () => settle(() => reject(new Error("internal: the reader of prompts ended")));
    const timer = maxMs === undefined ? undefined : setTimeout(giveUp, maxMs);
    function giveUp() {
      refuse(`one that is read within ${maxMs! / 1000} s, got one that takes longer.`);
      void worker.terminate();
    }
    function settle(how: () => void) {
      clearTimeout(timer);
      worker.off("message", message).off("error", error).off("exit", exit);
      how();
    }
    worker.on("message", message).on("error", error).on("exit", exit);
  });
}
