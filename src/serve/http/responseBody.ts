/** The body of `POST /v1/responses`, and what it comes to in the words of the chat route. */
import { z } from "zod";
import type { Asked } from "./chatAnswers.ts";
import { limits } from "./limits.ts";
import { bodyParts, type Message } from "./schemas.ts";

const { optional, integer, text, boolean, listOf, jsonObject, functionName, contentOf, refusalPart, thoughts } =
  bodyParts;
const { common, scoring, serverSide, verbosity, effort, include_obfuscation } = bodyParts;

/** What only servers can do that keep answers, or have tools of their own. Asking for nothing of it is no request. */
const nothing = (why: string) =>
  z
    .unknown()
    .optional()
    .refine((value) => (value ?? undefined) === undefined, why);
const notStored = "answers are not stored here: send the whole conversation as input";

const inputPart = z.object({ type: z.enum(["input_text", "output_text"]), text: z.string() });
const content = contentOf<z.ZodObject>("input_text", inputPart, refusalPart);

const message = z.object({
  type: z.literal("message"),
  role: z.enum(["system", "developer", "user", "assistant"], "wanted one of system, developer, user, assistant"),
  content,
});
const functionCall = z.object({
  type: z.literal("function_call"),
  call_id: text(128),
  name: functionName,
  arguments: z.string("wanted JSON as a text"),
});
const functionCallOutput = z.object({ type: z.literal("function_call_output"), call_id: text(128), output: content });
/** What clients keep of an answer's thoughts: their text, or things that have no effect. */
const reasoning = z.object({
  type: z.literal("reasoning"),
  content: listOf(z.object({ text: thoughts }), "parts", limits.parts)
    .nullish()
    .transform((parts) => (parts ?? []).map(({ text: thought = "" }) => thought).join("") || undefined),
});

/** Messages need not say that they are some. */
const typed = (value: unknown) =>
  typeof value === "object" && value !== null && "role" in value && !("type" in value && value.type)
    ? { ...value, type: "message" }
    : value;
const item = z.preprocess(
  typed,
  z.discriminatedUnion("type", [message, functionCall, functionCallOutput, reasoning], {
    error: ({ input }) =>
      (input as { type?: unknown } | undefined)?.type === "item_reference"
        ? "wanted the item itself: items are not stored here. Clients that refer to them send them with store: false."
        : "wanted a message, a function_call, its function_call_output or reasoning: there are no other tools",
  }),
);
type Item = z.output<typeof item>;

const items = listOf(item, "items", limits.messages)
  .min(1, "wanted at least one item")
  .refine((all) => all.some(({ type }) => type !== "reasoning"), "wanted a message");

/** What may be asked for beside the answer. Only log-probabilities are more than what there is anyway, or is never. */
const LOGPROBS = "message.output_text.logprobs";
const includable = z.enum(
  [
    LOGPROBS,
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
  ],
  `wanted ${LOGPROBS}, or what no answer here has`,
);

const summary = optional(z.literal("auto", "thoughts are given as they are, not in other words"));
const response = z.strictObject({
  ...common,
  ...serverSide,
  input: z.union([z.string(), items], { error: "wanted a text, or a list of items" }),
  instructions: optional(z.string("wanted a text")),
  max_output_tokens: bodyParts.maxTokens,
  // Functions and schemas stand without the object around them that chat has.
  tools: bodyParts.toolsOf(bodyParts.toolWith(bodyParts.functionFields)),
  tool_choice: optional(bodyParts.toolChoiceWith({ name: functionName })),
  max_tool_calls: optional(integer(0, Number.MAX_SAFE_INTEGER)), // of the server's own tools
  text: optional(z.strictObject({ format: optional(bodyParts.formatWith(bodyParts.schemaFields)), verbosity })),
  include: optional(listOf(includable, "things", 16)),
  top_logprobs: scoring.top_logprobs,
  reasoning: optional(z.strictObject({ effort, summary, generate_summary: summary })),
  truncation: optional(z.literal("disabled", "a conversation is not cut: leave out its oldest items")),
  stream_options: optional(z.strictObject({ include_obfuscation })),
  store: optional(boolean), // clients leave it out, and mean true; the answer says false
  prompt_cache_options: optional(jsonObject),
  background: optional(z.literal(false, `a background is not supported: ${notStored}`)),
  previous_response_id: nothing(notStored),
  conversation: nothing(notStored),
  prompt: nothing("prompts are not stored here: send the text"),
  context_management: nothing("a conversation is not made shorter: leave out its oldest items"),
});
export type ResponseBody = z.output<typeof response>;

