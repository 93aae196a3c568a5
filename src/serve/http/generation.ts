/** What chat and plain completions share: from a request's fields to answers under way, several at a time, and what is told of them. */
import { randomInt, randomUUID } from "node:crypto";
import { InputError } from "../../errors.ts";
import type {
  Budget,
  GenerationEvent,
  GenerationRequest,
  InferenceService,
  MaskInfo,
  MaskRequest,
  Sampling,
  ServedModel,
  TokenLogprob,
} from "../service.ts";
import { ApiError, invalid, toApiError } from "./apiErrors.ts";
import type { Handled } from "./context.ts";
import { limits } from "./limits.ts";
import type { CompletionExtension } from "./pageApi.ts";
import { type BudgetBody, SAMPLING_FIELDS, type SamplingBody } from "./schemas.ts";
import { objectStream, type StreamFormat, serverSentEvents } from "./sse.ts";

/** @throws {ApiError} if no model has the name */
export function servedModel(service: InferenceService, id: string): ServedModel {
  const models = service.models();
  const model = models.find((one) => one.id === id);
  if (model) return model;
  const known = models.map((one) => one.id).join(", ");
  throw new ApiError(404, "model_not_found", `The model "${id.slice(0, 100)}" does not exist. There is: ${known}.`, {
    param: "model",
  });
}

/** Share or count that a body asks for. @throws {ApiError} if it has both, or more channels than the model */
export function budgetOf(model: ServedModel, { keep, max_loss: maxLoss, t_ffn: tFfn }: BudgetBody): Budget {
  if (keep !== undefined && tFfn !== undefined) throw invalid("keep", "wanted this or t_ffn, got both.");
  if (maxLoss !== undefined && keep !== "auto") throw invalid("max_loss", 'wanted keep to be "auto".');
  if (keep === "auto" && !model.quality) throw invalid("keep", `wanted a share: ${model.id} was not measured.`);
  if (tFfn !== undefined && tFfn > model.dFfn)
    throw invalid("t_ffn", `wanted at most ${model.dFfn}, the channels of a layer, got ${tFfn}.`);
  return { keep, maxLoss, tFfn };
}

/** The mask that a request asks for. @param fallback of requests that say nothing @throws {ApiError} if there is no such task or mask, or it has a size already */
export function maskOf(
  service: InferenceService,
  model: ServedModel,
  body: BudgetBody & { mask?: MaskRequest | undefined },
  fallback: MaskRequest,
): MaskRequest {
  const budget = budgetOf(model, body);
  const isSized = (budget.keep ?? budget.tFfn) !== undefined;
  const mask = body.mask ?? (isSized ? { kind: "auto" as const } : fallback);
  if (isSized && mask.kind !== "auto")
    throw invalid(body.keep === undefined ? "t_ffn" : "keep", `wanted none beside a mask that is given, got one.`);
  return mask.kind === "auto" ? { ...mask, ...(isSized && budget) } : knownMask(service, model.id, mask);
}

function knownMask(service: InferenceService, model: string, mask: MaskRequest): MaskRequest {
  if (mask.kind === "task" && !service.tasks(model).some((task) => task.name === mask.name))
    throw new ApiError(404, "task_not_found", `The task "${mask.name}" does not exist.`, { param: "mask" });
  if (mask.kind === "id") storedMask(service, model, mask.id);
  return mask;
}

/** @throws {ApiError} if there is no such mask */
export function storedMask(
  service: InferenceService,
  model: string,
  id: string,
): ReturnType<InferenceService["maskById"]> {
  try {
    return service.maskById(model, id);
  } catch (cause) {
    if (!(cause instanceof InputError)) throw cause;
    throw new ApiError(404, "mask_not_found", `The mask "${id.slice(0, 128)}" does not exist.`, {
      param: "mask",
      cause,
    });
  }
}

