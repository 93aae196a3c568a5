/** Every route, option and error of the API, without a socket, over a service that has no model. */
import { createHash } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { beforeEach, expect, onTestFinished, test, vi } from "vitest";
import { FakeService, MASK_ID } from "../../../test/support/fakeService.ts";
import { temporaryFolder } from "../../../test/support/models.ts";
import { BusyError, ContextLengthError, FileError, InputError, MemoryError } from "../../errors.ts";
import { type JobTask, SpecializeJobs } from "../../specialize/jobs.ts";
import type { ServedModel } from "../service.ts";
import { type AppOptions, createApp } from "./app.ts";
import type { LogEntry } from "./context.ts";

let service: FakeService;
let log: LogEntry[];
beforeEach(() => {
  service = new FakeService();
  log = [];
});

// biome-ignore lint/suspicious/noExplicitAny: whatever JSON comes back
type Json = any;

function app(options: AppOptions = {}) {
  const { fetch } = createApp(service, { log: (entry) => log.push(entry), ...options });
  const request = async (path: string, init?: RequestInit) =>
    fetch(new Request(new URL(path, "http://localhost"), init));
  return { request };
}
function send(path: string, body?: unknown, init: RequestInit = {}, options: AppOptions = {}): Promise<Response> {
  const post = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  const headers = { ...(body !== undefined && { "content-type": "application/json" }), ...init.headers };
  return app(options).request(path, { ...post, ...init, headers });
}
const user = [{ role: "user", content: "Count." }];
const chat = async (fields: object = {}, status = 200): Promise<Json> => {
  const response = await send("/v1/chat/completions", { model: "tiny", messages: user, ...fields });
  const json = (await response.json()) as Json;
  expect([response.status, json.error?.message ?? ""]).toEqual([status, status === 200 ? "" : expect.anything()]);
  return json;
};
const complete = async (fields: object, status = 200): Promise<Json> => {
  const response = await send("/v1/completions", { model: "tiny", ...fields });
  expect(response.status).toBe(status);
  return response.json();
};
async function events(path: string, body: object): Promise<Json[]> {
  const response = await send(path, { model: "tiny", stream: true, ...body });
  expect(response.headers.get("content-type")).toMatch("text/event-stream");
  const frames = (await response.text()).trimEnd().split("\n\n");
  return frames.map((frame) => {
    expect(frame).toMatch(/^data: /);
    const data = frame.slice("data: ".length);
    return data === "[DONE]" ? data : JSON.parse(data);
  });
}

const wholeExtension = {
  mask: {
    id: MASK_ID,
    source: "predictor",
    t_ffn: 6,
    d_ffn: 20,
    kept_share: 0.3,
    form: "gathered",
    form_reason: "told",
    from: "cold",
  },
  ms: { queue: 0, predict: 1, gather: 2, load: 3, prefill: 4, decode: 5 },
};

test("a chat completion has OpenAI's fields, and which part of the model answered", async () => {
  expect(await chat()).toEqual({
    id: expect.stringMatching(/^chatcmpl-[0-9a-f]{32}$/),
    object: "chat.completion",
    created: expect.any(Number),
    model: "tiny",
    system_fingerprint: `ifprune-${MASK_ID}-gathered`,
    choices: [
      {
        index: 0,
        message: { role: "assistant", content: "one two three", refusal: null },
        logprobs: null,
        finish_reason: "stop",
      },
    ],
    usage: { prompt_tokens: 7, completion_tokens: 3, total_tokens: 10 },
    ifprune: wholeExtension,
  });
});

test("a streamed chat completion is the same in pieces, with usage where asked for", async () => {
  const all = await events("/v1/chat/completions", { messages: user, stream_options: { include_usage: true } });
  expect(all.at(-1)).toBe("[DONE]");
  const chunks = all.slice(0, -1);
  expect(new Set(chunks.map((chunk) => `${chunk.id} ${chunk.object} ${chunk.model}`)).size).toBe(1);
  expect(chunks[0].choices[0].delta).toEqual({ role: "assistant", content: "" });
  expect(chunks.flatMap((chunk) => chunk.choices.map((choice: Json) => choice.delta.content ?? "")).join("")).toBe(
    "one two three",
  );
  const finished = chunks.filter((chunk) => chunk.choices[0]?.finish_reason);
  expect(finished).toEqual([expect.objectContaining({ ifprune: wholeExtension, usage: null })]);
  expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { total_tokens: 10 } });
  expect(service.running).toBe(0);
});

test("a stream says what it waits for, and its mask when it begins, only where asked for", async () => {
  const plain = await events("/v1/chat/completions", { messages: user });
  const told = await events("/v1/chat/completions", { messages: user, stream_options: { include_stages: true } });
  const waits = service.stages.map((stage) => ({ choices: [], ifprune: { index: 0, stage } }));
  expect(told.slice(0, 5)).toMatchObject([...waits, { choices: [{ delta: { role: "assistant" } }] }]);
  expect(told[4].ifprune).toEqual({ mask: wholeExtension.mask });
  const bare = (chunks: Json[]) => chunks.slice(0, -1).map(({ choices, object }) => ({ choices, object }));
  expect(bare(told.slice(4))).toEqual(bare(plain));
  expect(plain.filter((chunk) => chunk.ifprune).length).toBe(1); // with the end, as ever
});

test("each field reaches the service", async () => {
  await chat({
    ...{ stop: ["a", "b"], temperature: 0.5, top_p: 0.9, top_k: 40, min_p: 0.05, seed: -1, max_tokens: 9, n: 2 },
    ...{ frequency_penalty: 1, presence_penalty: -1, repetition_penalty: 1.1, logit_bias: { 5: -100 } },
    ...{ logprobs: true, top_logprobs: 2, mask: "dense" },
    messages: [
      { role: "developer", content: "Be brief." },
      {
        role: "user",
        content: [
          { type: "text", text: "Co" },
          { type: "text", text: "unt." },
        ],
      },
      { role: "assistant", content: "1" },
      { role: "user", content: "Go on." },
    ],
  });
  expect(service.requests).toMatchObject(
    [0xffffffff, 0].map((seed) => ({
      model: "tiny",
      prompt: {
        kind: "chat",
        messages: [
          { role: "system", content: "Be brief." },
          { role: "user", content: "Count." },
          { role: "assistant", content: "1" },
          { role: "user", content: "Go on." },
        ],
      },
      mask: { kind: "dense" },
      maxTokens: 9,
      stop: ["a", "b"],
      sampling: {
        ...{ temperature: 0.5, topP: 0.9, topK: 40, minP: 0.05, seed, frequencyPenalty: 1, presencePenalty: -1 },
        ...{ repeatPenalty: 1.1, logitBias: new Map([[5, -100]]) },
      },
      logprobs: 2,
    })),
  );
});

test("an answer in JSON follows a schema", async () => {
  await chat({ response_format: { type: "json_object" } });
  const schema = {
    $schema: "http://json-schema.org/draft-07/schema#",
    type: "object",
    properties: {
      a: { type: ["string", "null"], description: "A" },
      b: { anyOf: [{ const: 1 }, { enum: ["x", null] }] },
      c: { type: "array", items: { type: "string", format: "date" }, maxItems: 3 },
      d: { type: "object", additionalProperties: { type: "integer" } },
    },
    required: ["a"],
    additionalProperties: false,
  };
  await chat({ response_format: { type: "json_schema", json_schema: { name: "it", strict: true, schema } } });
  expect(service.requests.map((request) => request.schema)).toEqual([
    { type: "object", properties: {}, additionalProperties: true },
    {
      type: "object",
      properties: {
        a: { oneOf: [{ type: "string" }, { type: "null" }] },
        b: { oneOf: [{ enum: [1] }, { enum: ["x", null] }] },
        c: { type: "array", items: { type: "string", format: "date" }, maxItems: 3 },
        d: { type: "object", properties: {}, additionalProperties: { type: "integer" } },
      },
    },
  ]);
});

test("what is left out, or null, is OpenAI's default", async () => {
  await chat({ temperature: null, stop: null, user: "someone", metadata: { a: "b" }, store: false, logit_bias: null });
  expect(service.requests[0]).toMatchObject({
    mask: { kind: "auto" },
    maxTokens: 512,
    stop: [],
    sampling: { temperature: 1, topP: 1, topK: 0, minP: 0, repeatPenalty: 1, logitBias: new Map() },
  });
  expect(service.requests[0]!.logprobs).toBeUndefined();
  expect(service.requests[0]!.schema).toBeUndefined();
});

