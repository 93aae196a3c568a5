/** Tools end to end: a checkpoint in the shape of Qwen2.5, with its template, imported, served, and asked by the official client. */
import { join } from "node:path";
import OpenAI from "openai";
import { expect, onTestFinished, test } from "vitest";
import { importModel } from "../../src/bundle/importModel.ts";
import { createApp } from "../../src/serve/http/app.ts";
import { listen } from "../../src/serve/http/server.ts";
import { openLocalService } from "../../src/serve/localService.ts";
import { shapes, writeCheckpointFolder } from "../support/checkpoints.ts";
import { temporaryFolder } from "../support/models.ts";

async function serve(name: string): Promise<OpenAI> {
  const folder = temporaryFolder();
  const path = join(folder, "bundle");
  const shape = shapes[name]!;
  const config = { ...shape.config, contextLength: 2048 }; // letters are tokens here
  await writeCheckpointFolder(join(folder, "checkpoint"), { ...shape, config });
  await importModel(join(folder, "checkpoint"), path, { type: "F16" });
  const service = await openLocalService([{ id: "qwen", path }], {
    ...{ threads: 1, memoryBytes: 2 ** 30, tasksRoot: join(folder, "tasks") },
    ...{ cache: { root: join(folder, "cache") }, scoreCache: { root: join(folder, "scores") } },
  });
  onTestFinished(() => service[Symbol.asyncDispose]());
  const server = await listen(createApp(service).fetch, { host: "127.0.0.1", port: 0 });
  onTestFinished(() => server[Symbol.asyncDispose]());
  return new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 });
}

const city = { enum: ["Oslo", "Rome"] };
const weather = {
  type: "function" as const,
  function: { name: "weather", parameters: { type: "object", properties: { city }, required: ["city"] } },
};
const clock = {
  type: "function" as const,
  function: { name: "clock", parameters: { type: "object", properties: {} } },
};
const ask = { model: "qwen", temperature: 0, max_tokens: 200 };
const question = { role: "user" as const, content: "Is it raining?" };

test("a call that is asked for follows its schema, whole and streamed, and its result is read in the next turn", async () => {
  const openai = await serve("Qwen2.5");
  const choice = { type: "function" as const, function: { name: "weather" } };
  const body = { ...ask, messages: [question], tools: [clock, weather], tool_choice: choice };
  const { choices, usage } = await openai.chat.completions.create(body);
  expect(choices[0]!.finish_reason).toBe("tool_calls");
  const call = choices[0]!.message.tool_calls![0]!;
  expect(call).toMatchObject({ type: "function", function: { name: "weather" } });
  const given = (call as { function: { arguments: string } }).function.arguments;
  expect(city.enum).toContain(JSON.parse(given).city);

  const streamed = await openai.chat.completions.stream(body).finalChatCompletion();
  expect(streamed.choices[0]!.message.tool_calls).toMatchObject([{ function: { name: "weather", arguments: given } }]);

  const messages = [question, choices[0]!.message, { role: "tool" as const, tool_call_id: call.id, content: "Rain." }];
  const next = await openai.chat.completions.create({ ...ask, max_tokens: 8, messages, tools: [clock, weather] });
  // The call, its result and the marks around them, which the template writes.
  expect(next.usage!.prompt_tokens).toBeGreaterThan(usage!.prompt_tokens + given.length + "Rain.".length);
  const shown = await openai.chat.completions.create({ ...ask, max_tokens: 8, messages: [question] });
  expect(usage!.prompt_tokens).toBeGreaterThan(shown.usage!.prompt_tokens + JSON.stringify([clock, weather]).length);
});

test("a model that may choose among tools calls one of them where it must", async () => {
  const openai = await serve("Qwen2.5");
  const body = { ...ask, messages: [question], tools: [clock, weather], tool_choice: "required" as const };
  const { choices } = await openai.chat.completions.create(body);
  const call = choices[0]!.message.tool_calls![0]! as { function: { name: string; arguments: string } };
  expect(["clock", "weather"]).toContain(call.function.name);
  expect(JSON.parse(call.function.arguments)).toBeTypeOf("object");
});

test("a template without tools is refused clearly", async () => {
  const openai = await serve("SmolLM2");
  await expect(
    openai.chat.completions.create({ ...ask, messages: [question], tools: [weather] }),
  ).rejects.toMatchObject({ constructor: OpenAI.BadRequestError, code: "unsupported_parameter", param: "tools" });
});
