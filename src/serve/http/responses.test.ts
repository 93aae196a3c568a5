/** OpenAI's Responses API, as its own client speaks it, over a service that has no model. */
import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { beforeEach, expect, test } from "vitest";
import { z } from "zod";
import { FakeService, MASK_ID } from "../../../test/support/fakeService.ts";
import { BusyError } from "../../errors.ts";
import { createApp } from "./app.ts";
import type { LogEntry } from "./context.ts";

let service: FakeService;
let log: LogEntry[];
let openai: OpenAI;
beforeEach(() => {
  service = new FakeService();
  log = [];
  const app = createApp(service, { log: (entry) => log.push(entry) });
  const fetch = async (url: string | URL | Request, init?: RequestInit) => app.fetch(new Request(url, init));
  openai = new OpenAI({ baseURL: "http://localhost/v1", apiKey: "none", maxRetries: 0, fetch });
});

type Params = Partial<OpenAI.Responses.ResponseCreateParamsNonStreaming> & Record<string, unknown>;
const respond = (params: Params = {}) =>
  openai.responses.create({
    model: "tiny",
    input: "Count.",
    ...params,
  } as OpenAI.Responses.ResponseCreateParamsNonStreaming);
// biome-ignore lint/suspicious/noExplicitAny: events of every type
type Event = any;
async function events(params: Params = {}): Promise<Event[]> {
  const all: Event[] = [];
  const stream = await openai.responses.create({ model: "tiny", input: "Count.", ...params, stream: true } as never);
  for await (const event of stream as never as AsyncIterable<Event>) all.push(event);
  return all;
}
const messagesRead = () => {
  const { prompt } = service.requests.at(-1)!;
  return prompt.kind === "chat" ? prompt.messages : [];
};
const weather = {
  type: "function" as const,
  name: "weather",
  parameters: { type: "object", properties: { city: { type: "string" } } },
  strict: true,
};
const call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>';

test("a response has OpenAI's fields, and says which part of the model answered and that nothing is stored", async () => {
  const response = await respond({ instructions: "Be brief.", store: true, metadata: { a: "b" } });
  expect(response.output_text).toBe("one two three");
  expect(response).toMatchObject({
    id: expect.stringMatching(/^resp_[0-9a-f]{32}$/),
    object: "response",
    status: "completed",
    model: "tiny",
    output: [
      {
        type: "message",
        role: "assistant",
        status: "completed",
        content: [{ type: "output_text", text: "one two three", annotations: [] }],
      },
    ],
    usage: { input_tokens: 7, output_tokens: 3, total_tokens: 10, output_tokens_details: { reasoning_tokens: 0 } },
    error: null,
    incomplete_details: null,
    metadata: { a: "b" },
    store: false,
    ifprune: { mask: { id: MASK_ID, t_ffn: 6 }, ms: { decode: 5 } },
  });
  expect(messagesRead()).toEqual([
    { role: "system", content: "Be brief." },
    { role: "user", content: "Count." },
  ]);
  expect(service.requests[0]).toMatchObject({ mask: { kind: "auto" }, maxTokens: 512, sampling: { temperature: 1 } });
});

test("each field reaches the service", async () => {
  await respond({ max_output_tokens: 2, temperature: 0, top_p: 0.5, keep: 0.5, seed: 3, stop: ["x"] });
  expect(service.requests[0]).toMatchObject({
    mask: { kind: "auto", keep: 0.5 },
    maxTokens: 2,
    stop: ["x"],
    sampling: { temperature: 0, topP: 0.5, seed: 3 },
  });
});

test("a streamed answer comes as typed events, numbered, in OpenAI's order, and adds up to the whole one", async () => {
  const all = await events();
  expect(all.map(({ type }) => type.replace("response.", ""))).toEqual([
    ...["created", "in_progress", "output_item.added", "content_part.added"],
    ...["output_text.delta", "output_text.delta", "output_text.delta", "output_text.done"],
    ...["content_part.done", "output_item.done", "completed"],
  ]);
  expect(all.map((event) => event.sequence_number)).toEqual([...all.keys()]);
  const [created, , added, part, delta] = all;
  expect(created.response).toMatchObject({ status: "in_progress", output: [], usage: null });
  expect([added.item.content, part.part.text, delta.delta]).toEqual([[], "", "one"]);
  const { response } = all.at(-1);
  expect(response).toMatchObject({ id: created.response.id, status: "completed", usage: { total_tokens: 10 } });
  expect(response.output[0]).toMatchObject({ id: added.item.id, content: [{ text: "one two three" }] });
  const final = await openai.responses.stream({ model: "tiny", input: "Count." }).finalResponse();
  expect(final.output_text).toBe("one two three");
  expect(service.running).toBe(0);
});