test("several answers come in one response, counted once for the prompt", async () => {
  service.answer = ({ sampling }) => `seed ${sampling.seed}`;
  const { choices, usage } = await chat({ n: 5, seed: 10 });
  expect(choices.map((choice: Json) => [choice.index, choice.message.content])).toEqual(
    [10, 11, 12, 13, 14].map((seed, i) => [i, `seed ${seed}`]),
  );
  expect(usage).toEqual({ prompt_tokens: 7, completion_tokens: 10, total_tokens: 17 });
  const chunks = (await events("/v1/chat/completions", { messages: user, n: 3, seed: 1 })).slice(0, -1);
  const texts = ["", "", ""];
  for (const {
    choices: [choice],
  } of chunks)
    texts[choice.index] += choice.delta.content ?? "";
  expect(texts).toEqual(["seed 1", "seed 2", "seed 3"]);
});

test("log-probabilities have OpenAI's shape, whole and streamed", async () => {
  const want = ["one", " two", " three"].map((token) => ({
    token,
    logprob: -0.5,
    bytes: [...Buffer.from(token)],
    top_logprobs: [{ token: "t0", logprob: -1, bytes: [116, 48] }],
  }));
  const fields = { logprobs: true, top_logprobs: 1 };
  expect((await chat(fields)).choices[0].logprobs).toEqual({ content: want, refusal: null });
  const chunks = (await events("/v1/chat/completions", { messages: user, ...fields })).slice(0, -1);
  expect(chunks.flatMap((chunk) => chunk.choices[0].logprobs?.content ?? [])).toEqual(want);
});

test("a mask is asked for by task, by id, bare id, or not at all", async () => {
  await service.saveTask("tiny", "poems", "Write a poem.");
  for (const [mask, want] of [
    ["auto", { kind: "auto" }],
    ["dense", { kind: "dense" }],
    ["task:poems", { kind: "task", name: "poems" }],
    [`id:${MASK_ID}`, { kind: "id", id: MASK_ID }],
    [MASK_ID, { kind: "id", id: MASK_ID }],
  ]) {
    await chat({ mask });
    expect(service.requests.at(-1)!.mask).toEqual(want);
  }
});

test("a mask's size is asked for as a share or a count, also where another mask is the server's own", async () => {
  for (const [fields, want] of [
    [{ keep: 0.75 }, { kind: "auto", keep: 0.75 }],
    [
      { keep: "75%", mask: "auto" },
      { kind: "auto", keep: 0.75 },
    ],
    [{ t_ffn: 8 }, { kind: "auto", tFfn: 8 }],
  ] as const) {
    for (const mask of ["auto", "dense"] as const) {
      const body = { model: "tiny", messages: user, ...fields };
      await send("/v1/chat/completions", body, {}, { mask: { kind: mask } });
      expect(service.requests.at(-1)!.mask).toEqual(want);
    }
  }
});

const tools = [
  {
    type: "function",
    function: {
      name: "weather",
      description: "Weather of a city",
      parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    },
  },
];
const call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>';
const wantCall = {
  id: expect.stringMatching(/^call_/),
  type: "function",
  function: { name: "weather", arguments: '{"city": "Oslo"}' },
};

test("a call in the answer becomes a tool call, whole and streamed; text around it stays", async () => {
  service.answer = () => `Let me look.\n${call}\n${call}`;
  const { choices } = await chat({ tools });
  expect(choices[0]).toMatchObject({
    message: { content: "Let me look.\n", tool_calls: [wantCall, wantCall] },
    finish_reason: "tool_calls",
  });
  expect(service.requests[0]!.prompt).toMatchObject({ tools });
  const chunks = (await events("/v1/chat/completions", { messages: user, tools })).slice(0, -1);
  const deltas = chunks.map((chunk) => chunk.choices[0].delta);
  expect(deltas.map((delta) => delta.content ?? "").join("")).toBe("Let me look.\n");
  expect(deltas.flatMap((delta) => delta.tool_calls ?? [])).toEqual([
    { index: 0, ...wantCall },
    { index: 1, ...wantCall },
  ]);
  expect(chunks.at(-1).choices[0].finish_reason).toBe("tool_calls");
});

test("what is no call stays text", async () => {
  for (const said of [
    "<tool_call>not JSON</tool_call>",
    '<tool_call>{"name": "unknown", "arguments": {}}</tool_call>',
    "a < b and <tool_",
  ]) {
    service.answer = () => said;
    expect((await chat({ tools })).choices[0]).toMatchObject({ message: { content: said }, finish_reason: "stop" });
  }
  service.answer = () => call;
  expect((await chat({ tools, tool_choice: "none" })).choices[0].message).toMatchObject({ content: call });
});

test("a call that is asked for is held to its schema", async () => {
  service.answer = () => '{"name": "weather", "arguments": {"city": "Oslo"}}';
  const { choices } = await chat({ tools, tool_choice: { type: "function", function: { name: "weather" } } });
  expect(choices[0]).toMatchObject({ message: { content: null, tool_calls: [wantCall] }, finish_reason: "tool_calls" });
  expect(service.requests[0]!.schema).toEqual({
    type: "object",
    properties: {
      name: { enum: ["weather"] },
      arguments: { type: "object", properties: { city: { type: "string" } } },
    },
  });
  await chat({ tools, tool_choice: "auto", parallel_tool_calls: false });
  expect(service.requests[1]!.stop).toEqual(["</tool_call>"]);
});

test("calls and their results are told to the model", async () => {
  const tool_calls = ["a", "b"].map((id) => ({
    id,
    type: "function",
    function: { name: "weather", arguments: '{"city": "Oslo"}' },
  }));
  await chat({
    tools,
    messages: [
      ...user,
      { role: "assistant", content: null, tool_calls },
      { role: "tool", tool_call_id: "a", content: "rain" },
      { role: "tool", tool_call_id: "b", content: "sun" },
    ],
  });
  expect(service.requests[0]!.prompt).toMatchObject({
    messages: [
      ...user,
      {
        role: "assistant",
        content: "",
        calls: ["a", "b"].map((id) => ({ id, name: "weather", arguments: { city: "Oslo" } })),
      },
      { role: "tool", callId: "a", content: "rain" },
      { role: "tool", callId: "b", content: "sun" },
    ],
  });
});

test("completions continue texts and tokens", async () => {
  const { object, choices, usage } = await complete({ prompt: "Once", max_tokens: 2 });
  expect(object).toBe("text_completion");
  expect(choices).toEqual([{ index: 0, text: "one two", logprobs: null, finish_reason: "length" }]);
  expect(usage).toEqual({ prompt_tokens: 7, completion_tokens: 2, total_tokens: 9 });
  expect(service.requests[0]).toMatchObject({ prompt: { kind: "text", text: "Once" } });
  for (const [prompt, want] of [
    [[1, 2], [{ kind: "ids", ids: Int32Array.of(1, 2) }]],
    [[[1], [2]], [1, 2].map((id) => ({ kind: "ids", ids: Int32Array.of(id) }))],
    [["a", "b"], ["a", "b"].map((text) => ({ kind: "text", text }))],
  ] as const) {
    service.requests.length = 0;
    const { choices: all, usage: used } = await complete({ prompt, n: 2 });
    expect(service.requests.map((request) => request.prompt)).toEqual(want.flatMap((one) => [one, one]));
    expect(all.map((choice: Json) => choice.index)).toEqual([...Array(2 * want.length).keys()]);
    expect(used.prompt_tokens).toBe(7 * want.length);
  }
});

test("echo with log-probabilities scores the prompt, as evaluation harnesses ask for it", async () => {
  const { choices, usage } = await complete({
    prompt: [[4, 5, 6]],
    max_tokens: 1,
    logprobs: 1,
    echo: true,
    seed: 1234,
    temperature: 0,
  });
  expect(choices[0]).toEqual({
    index: 0,
    text: " 4 5 6one",
    logprobs: {
      tokens: [" 4", " 5", " 6", "one"],
      token_logprobs: [null, -0.25, -0.25, -0.5],
      top_logprobs: [null, { t0: -1, " 5": -0.25 }, { t0: -1, " 6": -0.25 }, { t0: -1, one: -0.5 }],
      text_offset: [0, 2, 4, 6],
    },
    finish_reason: "length",
  });
  expect(usage.total_tokens).toBe(8);
  const scored = await complete({ prompt: "a b c", max_tokens: 0, logprobs: 0, echo: true });
  expect(scored.choices[0].text).toBe("a b c");
  expect(scored.choices[0].logprobs.token_logprobs).toEqual([null, -0.25, -0.25]);
  expect(scored.usage).toEqual({ prompt_tokens: 3, completion_tokens: 0, total_tokens: 3 });
  service.bos = "<s>";
  const { text, logprobs } = (await complete({ prompt: "a b", max_tokens: 1, logprobs: 0, echo: true })).choices[0];
  expect([text, logprobs.tokens, logprobs.text_offset]).toEqual(["a bone", ["<s>", "a", " b", "one"], [0, 0, 1, 3]]);
  expect((await complete({ prompt: "a b", echo: true })).choices[0].text).toBe("a bone two three");
  service.bos = undefined;
  const foreign = await complete({ prompt: "你好 👩 and cats", max_tokens: 0, logprobs: 0, echo: true });
  const places = foreign.choices[0].logprobs.text_offset; // in characters, though they come in three or four tokens
  expect(places).toEqual([...Array(6).fill(0), 2, ...Array(4).fill(3), 4, 8]);
});