/** Choice `i` of a request has the seed `seed + i`, of which the low 32 bits count. */
export function samplings(body: SamplingBody, count: number): Sampling[] {
  const seed = body.seed ?? randomInt(2 ** 32);
  const of = (name: keyof typeof SAMPLING_FIELDS) => body[name] ?? SAMPLING_FIELDS[name].fallback;
  return Array.from({ length: count }, (_, i) => ({
    temperature: of("temperature"),
    topP: of("top_p"),
    topK: Math.max(0, of("top_k")), // vLLM writes −1 for no limit
    minP: of("min_p"),
    seed: (seed + i) >>> 0,
    frequencyPenalty: of("frequency_penalty"),
    presencePenalty: of("presence_penalty"),
    repeatPenalty: of("repetition_penalty"),
    logitBias: new Map(Object.entries(body.logit_bias ?? {}).map(([id, bias]) => [Number(id), bias])),
  }));
}

/**
 * Several sources at a time, their items as they come, with the number of the source. An early end or an error ends all of them.
 *
 * @param stop aborts what the sources wait for
 */
async function* merge<T>(
  sources: readonly (() => AsyncGenerator<T, void, void>)[],
  stop: AbortController,
): AsyncGenerator<[index: number, item: T], void, void> {
  const running = new Map<number, AsyncGenerator<T, void, void>>();
  const next = new Map<number, Promise<[number, IteratorResult<T, void>]>>();
  const advance = (index: number) => {
    const promise = running
      .get(index)!
      .next()
      .then((result): [number, IteratorResult<T, void>] => [index, result]);
    promise.catch(() => {}); // told below, or not at all if another failed before
    next.delete(index); // to the end of the line
    next.set(index, promise);
  };
  let started = 0;
  try {
    for (;;) {
      for (; running.size < limits.concurrent && started < sources.length; started++) {
        running.set(started, sources[started]!());
        advance(started);
      }
      if (running.size === 0) return;
      const [index, { value, done }] = await Promise.race(next.values());
      if (done) {
        running.delete(index);
        next.delete(index);
        continue;
      }
      yield [index, value];
      advance(index);
    }
  } finally {
    if (running.size > 0) stop.abort();
    await Promise.allSettled([...running.values()].map((source) => source.return()));
  }
}

/** Answers of one request under way: their events, and what is told of all of them. */
export class Answers<Extra extends { type: string } = never> {
  readonly id: string;
  readonly created = Math.floor(Date.now() / 1000);
  /** Of a stream whose client is gone. */
  readonly stop = new AbortController();
  /** Of the other answers, once one has failed. */
  readonly #failure = new AbortController();
  readonly signal: AbortSignal;
  readonly #starts = new Map<number, Extract<GenerationEvent, { type: "start" }>>();
  readonly #extensions = new Map<number, CompletionExtension>();
  #completionTokens = 0;

