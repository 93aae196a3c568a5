/** Ollama's API, for programs that speak no other. Its models are those that are served; none is pulled, made or deleted by it. */
import { Hono } from "hono";
import type { InferenceService, ServedModel } from "../service.ts";
import { invalid } from "./apiErrors.ts";
import { type AnswerFrame, type Asked, openAnswers, withNames } from "./chatAnswers.ts";
import type { Env, Handled } from "./context.ts";
import { featuresOf } from "./embeddings.ts";
import { type Answers, chatLogprob, servedModel } from "./generation.ts";
import { readJsonBody } from "./limits.ts";
import {
  type OllamaBody,
  ollamaAsked,
  ollamaMessages,
  ollamaName,
  parseEmbed,
  parseGenerate,
  parseOllamaChat,
  parseShow,
} from "./ollamaBody.ts";
import type { StreamFormat } from "./sse.ts";

/** Whose API this is: clients ask, and leave out what came later. */
const OLLAMA_VERSION = "0.12.6";
/** Of the one tag that a model has here. */
const LATEST = ":latest";

/** Its documentation asks by `curl -d`, which says that it sends a form. Pages of other origins, which may send one too, are refused by their Origin. */
const readBody = (request: Request) => readJsonBody(request, ["application/json", "application/x-www-form-urlencoded"]);

export function ollamaRoutes(): Hono<Env> {
  const app = new Hono<Env>();
  app.get("/version", (c) => c.json({ version: OLLAMA_VERSION }));
  app.get("/tags", (c) => c.json({ models: c.var.service.models().map(listed) }));
  app.get("/ps", (c) => c.json({ models: loaded(c.var.service) }));
  app.post("/show", async (c) => {
    const { name = "", model = name } = parseShow(await readBody(c.req.raw));
    return c.json(shown(ollamaModel(c, model)));
  });
  app.post("/chat", async (c) => {
    const { messages = [], ...body } = parseOllamaChat(await readBody(c.req.raw));
    return reply(c, body, messages.length === 0 ? undefined : ollamaMessages(messages), chatSaid);
  });
  app.post("/generate", async (c) => {
    const { prompt, system, raw, ...body } = parseGenerate(await readBody(c.req.raw));
    if (raw && system !== undefined)
      throw invalid("system", "wanted none beside raw, which adds nothing to the prompt.");
    const messages = [
      ...(system ? [{ role: "system" as const, content: system }] : []),
      { role: "user" as const, content: prompt },
    ];
    return reply(c, body, prompt === "" ? undefined : raw ? prompt : messages, generateSaid);
  });
  app.post("/embed", async (c) => {
    const start = performance.now();
    const { model, input, dimensions } = parseEmbed(await readBody(c.req.raw));
    const { features, numTokens } = await featuresOf(c, ollamaModel(c, model), input, dimensions);
    return c.json({
      model,
      embeddings: features.map((feature) => Array.from(feature)),
      total_duration: nanoseconds(performance.now() - start),
      load_duration: 0,
      prompt_eval_count: numTokens,
    });
  });
  return app;
}

const ndjson: StreamFormat = {
  contentType: "application/x-ndjson",
  write: (object) => `${JSON.stringify(object)}\n`,
  error: ({ message }) => `${JSON.stringify({ error: message })}\n`,
  end: "",
};

/** A part of an answer, or all of it. */
interface Piece {
  text?: string;
  thinking?: string;
  calls?: object[];
  logprobs?: object[];
}
/** Says it in the words of a route. */
type SaidBy = (piece: Piece) => object;

const chatSaid: SaidBy = ({ text: content = "", thinking, calls = [], logprobs = [] }) => ({
  message: {
    role: "assistant",
    content,
    ...(thinking && { thinking }),
    ...(calls.length > 0 && { tool_calls: calls }),
  },
  ...(logprobs.length > 0 && { logprobs }),
});
const generateSaid: SaidBy = ({ text: response = "", thinking, logprobs = [] }) => ({
  response,
  ...(thinking && { thinking }),
  ...(logprobs.length > 0 && { logprobs }),
});