test("tokens that are echoed are decoded together: one alone may be a part of a character", async () => {
  service.decode = (_, ids) => "日".repeat(ids.length - 1);
  const asked = { prompt: [[4, 5]], max_tokens: 0, logprobs: 0, echo: true };
  const { text, logprobs } = (await complete(asked)).choices[0];
  expect([text, logprobs.tokens]).toEqual(["日", [" 4", " 5"]]);
});

test("log-probabilities of completions have an entry for the token that ends the answer, as harnesses leave out the last one", async () => {
  service.hasEnd = true;
  service.answer = () => "";
  const asked = { prompt: [[4, 5, 6]], max_tokens: 1, logprobs: 1, echo: true, seed: 1234, temperature: 0 };
  const { choices, usage } = await complete(asked);
  expect(choices[0]).toEqual({
    index: 0,
    text: " 4 5 6",
    logprobs: {
      tokens: [" 4", " 5", " 6", ""],
      token_logprobs: [null, -0.25, -0.25, -0.75],
      top_logprobs: [null, { t0: -1, " 5": -0.25 }, { t0: -1, " 6": -0.25 }, { "": -0.75 }],
      text_offset: [0, 2, 4, 6],
    },
    finish_reason: "stop",
  });
  expect(usage.completion_tokens).toBe(0);
  service.answer = () => "one two";
  const whole = (await complete({ prompt: "a", logprobs: 0 })).choices[0];
  expect([whole.text, whole.logprobs.tokens]).toEqual(["one two", ["one", " two", ""]]);
  const cut = (await complete({ prompt: "a", logprobs: 0, max_tokens: 2 })).choices[0];
  expect([cut.text, cut.logprobs.tokens]).toEqual(["one two", ["one", " two"]]);
  const chunks = await events("/v1/completions", { ...asked, prompt: "a", max_tokens: 16 });
  expect(chunks.at(-2).choices[0]).toMatchObject({ finish_reason: "stop", logprobs: { token_logprobs: [-0.75] } });
  const said = (await chat({ logprobs: true })).choices[0]; // the chat API tells of what is said
  expect(said.logprobs.content).toHaveLength(2);
});

test("requests that name no mask get the server's", async () => {
  const ask = (path: string, body: object) => send(path, { model: "tiny", ...body }, {}, { mask: { kind: "dense" } });
  await ask("/v1/completions", { prompt: "a" });
  await ask("/v1/chat/completions", { messages: user });
  await ask("/v1/completions", { prompt: "a", mask: "auto" });
  expect(service.requests.map((request) => request.mask.kind)).toEqual(["dense", "dense", "auto"]);
});

test("streamed completions add up to whole ones", async () => {
  const body = { prompt: ["a b", "c"], echo: true, logprobs: 0, seed: 1 };
  const want = await complete(body);
  const chunks = await events("/v1/completions", { ...body, stream_options: { include_usage: true } });
  expect(chunks.at(-1)).toBe("[DONE]");
  expect(chunks.at(-2)).toMatchObject({ choices: [], usage: want.usage });
  for (const choice of want.choices) {
    const own = chunks
      .slice(0, -2)
      .map((chunk) => chunk.choices[0])
      .filter(({ index }) => index === choice.index);
    expect(own.map(({ text }) => text).join("")).toBe(choice.text);
    expect(own.flatMap(({ logprobs }) => logprobs?.text_offset ?? [])).toEqual(choice.logprobs.text_offset);
    expect(own.at(-1).finish_reason).toBe(choice.finish_reason);
  }
});

test("models, one model, health, state", async () => {
  const { object, data } = (await (await send("/v1/models")).json()) as Json;
  expect([object, data.map((model: Json) => model.id)]).toEqual(["list", ["tiny", "plain/model"]]);
  expect(await (await send("/v1/models/plain%2Fmodel")).json()).toMatchObject({
    id: "plain/model",
    object: "model",
    created: 1_700_000_000,
  });
  expect(await (await send("/health")).json()).toEqual({ status: "ok" });
  expect(await (await send("/ifprune/models")).json()).toEqual(service.models());
  expect(await (await send("/ifprune/state")).json()).toEqual({
    ...service.state(),
    models: ["tiny", "plain/model"],
    allowsModels: false,
    allowsSpecialize: false,
  });
});

test("a model whose files are damaged is said to be out, and a server without any other is out too", async () => {
  const [tiny, plain] = service.models() as [ServedModel, ServedModel];
  const models = vi.spyOn(service, "models");
  onTestFinished(() => models.mockRestore());
  const health = async () => {
    const response = await send("/health");
    return [response.status, await response.json()];
  };
  models.mockReturnValue([{ ...tiny, fault: "ffn.gguf: wanted another." }, plain]);
  expect(await health()).toEqual([200, { status: "degraded", faults: { tiny: "ffn.gguf: wanted another." } }]);
  const { data } = (await (await send("/v1/models")).json()) as Json;
  expect(data.map(({ ifprune }: Json) => ifprune.fault)).toEqual(["ffn.gguf: wanted another.", undefined]);
  models.mockReturnValue([{ ...tiny, fault: "ffn.gguf: wanted another." }]);
  expect((await health())[0]).toBe(503);
});

test("models are added only where the server was told to allow it, with their progress", async () => {
  const add = (body: object, options: AppOptions = { allowModels: true }) => send("/ifprune/models", body, {}, options);
  const refused = await add({ name: "owner/new" }, {});
  expect([refused.status, await refused.json()]).toMatchObject([
    403,
    {
      error: {
        code: "models_not_allowed",
        type: "permission_error",
        message: expect.stringContaining("--allow-models"),
      },
    },
  ]);
  expect(service.models().length).toBe(2);
  for (const [body, status, code, message] of [
    [{}, 400, "missing_required_parameter", "name"],
    [{ name: " " }, 400, "invalid_value", "wanted a folder"],
    [{ name: "missing" }, 400, "model_unavailable", "/missing: wanted a bundle folder"], // who adds it knows the path
    [{ name: "owner/missing" }, 502, "hub_failed", "the Hub has no such model"],
  ] as const) {
    const response = await add(body);
    const { error } = (await response.json()) as Json;
    expect([response.status, error.code, error.message]).toEqual([status, code, expect.stringContaining(message)]);
  }
  const frames = (await (await add({ name: "owner/new" })).text()).trimEnd().split("\n\n");
  const [first, last, model, end] = frames.map((frame) => frame.slice("data: ".length));
  expect([JSON.parse(first!), JSON.parse(last!)]).toEqual(
    [10, 20].map((done) => ({ stage: "download", done, total: 20 })),
  );
  expect([JSON.parse(model!), end]).toEqual([{ model: service.models()[2] }, "[DONE]"]);
  const state = await send("/ifprune/state", undefined, {}, { allowModels: true });
  expect(await state.json()).toMatchObject({ allowsModels: true });
});

test("a client that goes away while a model comes stops that", async () => {
  const response = await send("/ifprune/models", { name: "owner/endless" }, {}, { allowModels: true });
  const reader = response.body!.getReader();
  await reader.read();
  await reader.cancel();
  expect(log.at(-1)).toMatchObject({ route: "/ifprune/models", status: 499 });
});

