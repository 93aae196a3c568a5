/**
 * The bodies of requests. What a message carries beyond its meaning is taken without effect, as clients put whole answers back into their history, and null is
 * what is absent. What a request asks for is done or refused: fields of OpenAI's that change nothing here (`user`, `metadata`, …) are taken, as are values that
 * ask for nothing (`logit_bias: {}`); others are refused, and so are unknown ones.
 */
import { z } from "zod";
import { KEEP, MAX_LOSS, parseShare } from "../../bundle/budget.ts";
import { MAX_TOKENS } from "../../engine/engineOptions.ts";
import { SAMPLING_OPTIONS } from "../../engine/sampling.ts";
import { OptionError } from "../../errors.ts";
import { isInRange, type NumberOption } from "../../options.ts";
import { jobName, jobNameWords } from "../../specialize/jobs.ts";
import { SPECIALIZE_OPTIONS } from "../../specialize/specializeOptions.ts";
import { type MaskRequest, taskName } from "../service.ts";
import { ApiError, fromZod } from "./apiErrors.ts";
import { limits } from "./limits.ts";

/** OpenAI's clients send null for what is absent. */
const optional = <T extends z.ZodType>(schema: T) => schema.nullish().transform((value) => value ?? undefined);

/** What is wrong ends the reading: a body has room for a million of it. */
const ending = (message: string) => ({ message, abort: true });
const number = (min: number, max: number) =>
  z
    .number(`wanted a number in ${min}..${max}`)
    .min(min, ending(`wanted at least ${min}`))
    .max(max, ending(`wanted at most ${max}`));
const integer = (min: number, max: number) => number(min, max).int(ending("wanted an integer"));
const text = (max: number) => z.string("wanted a text").max(max, ending(`wanted at most ${max} characters`));
const boolean = z.boolean("wanted a boolean");
const count = Number.MAX_SAFE_INTEGER;
const listOf = <T extends z.ZodType>(one: T, what: string, max: number) =>
  z.array(one, `wanted a list of ${what}`).max(max, `wanted at most ${max} ${what}`);

/** Ranges and defaults are the library's but where OpenAI's differ. */
export const SAMPLING_FIELDS = {
  temperature: { ...SAMPLING_OPTIONS.temperature, max: 2, fallback: 1 },
  top_p: SAMPLING_OPTIONS.topP,
  top_k: { ...SAMPLING_OPTIONS.topK, min: -1, max: 1_000_000 },
  min_p: SAMPLING_OPTIONS.minP,
  seed: SAMPLING_OPTIONS.seed,
  frequency_penalty: { ...SAMPLING_OPTIONS.frequencyPenalty, min: -2, max: 2 },
  presence_penalty: { ...SAMPLING_OPTIONS.presencePenalty, min: -2, max: 2 },
  repetition_penalty: { ...SAMPLING_OPTIONS.repeatPenalty, isAboveMin: false, min: 0.01, max: 10 },
} as const satisfies Record<string, NumberOption>;

const field = ({ isInteger, min = -count, max = count }: NumberOption) =>
  optional(isInteger ? integer(min, max) : number(min, max));

/** Of masks, which clients choose too; none is a path. */
const maskId = /^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$/;

const maskWords = 'wanted "auto", "dense", "task:NAME" or "id:ID"';
const maskField = text(256).transform((value, context): MaskRequest => {
  const [, kind = "id", name = ""] = /^(?:(task|id):)?(.*)$/s.exec(value)!;
  if (value === "auto" || value === "dense") return { kind: value };
  if (kind === "task" && taskName.test(name)) return { kind, name };
  if (kind === "id" && maskId.test(name)) return { kind, id: name };
  context.addIssue(maskWords);
  return z.NEVER;
});

/** A mask as requests name it. @throws {OptionError} if it is none */
export function readMaskRequest(where: string, value: string): MaskRequest {
  const { data } = maskField.safeParse(value);
  if (!data) throw new OptionError(`${where}: ${maskWords}, got ${JSON.stringify(value)}.`);
  return data;
}

/** Shares are also taken as they are written on the command line. */
const keep = z
  .union([z.number(), z.string().transform((text) => (text === "auto" ? text : parseShare(text)))])
  .refine(
    (keep) => keep === "auto" || isInRange(keep, KEEP),
    'wanted a share above 0, at most 1, or as "75%", or "auto"',
  );
const budget = { keep: optional(keep), max_loss: field(MAX_LOSS), t_ffn: optional(integer(1, count)) };

const stop = z.union([text(limits.stopLength), listOf(text(limits.stopLength), "stop texts", limits.stops)], {
  error: `wanted a text, or up to ${limits.stops} of them, of at most ${limits.stopLength} characters`,
});

