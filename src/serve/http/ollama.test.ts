/** Ollama's API, in requests as its clients send them, over a service that has no model. */
import { beforeEach, expect, test } from "vitest";
import { FakeService, fakeEmbedding, MASK_ID } from "../../../test/support/fakeService.ts";
import { BusyError } from "../../errors.ts";
import { createApp } from "./app.ts";

let service: FakeService;
beforeEach(() => {
  service = new FakeService();
});

// biome-ignore lint/suspicious/noExplicitAny: whatever JSON comes back
type Json = any;
function send(path: string, body?: object, method = body ? "POST" : "GET"): Promise<Response> | Response {
  const init = body && { body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  return createApp(service).fetch(new Request(`http://localhost${path}`, { method, ...init }));
}
const user = [{ role: "user", content: "Count." }];
async function ask(path: string, body: object, status = 200): Promise<Json> {
  const response = await send(path, { model: "tiny", stream: false, ...body });
  const json = (await response.json()) as Json;
  expect([response.status, json.error]).toEqual([status, status === 200 ? undefined : expect.any(String)]);
  return json;
}
const chat = (body: object = {}, status?: number) => ask("/api/chat", { messages: user, ...body }, status);
async function lines(path: string, body: object): Promise<Json[]> {
  const response = await send(path, { model: "tiny", ...body });
  expect(response.headers.get("content-type")).toBe("application/x-ndjson");
  const text = await response.text();
  return text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
}
const measured = {
  total_duration: expect.any(Number),
  load_duration: 5e6,
  prompt_eval_count: 7,
  prompt_eval_duration: 5e6,
  eval_count: 3,
  eval_duration: 5e6,
};
const tools = [{ type: "function", function: { name: "weather", parameters: { type: "object", properties: {} } } }];
const call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>';

test("a chat has Ollama's fields, times in nanoseconds, and which part of the model answered", async () => {
  expect(await chat({ model: "tiny:latest", keep_alive: "5m" })).toEqual({
    model: "tiny:latest",
    created_at: expect.stringMatching(/^\d{4}-.*Z$/),
    message: { role: "assistant", content: "one two three" },
    done: true,
    done_reason: "stop",
    ...measured,
    ifprune: expect.objectContaining({ mask: expect.objectContaining({ id: MASK_ID }) }),
  });
  expect((await chat({ options: { num_predict: 2 } })).done_reason).toBe("length");
});

test("curl -d, as Ollama's documentation has it, is answered; a page of another origin that sends the same is not", async () => {
  const form = { "content-type": "application/x-www-form-urlencoded" };
  const body = JSON.stringify({ model: "tiny", messages: user, stream: false });
  const post = (headers: Record<string, string>) =>
    createApp(service).fetch(new Request("http://localhost/api/chat", { method: "POST", body, headers }));
  expect((await post(form)).status).toBe(200);
  expect((await post({ ...form, origin: "https://example.org" })).status).toBe(403);
  expect((await post({ "content-type": "text/plain" })).status).toBe(415);
});

test("answers come in lines of JSON unless told otherwise, and the last is done", async () => {
  const all = await lines("/api/chat", { messages: user });
  expect(all.map(({ message, done }) => [message.content, done])).toEqual([
    ["one", false],
    [" two", false],
    [" three", false],
    ["", true],
  ]);
  expect(all.at(-1)).toMatchObject({ done_reason: "stop", ...measured });
  const generated = await lines("/api/generate", { prompt: "Count." });
  expect(generated.map(({ response }) => response).join("")).toBe("one two three");
  expect(service.running).toBe(0);
});

test("what is asked reaches the service, with Ollama's defaults", async () => {
  await chat();
  expect(service.requests[0]).toMatchObject({
    model: "tiny",
    prompt: { kind: "chat", messages: user },
    mask: { kind: "auto" },
    maxTokens: 512,
    stop: [],
    sampling: { temperature: 0.8, topK: 40, topP: 0.9, repeatPenalty: 1 },
  });
  await chat({
    keep: 0.5,
    options: {
      ...{ temperature: 0, top_k: 1, top_p: 1, min_p: 0.1, seed: 5, num_predict: 9, stop: ["x"], repeat_penalty: 1.2 },
      ...{ num_ctx: 8192, num_gpu: -1, num_thread: 4, use_mmap: true, mirostat: 0 },
    },
  });
  expect(service.requests[1]).toMatchObject({
    mask: { kind: "auto", keep: 0.5 },
    maxTokens: 9,
    stop: ["x"],
    sampling: { temperature: 0, topK: 1, topP: 1, minP: 0.1, seed: 5, repeatPenalty: 1.2 },
  });
  const schema = { type: "object", properties: { n: { type: "integer" } } };
  await chat({ format: schema, options: { num_predict: -1, seed: -1 } });
  expect(service.requests[2]).toMatchObject({ schema, maxTokens: 512 });
  await chat({ format: "json" });
  expect(service.requests[3]!.schema).toMatchObject({ additionalProperties: true });
  await ask("/api/generate", { prompt: "Hi", system: "Be brief." });
  expect(service.requests[4]!.prompt).toEqual({
    kind: "chat",
    messages: [
      { role: "system", content: "Be brief." },
      { role: "user", content: "Hi" },
    ],
  });
  await ask("/api/generate", {
    prompt: "Once",
    raw: true,
    format: "",
    suffix: "",
    template: "",
    images: [],
    context: [],
  });
  expect(service.requests[5]!.prompt).toEqual({ kind: "text", text: "Once" });
});

test("calls are objects, whole and streamed, and go back with their results", async () => {
  service.answer = () => `I look.\n${call}`;
  const want = [{ id: expect.any(String), function: { index: 0, name: "weather", arguments: { city: "Oslo" } } }];
  const { message, done_reason } = await chat({ tools });
  expect([message, done_reason]).toEqual([{ role: "assistant", content: "I look.\n", tool_calls: want }, "stop"]);
  const all = await lines("/api/chat", { messages: user, tools });
  expect(all.flatMap((line) => line.message.tool_calls ?? [])).toEqual(want);
  await chat({ tools, messages: [...user, message, { role: "tool", tool_name: "weather", content: "rain" }] });
  expect(service.requests.at(-1)!.prompt).toMatchObject({
    messages: [
      ...user,
      {
        role: "assistant",
        content: "I look.\n",
        calls: [{ id: "0", name: "weather", arguments: { city: "Oslo" } }],
      },
      { role: "tool", content: "rain", callId: "0" },
    ],
  });
});

test("a result is of the call that it names, by id or by tool, in whatever order results come", async () => {
  const calls = ["a", "b"].map((id) => ({ id, function: { name: `of_${id}`, arguments: {} } }));
  const answers = async (...results: object[]) => {
    const messages = [...user, { role: "assistant", content: "", tool_calls: calls }, ...results];
    await chat({ tools, messages: messages.map((one) => ({ content: "", ...one })) });
    const { prompt } = service.requests.at(-1)!;
    return prompt.kind === "chat" && prompt.messages.flatMap((one) => (one.role === "tool" ? [one.callId] : []));
  };
  const result = (names: object) => ({ role: "tool", ...names });
  expect(await answers(result({ tool_call_id: "b" }), result({ tool_call_id: "a" }))).toEqual(["1", "0"]);
  expect(await answers(result({ tool_name: "of_b" }), result({ tool_name: "of_a" }))).toEqual(["1", "0"]);
  expect(await answers(result({}), result({}))).toEqual(["0", "1"]);
  const again = [...user, { role: "assistant", tool_calls: [{ function: { name: "of_a", arguments: {} } }] }];
  expect(await answers(...again, result({ tool_name: "of_a" }))).toEqual(["2"]); // the calls before got none
});

test("thoughts are told apart, of models that have some", async () => {
  service = new FakeService(() => "<think> Hm </think> Yes");
  service.thoughts = "open";
  const { message } = await chat({ think: true });
  expect(message).toEqual({ role: "assistant", content: "Yes", thinking: " Hm" });
  expect((await ask("/api/generate", { prompt: "a" })).thinking).toBe(" Hm");
  await chat({ messages: [...user, message, ...user] });
  const { prompt } = service.requests.at(-1)!;
  expect(prompt).toMatchObject({ messages: [{}, { role: "assistant", content: "Yes", thoughts: " Hm" }, {}] });
  await chat({ think: false }, 400);
  service.thoughts = undefined;
  await chat({ think: false });
  await chat({ think: true }, 400);
});

test("whether a model thinks is for the request to say where its template can be told; unasked it is as the template has it", async () => {
  service = new FakeService(() => "<think> Hm </think> Yes");
  service.thoughts = "open";
  service.hasThinkingSwitch = true;
  for (const [think, variables] of [[false, { enable_thinking: false }], [true, { enable_thinking: true }], []]) {
    await chat({ think });
    await ask("/api/generate", { prompt: "a", think });
    const prompts = service.requests.splice(0).map(({ prompt }) => prompt);
    expect(prompts.map((prompt) => prompt.kind === "chat" && prompt.variables)).toEqual([variables, variables]);
  }
  await ask("/api/generate", { prompt: "a", raw: true });
  await ask("/api/generate", { prompt: "a", raw: true, think: false }, 400);
});

test("a request without a prompt loads, and answers at once", async () => {
  const loaded = { model: "tiny", done: true, done_reason: "load" };
  expect(await ask("/api/generate", { keep_alive: -1 })).toMatchObject({ ...loaded, response: "" });
  expect(await chat({ messages: [] })).toMatchObject({ ...loaded, message: { role: "assistant", content: "" } });
  expect((await ask("/api/generate", { keep_alive: 0 })).done_reason).toBe("unload");
  expect(service.requests).toEqual([]);
  await ask("/api/generate", { model: "nope" }, 404);
});

test("log-probabilities are told where they are asked for", async () => {
  const { logprobs } = await chat({ logprobs: true, top_logprobs: 1 });
  expect(logprobs).toMatchObject(
    ["one", " two", " three"].map((token) => ({ token, top_logprobs: [{ token: "t0" }] })),
  );
  const all = await lines("/api/generate", { prompt: "a", logprobs: true });
  expect(all.flatMap((line) => line.logprobs ?? []).length).toBe(3);
});

test("models are listed, shown and told to be loaded", async () => {
  const { models } = (await (await send("/api/tags")).json()) as Json;
  expect(models[0]).toEqual({
    name: "tiny:latest",
    model: "tiny:latest",
    modified_at: "2023-11-14T22:13:20.000Z",
    size: 2000,
    digest: expect.stringMatching(/^[0-9a-f]{64}$/),
    details: expect.objectContaining({ family: "llama", parameter_size: "1.0K" }),
  });
  for (const body of [{ model: "tiny" }, { name: "tiny:latest", verbose: true }])
    expect(await ask("/api/show", body)).toMatchObject({
      capabilities: ["completion", "tools"],
      model_info: { "general.architecture": "llama", "llama.context_length": 512 },
    });
  const { models: running } = (await (await send("/api/ps")).json()) as Json;
  expect(running).toMatchObject([{ name: "tiny:latest", size: 1000, context_length: 512 }]);
  expect(await (await send("/api/version")).json()).toEqual({ version: expect.stringMatching(/^0\.\d+\.\d+$/) });
});

test("features are embeddings", async () => {
  const response = await send("/api/embed", { model: "tiny", input: ["a", "bcd"], truncate: true });
  expect(await response.json()).toEqual({
    model: "tiny",
    embeddings: [1, 3].map(fakeEmbedding),
    total_duration: expect.any(Number),
    load_duration: 0,
    prompt_eval_count: 4,
  });
});

test.each<[path: string, body: object, says: string]>([
  [
    "chat",
    { messages: [{ role: "user", content: "a", images: ["x"] }] },
    "messages.0.images: the models read no images",
  ],
  ["chat", { messages: [{ role: "wizard", content: "a" }] }, "messages.0.role"],
  ["chat", { messages: [{ role: "tool", content: "a" }] }, "messages.0.role: wanted"],
  ["chat", { messages: user, options: { mirostat: 2 } }, "options.mirostat"],
  ["chat", { messages: user, options: { temprature: 1 } }, "options.temprature"],
  ["chat", { messages: user, think: "high" }, "think"],
  ["chat", { messages: user, tools, format: "json" }, "format: "],
  ["chat", { messages: user, format: { type: "string", pattern: "a" } }, "format: the keyword"],
  ["generate", { prompt: "a", template: "{{ .Prompt }}" }, "template"],
  ["generate", { prompt: "a", suffix: "b" }, "suffix"],
  ["generate", { prompt: "a", context: [1] }, "context"],
  ["generate", { prompt: "a", raw: true, system: "b" }, "system"],
  ["embed", { input: "a", dimensions: 2 }, "dimensions"],
])("%s of %j is refused by the name of its field", async (path, body, says) => {
  expect((await ask(`/api/${path}`, path === "embed" ? { ...body, stream: undefined } : body, 400)).error).toContain(
    says,
  );
});

test("what fails is one line, before an answer and within it", async () => {
  const error = "serve: all places are taken.";
  service.failure = { error: new BusyError(error, 2), afterWords: 0 };
  expect((await chat({ stream: true }, 429)).error).toBe(error);
  service.failure.afterWords = 1;
  expect((await lines("/api/chat", { messages: user })).at(-1)).toEqual({ error });
  const unknown = await send("/api/pull", { model: "tiny" });
  expect([unknown.status, await unknown.json()]).toEqual([404, { error: expect.any(String) }]);
});
