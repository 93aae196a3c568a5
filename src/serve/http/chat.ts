/** `POST /v1/chat/completions` */

import type { AnswerStage, GenerationEvent, ServedModel, TokenLogprob } from "../service.ts";
import { ApiError, invalid } from "./apiErrors.ts";
import type { Handled } from "./context.ts";
import { Answers, maskOf, samplings, servedModel } from "./generation.ts";
import { grammarSchema } from "./jsonSchema.ts";
import { readJsonBody } from "./limits.ts";
import type { StageExtension } from "./pageApi.ts";
import { type ChatBody, parseChat } from "./schemas.ts";
import { ThoughtReader } from "./thoughts.ts";
import { CallReader, plainMessages, readCall, type Said, type ToolCall, type ToolUse, toolUse } from "./tools.ts";

export async function chat(c: Handled): Promise<Response> {
  const body = parseChat(await readJsonBody(c.req.raw));
  const { service, entry, logPrompts } = c.var;
  const model = servedModel(service, body.model);
  if (logPrompts) entry.prompt = body.messages;
  const use = toolUse(body);
  if (use && !model.hasTools)
    throw new ApiError(400, "unsupported_parameter", `The chat template of ${model.id} knows no tools.`, {
      param: "tools",
    });
  const schema = use?.schema ?? answerSchema(body);
  if (use && body.response_format && body.response_format.type !== "text")
    throw invalid("response_format", "wanted the type text beside tools: an answer cannot be both.");
  if (body.logprobs && schema)
    throw invalid("logprobs", "wanted none where the answer must follow a schema: they cannot be told then.");
  if (body.top_logprobs && !body.logprobs) throw invalid("top_logprobs", "wanted logprobs to be true.");
  if (body.stream_options && !body.stream) throw invalid("stream_options", "wanted stream to be true.");
  const { max_tokens: max, max_completion_tokens: maxCompletion = max } = body;
  if (max !== undefined && max !== maxCompletion)
    throw invalid("max_tokens", "wanted this or max_completion_tokens, got both, and they differ.");
  const request = {
    prompt: { kind: "chat" as const, messages: plainMessages(body.messages), ...(use && { tools: use.tools }) },
    mask: maskOf(service, model, body, c.var.mask),
    maxTokens: maxCompletion ?? model.contextLength,
    stop: use && !use.schema && body.parallel_tool_calls === false ? [...body.stop, "</tool_call>"] : body.stop,
    logprobs: body.logprobs ? (body.top_logprobs ?? 0) : undefined,
    schema,
    withStages: body.stream_options?.include_stages,
  };
  const n = body.n ?? 1;
  const answers = new Answers(c, model, "chatcmpl");
  const events = answers.run(samplings(body, n).map((sampling) => () => answers.generate({ ...request, sampling })));
  const isContinued = body.messages.at(-1)!.role === "assistant";
  const readers = Array.from(
    { length: n },
    () => new AnswerReader(use, schema || isContinued ? undefined : model.thoughts),
  );
  const frames = readFrames(events, readers);
  if (body.stream) return answers.stream(chunks(answers, frames, body));
  return c.json(await whole(answers, frames, body));
}

function answerSchema({ response_format: format }: ChatBody): object | undefined {
  if (format?.type === "json_object") return { type: "object", properties: {}, additionalProperties: true };
  if (format?.type === "json_schema")
    return grammarSchema(format.json_schema.schema, "response_format.json_schema.schema");
  return undefined;
}

/** A step of one answer. */
interface Frame {
  index: number;
  /** Of an answer that has not begun. */
  stage?: AnswerStage;
  said?: Said;
  logprobs?: TokenLogprob[];
  finish?: "stop" | "length" | "tool_calls";
}

/** Turns events into text and calls. The frame that opens an answer is empty. */
async function* readFrames(
  events: AsyncGenerator<[number, GenerationEvent], void, void>,
  readers: readonly AnswerReader[],
): AsyncGenerator<Frame, void, void> {
  for await (const [index, event] of events) {
    if (event.type === "start") yield { index };
    else if (event.type === "stage") yield { index, stage: event.stage };
    else for (const frame of readers[index]!.read(event)) yield { index, ...frame };
  }
}

class AnswerReader {
  readonly #use: ToolUse | undefined;
  readonly #thoughts: ThoughtReader | undefined;
  readonly #calls: CallReader | undefined;
  /** Of an answer that is a call as a whole. */
  #json = "";
  #hasCalls = false;
  #logprobs: TokenLogprob[] = [];

  constructor(use: ToolUse | undefined, thoughts: ServedModel["thoughts"]) {
    this.#use = use;
    this.#thoughts = thoughts && new ThoughtReader(thoughts === "opened");
    this.#calls = use && !use.schema ? new CallReader(use.tools) : undefined;
  }

