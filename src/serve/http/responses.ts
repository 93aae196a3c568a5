/** `POST /v1/responses`: OpenAI's newer API of conversations, whose answers are lists of items. Nothing is stored: each request brings all of its conversation. */
import { randomUUID } from "node:crypto";
import type { TokenLogprob } from "../service.ts";
import type { ApiError } from "./apiErrors.ts";
import { type AnswerFrame, openAnswers, withNames } from "./chatAnswers.ts";
import type { Handled } from "./context.ts";
import { type Answers, chatLogprob, noteError } from "./generation.ts";
import { readJsonBody } from "./limits.ts";
import { askedBy, parseResponse, type ResponseBody } from "./responseBody.ts";
import { SAMPLING_FIELDS } from "./schemas.ts";
import { type StreamFormat, serverSentEvents } from "./sse.ts";
import type { ToolCall } from "./tools.ts";

export async function responses(c: Handled): Promise<Response> {
  const body = parseResponse(await readJsonBody(c.req.raw));
  const { asked, nameOf } = askedBy(body);
  const { answers, frames } = withNames(nameOf, () => openAnswers(c, asked, "resp_"));
  const written = new WrittenResponse(answers, body);
  if (body.stream) return answers.stream(untilFailure(c, written, frames), typedEvents);
  for await (const _ of written.events(frames));
  return c.json(written.object());
}

interface ResponseEvent {
  type: string;
  sequence_number: number;
}

/** Events that say their type twice, as OpenAI's; none ends them. */
const typedEvents: StreamFormat = {
  ...serverSentEvents,
  write: (event) => `event: ${(event as ResponseEvent).type}\n${serverSentEvents.write(event)}`,
  end: "",
};

/** What fails once the answer has begun is told as the last event. */
async function* untilFailure(
  c: Handled,
  written: WrittenResponse,
  frames: AsyncGenerator<AnswerFrame, void, void>,
): AsyncGenerator<ResponseEvent, void, void> {
  try {
    yield* written.events(frames);
  } catch (error) {
    if (!written.hasBegun) throw error;
    yield written.failure(noteError(c, error));
  }
}

/** An item of the answer while it grows. */
interface OpenItem {
  kind: "reasoning" | "message";
  id: string;
  text: string;
  logprobs: object[];
}

const nothing: { text: string; logprobs: readonly TokenLogprob[] } = { text: "", logprobs: [] };

const itemId = (prefix: string) => `${prefix}_${randomUUID().replaceAll("-", "")}`;

/** An answer as a response object, and as the events by which it grows. */
class WrittenResponse {
  readonly #answers: Answers;
  readonly #body: ResponseBody;
  readonly #output: object[] = [];
  #open: OpenItem | undefined;
  /** White space, which is no item where a call follows it. */
  #held = nothing;
  #status: "in_progress" | "completed" | "incomplete" | "failed" = "in_progress";
  #error: { code: string; message: string } | null = null;
  /** Pieces of thoughts: one token each, but where a character has several. */
  #numThoughts = 0;
  #numEvents = 0;

  constructor(answers: Answers, body: ResponseBody) {
    this.#answers = answers;
    this.#body = body;
  }

  get hasBegun(): boolean {
    return this.#numEvents > 0;
  }

  async *events(frames: AsyncGenerator<AnswerFrame, void, void>): AsyncGenerator<ResponseEvent, void, void> {
    for await (const { said, logprobs = [], finish } of frames) {
      if (finish) yield* this.#end(finish, logprobs);
      else if (!said) {
        yield this.#event("response.created", { response: this.object() });
        yield this.#event("response.in_progress", { response: this.object() });
      } else if ("thought" in said) {
        this.#numThoughts++;
        yield* this.#say("reasoning", said.thought, []);
      } else if ("text" in said) yield* this.#sayText(said.text, logprobs);
      else yield* this.#call(said.call);
    }
  }

  failure({ status, message }: ApiError): ResponseEvent {
    this.#status = "failed";
    const code = status === 429 ? "rate_limit_exceeded" : status >= 500 ? "server_error" : "invalid_prompt";
    this.#error = { code, message };
    return this.#event("response.failed", { response: this.object() });
  }

  object(): object {
    const body = this.#body;
    const answers = this.#answers;
    const { id, created, model } = answers;
    const hasEnded = this.#status === "completed" || this.#status === "incomplete";
    return {
      id,
      object: "response",
      created_at: created,
      status: this.#status,
      completed_at: this.#status === "completed" ? Math.floor(Date.now() / 1000) : null,
      background: false,
      error: this.#error,
      incomplete_details: this.#status === "incomplete" ? { reason: "max_output_tokens" } : null,
      instructions: body.instructions ?? null,
      max_output_tokens: body.max_output_tokens ?? null,
      max_tool_calls: body.max_tool_calls ?? null,
      model: model.id,
      output: [...this.#output, ...(this.#open ? [itemOf(this.#open, "incomplete")] : [])],
      parallel_tool_calls: body.parallel_tool_calls ?? true,
      previous_response_id: null,
      prompt_cache_key: body.prompt_cache_key ?? null,
      reasoning: { effort: null, summary: null },
      safety_identifier: body.safety_identifier ?? null,
      service_tier: "default",
      store: false,
      temperature: body.temperature ?? SAMPLING_FIELDS.temperature.fallback,
      text: { format: body.text?.format ?? { type: "text" }, verbosity: "medium" },
      tool_choice: body.tool_choice ?? "auto",
      tools: (body.tools ?? []).map((tool) => ({ ...tool, strict: tool.strict ?? false })),
      top_logprobs: body.top_logprobs ?? 0,
      top_p: body.top_p ?? SAMPLING_FIELDS.top_p.fallback,
      truncation: "disabled",
      usage: hasEnded ? this.#usage() : null,
      user: body.user ?? null,
      metadata: body.metadata ?? {},
      ifprune: answers.extension(0) ?? { mask: answers.mask(0) },
    };
  }