test("models are made for tasks only where the server was told to allow it; one at a time, and under names that are no paths", async () => {
  const refused = await send("/ifprune/specialize");
  expect([refused.status, ((await refused.json()) as Json).error]).toMatchObject([
    403,
    { code: "specialize_not_allowed", message: expect.stringContaining("--allow-specialize") },
  ]);
  const [tiny] = service.models();
  const plain = { ...tiny!, id: "plain", isTrained: false, location: "/folder/of/plain" };
  const models = vi.spyOn(service, "models").mockReturnValue([tiny!, plain]);
  onTestFinished(() => models.mockRestore());
  const root = temporaryFolder();
  const tasks: JobTask[] = [];
  await using jobs = new SpecializeJobs({
    root,
    work: async function* (task, signal) {
      tasks.push(task);
      yield { kind: "note", text: "begun" };
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
    },
  });
  const ask = async (method: string, path: string, body?: object): Promise<[number, Json]> => {
    const init = { method, ...(body && { body: JSON.stringify(body) }) };
    const headers = { "content-type": "application/json" };
    const response = await send(`/ifprune/specialize${path}`, undefined, { ...init, headers }, { jobs });
    return [response.status, response.status === 204 ? undefined : await response.json()];
  };
  const begin = (fields: object = {}) =>
    ask("POST", "", { name: "sql", model: "plain", task: "Into SQL", prompts: "one\ntwo", ...fields });
  for (const [fields, status, code, param] of [
    [{ name: "../x" }, 400, "invalid_value", "name"],
    [{ name: "tiny" }, 400, "invalid_value", "name"], // served
    [{ model: "none" }, 404, "model_not_found", "model"],
    [{ model: "tiny" }, 400, "invalid_value", "model"], // has trained masks
    [{ task: undefined, prompts: undefined }, 400, "missing_required_parameter", "task"],
    [{ prompts: " " }, 400, "invalid_value", "prompts"],
    [{ examples: "{}" }, 400, "invalid_value", "prompts"],
    [{ prompts: undefined, examples: "{}", draft: 40 }, 400, "invalid_value", "draft"],
    [{ draft: 4 }, 400, "invalid_value", "draft"],
    [{ max_loss: 0.2 }, 400, "invalid_value", "max_loss"],
    [{ tokens: 0 }, 400, "invalid_value", "tokens"],
    [{ out: "/tmp/x" }, 400, "unknown_parameter", "out"],
  ] as const) {
    const [got, { error }] = await begin(fields);
    expect([got, error.code, error.param]).toEqual([status, code, param]);
  }
  expect(await ask("GET", "")).toEqual([200, []]);

  const [status, job] = await begin({ draft: 40, keep: "auto", max_loss: 0.2, tokens: 1000, max_tokens: 64 });
  const asked = { draft: 40, keep: "auto", maxLoss: 0.2, tokens: 1000, maxTokens: 64 };
  expect([status, job]).toMatchObject([201, { state: "running", asked: { name: "sql", rows: "prompts", ...asked } }]);
  expect(tasks).toMatchObject([
    { model: "/folder/of/plain", options: { ...asked, prompts: join(root, "sql/prompts.txt") } },
  ]);
  expect(JSON.stringify(await ask("GET", ""))).not.toMatch(RegExp(`${root}|/folder/of`));
  expect(await begin({ name: "other" })).toMatchObject([429, { error: { code: "server_busy" } }]);
  expect(await ask("POST", "/sql/serve")).toMatchObject([400, { error: { message: expect.stringContaining("done") } }]);
  expect(await ask("POST", "/none/stop")).toMatchObject([404, { error: { code: "job_not_found" } }]);
  expect(await ask("POST", "/sql/stop")).toMatchObject([200, { state: "stopped", notes: ["begun"] }]);
  expect(await ask("POST", "/sql/go-on")).toMatchObject([200, { state: "running" }]);
  await jobs.stop("sql");

  mkdirSync(jobs.out("sql"));
  writeFileSync(join(jobs.out("sql"), "specialize.json"), "{}");
  await using next = new SpecializeJobs({ root }); // of a server that starts later
  const served = await send("/ifprune/specialize/sql/serve", undefined, { method: "POST" }, { jobs: next });
  expect(await served.json()).toMatchObject({ id: jobs.out("sql") }); // as the fake service calls it
  const state = await send("/ifprune/state", undefined, {}, { jobs: next });
  expect(await state.json()).toMatchObject({ allowsSpecialize: true });
  expect((await send("/ifprune/specialize/sql", undefined, { method: "DELETE" }, { jobs: next })).status).toBe(204);
  expect(next.list()).toEqual([]);
});

test("where models lie is told on this machine alone; their names are everywhere", async () => {
  const options = { host: "0.0.0.0", apiKey: "s3cret" };
  const headers = { authorization: "Bearer s3cret" };
  const told = (await (await send("/ifprune/models", undefined, { headers }, options)).json()) as Json;
  expect(told.map(({ location }: Json) => location)).toEqual(["owner/tiny", undefined]);
});

test("a mask goes to the page as bits of its channels", async () => {
  const { info, layers, lambda } = (await (
    await send("/ifprune/mask", { model: "tiny", instruction: "Count." })
  ).json()) as Json;
  const { mask } = await service.mask("tiny", "Count.");
  expect(info).toMatchObject({ id: MASK_ID, tFfn: 6, dFfn: 20, from: "disk" });
  for (const [layer, text] of layers.entries()) {
    const bytes = Buffer.from(text, "base64");
    const kept = [...Array(20).keys()].filter((channel) => bytes[channel >> 3]! & (1 << (channel & 7)));
    expect([bytes.length, kept]).toEqual([3, [...mask.layers[layer]!]]);
    for (const [i, weight] of [...Buffer.from(lambda[layer], "base64")].entries())
      expect(Math.abs(weight / 255 - mask.lambda![layer]![i]!)).toBeLessThanOrEqual(1 / 255); // rounded up to a 255th
  }
  const stored = (await (await send(`/ifprune/masks/tiny/${MASK_ID}`)).json()) as Json;
  expect(stored).toMatchObject({
    info: { id: MASK_ID, tFfn: 6, dFfn: 20 },
    layers: [expect.any(String), expect.any(String)],
  });
  const file = await send(`/ifprune/masks/tiny/${MASK_ID}/file`);
  expect(file.headers.get("content-disposition")).toMatch("attachment");
  expect(await file.json()).toMatchObject({ tFfn: 6, dFfn: 20 });
});

test("tasks are saved, listed, read and deleted", async () => {
  const put = await send("/ifprune/tasks/plain%2Fmodel/poems", { instruction: "Write a poem." }, { method: "PUT" });
  const task = { name: "poems", instruction: "Write a poem.", maskId: MASK_ID };
  expect([put.status, await put.json()]).toEqual([200, task]);
  expect(await (await send("/ifprune/tasks/tiny")).json()).toEqual([task]);
  expect(await (await send("/ifprune/tasks/tiny/poems")).json()).toEqual(task);
  expect((await send("/ifprune/tasks/tiny/poems", undefined, { method: "DELETE" })).status).toBe(204);
  expect((await send("/ifprune/tasks/tiny/poems")).status).toBe(404);
  const name = encodeURIComponent("Bob's plurals, 100 %");
  const examples = [{ input: "wolf", output: "wolves" }];
  await send(`/ifprune/tasks/tiny/${name}`, { instruction: "Write the plural.", examples }, { method: "PUT" });
  expect(await (await send(`/ifprune/tasks/tiny/${name}`)).json()).toMatchObject({
    name: "Bob's plurals, 100 %",
    examples,
  });
  await chat({ mask: "task:Bob's plurals, 100 %" });
  expect(service.requests.at(-1)!.mask).toEqual({ kind: "task", name: "Bob's plurals, 100 %" });
});