/** A map by names that clients choose, counted before it is read, as lists are. zod leaves a key `__proto__` out, and with it what was asked for. */
function map<Key extends z.ZodType<string>, Value extends z.ZodType>(
  key: Key,
  value: Value,
  what: string,
  max: number,
) {
  return z
    .unknown()
    .superRefine((given, context) => {
      if (typeof given !== "object" || given === null) return;
      if (Object.hasOwn(given, "__proto__")) context.addIssue('wanted no key "__proto__"');
      else if (Object.keys(given).length > max) context.addIssue(`wanted at most ${max} ${what}`);
    })
    .pipe(z.record(key, value));
}

const tokenKey = z.string().regex(/^\d{1,9}$/, ending("wanted token ids as keys"));
const logitBias = map(tokenKey, number(-100, 100), "tokens", limits.logitBiases);
const metadata = map(text(64), text(512), "pairs", 16);

/** What every route that answers takes. */
const answering = { model: text(256), mask: optional(maskField), ...budget, stream: optional(boolean) };

const sampling = {
  stop: optional(stop).transform((given) => [given ?? []].flat().filter((one) => one !== "")),
  temperature: field(SAMPLING_FIELDS.temperature),
  top_p: field(SAMPLING_FIELDS.top_p),
  top_k: field(SAMPLING_FIELDS.top_k),
  min_p: field(SAMPLING_FIELDS.min_p),
  seed: field(SAMPLING_FIELDS.seed),
  frequency_penalty: field(SAMPLING_FIELDS.frequency_penalty),
  presence_penalty: field(SAMPLING_FIELDS.presence_penalty),
  repetition_penalty: field(SAMPLING_FIELDS.repetition_penalty),
};

/** Of OpenAI's routes. */
const common = {
  ...answering,
  ...sampling,
  logit_bias: optional(logitBias),
  user: optional(text(512)),
  metadata: optional(metadata),
};

const include_obfuscation = optional(z.literal(false, "obfuscation is not supported"));
const streamOptions = z.strictObject({ include_usage: optional(boolean), include_obfuscation });
const n = optional(integer(1, limits.choices));

const textPart = z.object({ type: z.literal("text"), text: z.string() });
/** What clients keep of an answer beside its text; the model reads neither. */
const aside = z.object({ type: z.enum(["reasoning", "thinking", "redacted_thinking"]) });
const refusalPart = z.object({ type: z.literal("refusal"), refusal: z.string() });

/** A text, or parts of it. */
const contentOf = <T extends z.ZodObject>(name: string, ...kinds: [T, ...T[]]) =>
  z
    .union(
      [
        z.string(),
        listOf(
          z.discriminatedUnion("type", kinds, { error: `wanted parts of type ${name}: the models read nothing else` }),
          "parts",
          limits.parts,
        ),
      ],
      { error: `wanted a text, or up to ${limits.parts} parts of type ${name}` },
    )
    .transform((value) =>
      typeof value === "string"
        ? value
        : value.map((part: { text?: string; refusal?: string }) => part.text ?? part.refusal ?? "").join(""),
    );
const content = contentOf("text", textPart);
/** Of what may have nothing to say. */
const emptyOr = <T extends z.ZodType<string>>(schema: T) => schema.nullable().transform((value) => value ?? "");
/** Of an answer; in other forms than a text they have no effect. */
const thoughts = z
  .unknown()
  .transform((value) => (typeof value === "string" ? value : undefined))
  .optional();

const functionName = z.string().regex(/^[A-Za-z0-9_-]{1,64}$/, "wanted a name of letters, digits, _ and -, up to 64");

const toolCall = z.object({
  id: text(128),
  type: optional(z.literal("function")),
  function: z.object({ name: functionName, arguments: z.string() }),
});

const message = z.discriminatedUnion(
  "role",
  [
    z.object({ role: z.enum(["system", "developer"]), content: emptyOr(content) }),
    z.object({ role: z.literal("user"), content }),
    z.object({
      role: z.literal("assistant"),
      content: contentOf<z.ZodObject>("text", textPart, aside, refusalPart).nullish(),
      refusal: z.string().nullish(),
      tool_calls: optional(listOf(toolCall, "calls", limits.tools)),
      function_call: optional(z.null("wanted tool_calls")),
      reasoning_content: thoughts,
      reasoning: thoughts,
    }),
    z.object({ role: z.literal("tool"), content: emptyOr(content), tool_call_id: text(128) }),
  ],
  { error: "wanted one of system, developer, user, assistant, tool" },
);
export type Message = z.output<typeof message>;