  #usage(): object {
    const { prompt_tokens, completion_tokens, total_tokens } = this.#answers.usage(1);
    return {
      input_tokens: prompt_tokens,
      input_tokens_details: { cached_tokens: 0, cache_write_tokens: 0 },
      output_tokens: completion_tokens,
      output_tokens_details: { reasoning_tokens: this.#numThoughts },
      total_tokens,
    };
  }

  #event(type: string, fields: object): ResponseEvent {
    return { type, sequence_number: this.#numEvents++, ...fields };
  }

  *#sayText(text: string, logprobs: readonly TokenLogprob[]): Generator<ResponseEvent> {
    const all = { text: this.#held.text + text, logprobs: [...this.#held.logprobs, ...logprobs] };
    const isHeld = this.#open?.kind !== "message" && all.text.trim() === "";
    this.#held = isHeld ? all : nothing;
    if (!isHeld) yield* this.#say("message", all.text, all.logprobs);
  }

  *#say(kind: OpenItem["kind"], text: string, scored: readonly TokenLogprob[]): Generator<ResponseEvent> {
    const open = this.#open?.kind === kind ? this.#open : yield* this.#openItem(kind);
    const logprobs = scored.map(chatLogprob);
    open.text += text;
    open.logprobs.push(...logprobs);
    yield this.#event(kind === "message" ? "response.output_text.delta" : "response.reasoning_text.delta", {
      ...this.#place(open),
      delta: text,
      ...(kind === "message" && { logprobs }),
    });
  }

  *#openItem(kind: OpenItem["kind"]): Generator<ResponseEvent, OpenItem> {
    yield* this.#close("completed");
    const open: OpenItem = { kind, id: itemId(kind === "message" ? "msg" : "rs"), text: "", logprobs: [] };
    this.#open = open;
    const item = { ...itemOf(open, "in_progress"), content: [] };
    yield this.#event("response.output_item.added", { output_index: this.#output.length, item });
    yield this.#event("response.content_part.added", { ...this.#place(open), part: partOf(open) });
    return open;
  }

  *#close(status: "completed" | "incomplete"): Generator<ResponseEvent> {
    const open = this.#open;
    if (!open) return;
    const { kind, text, logprobs } = open;
    const place = this.#place(open);
    if (kind === "message") yield this.#event("response.output_text.done", { ...place, text, logprobs });
    else yield this.#event("response.reasoning_text.done", { ...place, text });
    yield this.#event("response.content_part.done", { ...place, part: partOf(open) });
    this.#open = undefined;
    yield this.#itemDone(itemOf(open, status));
  }

  *#call({ id: call_id, function: { name, arguments: json } }: ToolCall): Generator<ResponseEvent> {
    yield* this.#close("completed");
    this.#held = nothing;
    const item = { id: itemId("fc"), type: "function_call", call_id, name };
    const place = { item_id: item.id, output_index: this.#output.length };
    const added = { ...item, arguments: "", status: "in_progress" };
    yield this.#event("response.output_item.added", { output_index: place.output_index, item: added });
    yield this.#event("response.function_call_arguments.delta", { ...place, delta: json });
    yield this.#event("response.function_call_arguments.done", { ...place, name, arguments: json });
    yield this.#itemDone({ ...item, arguments: json, status: "completed" });
  }

  #itemDone(item: object): ResponseEvent {
    const output_index = this.#output.push(item) - 1;
    return this.#event("response.output_item.done", { output_index, item });
  }

  *#end(finish: "stop" | "length" | "tool_calls", logprobs: readonly TokenLogprob[]): Generator<ResponseEvent> {
    this.#status = finish === "length" ? "incomplete" : "completed";
    if (this.#open?.kind === "message") this.#open.logprobs.push(...logprobs.map(chatLogprob));
    else if (!this.#open && this.#output.length === 0) {
      const { text, logprobs: before } = this.#held;
      yield* this.#say("message", text, [...before, ...logprobs]);
    }
    yield* this.#close(this.#status);
    yield this.#event(`response.${this.#status}`, { response: this.object() });
  }

  #place({ id }: OpenItem): object {
    return { item_id: id, output_index: this.#output.length, content_index: 0 };
  }
}

function partOf({ kind, text, logprobs }: OpenItem): object {
  return kind === "message"
    ? { type: "output_text", text, annotations: [], logprobs: [...logprobs] }
    : { type: "reasoning_text", text };
}

function itemOf(open: OpenItem, status: string): object {
  const { kind, id } = open;
  const content = [partOf(open)];
  return kind === "message"
    ? { id, type: "message", status, role: "assistant", content }
    : { id, type: "reasoning", summary: [], content, status };
}