test("metrics count requests by route and status, answers by where their mask was", async () => {
  const one = app();
  const post = (body: unknown) =>
    one.request("/v1/chat/completions", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  await post({ model: "tiny", messages: user });
  await (await post({ model: "tiny", messages: user, stream: true })).text();
  await post({ model: "nope", messages: user });
  await one.request("/../../etc/passwd");
  const text = await (await one.request("/metrics")).text();
  for (const line of [
    'ifprune_requests_total{route="/v1/chat/completions",status="200"} 2',
    'ifprune_requests_total{route="/v1/chat/completions",status="404"} 1',
    'ifprune_requests_total{route="other",status="404"} 1',
    'ifprune_masks_total{from="cold",source="predictor"} 2',
    'ifprune_forms_total{form="gathered",reason="told"} 2',
    'ifprune_subnetworks{form="gathered"} 1',
    'ifprune_subnetworks{form="resident"} 0',
    "ifprune_running 0",
    "ifprune_subnetwork_bytes 1000",
    "ifprune_completion_tokens_sum 6",
    "ifprune_time_to_first_token_seconds_count 2",
  ])
    expect(text.split("\n")).toContain(line);
});

test("the log has no prompts unless asked for", async () => {
  await chat();
  expect(log).toEqual([
    {
      ...{
        time: expect.any(String),
        method: "POST",
        route: "/v1/chat/completions",
        status: 200,
        ms: expect.any(Number),
      },
      ...{ model: "tiny", mask: MASK_ID, from: "cold", promptTokens: 7, completionTokens: 3 },
    },
  ]);
  await send("/v1/chat/completions", { model: "tiny", messages: user }, {}, { logPrompts: true });
  expect(log[1]!.prompt).toEqual(user);
});

const longSchema = {
  type: "object",
  properties: Object.fromEntries(Array.from({ length: 600 }, (_, i) => [`p${i}`, { type: "null" }])),
};
let deep: object = { type: "string" };
for (let i = 0; i < 20; i++) deep = { type: "array", items: deep };
const withSchema = (value: unknown) => ({
  response_format: { type: "json_schema", json_schema: { name: "a", schema: value } },
});

/** Fields of a chat request, and the error that they get: status, code, param. */
const refusals: [what: string, fields: object, status: number, code: string, param: string][] = [
  ["no model", { model: undefined }, 400, "missing_required_parameter", "model"],
  ["an unknown model", { model: "nope" }, 404, "model_not_found", "model"],
  ["no messages", { messages: undefined }, 400, "missing_required_parameter", "messages"],
  ["an empty list of messages", { messages: [] }, 400, "invalid_value", "messages"],
  ["messages that are a text", { messages: "hi" }, 400, "invalid_type", "messages"],
  ["too many messages", { messages: Array(1001).fill(user[0]) }, 400, "invalid_value", "messages"],
  ["an unknown role", { messages: [{ role: "wizard", content: "hi" }] }, 400, "invalid_value", "messages.0.role"],
  ["no content", { messages: [{ role: "user" }] }, 400, "missing_required_parameter", "messages.0.content"],
  [
    "an image",
    { messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: "x" } }] }] },
    400,
    "invalid_value",
    "messages.0.content.0.type",
  ],
  [
    "an answer before without a text or calls",
    { messages: [...user, { role: "assistant" }, ...user] },
    400,
    "invalid_value",
    "messages.1.content",
  ],
  [
    "a result without a call",
    { messages: [...user, { role: "tool", content: "x", tool_call_id: "y" }] },
    400,
    "invalid_value",
    "messages.1.tool_call_id",
  ],
  ["an unknown field", { temprature: 1 }, 400, "unknown_parameter", "temprature"],
  ["thinking for long", { reasoning_effort: "high" }, 400, "invalid_value", "reasoning_effort"],
  ["a text beyond its end", { ignore_eos: true }, 400, "unknown_parameter", "ignore_eos"],
  ["functions of old", { functions: [{ name: "f" }] }, 400, "unsupported_parameter", "functions"],
  ["a temperature that is a text", { temperature: "hot" }, 400, "invalid_type", "temperature"],
  ["a temperature out of range", { temperature: 3 }, 400, "invalid_value", "temperature"],
  ["n of a million", { n: 1_000_000 }, 400, "invalid_value", "n"],
  ["n of nothing", { n: 0 }, 400, "invalid_value", "n"],
  ["half a token", { max_tokens: 1.5 }, 400, "invalid_type", "max_tokens"],
  ["no tokens", { max_tokens: 0 }, 400, "invalid_value", "max_tokens"],
  ["two limits", { max_tokens: 1, max_completion_tokens: 2 }, 400, "invalid_value", "max_tokens"],
  ["too many stops", { stop: Array.from({ length: 33 }, (_, i) => `${i}`) }, 400, "invalid_value", "stop"],
  ["a long stop", { stop: "x".repeat(257) }, 400, "invalid_value", "stop"],
  ["a bias of no token", { logit_bias: { hello: 1 } }, 400, "invalid_value", "logit_bias.hello"],
  ["a bias of a prototype", { logit_bias: JSON.parse('{"__proto__":1}') }, 400, "invalid_value", "logit_bias"],
  ["a bias of a constructor", { logit_bias: { constructor: 1 } }, 400, "invalid_value", "logit_bias.constructor"],
  ["metadata of a prototype", { metadata: JSON.parse('{"__proto__":"x"}') }, 400, "invalid_value", "metadata"],
  [
    "many biases",
    { logit_bias: Object.fromEntries(Array.from({ length: 301 }, (_, i) => [i, 1])) },
    400,
    "invalid_value",
    "logit_bias",
  ],
  ["top_logprobs alone", { top_logprobs: 1 }, 400, "invalid_value", "top_logprobs"],
  ["stream_options alone", { stream_options: { include_usage: true } }, 400, "invalid_value", "stream_options"],
  ["audio", { modalities: ["audio"] }, 400, "invalid_value", "modalities.0"],
  ["storing", { store: true }, 400, "invalid_value", "store"],
  ["an unknown task", { mask: "task:none" }, 404, "task_not_found", "mask"],
  ["an unknown mask", { mask: "id:0123" }, 404, "mask_not_found", "mask"],
  ["a share of nothing", { keep: 0 }, 400, "invalid_value", "keep"],
  ["a share in words", { keep: "half" }, 400, "invalid_value", "keep"],
  ["a share and a count", { keep: 0.5, t_ffn: 6 }, 400, "invalid_value", "keep"],
  ["a share of a mask that is given", { keep: 0.5, mask: "dense" }, 400, "invalid_value", "keep"],
  ["more channels than there are", { t_ffn: 21 }, 400, "invalid_value", "t_ffn"],
  ["a share by what was not measured", { keep: "auto" }, 400, "invalid_value", "keep"],
  ["a path as a task", { mask: "task:../../etc" }, 400, "invalid_value", "mask"],
  ["a path as a mask", { mask: "/etc/passwd" }, 400, "invalid_value", "mask"],
  ["tools of a model that knows none", { model: "plain/model", tools }, 400, "unsupported_parameter", "tools"],
  ["a tool choice without tools", { tool_choice: "required" }, 400, "invalid_value", "tool_choice"],
  [
    "a choice of no tool",
    { tools, tool_choice: { type: "function", function: { name: "x" } } },
    400,
    "invalid_value",
    "tool_choice",
  ],
  ["a tool twice", { tools: [...tools, ...tools] }, 400, "invalid_value", "tools.1.function.name"],
  [
    "a call as functions of old were",
    {
      messages: [...user, { role: "assistant", content: "a", function_call: { name: "f", arguments: "{}" } }, ...user],
    },
    400,
    "invalid_type",
    "messages.1.function_call",
  ],
  ["a tool that is no function", { tools: [{ type: "web_search" }] }, 400, "invalid_value", "tools.0.type"],
  [
    "log-probabilities of JSON",
    { logprobs: true, response_format: { type: "json_object" } },
    400,
    "invalid_value",
    "logprobs",
  ],
  ["tools and a format", { tools, response_format: { type: "json_object" } }, 400, "invalid_value", "response_format"],
  ["an unknown format", { response_format: { type: "xml" } }, 400, "invalid_value", "response_format.type"],
  [
    "a schema that refers to itself",
    withSchema({ type: "object", properties: { a: { $ref: "#" } } }),
    400,
    "invalid_value",
    "response_format.json_schema.schema.properties.a.properties.a",
  ],
  ["a schema of many parts", withSchema(longSchema), 400, "invalid_value", "response_format.json_schema.schema"],
  ["a deep schema", withSchema(deep), 400, "invalid_value", "response_format.json_schema.schema"],
  [
    "a schema with a pattern",
    withSchema({ type: "string", pattern: "a+" }),
    400,
    "invalid_value",
    "response_format.json_schema.schema",
  ],
  [
    "a bound that an answer cannot be held to",
    withSchema({ type: "integer", minimum: 1 }),
    400,
    "invalid_value",
    "response_format.json_schema.schema",
  ],
];

test.each(refusals)("%s is refused", async (_, fields, status, code, param) => {
  const { error } = await chat(fields, status);
  expect(error).toMatchObject({ type: "invalid_request_error", code, param });
  expect(error.message.length).toBeLessThan(500);
  expect(service.running).toBe(0);
});

const badCompletions: [what: string, fields: object, param: string][] = [
  ["no prompt", {}, "prompt"],
  ["no tokens", { prompt: [] }, "prompt"],
  ["texts and tokens", { prompt: ["a", 1] }, "prompt.1"],
  ["tokens below zero", { prompt: [-1] }, "prompt.0.0"],
  ["too many prompts", { prompt: Array(65).fill("a") }, "prompt"],
  ["too many answers", { prompt: Array(64).fill("a"), n: 2 }, "n"],
  ["no tokens and no echo", { prompt: "a", max_tokens: 0 }, "max_tokens"],
  ["best of more", { prompt: "a", best_of: 2 }, "best_of"],
  ["a suffix", { prompt: "a", suffix: "b" }, "suffix"],
  ["messages", { prompt: "a", messages: [] }, "messages"],
  ["stages", { prompt: "a", stream: true, stream_options: { include_stages: true } }, "stream_options.include_stages"],
];
test.each(badCompletions)("a completion with %s is refused", async (_, fields, param) => {
  expect((await complete(fields, 400)).error.param).toBe(param);
});