const named = { name: functionName, description: optional(z.string()), strict: optional(boolean) };
const jsonObject = z.record(z.string(), z.unknown());
/** A tool whose function stands in fields of it. */
const toolWith = <T extends z.ZodRawShape>(fields: T) =>
  z.object({ type: z.literal("function", "wanted a function: there are no other tools"), ...fields });
/** What a function is, in chat in an object of its own. */
const functionFields = { ...named, parameters: optional(jsonObject) };
const tool = toolWith({ function: z.object(functionFields) });
export type Tool = z.output<typeof tool>;

const toolChoiceWith = <T extends z.ZodRawShape>(fields: T) =>
  z.union([z.enum(["none", "auto", "required"]), z.strictObject({ type: z.literal("function"), ...fields })], {
    error: "wanted none, auto, required, or the function to call",
  });

const formatWith = <T extends z.ZodRawShape>(fields: T) =>
  z.discriminatedUnion(
    "type",
    [
      z.strictObject({ type: z.literal("text") }),
      z.strictObject({ type: z.literal("json_object") }),
      z.strictObject({ type: z.literal("json_schema"), ...fields }),
    ],
    { error: "wanted the type text, json_object or json_schema" },
  );
/** What a schema is, in chat in an object of its own. */
const schemaFields = { ...named, schema: jsonObject };

const toolsOf = <T extends z.ZodType>(one: T) => optional(listOf(one, "tools", limits.tools));
const scoring = { logprobs: optional(boolean), top_logprobs: optional(integer(0, limits.topLogprobs)) };
const verbosity = optional(z.literal("medium", "how much a model says cannot be chosen"));
const effort = optional(z.literal("none", "how long a model thinks cannot be chosen"));
/** Of OpenAI's routes of conversations, with no effect here. */
const serverSide = {
  parallel_tool_calls: optional(boolean),
  service_tier: optional(z.enum(["auto", "default", "flex"])),
  safety_identifier: optional(text(512)),
  prompt_cache_key: optional(text(512)),
  prompt_cache_retention: optional(text(64)),
};

/** As clients of vLLM and llama-server send them. */
const templateVariables = map(text(64), z.unknown(), "variables", 64)
  .refine(
    (variables) => JSON.stringify(variables).length <= limits.templateVariables,
    `wanted at most ${limits.templateVariables} characters of JSON`,
  )
  .refine(({ enable_thinking: value }) => typeof (value ?? true) === "boolean", {
    path: ["enable_thinking"],
    message: "wanted a boolean",
  });

/** LM Studio's clients send −1 for as many as fit. */
const maxTokens = z.preprocess((value) => (value === -1 ? undefined : value), field(MAX_TOKENS));

const chat = z.strictObject({
  ...common,
  ...scoring,
  ...serverSide,
  n,
  stream_options: optional(streamOptions.extend({ include_stages: optional(boolean) })),
  messages: listOf(message, "messages", limits.messages).min(1, "wanted at least one message"),
  max_tokens: maxTokens,
  max_completion_tokens: maxTokens,
  response_format: optional(formatWith({ json_schema: z.strictObject(schemaFields) })),
  tools: toolsOf(tool),
  tool_choice: optional(toolChoiceWith({ function: z.strictObject({ name: functionName }) })),
  store: optional(z.literal(false, "answers are not stored")),
  modalities: optional(z.tuple([z.literal("text")], "wanted text only")),
  reasoning_effort: effort,
  verbosity,
  chat_template_kwargs: optional(templateVariables),
  enable_thinking: optional(boolean),
});
export type ChatBody = z.output<typeof chat>;

const ids = z.array(integer(0, 2 ** 31 - 1), "wanted tokens").min(1, "wanted at least one token");
/** One text, or tokens, or several. */
const inputs = (most: number) =>
  z.preprocess(
    (value) => (typeof value === "string" || (Array.isArray(value) && typeof value[0] === "number") ? [value] : value),
    listOf(z.union([z.string(), ids], { error: "wanted a text or tokens" }), "texts", most).min(
      1,
      "wanted at least one text",
    ),
  );
const completion = z.strictObject({
  ...common,
  n,
  stream_options: optional(streamOptions),
  prompt: inputs(limits.prompts),
  max_tokens: optional(integer(0, count)),
  logprobs: scoring.top_logprobs,
  echo: optional(boolean),
  best_of: optional(integer(1, limits.choices)),
  suffix: optional(z.literal("", "text after the answer is not supported")),
});
export type CompletionBody = z.output<typeof completion>;
export type BudgetBody = Partial<Pick<ChatBody, keyof typeof budget>>;
export type SamplingBody = Partial<Pick<ChatBody, Exclude<keyof typeof common, "model"> | "n">>;

