/** What the routes of conversations share (chat, responses, Ollama's): from what is asked to an answer's text, thoughts and calls as they come. */
import { isBegun } from "../../answer/prompts.ts";
import type { TemplateVariables } from "../../text/chatTemplate.ts";
import type { AnswerStage, GenerationEvent, Prompt, ServedModel, TokenLogprob } from "../service.ts";
import { ApiError, invalid } from "./apiErrors.ts";
import type { Handled } from "./context.ts";
import { Answers, maskOf, samplings, servedModel } from "./generation.ts";
import { grammarSchema } from "./jsonSchema.ts";
import type { ChatBody, Message } from "./schemas.ts";
import { ThoughtReader } from "./thoughts.ts";
import { CallReader, plainMessages, readCall, type Said, type ToolUse, toolUse } from "./tools.ts";

/** What is asked, in the words of the chat route; what other routes are asked is put into them. */
export type Asked = Pick<ChatBody, "model"> &
  Partial<Omit<ChatBody, "messages" | "store">> & {
    /** A text is continued as it is, without a chat template. */
    messages: readonly Message[] | string;
  };

/**
 * Begins the answers to what is asked.
 *
 * @param prefix of their id
 * @throws {ApiError} if it cannot be done
 */
export function openAnswers(
  c: Handled,
  asked: Asked,
  prefix: string,
): { answers: Answers; frames: AsyncGenerator<AnswerFrame, void, void> } {
  const { service, entry, logPrompts } = c.var;
  const { messages, stop = [], n = 1 } = asked;
  const model = servedModel(service, asked.model);
  if (logPrompts) entry.prompt = messages;
  const use = toolUse(asked);
  if (use && !model.hasTools)
    throw new ApiError(400, "unsupported_parameter", `The chat template of ${model.id} knows no tools.`, {
      param: "tools",
    });
  const schema = use?.schema ?? answerSchema(asked);
  if (use && asked.response_format && asked.response_format.type !== "text")
    throw invalid("response_format", "wanted the type text beside tools: an answer cannot be both.");
  if (asked.logprobs && schema)
    throw invalid("logprobs", "wanted none where the answer must follow a schema: they cannot be told then.");
  if (asked.top_logprobs && !asked.logprobs) throw invalid("top_logprobs", "wanted logprobs to be true.");
  if (asked.stream_options && !asked.stream) throw invalid("stream_options", "wanted stream to be true.");
  const { max_tokens: max, max_completion_tokens: maxCompletion = max } = asked;
  if (max !== undefined && max !== maxCompletion)
    throw invalid("max_tokens", "wanted this or max_completion_tokens, got both, and they differ.");
  const prompt: Prompt =
    typeof messages === "string"
      ? { kind: "text", text: messages }
      : {
          kind: "chat",
          messages: plainMessages(messages),
          ...(use && { tools: use.tools }),
          ...variablesOf(asked, model),
        };
  const request = {
    prompt,
    mask: maskOf(service, model, asked, c.var.mask),
    maxTokens: maxCompletion ?? model.contextLength,
    stop: use && !use.schema && asked.parallel_tool_calls === false ? [...stop, "</tool_call>"] : stop,
    logprobs: asked.logprobs ? (asked.top_logprobs ?? 0) : undefined,
    schema,
    withStages: asked.stream_options?.include_stages,
  };
  const answers = new Answers(c, model, prefix);
  const events = answers.run(samplings(asked, n).map((sampling) => () => answers.generate({ ...request, sampling })));
  const mayThink = !schema && prompt.kind === "chat" && !isBegun(prompt.messages.at(-1));
  const readers = Array.from({ length: n }, () => new AnswerReader(use, mayThink, model.thoughts));
  return { answers, frames: readFrames(events, readers) };
}

