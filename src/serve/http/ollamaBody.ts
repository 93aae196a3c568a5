/** Bodies of Ollama's routes, and what they come to in the words of the chat route. */
import { z } from "zod";
import type { ServedModel } from "../service.ts";
import type { Asked } from "./chatAnswers.ts";
import { limits } from "./limits.ts";
import { bodyParts, type Message } from "./schemas.ts";

const { optional, integer, boolean, listOf, jsonObject, functionName, inputs, thoughts, tool, toolsOf, parser } =
  bodyParts;
const { answering, scoring } = bodyParts;
const { repetition_penalty, ...sampling } = bodyParts.sampling;

/** Ollama's own, but for the penalty of repetition: Ollama's looks at 64 tokens, ours at all of the answer. */
const DEFAULTS = { temperature: 0.8, top_k: 40, top_p: 0.9 };

/** How Ollama runs a model; the options of `serve` say that here. */
const machine = Object.fromEntries(
  [
    ...["num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "num_keep", "numa", "low_vram", "f16_kv"],
    ...["use_mmap", "use_mlock", "logits_all", "vocab_only", "embedding_only"],
  ].map((name) => [name, z.unknown().optional()]),
);
const other = (value: number) => optional(z.literal(value, `wanted ${value}: there is no such sampling`));

const options = z.strictObject({
  ...machine,
  ...sampling,
  repeat_penalty: repetition_penalty,
  repeat_last_n: optional(z.literal(-1, "penalties look at all of the answer")),
  num_predict: optional(integer(-2, Number.MAX_SAFE_INTEGER)),
  mirostat: other(0),
  mirostat_tau: z.unknown().optional(), // of mirostat
  mirostat_eta: z.unknown().optional(),
  tfs_z: other(1),
  typical_p: other(1),
});

const noImages = optional(z.array(z.unknown()).max(0, "the models read no images"));
const none = (why: string) => optional(z.literal("", why));

const shared = {
  ...answering,
  ...scoring,
  options: optional(options),
  format: optional(z.union([z.enum(["", "json"]), jsonObject], { error: 'wanted "json" or a JSON schema' })),
  think: optional(z.boolean("how long a model thinks cannot be chosen")),
  keep_alive: optional(z.union([z.string(), z.number()], { error: "wanted a duration" })),
};
export type OllamaBody = z.output<z.ZodObject<typeof shared>>;

const toolCall = z.object({
  id: optional(z.string()),
  function: z.object({ name: functionName, arguments: jsonObject }),
});
const content = optional(z.string("wanted a text")).transform((said) => said ?? "");
const message = z.discriminatedUnion(
  "role",
  [
    z.object({ role: z.enum(["system", "user"]), content, images: noImages }),
    z.object({
      role: z.literal("tool"),
      content,
      images: noImages,
      tool_name: optional(z.string()),
      tool_call_id: optional(z.string()),
    }),
    z.object({
      role: z.literal("assistant"),
      content,
      images: noImages,
      thinking: thoughts,
      tool_calls: optional(listOf(toolCall, "calls", limits.tools)),
    }),
  ],
  { error: "wanted one of system, user, assistant, tool" },
);

const chat = z.strictObject({
  ...shared,
  messages: optional(listOf(message, "messages", limits.messages)),
  tools: toolsOf(tool),
});
export type OllamaChatBody = z.output<typeof chat>;

const generate = z.strictObject({
  ...shared,
  prompt: content,
  system: optional(z.string("wanted a text")),
  raw: optional(boolean),
  images: noImages,
  suffix: none("text after the answer is not supported"),
  template: none("a model's own template is used"),
  context: optional(z.array(z.unknown()).max(0, "wanted none: send the conversation to /api/chat")),
});

const embed = z.strictObject({
  model: answering.model,
  input: inputs(limits.embeddings),
  truncate: optional(boolean), // a text that is too long is refused
  dimensions: optional(integer(1, Number.MAX_SAFE_INTEGER)),
  options: optional(z.strictObject(machine)),
  keep_alive: shared.keep_alive,
});

/** Older clients say `name`. */
const show = z.object({ model: optional(answering.model), name: optional(answering.model) });

/** Each throws {ApiError} that names the field. */
export const parseOllamaChat = parser(chat);
export const parseGenerate = parser(generate);
export const parseEmbed = parser(embed);
export const parseShow = parser(show);

/** What the bodies call a field of {@link ollamaAsked}. */
export const ollamaName = (param: string): string =>
  param
    .replace(/^response_format(\.json_schema\.schema)?/, "format")
    .replace(/^(messages\.\d+)\.tool_call_id/, "$1.role"); // a result without a call

/** A body as the chat route says it. */
export function ollamaAsked(
  body: OllamaBody & Pick<Asked, "tools">,
  { id: model, hasThinkingSwitch }: Pick<ServedModel, "id" | "hasThinkingSwitch">,
  messages: Asked["messages"],
): Asked {
  const { mask, keep, max_loss, t_ffn, format, logprobs, top_logprobs, tools, options } = body;
  const { seed = -1, num_predict: most = -1 } = options ?? {};
  return {
    ...{ model, messages, mask, keep, max_loss, t_ffn, logprobs, top_logprobs, tools },
    temperature: options?.temperature ?? DEFAULTS.temperature,
    top_k: options?.top_k ?? DEFAULTS.top_k,
    top_p: options?.top_p ?? DEFAULTS.top_p,
    min_p: options?.min_p,
    seed: seed < 0 ? undefined : seed,
    frequency_penalty: options?.frequency_penalty,
    presence_penalty: options?.presence_penalty,
    repetition_penalty: options?.repeat_penalty,
    stop: options?.stop,
    max_tokens: most < 1 ? undefined : most,
    response_format: responseFormat(format),
    enable_thinking: hasThinkingSwitch ? body.think : undefined,
  };
}

function responseFormat(format: OllamaBody["format"]): Asked["response_format"] {
  if (typeof format === "object")
    return {
      type: "json_schema",
      json_schema: { name: "answer", schema: format, description: undefined, strict: true },
    };
  return format === "json" ? { type: "json_object" } : undefined;
}

/** Messages as the chat route has them. Ollama's calls need no ids: a result is of the open call that it names by id or tool, or else of the first one. */
export function ollamaMessages(messages: NonNullable<OllamaChatBody["messages"]>): Message[] {
  let numCalls = 0;
  const open: { id: string; given: string | undefined; name: string }[] = [];
  return messages.map((one): Message => {
    const { content } = one;
    if (one.role === "tool") {
      const { tool_call_id: id, tool_name } = one;
      const byId = open.findIndex(({ given }) => given !== undefined && given === id);
      const at = byId >= 0 ? byId : open.findIndex(({ name }) => name === tool_name);
      const [call] = open.splice(Math.max(0, at), 1);
      return { role: "tool", content, tool_call_id: call?.id ?? "none" };
    }
    if (one.role === "user") open.length = 0; // what has no result by then gets none
    if (one.role !== "assistant") return { role: one.role, content };
    const tool_calls = one.tool_calls?.map(({ id: given, function: { name, arguments: values } }) => {
      const id = `${numCalls++}`;
      open.push({ id, given, name });
      return { id, type: "function" as const, function: { name, arguments: JSON.stringify(values) } };
    });
    return { role: "assistant", content, reasoning_content: one.thinking, tool_calls, function_call: undefined };
  });
}