const bodies: [
  what: string,
  body: string | Uint8Array<ArrayBuffer>,
  headers: Record<string, string>,
  status: number,
  code: string,
][] = [
  ["malformed JSON", "{", {}, 400, "invalid_json"],
  ["NaN", '{"model": "tiny", "temperature": NaN}', {}, 400, "invalid_json"],
  [
    "a number beyond all",
    '{"model": "tiny", "messages": [{"role": "user", "content": "a"}], "temperature": 1e999}',
    {},
    400,
    "invalid_type",
  ],
  ["nothing", "", {}, 400, "invalid_json"],
  ["a list", "[]", {}, 400, "invalid_type"],
  ["null", "null", {}, 400, "invalid_type"],
  ["invalid UTF-8", new Uint8Array([0x7b, 0xff, 0x7d]), {}, 400, "invalid_utf8"],
  ["half a surrogate pair", '{"model": "\\ud800"}', {}, 400, "invalid_utf8"],
  ["deep JSON", "[".repeat(100_000), {}, 400, "invalid_json"],
  ["a deep object", `${'{"a":'.repeat(50)}1${"}".repeat(50)}`, {}, 400, "invalid_json"],
  ["a body too long", `"${"x".repeat(5 << 20)}"`, {}, 413, "request_too_large"],
  ["a body said to be too long", "{}", { "content-length": "99999999999" }, 413, "request_too_large"],
  ["a form", "a=b", { "content-type": "application/x-www-form-urlencoded" }, 415, "unsupported_media_type"],
  ["plain text", "{}", { "content-type": "text/plain" }, 415, "unsupported_media_type"],
  ["a compressed body", "{}", { "content-encoding": "gzip" }, 415, "unsupported_media_type"],
  ["a prototype", '{"__proto__": {"model": "tiny"}}', {}, 400, "missing_required_parameter"],
];
test.each(bodies)("a body that is %s is refused", async (_, body, headers, status, code) => {
  for (const path of ["/v1/chat/completions", "/v1/completions", "/ifprune/mask"]) {
    const init = { method: "POST", body, headers: { "content-type": "application/json", ...headers } };
    const response = await app().request(path, init);
    const json = (await response.json()) as Json;
    if (path === "/v1/chat/completions") expect([response.status, json.error.code]).toEqual([status, code]);
    expect(response.status).toBeGreaterThanOrEqual(400);
    expect(json.error).toMatchObject({ type: "invalid_request_error", message: expect.any(String) });
  }
});

/** Routes that make something of a body, each with the least that it wants. */
const leastOf = {
  "/v1/chat/completions": { messages: user },
  "/v1/completions": { prompt: "a" },
  "/v1/responses": { input: "a" },
  "/v1/embeddings": { input: "a" },
  "/api/chat": { messages: user },
  "/api/generate": { prompt: "a" },
  "/api/embed": { input: "a" },
};

test("any JSON gets an answer or an error of its API's shape, and leaves nothing running", async () => {
  const names = [
    ...["model", "messages", "n", "stop", "tools", "tool_choice", "mask", "keep", "stream", "logit_bias", "seed"],
    ...["prompt", "input", "instructions", "text", "include", "options", "format", "think", "system", "raw"],
  ];
  const item = { type: "function_call", call_id: "c", name: "f", arguments: "{}" };
  const value = fc.oneof(fc.jsonValue(), fc.constantFrom("tiny", "auto", user, tools, 1, true, ["a"], [item], "json"));
  const path = fc.constantFrom(...(Object.keys(leastOf) as (keyof typeof leastOf)[]));
  await fc.assert(
    fc.asyncProperty(path, fc.dictionary(fc.constantFrom(...names), value), async (path, fields) => {
      const response = await send(path, { model: "tiny", ...leastOf[path], ...fields });
      const text = await response.text();
      const error = {
        message: expect.any(String),
        type: "invalid_request_error",
        param: expect.toBeOneOf([null, expect.any(String)]),
        code: expect.any(String),
      };
      if (response.status === 200) expect(text).toMatch(/"(object|embeddings|done)":/);
      else expect(JSON.parse(text)).toEqual({ error: path.startsWith("/api/") ? expect.any(String) : error });
      expect([400, 404, 200]).toContain(response.status);
      expect(service.running).toBe(0);
    }),
    { numRuns: 400 },
  );
});

test("a prompt that is too long is told with what it has and what there is", async () => {
  service.failure = { error: new ContextLengthError(600, 512), afterWords: 0 };
  expect((await chat({}, 400)).ifprune).toEqual({ tokens: 600, is_counted: true, context_length: 512 });
  expect((await complete({ prompt: "a", stream: true, echo: true }, 400)).error.code).toBe("context_length_exceeded");
});

const failures: [error: Error, status: number, code: string, type: string][] = [
  [new InputError("prompt: wanted an instruction, got empty text."), 400, "invalid_value", "invalid_request_error"],
  [new BusyError("serve: all places are taken.", 2.3), 429, "server_busy", "rate_limit_error"],
  [new MemoryError("serve: too large."), 503, "insufficient_memory", "server_error"],
  [new ContextLengthError(600, 512), 400, "context_length_exceeded", "invalid_request_error"],
  [new FileError("/secret/path/ffn.gguf", "gone"), 503, "model_unavailable", "server_error"],
  [
    new FileError("/secret/path", "no room", { cause: Object.assign(new Error(), { code: "ENOSPC" }) }),
    ...([507, "insufficient_storage", "server_error"] as const),
  ],
  [new Error("internal: at /secret/path"), 500, "internal_error", "server_error"],
];
test.each(failures)(
  "an error of the service, %s, is told before and within a stream",
  async (error, status, code, type) => {
    service.failure = { error, afterWords: 0 };
    for (const stream of [false, true]) {
      const response = await send("/v1/chat/completions", { model: "tiny", messages: user, stream });
      const text = await response.text();
      expect([response.status, JSON.parse(text).error]).toMatchObject([status, { code, type }]);
      expect(text).not.toMatch("/secret");
      if (status === 429) expect(response.headers.get("retry-after")).toBe("3");
    }
    service.failure = { error, afterWords: 1 };
    expect((await chat({}, status)).error.code).toBe(code);
    log = [];
    const chunks = await events("/v1/chat/completions", { messages: user, n: 3 });
    expect(chunks.at(-1)).toMatchObject({ error: { code, type } });
    expect(log).toMatchObject([{ status, error: code }]);
    if (status >= 500) expect(log[0]!.detail).toMatch(error.message);
    expect(service.running).toBe(0);
  },
);

test("a client that goes away frees its place, at any moment", async () => {
  service.delay = 20;
  service.answer = () => "word ".repeat(1000);
  for (const stream of [true, false]) {
    for (const after of [0, 1, 50]) {
      const controller = new AbortController();
      const sent = send(
        "/v1/chat/completions",
        { model: "tiny", messages: user, n: 3, stream },
        { signal: controller.signal },
      );
      setTimeout(() => controller.abort(), after);
      const response = await sent;
      if (stream && response.status === 200) await response.text();
      expect([service.running, log.at(-1)!.status]).toEqual([0, 499]);
    }
  }
  for (const [path, n] of [
    ["/v1/chat/completions", 3],
    ["/v1/responses", undefined],
    ["/api/chat", undefined],
  ] as const) {
    for (const reads of [0, 1, 3]) {
      const response = await send(path, { model: "tiny", ...leastOf[path], n, stream: true });
      const reader = response.body!.getReader();
      for (let i = 0; i < reads; i++) await reader.read();
      await reader.cancel();
      expect([path, service.running, log.at(-1)!.status]).toEqual([path, 0, 499]);
    }
  }
});

