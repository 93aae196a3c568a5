/** Official clients, unchanged, against the server on a socket. */
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { createApp } from "../../src/serve/http/app.ts";
import { listen, type RunningServer } from "../../src/serve/http/server.ts";
import { FakeService, MASK_ID } from "../support/fakeService.ts";

const service = new FakeService();
const apiKey = "sk-local";
let server: RunningServer;
let openai: OpenAI;
beforeAll(async () => {
  server = await listen(createApp(service, { apiKey }).fetch, { host: "127.0.0.1", port: 0 });
  openai = new OpenAI({ baseURL: `${server.url}/v1`, apiKey, maxRetries: 0 });
});
afterAll(() => server[Symbol.asyncDispose]());
beforeEach(() => {
  service.answer = () => "one two three";
  service.requests.length = 0;
  service.delay = 0;
  service.failure = undefined;
  service.thoughts = undefined;
});

const model = "tiny";
const messages = [{ role: "user" as const, content: "Count." }];
async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const item of items) list.push(item);
  return list;
}
/** Calls a tool where there is no result yet, then repeats the result. */
const callsWeather: FakeService["answer"] = ({ prompt }) => {
  const last = prompt.kind === "chat" ? prompt.messages.at(-1) : undefined;
  return last?.role === "tool"
    ? `It is ${last.content}.`
    : 'I look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>';
};
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };

describe("openai", () => {
  test("lists models and tells of one", async () => {
    expect((await all(openai.models.list())).map(({ id }) => id)).toEqual(["tiny", "plain/model"]);
    expect((await openai.models.retrieve("plain/model")).owned_by).toBe("ifprune");
  });

  test("chats", async () => {
    const answer = await openai.chat.completions.create({ model, messages, n: 2, logprobs: true, top_logprobs: 1 });
    expect(answer.choices.map(({ message }) => message.content)).toEqual(["one two three", "one two three"]);
    expect(answer.choices[0]!.logprobs!.content!.map(({ token }) => token)).toEqual(["one", " two", " three"]);
    expect(answer.usage!.total_tokens).toBe(13);
    expect(answer).toMatchObject({ ifprune: { mask: { id: MASK_ID } } });
  });

  test("sends fields of ours", async () => {
    await openai.chat.completions.create({ model, messages, mask: "dense", top_k: 5 } as never);
    expect(service.requests[0]).toMatchObject({ mask: { kind: "dense" }, sampling: { topK: 5 } });
  });

  test("streams a chat", async () => {
    const options = { include_usage: true };
    const stream = await openai.chat.completions.create({ model, messages, stream: true, stream_options: options });
    const chunks = await all(stream);
    expect(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("")).toBe("one two three");
    expect(chunks.at(-1)!.usage!.completion_tokens).toBe(3);
    const runner = openai.chat.completions.stream({ model, messages });
    expect(await runner.finalContent()).toBe("one two three");
  });

  test("stops a stream half-way, which stops the answer", async () => {
    service.answer = () => "word ".repeat(500);
    service.delay = 10;
    const stream = await openai.chat.completions.create({ model, messages, stream: true });
    for await (const chunk of stream) if (chunk.choices[0]!.delta.content) break;
    await expect.poll(() => service.running).toBe(0);
  });

  test("completes texts and tokens, whole and streamed", async () => {
    const whole = await openai.completions.create({ model, prompt: [[1, 2]], echo: true, logprobs: 1, max_tokens: 1 });
    expect(whole.choices[0]!.logprobs!.token_logprobs).toEqual([null, -0.25, -0.5]);
    const stream = await openai.completions.create({ model, prompt: "Once", stream: true });
    expect((await all(stream)).map(({ choices }) => choices[0]!.text).join("")).toBe("one two three");
  });

  test("tells errors by their class and code", async () => {
    const chat = (fields: object) => openai.chat.completions.create({ model, messages, ...fields });
    await expect(chat({ model: "nope" })).rejects.toMatchObject({
      constructor: OpenAI.NotFoundError,
      code: "model_not_found",
      param: "model",
    });
    await expect(chat({ temperature: 5 })).rejects.toMatchObject({
      constructor: OpenAI.BadRequestError,
      param: "temperature",
    });
    const stranger = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "sk-wrong", maxRetries: 0 });
    await expect(stranger.models.list()).rejects.toMatchObject({ constructor: OpenAI.AuthenticationError });
    service.failure = { error: new Error("internal: broken"), afterWords: 1 };
    const stream = await openai.chat.completions.create({ model, messages, stream: true });
    await expect(all(stream)).rejects.toMatchObject({
      constructor: OpenAI.APIError,
      code: "internal_error",
    });
  });

  test("has tools called, and gives results back", async () => {
    service.answer = callsWeather;
    const runner = openai.chat.completions.runTools({
      model,
      messages,
      tools: [
        {
          type: "function",
          function: {
            name: "weather",
            description: "Weather of a city",
            parameters,
            parse: (text: string): { city: string } => JSON.parse(text),
            function: ({ city }: { city: string }) => `rain in ${city}`,
          },
        },
      ],
    });
    expect(await runner.finalContent()).toBe("It is rain in Oslo.");
    expect(service.requests.length).toBe(2);
  });

  test("streams calls of tools", async () => {
    service.answer = callsWeather;
    const tools = [{ type: "function" as const, function: { name: "weather", parameters } }];
    const { choices } = await openai.chat.completions.stream({ model, messages, tools }).finalChatCompletion();
    expect(choices[0]!.message.tool_calls).toMatchObject([
      { type: "function", function: { name: "weather", arguments: '{"city": "Oslo"}' } },
    ]);
    expect(choices[0]!.finish_reason).toBe("tool_calls");
  });

  test("parses an answer by its schema", async () => {
    service.answer = () => '{"city": "Oslo"}';
    const answer = await openai.chat.completions.parse({
      model,
      messages,
      response_format: { type: "json_schema", json_schema: { name: "place", strict: true, schema: parameters } },
    });
    expect(answer.choices[0]!.message.parsed).toEqual({ city: "Oslo" });
    expect(service.requests[0]!.schema).toEqual({ type: "object", properties: { city: { type: "string" } } });
  });
});

