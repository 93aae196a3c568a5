/** OpenAI's embeddings API, as its own client speaks it, over a service that has no model. */
import OpenAI from "openai";
import { expect, test } from "vitest";
import { FakeService, fakeEmbedding } from "../../../test/support/fakeService.ts";
import { ContextLengthError } from "../../errors.ts";
import { createApp } from "./app.ts";

const service = new FakeService();
const app = createApp(service);
const openai = new OpenAI({
  baseURL: "http://localhost/v1",
  apiKey: "none",
  maxRetries: 0,
  fetch: async (url, init) => app.fetch(new Request(url, init)),
});
const embed = (params: object) =>
  openai.embeddings.create({ model: "tiny", ...params } as OpenAI.EmbeddingCreateParams);

test("features of texts and tokens, in numbers and in base64, and what they are", async () => {
  const answer = await embed({ input: ["one", "three"] }); // the client asks for base64, and decodes it
  expect(answer).toEqual({
    object: "list",
    model: "tiny",
    data: [3, 5].map((length, index) => ({ object: "embedding", index, embedding: fakeEmbedding(length) })),
    usage: { prompt_tokens: 4, total_tokens: 4 },
    ifprune: { feature: "predictor" },
  });
  for (const [input, lengths] of [
    ["one", [3]],
    [[7, 8], [2]],
    [
      [[7, 8], [9]],
      [2, 1],
    ],
  ] as const) {
    const { data } = await embed({ input, encoding_format: "float", dimensions: 3 });
    expect(data.map(({ embedding }) => embedding)).toEqual(lengths.map(fakeEmbedding));
  }
});

test.each<[what: string, params: object, status: number, param: string | null]>([
  ["other dimensions", { input: "a", dimensions: 2 }, 400, "dimensions"],
  ["no text", { input: [] }, 400, "input"],
  ["too many texts", { input: Array(2049).fill("a") }, 400, "input"],
  ["numbers that are no tokens", { input: [[-1]] }, 400, "input.0.0"],
  ["another format", { input: "a", encoding_format: "int8" }, 400, "encoding_format"],
  ["an unknown model", { model: "nope", input: "a" }, 404, "model"],
])("%s: refused", async (_, params, status, param) => {
  await expect(embed(params)).rejects.toMatchObject({ status, param });
});

test("a text that is too long is told as of a chat", async () => {
  service.failure = { error: new ContextLengthError(600, 512), afterWords: 0 };
  await expect(embed({ input: "a" })).rejects.toMatchObject({ status: 400, code: "context_length_exceeded" });
});