/** @param messages absent: the model is only to be loaded, or unloaded, which is done here when a prompt comes, or another wants its place */
async function reply(
  c: Handled,
  body: OllamaBody & Pick<Asked, "tools">,
  messages: Asked["messages"] | undefined,
  said: SaidBy,
): Promise<Response> {
  const start = performance.now();
  const model = ollamaModel(c, body.model);
  const head = () => ({ model: body.model, created_at: new Date().toISOString() });
  if (messages === undefined)
    return c.json({ ...head(), ...said({}), done: true, done_reason: isZero(body.keep_alive) ? "unload" : "load" });
  if (body.think === true && !model.thoughts) throw invalid("think", `wanted false: ${model.id} does not think.`);
  if (body.think === false && model.thoughts && !model.hasThinkingSwitch)
    throw invalid("think", `wanted true: ${model.id} always thinks.`);
  if (body.think !== undefined && model.thoughts && typeof messages === "string")
    throw invalid("think", "wanted none beside raw, which adds nothing to the prompt.");
  const { answers, frames } = withNames(ollamaName, () =>
    openAnswers(c, ollamaAsked(body, model, messages), "ollama-"),
  );
  const end = (finish: AnswerFrame["finish"]) => ({
    done: true,
    done_reason: finish === "length" ? "length" : "stop",
    total_duration: nanoseconds(performance.now() - start),
    ...measured(answers),
    ifprune: answers.extension(0),
  });
  if (body.stream ?? true) return answers.stream(lines(), ndjson);
  const all: Required<Piece> = { text: "", thinking: "", calls: [], logprobs: [] };
  let last: AnswerFrame["finish"];
  for await (const { finish, ...frame } of frames) {
    const { text = "", thinking = "", calls = [], logprobs = [] } = pieceOf(frame, all.calls.length);
    all.text += text;
    all.thinking += thinking;
    all.calls.push(...calls);
    all.logprobs.push(...logprobs);
    last = finish;
  }
  return c.json({ ...head(), ...said(all), ...end(last) });

  async function* lines(): AsyncGenerator<object, void, void> {
    let numCalls = 0;
    for await (const { finish, ...frame } of frames) {
      if (!frame.said && !finish) continue; // the answer's start says nothing
      const piece = pieceOf(frame, numCalls);
      numCalls += piece.calls?.length ?? 0;
      yield { ...head(), ...said(piece), ...(finish ? end(finish) : { done: false }) };
    }
  }
}

/** @param numCalls those before it */
function pieceOf({ said, logprobs }: Pick<AnswerFrame, "said" | "logprobs">, numCalls: number): Piece {
  const scored = logprobs && { logprobs: logprobs.map(chatLogprob) };
  if (!said) return { ...scored };
  if ("text" in said) return { text: said.text, ...scored };
  if ("thought" in said) return { thinking: said.thought, ...scored };
  const { id, function: called } = said.call;
  const { name, arguments: json } = called;
  return { calls: [{ id, function: { index: numCalls, name, arguments: JSON.parse(json) } }], ...scored };
}

/** How long the parts of an answer took, and how many tokens they had. */
function measured(answers: Answers): object {
  const { ms } = answers.extension(0)!;
  const { prompt_tokens, completion_tokens } = answers.usage(1);
  return {
    load_duration: nanoseconds(ms.gather + ms.load),
    prompt_eval_count: prompt_tokens,
    prompt_eval_duration: nanoseconds(ms.predict + ms.prefill),
    eval_count: completion_tokens,
    eval_duration: nanoseconds(ms.decode),
  };
}

const nanoseconds = (ms: number) => Math.round(1e6 * ms);
const isZero = (duration: string | number | undefined) => /^-?0+(\.0*)?[a-z]*$/.test(String(duration));

/** @throws {ApiError} if no model has the name */
function ollamaModel({ var: { service } }: Handled, name: string): ServedModel {
  const isKnown = service.models().some(({ id }) => id === name);
  return servedModel(service, isKnown || !name.endsWith(LATEST) ? name : name.slice(0, -LATEST.length));
}

/** As a list of models has it. */
function listed({ id, hash, created, fileBytes, ...model }: ServedModel): object {
  const name = id + LATEST;
  const modified_at = new Date(1000 * created).toISOString();
  return { name, model: name, modified_at, size: fileBytes, digest: hash, details: details(model) };
}

function details({ family, numParameters }: Pick<ServedModel, "family" | "numParameters">): object {
  const [scale, unit] = numParameters >= 1e9 ? [1e9, "B"] : numParameters >= 1e6 ? [1e6, "M"] : [1e3, "K"];
  const parameter_size = (numParameters / scale).toFixed(1) + unit;
  return {
    parent_model: "",
    format: "gguf",
    family,
    families: [family],
    parameter_size,
    quantization_level: "unknown",
  };
}

function shown(model: ServedModel): object {
  const { family, numParameters, contextLength, numLayers, dFfn, hasTools, thoughts, created } = model;
  return {
    modelfile: "",
    parameters: "",
    template: "",
    details: details(model),
    model_info: {
      "general.architecture": family,
      "general.parameter_count": numParameters,
      [`${family}.context_length`]: contextLength,
      [`${family}.block_count`]: numLayers,
      [`${family}.feed_forward_length`]: dFfn,
    },
    capabilities: ["completion", ...(hasTools ? ["tools"] : []), ...(thoughts ? ["thinking"] : [])],
    modified_at: new Date(1000 * created).toISOString(),
  };
}

/** Models with what their loaded sub-networks take. They stay until others want the memory. */
function loaded(service: InferenceService): object[] {
  const { subnetworks } = service.state();
  return service.models().flatMap((model) => {
    const own = subnetworks.filter((one) => one.model === model.id);
    if (own.length === 0) return [];
    const size = own.reduce((sum, { bytes }) => sum + bytes, 0);
    const expires_at = "9999-12-31T23:59:59Z";
    return [{ ...listed(model), size, size_vram: 0, context_length: model.contextLength, expires_at }];
  });
}