describe("openai's own answers, pushed into the next turn", () => {
  const next = (history: object[]) =>
    openai.chat.completions.create({
      model,
      messages: [...messages, ...history, { role: "user", content: "And?" }] as never,
    });
  /** What the model reads between the first message and the last. */
  const read = () => {
    const { prompt } = service.requests.at(-1)!;
    return prompt.kind === "chat" ? prompt.messages.slice(1, -1) : [];
  };

  test("a parsed one", async () => {
    service.answer = () => '{"city": "Oslo"}';
    const json_schema = { name: "place", strict: true, schema: parameters };
    const body = { model, messages, response_format: { type: "json_schema" as const, json_schema } };
    const { choices } = await openai.chat.completions.parse(body);
    expect(choices[0]!.message.parsed).toEqual({ city: "Oslo" });
    await next([choices[0]!.message]);
    expect(read()).toEqual([{ role: "assistant", content: '{"city": "Oslo"}' }]);
  });

  test("the final message of a stream, with a call, its result, and thoughts", async () => {
    service.thoughts = "opened";
    service.answer = () =>
      'Where?</think>\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>';
    const tools = [{ type: "function" as const, function: { name: "weather", parameters } }];
    const said = await openai.chat.completions.stream({ model, messages, tools }).finalMessage();
    const call = said.tool_calls![0]!;
    await next([said, { role: "tool", tool_call_id: call.id, content: [{ type: "text", text: "rain" }] }]);
    const calls = [{ id: call.id, name: "weather", arguments: { city: "Oslo" } }];
    expect(read()).toMatchObject([
      { role: "assistant", content: "", calls },
      { role: "tool", content: "rain", callId: call.id },
    ]);
  });
});

describe("AI SDK", () => {
  const provider = () =>
    createOpenAICompatible({ name: "ifprune", baseURL: `${server.url}/v1`, apiKey, includeUsage: true })(model);

  test("generates text", async () => {
    const { text, usage, finishReason } = await generateText({
      model: provider(),
      prompt: "Count.",
      seed: 1,
      topP: 0.9,
    });
    expect([text, usage.inputTokens, usage.outputTokens, finishReason]).toEqual(["one two three", 7, 3, "stop"]);
  });

  test("keeps thoughts in its history, which the model reads again", async () => {
    service.thoughts = "opened";
    service.answer = () => "Hm.</think>one";
    const asked = [{ role: "user" as const, content: "Count." }];
    const { reasoningText, response } = await generateText({ model: provider(), messages: asked });
    expect(reasoningText).toBe("Hm.");
    const history = [...asked, ...response.messages, { role: "user" as const, content: "On." }];
    await generateText({ model: provider(), messages: history });
    expect(service.requests[1]!.prompt).toMatchObject({
      messages: [{ content: "Count." }, { role: "assistant", content: "one", thoughts: "Hm." }, { content: "On." }],
    });
  });

  test("streams text", async () => {
    const { textStream, usage } = streamText({ model: provider(), system: "Be brief.", prompt: "Count." });
    expect((await all(textStream)).join("")).toBe("one two three");
    expect((await usage).outputTokens).toBe(3);
  });

  test("has tools called, and gives results back, whole and streamed", async () => {
    service.answer = callsWeather;
    const weather = tool({
      inputSchema: z.object({ city: z.string() }),
      execute: async ({ city }) => `rain in ${city}`,
    });
    const how = { model: provider(), prompt: "Weather?", tools: { weather }, stopWhen: stepCountIs(3) };
    const { text, steps } = await generateText(how);
    expect([text, steps.length]).toEqual(["It is rain in Oslo.", 2]);
    expect(await streamText(how).text).toBe("It is rain in Oslo.");
  });
});