test("unknown paths and methods are errors too", async () => {
  for (const [method, path, status] of [
    ["GET", "/v1/nothing", 404],
    ["GET", "/../../etc/passwd", 404],
    ["GET", "/%2e%2e/%2e%2e/etc/passwd", 404],
    ["GET", "/%ff", 404],
    ["POST", "/", 404],
    ["GET", "/v1/chat/completions", 405],
    ["DELETE", "/v1/models", 405],
    ["PUT", "/ifprune/tasks/tiny/..%2F..%2Fx", 400],
    ["PUT", "/ifprune/tasks/tiny/a%00b", 400],
    ["GET", "/ifprune/masks/tiny/..%2Fx", 404],
    ["GET", "/v1/models/none", 404],
  ] as const) {
    const response = await send(path, undefined, { method });
    expect([path, response.status]).toEqual([path, status]);
    expect(await response.json()).toMatchObject({ error: { type: "invalid_request_error" } });
  }
});

test("a slash at the end of a path says nothing, and a wrong method is told the right ones", async () => {
  const status = async (path: string, init?: RequestInit) => (await send(path, undefined, init)).status;
  for (const path of ["/v1/models", "/v1/models/tiny", "/ifprune/state", "/ifprune/tasks/tiny", "/api/tags", "/health"])
    expect([path, await status(`${path}/`)]).toEqual([path, 200]);
  const { object } = (await (await send("/v1/chat/completions/", { model: "tiny", messages: user })).json()) as Json;
  expect(object).toBe("chat.completion");
  expect(log.at(-1)).toMatchObject({ route: "/v1/chat/completions" });
  for (const [path, method, allow] of [
    ["/v1/responses", "GET", "POST"],
    ["/v1/embeddings/", "PUT", "POST"],
    ["/api/chat", "GET", "POST"],
    ["/api/tags", "POST", "GET"],
    ["/ifprune/tasks/tiny/a", "POST", "GET, PUT, DELETE"],
  ] as const) {
    const response = await send(path, undefined, { method });
    expect([path, response.status, response.headers.get("allow")]).toEqual([path, 405, allow]);
  }
});

test("with a key, everything but the page and health wants it", async () => {
  const options = { apiKey: "s3cret" };
  const page = new Map([["/", { bytes: new Uint8Array(), type: "text/html", etag: '"a"', isImmutable: false }]]);
  for (const path of ["/v1/models", "/metrics", "/ifprune/state", "/v1/chat/completions", "/api/tags/"]) {
    for (const authorization of ["", "Bearer ", "Bearer wrong", "Bearer s3cret2", "s3cret", "Basic s3cret"]) {
      const response = await send(path, undefined, authorization ? { headers: { authorization } } : {}, options);
      expect(response.status).toBe(401);
      const error = path.startsWith("/api/") ? /API key/ : { code: "invalid_api_key", type: "authentication_error" };
      expect(await response.json()).toMatchObject({
        error: error instanceof RegExp ? expect.stringMatching(error) : error,
      });
    }
  }
  expect((await send("/v1/models", undefined, { headers: { authorization: "Bearer s3cret" } }, options)).status).toBe(
    200,
  );
  for (const path of ["/", "/health"]) expect((await send(path, undefined, {}, { ...options, page })).status).toBe(200);
});

test.each<[what: string, between: object[], read: object[]]>([
  [
    "what OpenAI's client keeps of an answer",
    [
      {
        ...{ role: "assistant", content: "A", refusal: null, annotations: [], audio: null, function_call: null },
        ...{ tool_calls: null, parsed: { a: 1 } },
      },
    ],
    [{ role: "assistant", content: "A" }],
  ],
  [
    "no calls, and names",
    [{ role: "assistant", content: "A", tool_calls: [], name: "planner" }],
    [{ role: "assistant", content: "A" }],
  ],
  [
    "thoughts, beside the answer and as parts of it",
    [
      {
        ...{ role: "assistant", reasoning_content: "Hm.", reasoning: { text: "Hm." } },
        content: [
          { type: "reasoning", text: "Hm." },
          { type: "text", text: "A", cache_control: { type: "ephemeral" } },
        ],
      },
    ],
    [{ role: "assistant", content: "A", thoughts: "Hm." }],
  ],
  [
    "a part that refuses",
    [{ role: "assistant", content: [{ type: "refusal", refusal: "No." }] }],
    [{ role: "assistant", content: "No." }],
  ],
  [
    "a refusal, thoughts alone, and nothing at all",
    [
      { role: "assistant", content: null, refusal: "No." },
      { role: "assistant", content: null, reasoning: "Hm." },
      { role: "assistant", content: null },
    ],
    [
      { role: "assistant", content: "No." },
      { role: "assistant", content: "", thoughts: "Hm." },
      { role: "assistant", content: "" },
    ],
  ],
  [
    "a call without arguments, of no type, whose result is empty",
    [
      { role: "developer", content: null },
      { role: "assistant", tool_calls: [{ id: "c", type: null, function: { name: "f", arguments: "" } }] },
      { role: "tool", tool_call_id: "c", content: null },
    ],
    [
      { role: "system", content: "" },
      { role: "assistant", content: "", calls: [{ id: "c", name: "f", arguments: {} }] },
      { role: "tool", content: "", callId: "c" },
    ],
  ],
  [
    "a call with its place, and its result with its name",
    [
      { role: "assistant", content: "", tool_calls: [{ index: 0, id: "c", function: { name: "f", arguments: "{}" } }] },
      { role: "tool", tool_call_id: "c", name: "f", content: "R", status: "success" },
    ],
    [
      { role: "assistant", content: "", calls: [{ id: "c", name: "f", arguments: {} }] },
      { role: "tool", content: "R", callId: "c" },
    ],
  ],
])("a history may carry %s", async (_, between, read) => {
  await chat({ messages: [{ role: "user", content: "a", name: "b", type: "text" }, ...between, ...user] });
  expect(service.requests.at(-1)!.prompt).toMatchObject({
    messages: [{ role: "user", content: "a" }, ...read, ...user],
  });
});

test("thoughts are told apart from the answer, whole and in pieces", async () => {
  service = new FakeService(() => "<think> Wolf, wolves </think> wolves it is");
  service.thoughts = "open";
  const { choices } = await chat();
  expect(choices[0].message).toMatchObject({ content: "wolves it is", reasoning_content: " Wolf, wolves" });
  const chunks = await events("/v1/chat/completions", { messages: user });
  const thoughts = chunks.flatMap((chunk) => chunk.choices?.[0].delta.reasoning_content ?? []);
  expect([thoughts.length, thoughts.join("")]).toEqual([2, " Wolf, wolves"]);
  const { choices: plain } = await chat({ messages: [...user, { role: "assistant", content: "It is" }] });
  expect(plain[0].message.content).toContain("<think>"); // its answer has begun already
});

test("lists and maps are counted before what is in them is looked at, and the first wrong thing ends the reading: a body has room for a million wrong items", async () => {
  const many = Array(5000).fill(1);
  const pairs = Object.fromEntries(many.map((_, i) => [`no id ${i}`, "no number"]));
  const content = (parts: unknown[]) => [{ role: "user", content: parts }];
  for (const [body, wanted] of [
    [{ messages: many }, "messages: wanted at most 1000 messages"],
    [{ messages: content(many) }, "messages.0.content: wanted a text, or up to 1000 parts of type text"],
    [{ tools: many }, "tools: wanted at most 256 tools"],
    [{ stop: many }, "stop: wanted a text, or up to 32 of them"],
    [Object.fromEntries(Array.from({ length: 10_001 }, (_, i) => [`unknown ${i}`, 1])), "at most 10000 keys"],
    [{ logit_bias: pairs }, "logit_bias: wanted at most 300 tokens"],
    [{ metadata: pairs }, "metadata: wanted at most 16 pairs"],
  ] as const)
    expect((await chat(body, 400)).error.message).toMatch(wanted);
  const { error } = await complete({ prompt: [5, 6.5, ...many, -1] }, 400);
  expect(error).toMatchObject({ param: "prompt.0.1", message: "prompt.0.1: wanted an integer" });
});

test("half a surrogate pair is refused wherever it stands", async () => {
  for (const body of ['{"a":["\\ud800"]}', '{"\\udc00":1}', '{"a":{"b":"\\ud83d\\ude00 \\ud83d"}}']) {
    const headers = { "content-type": "application/json" };
    const response = await app().request("/v1/completions", { method: "POST", body, headers });
    expect(((await response.json()) as Json).error.code).toBe("invalid_utf8");
  }
});

test("a blank answer at the end keeps a place for one, which may think; one that is begun goes on", async () => {
  service.thoughts = "open";
  service.answer = () => "<think>Hm.</think>Yes.";
  const user = { role: "user", content: "Q" };
  const said = async (...last: object[]) => {
    const { choices } = await chat({ messages: [user, ...last] });
    const { content, reasoning_content } = choices[0].message;
    return [content, reasoning_content];
  };
  expect(await said()).toEqual(["Yes.", "Hm."]);
  for (const content of ["", " \n", null, []])
    expect(await said({ role: "assistant", content })).toEqual(["Yes.", "Hm."]);
  expect(await said({ role: "assistant", content: "So" })).toEqual(["<think>Hm.</think>Yes.", undefined]);
});