const embedding = z.strictObject({
  model: answering.model,
  input: inputs(limits.embeddings),
  encoding_format: optional(z.enum(["float", "base64"], "wanted float or base64")),
  dimensions: optional(integer(1, count)),
  user: common.user,
});

const instruction = text(100_000).refine((value) => value.trim() !== "", "wanted an instruction, got empty text");
const maskBody = z.strictObject({ model: answering.model, instruction, ...budget });
const shown = text(limits.exampleLength).refine((value) => value.trim() !== "", "wanted some text");
const example = z.strictObject({ input: shown, output: shown });
const examples = listOf(example, "examples", limits.examples);
const addBody = z.strictObject({
  name: text(4096).refine((value) => value.trim() !== "", "wanted a folder, or a model's name or id"),
});
const taskBody = z.strictObject({ instruction, examples: optional(examples), ...budget });
const rows = text(limits.bodyBytes).refine((value) => value.trim() !== "", "wanted one prompt a line, got empty text");
const specializeBody = z
  .strictObject({
    name: text(64).regex(jobName, `wanted ${jobNameWords}`),
    model: text(256),
    task: optional(instruction),
    prompts: optional(rows),
    examples: optional(rows),
    draft: field(SPECIALIZE_OPTIONS.draft),
    keep: budget.keep,
    max_loss: field(SPECIALIZE_OPTIONS.maxLoss),
    tokens: field(SPECIALIZE_OPTIONS.tokens),
    max_tokens: field(SPECIALIZE_OPTIONS.maxTokens),
    licence: optional(text(200)),
  })
  .refine((body) => body.prompts === undefined || body.examples === undefined, {
    path: ["prompts"],
    message: "wanted prompts, or examples with their answers, got both",
  })
  .refine((body) => body.draft === undefined || body.examples === undefined, {
    path: ["draft"],
    message: "wanted no drafts beside examples, which have right answers",
  })
  .refine((body) => (body.task ?? body.prompts ?? body.examples) !== undefined, {
    path: ["task"],
    message: "wanted a task, prompts or examples, got none of them",
  })
  .refine((body) => body.max_loss === undefined || body.keep === "auto", {
    path: ["max_loss"],
    message: 'wanted keep to be "auto"',
  });

/** Fields of vLLM's, with the only values that ask for nothing. */
const neutral = new Map<string, unknown>(
  Object.entries({
    ...{ add_generation_prompt: true, continue_final_message: false, skip_special_tokens: true },
    ...{ spaces_between_special_tokens: true, include_stop_str_in_output: false, ignore_eos: false },
    ...{ use_beam_search: false, length_penalty: 1, min_tokens: 0, priority: 0 },
  }),
);

/** Fields of OpenAI's that are known, and that no model here has a use for. */
const unsupported = new Set([
  ...["audio", "function_call", "functions", "prediction", "web_search_options", "moderation"],
]);

const asks = (value: unknown) => value !== null && !(Array.isArray(value) && value.length === 0);

/** What other bodies are made of too: a limit is said once. */
export const bodyParts = {
  ...{ optional, integer, text, boolean, listOf, jsonObject, parser },
  ...{ answering, sampling, common, scoring, serverSide, maxTokens, verbosity, effort, include_obfuscation },
  ...{ contentOf, thoughts, refusalPart, inputs },
  ...{ functionName, functionFields, schemaFields, tool, toolWith, toolChoiceWith, formatWith, toolsOf },
};

/** Only the first complaint is told, and a million would take seconds and gigabytes. (zod has this for its `validate`.) */
const firstOnly: z.core.ParseContextInternal<z.core.$ZodIssue> = { abortEarly: true };

function parser<T>(schema: z.ZodType<T>): (body: unknown) => T {
  return (body) => {
    if (typeof body !== "object" || body === null || Array.isArray(body))
      throw new ApiError(400, "invalid_type", "Wanted a JSON object.");
    const fields = Object.entries(body);
    const [field] = fields.find(([key, value]) => unsupported.has(key) && asks(value)) ?? [];
    if (field !== undefined)
      throw new ApiError(400, "unsupported_parameter", `Unsupported parameter: ${field}.`, { param: field });
    const known = Object.fromEntries(
      fields.filter(([key, value]) => value !== null && !unsupported.has(key) && neutral.get(key) !== value),
    );
    const parsed = schema.safeParse(known, firstOnly);
    if (!parsed.success) throw fromZod(parsed.error, known);
    return parsed.data;
  };
}

/** Each throws {ApiError} that names the field. */
export const parseChat = parser(chat);
export const parseCompletion = parser(completion);
export const parseEmbedding = parser(embedding);
export const parseMask = parser(maskBody);
export const parseAdd = parser(addBody);
export const parseTask = parser(taskBody);
export const parseSpecialize = parser(specializeBody);