/** @throws {ApiError} that names the field */
export const parseResponse = bodyParts.parser(response);

/** The body as the chat route says it, and what it calls a field of that. */
export function askedBy({ stream_options: _, text: said, ...body }: ResponseBody): {
  asked: Asked;
  nameOf: (param: string) => string;
} {
  const { input, instructions, tools, tool_choice: choice, include, top_logprobs: top } = body;
  const { format } = said ?? {};
  const items: readonly Item[] =
    typeof input === "string" ? [{ type: "message", role: "user", content: input }] : input;
  const { messages, places } = messagesOf(instructions, items);
  const asked: Asked = {
    ...body,
    messages,
    max_tokens: body.max_output_tokens,
    reasoning_effort: body.reasoning?.effort,
    tools: tools?.map(({ type, ...one }) => ({ type, function: one })),
    tool_choice: typeof choice === "object" ? { type: choice.type, function: { name: choice.name } } : choice,
    response_format: format?.type === "json_schema" ? { type: format.type, json_schema: format } : format,
    logprobs: include?.includes(LOGPROBS) || (top ?? 0) > 0,
  };
  const placeOf = (message: string, call = "0") => `input.${places[Number(message)]![Number(call)]}`;
  const nameOf = (param: string) =>
    param
      .replace(/^messages\.(\d+)\.tool_calls\.(\d+)\.function/, (_, i, j) => placeOf(i, j))
      .replace(/^messages\.(\d+)\.tool_call_id/, (_, i) => `${placeOf(i)}.call_id`)
      .replace(/^tools\.(\d+)\.function/, "tools.$1")
      .replace(/^response_format(\.json_schema)?/, "text.format")
      .replace(/^logprobs/, "include")
      .replace(/^reasoning_effort/, "reasoning.effort");
  return { asked, nameOf };
}

/**
 * Items as messages: calls are items of their own, and belong to what the assistant said before them; thoughts to what it said after them.
 *
 * @returns also, for each message, the places of its calls among the items, or of the result that it is
 */
function messagesOf(
  instructions: string | undefined,
  items: readonly Item[],
): { messages: Message[]; places: number[][] } {
  const messages: Message[] = [];
  const places: number[][] = [];
  const add = (message: Message, ...place: number[]) => {
    messages.push(message);
    places.push(place);
  };
  if (instructions !== undefined) add({ role: "system", content: instructions });
  let thought: string | undefined;
  for (const [place, one] of items.entries()) {
    switch (one.type) {
      case "message":
        add(one.role === "assistant" ? assistant(one.content, thought) : { role: one.role, content: one.content });
        thought = undefined;
        break;
      case "function_call": {
        if (messages.at(-1)?.role !== "assistant" || thought !== undefined) add(assistant(undefined, thought));
        thought = undefined;
        const { name, arguments: json } = one;
        const { tool_calls } = messages.at(-1) as ReturnType<typeof assistant>;
        tool_calls!.push({ id: one.call_id, type: "function", function: { name, arguments: json } });
        places.at(-1)!.push(place);
        break;
      }
      case "function_call_output":
        add({ role: "tool", content: one.output, tool_call_id: one.call_id }, place);
        break;
      case "reasoning":
        thought = one.content;
        break;
      default:
        one satisfies never;
    }
  }
  return { messages, places };
}

function assistant(content?: string, thoughts?: string): Extract<Message, { role: "assistant" }> {
  return { role: "assistant", content, reasoning_content: thoughts, tool_calls: [], function_call: undefined };
}