test("an answer that the limit cuts is incomplete", async () => {
  const want = { status: "incomplete", incomplete_details: { reason: "max_output_tokens" } };
  expect(await respond({ max_output_tokens: 2 })).toMatchObject({ ...want, output: [{ status: "incomplete" }] });
  const last = (await events({ max_output_tokens: 2 })).at(-1);
  expect(last).toMatchObject({ type: "response.incomplete", response: want });
});

test("calls are items, whole and streamed, and go back with their results", async () => {
  service.answer = () => `Let me look.\n${call}\n${call}`;
  const { output } = await respond({ tools: [weather] });
  const wantCall = { type: "function_call", name: "weather", arguments: '{"city": "Oslo"}', status: "completed" };
  expect(output).toMatchObject([{ type: "message", content: [{ text: "Let me look.\n" }] }, wantCall, wantCall]);
  const { type, ...fields } = weather;
  expect(service.requests[0]!.prompt).toMatchObject({ tools: [{ type, function: fields }] });

  const all = await events({ tools: [weather] });
  const ofCall = all.filter(({ output_index }) => output_index === 1);
  expect(ofCall.map((event) => [event.type.replace("response.", ""), event.delta ?? event.arguments])).toEqual([
    ["output_item.added", undefined],
    ["function_call_arguments.delta", '{"city": "Oslo"}'],
    ["function_call_arguments.done", '{"city": "Oslo"}'],
    ["output_item.done", undefined],
  ]);
  expect(ofCall[0].item).toMatchObject({ arguments: "", status: "in_progress" });
  service.answer = () => `\n${call}`;
  expect((await respond({ tools: [weather] })).output).toMatchObject([wantCall]);

  service.answer = () => "Rain.";
  const results = output.flatMap((item) =>
    item.type === "function_call"
      ? [{ type: "function_call_output" as const, call_id: item.call_id, output: "rain" }]
      : [],
  );
  await respond({ tools: [weather], input: [{ role: "user", content: "Weather?" }, ...output, ...results] as never });
  expect(messagesRead()).toEqual([
    { role: "user", content: "Weather?" },
    {
      role: "assistant",
      content: "Let me look.\n",
      calls: results.map(({ call_id }) => ({ id: call_id, name: "weather", arguments: { city: "Oslo" } })),
    },
    ...results.map(({ call_id }) => ({ role: "tool", content: "rain", callId: call_id })),
  ]);
});

test("a call that is asked for is held to its schema", async () => {
  service.answer = () => '{"name": "weather", "arguments": {"city": "Oslo"}}';
  const { output } = await respond({ tools: [weather], tool_choice: { type: "function", name: "weather" } });
  expect(output).toMatchObject([{ type: "function_call", name: "weather" }]);
  expect(service.requests[0]!.schema).toMatchObject({ properties: { name: { enum: ["weather"] } } });
});

test("an answer in JSON follows a schema, and is parsed by the client", async () => {
  service.answer = () => '{"n": 3}';
  const format = zodTextFormat(z.object({ n: z.number() }), "count");
  const parsed = await openai.responses.parse({ model: "tiny", input: "Count.", text: { format } });
  expect(parsed.output_parsed).toEqual({ n: 3 });
  expect(service.requests[0]!.schema).toEqual({ type: "object", properties: { n: { type: "number" } } });
  await respond({ text: { format: { type: "json_object" } } });
  expect(service.requests[1]!.schema).toMatchObject({ additionalProperties: true });
  const again = [{ role: "user" as const, content: "a" }, ...parsed.output, { role: "user" as const, content: "b" }];
  await respond({ input: again as never });
  expect(messagesRead().map(({ content }) => content)).toEqual(["a", '{"n": 3}', "b"]);
});

test("thoughts are an item before the answer, and go back to the model with it", async () => {
  service = Object.assign(new FakeService(() => "<think> Wolf, wolves </think> wolves it is"), { thoughts: "open" });
  const app = createApp(service);
  openai = openai.withOptions({ fetch: async (url, init) => app.fetch(new Request(url, init)) });
  const { output } = await respond();
  expect(output).toMatchObject([
    { type: "reasoning", summary: [], content: [{ type: "reasoning_text", text: " Wolf, wolves" }] },
    { type: "message", content: [{ text: "wolves it is" }] },
  ]);
  const all = await events();
  expect(new Set(all.slice(2).map(({ type }) => type.replace("response.", ""))).size).toBe(9);
  expect(all.flatMap(({ type, delta }) => (type === "response.reasoning_text.delta" ? delta : [])).join("")).toBe(
    " Wolf, wolves",
  );
  const final = await openai.responses.stream({ model: "tiny", input: "a" }).finalResponse();
  expect(final.output.map(({ type }) => type)).toEqual(["reasoning", "message"]);
  await respond({ input: [{ role: "user", content: "a" }, ...output, { role: "user", content: "b" }] as never });
  expect(messagesRead()).toMatchObject([
    { content: "a" },
    { content: "wolves it is", thoughts: " Wolf, wolves" },
    { content: "b" },
  ]);
  const encrypted = {
    type: "reasoning",
    id: "rs_1",
    summary: [{ type: "summary_text", text: "x" }],
    encrypted_content: "x",
  };
  await respond({ input: [encrypted, { role: "assistant", content: "a" }, { role: "user", content: "b" }] as never });
  expect(messagesRead()).toEqual([
    { role: "assistant", content: "a" },
    { role: "user", content: "b" },
  ]);
});