  constructor(
    readonly c: Handled,
    readonly model: ServedModel,
    prefix: string,
  ) {
    this.id = `${prefix}${randomUUID().replaceAll("-", "")}`;
    this.signal = AbortSignal.any([c.req.raw.signal, this.stop.signal, this.#failure.signal]);
    c.var.entry.model = model.id;
  }

  /** One answer, measured. */
  generate(request: Omit<GenerationRequest, "signal">): AsyncGenerator<GenerationEvent, void, void> {
    const { service, metrics } = this.c.var;
    return metrics.measured(service.generate(this.model.id, { ...request, signal: this.signal }));
  }

  /**
   * @param sources each ends with an event of type `end`
   * @throws {ApiError} if the client goes away
   */
  async *run(
    sources: readonly (() => AsyncGenerator<GenerationEvent | Extra, void, void>)[],
  ): AsyncGenerator<[index: number, event: GenerationEvent | Extra], void, void> {
    const { entry } = this.c.var;
    let ended = 0;
    try {
      for await (const [index, event] of merge(sources, this.#failure)) {
        if (isStart(event)) {
          this.#starts.set(index, event);
          entry.mask = event.mask.id;
          entry.from = event.mask.from;
          entry.promptTokens = (entry.promptTokens ?? 0) + event.promptTokens;
        } else if (isEnd(event)) {
          ended++;
          this.#completionTokens += event.completionTokens;
          entry.completionTokens = this.#completionTokens;
          const start = this.#starts.get(index);
          if (start) this.#extensions.set(index, { mask: maskExtension(start.mask), ms: event.ms });
        }
        yield [index, event];
      }
    } catch (error) {
      throw this.#isGone ? gone(error) : error;
    }
    if (this.#isGone) throw gone();
    if (ended < sources.length) throw new Error("internal: an answer without an end");
  }

  /** @param perPrompt answers of each prompt: a prompt counts once */
  usage(perPrompt: number): { prompt_tokens: number; completion_tokens: number; total_tokens: number } {
    let prompt = 0;
    for (const [index, start] of this.#starts) if (index % perPrompt === 0) prompt += start.promptTokens;
    return {
      prompt_tokens: prompt,
      completion_tokens: this.#completionTokens,
      total_tokens: prompt + this.#completionTokens,
    };
  }

  get #isGone(): boolean {
    return this.c.req.raw.signal.aborted || this.stop.signal.aborted;
  }

  /** Of an answer that has started. */
  mask(index: number): CompletionExtension["mask"] {
    return maskExtension(this.#starts.get(index)!.mask);
  }

  /** Of an answer that has ended. */
  extension(index: number): CompletionExtension | undefined {
    return this.#extensions.get(index);
  }

  /** The fields that every object of an answer begins with. */
  head(object: string): { id: string; object: string; created: number; model: string; system_fingerprint: string } {
    const { id: mask = "none", form } = this.#starts.values().next().value?.mask ?? {};
    const { id, created, model } = this;
    const fingerprint = ["ifprune", mask, ...(form === undefined ? [] : [form])].join("-"); // forms differ in the last bits
    return { id, object, created, model: model.id, system_fingerprint: fingerprint };
  }

  /** An answer as it comes. */
  stream(chunks: AsyncGenerator<object, void, void>, format?: StreamFormat): Promise<Response> {
    return streamed(this.c, chunks, this.stop, format);
  }
}

/**
 * Objects as they come. What fails before the first of them is an ordinary error.
 *
 * @param stop aborts what they wait for, once the client is gone
 */
export async function streamed(
  c: Handled,
  objects: AsyncGenerator<object, void, void>,
  stop: AbortController,
  format = serverSentEvents,
): Promise<Response> {
  const first = await objects.next();
  c.set("isStream", true);
  c.var.entry.status = 200;
  const stream = objectStream(objects, first, format, {
    stop: () => stop.abort(),
    onError: (error) => noteError(c, error),
    onEnd: () => {
      if (c.req.raw.signal.aborted || stop.signal.aborted) c.var.entry.status = gone().status;
      c.var.finish();
    },
  });
  return new Response(stream, {
    headers: {
      "content-type": format.contentType,
      "cache-control": "no-store",
      "x-accel-buffering": "no", // proxies hold nothing back
    },
  });
}

/** Tells the log of an error; of a fault of ours, the stack too. */
export function noteError({ var: { entry } }: Handled, error: unknown): ApiError {
  const told = toApiError(error);
  entry.status = told.status;
  entry.error = told.code;
  const { cause } = told;
  if (told.status >= 500 && cause instanceof Error)
    entry.detail = told.code === "internal_error" ? (cause.stack ?? cause.message) : cause.message;
  return told;
}

function maskExtension(info: MaskInfo): CompletionExtension["mask"] {
  const { id, source, tFfn, dFfn, form, formReason, formMs, from, quality } = info;
  const told = { form, form_reason: formReason, ...(formMs && { form_ms: formMs }) };
  return { id, source, t_ffn: tFfn, d_ffn: dFfn, kept_share: tFfn / dFfn, ...told, from, ...quality };
}

/** 499, as servers say it in their logs: nobody reads the answer. */
export function gone(cause?: unknown): ApiError {
  return new ApiError(499 as 400, "client_closed_request", "The client went away.", { cause });
}

const isStart = (event: { type: string }): event is Extract<GenerationEvent, { type: "start" }> =>
  event.type === "start";
const isEnd = (event: { type: string }): event is Extract<GenerationEvent, { type: "end" }> => event.type === "end";

/** A token as the APIs of conversations tell it. */
export function chatLogprob({ text, logprob, top }: TokenLogprob): object {
  const one = (token: string, value: number) => ({
    token,
    logprob: finite(value),
    bytes: token.includes("\uFFFD") ? null : [...Buffer.from(token)], // a part of a character has no text
  });
  return { ...one(text, logprob), top_logprobs: top.map((other) => one(other.text, other.logprob)) };
}

/** JSON knows no infinity; −9999 is what OpenAI sends for a token out of the question. */
export const finite = (logprob: number): number => Math.max(logprob, -9999);