test("variables of the chat template are given to it, and thoughts told apart as it then has them", async () => {
  service = new FakeService(() => "A <think>b</think>");
  service.thoughts = "opened";
  const { choices } = await chat({ chat_template_kwargs: { enable_thinking: false, style: "short" } });
  expect(choices[0].message).toEqual({ role: "assistant", content: "A <think>b</think>", refusal: null });
  await chat({ enable_thinking: true, chat_template_kwargs: null });
  const variables = service.requests.map(({ prompt }) => (prompt as { variables?: object }).variables);
  expect(variables).toEqual([{ enable_thinking: false, style: "short" }, { enable_thinking: true }]);
  for (const [body, param] of [
    [{ enable_thinking: "no" }, "enable_thinking"],
    [{ chat_template_kwargs: { enable_thinking: "no" } }, "chat_template_kwargs.enable_thinking"],
    [{ chat_template_kwargs: { enable_thinking: false }, enable_thinking: true }, "enable_thinking"],
    [{ chat_template_kwargs: { style: "x".repeat(20_000) } }, "chat_template_kwargs"],
    [{ chat_template_kwargs: [] }, "chat_template_kwargs"],
  ] as const) {
    const { error } = await chat(body, 400);
    expect(error.param).toBe(param);
  }
});

test("no effort of reasoning is no thoughts, where the model can be asked for none", async () => {
  service = new FakeService(() => "A");
  const variables = () => (service.requests.at(-1)!.prompt as { variables?: object }).variables;
  await chat({ reasoning_effort: "none" }); // it does not think
  expect(variables()).toBeUndefined();
  service.thoughts = "opened";
  const { error } = await chat({ reasoning_effort: "none" }, 400);
  expect(error).toMatchObject({ param: "reasoning_effort", message: expect.stringContaining("always thinks") });
  service.hasThinkingSwitch = true;
  await chat({ reasoning_effort: "none" });
  expect(variables()).toEqual({ enable_thinking: false });
  expect((await chat({ reasoning_effort: "none", enable_thinking: true }, 400)).error.param).toBe("enable_thinking");
});

test.each([
  [{ reasoning_effort: "none" }],
  [{ top_logprobs: 0 }],
  [{ top_k: -1 }],
  [{ functions: [], prediction: null, verbosity: "medium", prompt_cache_retention: "24h" }],
  [{ max_tokens: 3, max_completion_tokens: 3 }],
  [{ max_tokens: -1, max_completion_tokens: 3 }],
  [{ store: null, service_tier: "flex", logit_bias: {}, guided_json: null }],
  [{ skip_special_tokens: true, ignore_eos: false, continue_final_message: false, min_tokens: 0 }],
  [{ tools: Array.from({ length: 200 }, (_, i) => ({ type: "function", function: { name: `f${i}`, strict: true } })) }],
  [{ stop: Array.from({ length: 20 }, (_, i) => `${i}`) }],
  [
    {
      tools: [
        {
          type: "function",
          function: {
            name: "f",
            parameters: { properties: { a: { $ref: "#/$defs/A" } }, $defs: { A: { $ref: "#/$defs/A" } } },
          },
        },
      ],
    },
  ],
])("%j asks for nothing that is not done", async (fields) => {
  await chat(fields);
  expect(service.requests.at(-1)!.sampling.topK).toBe(0);
});

test("with a key any Host is ours, as is a name that was given", async () => {
  const status = async (host: string, options: AppOptions) =>
    (await send("/v1/models", undefined, { headers: { host, authorization: "Bearer k" } }, options)).status;
  for (const host of ["host.docker.internal:8080", "gpu-box.lan", "llm.example.com"]) {
    expect([host, await status(host, { host: "0.0.0.0", apiKey: "k" })]).toEqual([host, 200]);
    expect([host, await status(host, {})]).toEqual([host, 403]);
  }
  expect(await status("GPU-box.lan:8080", { hosts: ["gpu-box.lan"] })).toBe(200);
  expect(await status("other.lan", { hosts: ["gpu-box.lan"] })).toBe(403);
});

test("foreign hosts and origins are refused, on every route", async () => {
  const status = async (headers: Record<string, string>, options: AppOptions = {}, path = "/v1/models") =>
    (await send(path, undefined, { headers }, options)).status;
  for (const host of ["localhost:8080", "127.0.0.1", "[::1]:80", "127.1.2.3:9"])
    expect([host, await status({ host })]).toEqual([host, 200]);
  for (const host of [
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1.nip.io",
    "192.168.0.1",
    "a/b",
    "",
    "localhost@evil.example",
  ])
    for (const path of ["/v1/models", "/", "/health", "/nothing"])
      expect([host, await status({ host }, {}, path)]).toEqual([host, 403]);
  expect(await status({ host: "192.168.0.1:80" }, { host: "0.0.0.0" })).toBe(200);
  expect(await status({ host: "evil.example" }, { host: "0.0.0.0" })).toBe(403);
  expect(await status({ host: "box.local" }, { host: "box.local" })).toBe(200);
  const host = "localhost:8080";
  for (const origin of [
    "https://evil.example",
    "http://localhost:1234",
    "null",
    "http://127.0.0.1:8080",
    "file://",
    "x",
  ])
    expect([origin, await status({ host, origin })]).toEqual([origin, 403]);
  expect(await status({ host, origin: "http://localhost:8080" })).toBe(200);
  expect(await status({ host, "sec-fetch-site": "cross-site" })).toBe(403);
  expect(await status({ host, "sec-fetch-site": "same-origin" })).toBe(200);
  expect((await app().request("http://evil.example/v1/models")).status).toBe(403);
});

test("another origin may be let in, and only that one", async () => {
  const options = { cors: "https://chat.example" };
  const headers = { origin: "https://chat.example" };
  const response = await send("/v1/models", undefined, { headers }, options);
  expect([response.status, response.headers.get("access-control-allow-origin")]).toEqual([200, "https://chat.example"]);
  const preflight = await send(
    "/v1/chat/completions",
    undefined,
    { method: "OPTIONS", headers: { ...headers, "access-control-request-headers": "authorization,x-stainless-os" } },
    { ...options, apiKey: "k" },
  );
  expect([preflight.status, preflight.headers.get("access-control-allow-headers")]).toEqual([
    204,
    "authorization,x-stainless-os",
  ]);
  const failed = await send("/v1/models/none", undefined, { headers }, options);
  expect(failed.headers.get("access-control-allow-origin")).toBe("https://chat.example");
  expect((await send("/v1/models", undefined, { headers: { origin: "https://other.example" } }, options)).status).toBe(
    403,
  );
  expect((await send("/v1/models", undefined, { headers })).headers.get("access-control-allow-origin")).toBeNull();
});

test("too many headers are refused", async () => {
  const headers = Object.fromEntries(Array.from({ length: 101 }, (_, i) => [`x-${i}`, "a"]));
  expect((await send("/v1/models", undefined, { headers })).status).toBe(431);
});

test("the page's files are served as what they are, and nothing else may run in it", async () => {
  const file = (text: string, type: string, isImmutable: boolean) => ({
    bytes: new Uint8Array(Buffer.from(text)),
    type,
    isImmutable,
    etag: `"${createHash("sha256").update(text).digest("hex")}"`,
  });
  const page = new Map([
    ["/", file("<html>", "text/html; charset=utf-8", false)],
    ["/assets/a.js", file("1", "text/javascript; charset=utf-8", true)],
  ]);
  const head = await send("/", undefined, { method: "HEAD" }, { page }); // by which Ollama's clients see that a server is there
  expect([head.status, await head.text()]).toEqual([200, ""]);
  const html = await send("/", undefined, {}, { page });
  expect([html.status, await html.text(), html.headers.get("cache-control")]).toEqual([200, "<html>", "no-cache"]);
  const policy = html.headers.get("content-security-policy")!;
  expect(policy).toMatch("frame-ancestors 'none'");
  expect(policy).not.toMatch(/unsafe|\*/);
  expect(html.headers.get("x-content-type-options")).toBe("nosniff");
  const script = await send("/assets/a.js", undefined, {}, { page });
  expect(script.headers.get("cache-control")).toMatch("immutable");
  const again = await send("/", undefined, { headers: { "if-none-match": html.headers.get("etag")! } }, { page });
  expect([again.status, await again.text()]).toEqual([304, ""]);
});