  *read(event: Exclude<GenerationEvent, { type: "start" | "stage" }>): Generator<Omit<Frame, "index">> {
    if (event.type === "text") {
      this.#logprobs.push(...(event.logprobs ?? []));
      yield* this.#frames(this.#thoughts?.push(event.text) ?? [event]);
      return;
    }
    yield* this.#frames(this.#thoughts?.end() ?? []);
    yield* this.#said(this.#end(event.finishReason === "stop"));
    const finish = this.#hasCalls && event.finishReason === "stop" ? "tool_calls" : event.finishReason;
    yield { finish, ...this.#takeLogprobs() };
  }

  #read(text: string): Said[] {
    if (!this.#use) return [{ text }];
    if (this.#calls) return this.#calls.push(text);
    this.#json += text;
    return [];
  }

  #end(isWhole: boolean): Said[] {
    if (this.#calls) return this.#calls.end(isWhole);
    if (!this.#use) return [];
    const call = readCall(this.#json, new Set(this.#use.tools.map((tool) => tool.function.name)));
    return [call ? { call } : { text: this.#json }];
  }

  *#frames(all: readonly Said[]): Generator<Omit<Frame, "index">> {
    for (const said of all) yield* this.#said("text" in said ? this.#read(said.text) : [said]);
  }

  *#said(all: readonly Said[]): Generator<Omit<Frame, "index">> {
    for (const said of all) {
      if ("call" in said) this.#hasCalls = true;
      else if ("text" in said && this.#hasCalls && said.text.trim() === "") continue; // between calls
      yield { said, ...this.#takeLogprobs() };
    }
  }

  #takeLogprobs(): { logprobs?: TokenLogprob[] } {
    const logprobs = this.#logprobs;
    this.#logprobs = [];
    return logprobs.length > 0 ? { logprobs } : {};
  }
}

async function whole(
  answers: Answers,
  frames: AsyncGenerator<Frame, void, void>,
  { n = 1, logprobs: withLogprobs }: ChatBody,
): Promise<object> {
  const choices = Array.from({ length: n }, () => ({
    text: "",
    thought: "",
    calls: [] as ToolCall[],
    logprobs: [] as TokenLogprob[],
    finish: undefined as Frame["finish"],
  }));
  for await (const { index, said, logprobs, finish } of frames) {
    const choice = choices[index]!;
    if (said && "text" in said) choice.text += said.text;
    else if (said && "thought" in said) choice.thought += said.thought;
    else if (said) choice.calls.push(said.call);
    choice.logprobs.push(...(logprobs ?? []));
    choice.finish = finish;
  }
  return {
    ...answers.head("chat.completion"),
    choices: choices.map(({ text, thought, calls, logprobs, finish }, index) => ({
      index,
      message: {
        role: "assistant",
        content: calls.length > 0 && text.trim() === "" ? null : text,
        refusal: null,
        ...(thought !== "" && { reasoning_content: thought }),
        ...(calls.length > 0 && { tool_calls: calls }),
      },
      logprobs: withLogprobs ? { content: logprobs.map(chatLogprob), refusal: null } : null,
      finish_reason: finish,
    })),
    usage: answers.usage(n),
    ifprune: answers.extension(0),
  };
}

async function* chunks(
  answers: Answers,
  frames: AsyncGenerator<Frame, void, void>,
  { n, stream_options: options }: ChatBody,
): AsyncGenerator<object, void, void> {
  const usage = options?.include_usage ? { usage: null } : {};
  const head = () => answers.head("chat.completion.chunk");
  const numCalls = new Map<number, number>();
  for await (const { index, stage, said, logprobs, finish } of frames) {
    if (stage) {
      yield { ...head(), choices: [], ...usage, ifprune: { index, stage } satisfies StageExtension };
      continue;
    }
    let delta: object = {};
    if (said && "text" in said) delta = { content: said.text };
    else if (said && "thought" in said) delta = { reasoning_content: said.thought };
    else if (said) {
      const call = numCalls.get(index) ?? 0;
      numCalls.set(index, call + 1);
      delta = { tool_calls: [{ index: call, ...said.call }] };
    } else if (!finish) delta = { role: "assistant", content: "" };
    const opened = options?.include_stages && "role" in delta && { mask: answers.mask(index) };
    const told = logprobs ? { content: logprobs.map(chatLogprob), refusal: null } : null;
    yield {
      ...head(),
      choices: [{ index, delta, logprobs: told, finish_reason: finish ?? null }],
      ...usage,
      ...(opened && { ifprune: opened satisfies StageExtension }),
      ...(finish && { ifprune: answers.extension(index) }),
    };
  }
  if (options?.include_usage) yield { ...head(), choices: [], usage: answers.usage(n ?? 1) };
}

function chatLogprob({ text, logprob, top }: TokenLogprob): object {
  const one = (token: string, value: number) => ({
    token,
    logprob: finite(value),
    bytes: token.includes("\uFFFD") ? null : [...Buffer.from(token)], // a part of a character has no text
  });
  return { ...one(text, logprob), top_logprobs: top.map((other) => one(other.text, other.logprob)) };
}

/** JSON knows no infinity; −9999 is what OpenAI sends for a token out of the question. */
export const finite = (logprob: number): number => Math.max(logprob, -9999);