test("log-probabilities are told where they are included", async () => {
  const params = { include: ["message.output_text.logprobs" as const], top_logprobs: 1 };
  const want = ["one", " two", " three"].map((token) => ({ token, logprob: -0.5, top_logprobs: [{ token: "t0" }] }));
  expect((await respond(params)).output).toMatchObject([{ content: [{ logprobs: want }] }]);
  const deltas = (await events(params)).filter(({ type }) => type === "response.output_text.delta");
  expect(deltas.flatMap(({ logprobs }) => logprobs)).toMatchObject(want);
});

test.each<[object]>([
  [{ previous_response_id: null, conversation: null, background: false, prompt: null, context_management: null }],
  [
    {
      include: ["reasoning.encrypted_content"],
      reasoning: { effort: null, summary: "auto" },
      tool_choice: "auto",
      tools: [],
    },
  ],
  [
    {
      truncation: "disabled",
      service_tier: "auto",
      parallel_tool_calls: true,
      max_tool_calls: 3,
      prompt_cache_key: "a",
    },
  ],
  [{ input: [{ type: "message", role: "user", content: [{ type: "input_text", text: "a" }] }] }],
])("%j asks for nothing that is not done", async (params) => {
  expect((await respond(params as Params)).status).toBe("completed");
});

test.each<[what: string, params: object, code: string, param: string]>([
  ["an answer from before", { previous_response_id: "resp_1" }, "invalid_value", "previous_response_id"],
  ["a stored conversation", { conversation: "conv_1" }, "invalid_value", "conversation"],
  ["an item of one", { input: [{ type: "item_reference", id: "msg_1" }] }, "invalid_value", "input.0.type"],
  ["the background", { background: true }, "invalid_value", "background"],
  ["a search", { tools: [{ type: "web_search" }] }, "invalid_value", "tools.0.type"],
  [
    "an image",
    { input: [{ role: "user", content: [{ type: "input_image", image_url: "x" }] }] },
    "invalid_value",
    "input.0.content.0.type",
  ],
  ["a shorter conversation", { truncation: "auto" }, "invalid_value", "truncation"],
  ["long thoughts", { reasoning: { effort: "high" } }, "invalid_value", "reasoning.effort"],
  ["nothing", { input: [] }, "invalid_value", "input"],
  ["an unknown field", { max_tokens: 3 }, "unknown_parameter", "max_tokens"],
  ["two tools of a name", { tools: [weather, weather] }, "invalid_value", "tools.1.name"],
  ["tools and JSON", { tools: [weather], text: { format: { type: "json_object" } } }, "invalid_value", "text.format"],
  [
    "what a grammar cannot hold",
    { text: { format: { type: "json_schema", name: "a", schema: { type: "string", pattern: "a" } } } },
    "invalid_value",
    "text.format.schema",
  ],
  [
    "a result of no call",
    { input: [{ type: "function_call_output", call_id: "c", output: "" }] },
    "invalid_value",
    "input.0.call_id",
  ],
  [
    "arguments that are no JSON",
    {
      instructions: "a",
      input: ["{}", "{"].map((json, i) => ({ type: "function_call", call_id: `${i}`, name: "f", arguments: json })),
    },
    "invalid_value",
    "input.1.arguments",
  ],
])("%s is refused by the name of its field", async (_, params, code, param) => {
  const error = (await respond(params as Params).catch((error) => error)) as InstanceType<typeof OpenAI.APIError>;
  expect([error.status, error.code, error.param]).toEqual([400, code, param]);
  expect(error.message).toContain(param);
  if (param === "input.0.type") expect(error.message).toContain("store: false");
});

test("what fails is an error before the answer, an event within it", async () => {
  service.failure = { error: new BusyError("serve: all places are taken.", 2), afterWords: 0 };
  await expect(events()).rejects.toMatchObject({ status: 429, code: "server_busy" });
  service.failure.afterWords = 1;
  await expect(respond()).rejects.toMatchObject({ status: 429 });
  log.length = 0;
  const last = (await events()).at(-1);
  expect(last).toMatchObject({
    type: "response.failed",
    response: { status: "failed", error: { code: "rate_limit_exceeded" }, output: [{ content: [{ text: "one" }] }] },
  });
  expect(log).toMatchObject([{ route: "/v1/responses", status: 429, error: "server_busy" }]);
});