/** Of the chat template, with what llama-server, others and OpenAI have as a field of its own. */
function variablesOf(
  { chat_template_kwargs: given, enable_thinking, reasoning_effort: effort }: Asked,
  { id, thoughts, hasThinkingSwitch }: ServedModel,
): { variables?: TemplateVariables } {
  const isSilenced = effort === "none" && thoughts !== undefined;
  if (isSilenced && !hasThinkingSwitch) throw invalid("reasoning_effort", `wanted none of it: ${id} always thinks.`);
  const thinks = isSilenced ? (enable_thinking ?? false) : enable_thinking;
  if (isSilenced && thinks) throw invalid("enable_thinking", "wanted what reasoning_effort says, got something else.");
  if (thinks === undefined) return given ? { variables: given } : {};
  if ((given?.enable_thinking ?? thinks) !== thinks)
    throw invalid("enable_thinking", "wanted what chat_template_kwargs says, got something else.");
  return { variables: { ...given, enable_thinking: thinks } };
}

function answerSchema({ response_format: format }: Asked): object | undefined {
  if (format?.type === "json_object") return { type: "object", properties: {}, additionalProperties: true };
  if (format?.type === "json_schema")
    return grammarSchema(format.json_schema.schema, "response_format.json_schema.schema");
  return undefined;
}

/** Reads what is asked. An error names the field of the body that it came from, which `nameOf` knows by its name in {@link Asked}. */
export function withNames<T>(nameOf: (param: string) => string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof ApiError) || error.details.param === undefined) throw error;
    const { status, code, message, details } = error;
    const param = nameOf(error.details.param);
    throw new ApiError(status, code, message.replace(error.details.param, param), { ...details, param });
  }
}

/** A step of one answer. The first is empty, but for the stages before it. */
export interface AnswerFrame {
  index: number;
  /** Of an answer that has not begun. */
  stage?: AnswerStage;
  said?: Said;
  logprobs?: TokenLogprob[];
  finish?: "stop" | "length" | "tool_calls";
}

/** Turns events into text, thoughts and calls. */
async function* readFrames(
  events: AsyncGenerator<[number, GenerationEvent], void, void>,
  readers: readonly AnswerReader[],
): AsyncGenerator<AnswerFrame, void, void> {
  for await (const [index, event] of events) {
    if (event.type === "start") {
      if (event.thoughts) readers[index]!.setThoughts(event.thoughts);
      yield { index };
    } else if (event.type === "stage") yield { index, stage: event.stage };
    else for (const frame of readers[index]!.read(event)) yield { index, ...frame };
  }
}

class AnswerReader {
  readonly #use: ToolUse | undefined;
  #thoughts: ThoughtReader | undefined;
  readonly #mayThink: boolean;
  readonly #calls: CallReader | undefined;
  /** Of an answer that is a call as a whole. */
  #json = "";
  #hasCalls = false;
  #logprobs: TokenLogprob[] = [];

  /** @param mayThink whether thoughts are told apart at all; `thoughts`: how they begin, unless the start of the answer says otherwise */
  constructor(use: ToolUse | undefined, mayThink: boolean, thoughts: ServedModel["thoughts"]) {
    this.#use = use;
    this.#mayThink = mayThink;
    this.setThoughts(thoughts);
    this.#calls = use && !use.schema ? new CallReader(use.tools) : undefined;
  }

  /** Before the answer's first text. */
  setThoughts(thoughts: ServedModel["thoughts"] | "none"): void {
    const has = this.#mayThink && thoughts !== undefined && thoughts !== "none";
    this.#thoughts = has ? new ThoughtReader(thoughts === "opened") : undefined;
  }

  *read(event: Exclude<GenerationEvent, { type: "start" | "stage" }>): Generator<Omit<AnswerFrame, "index">> {
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

  *#frames(all: readonly Said[]): Generator<Omit<AnswerFrame, "index">> {
    for (const said of all) yield* this.#said("text" in said ? this.#read(said.text) : [said]);
  }

  *#said(all: readonly Said[]): Generator<Omit<AnswerFrame, "index">> {
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
