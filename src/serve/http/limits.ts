/** How much of a request is read, and how: everything here comes before anything is made of it. */
import { checkDepth } from "../../json.ts";
import { ApiError, invalid } from "./apiErrors.ts";

export const limits = {
  /** Open at a time; a new one takes the place of one that asks nothing. Each may hold a body. */
  connections: 512,
  /** Of these, for this machine alone. */
  reserved: 32,
  bodyBytes: 4 << 20,
  jsonDepth: 32,
  /** Of one object. */
  jsonKeys: 10_000,
  headers: 100,
  headerBytes: 16 << 10,
  /** Until all headers, and the whole body, have come. */
  headersMs: 10_000,
  requestMs: 30_000,
  /** A connection without a request: longer than the pools of clients keep theirs (Go: 90 s). */
  idleMs: 120_000,
  /** A client that takes nothing of a stream for so long is gone. */
  stalledMs: 60_000,
  messages: 1000,
  /** Of a message. */
  parts: 1000,
  tools: 256,
  choices: 8,
  prompts: 64,
  embeddings: 2048,
  /** Answers of one request that run at a time. */
  concurrent: 4,
  examples: 64,
  exampleLength: 10_000,
  stops: 32,
  stopLength: 256,
  logitBiases: 300,
  templateVariables: 16 << 10,
  topLogprobs: 20,
  schemaNodes: 500,
  schemaDepth: 16,
  /** Of all its enums together, as OpenAI's: a grammar has a branch for each. */
  schemaValues: 1000,
  schemaRepeats: 1000,
  /** Of what a grammar is made of, as OpenAI's. */
  schemaLength: 120_000,
  /** Of a reference in it. */
  schemaPointer: 1000,
} as const;

/**
 * The JSON of a request's body.
 *
 * @param types that it may say it is
 * @throws {ApiError} if it is not JSON, too long, too deep, too wide, not UTF-8, or holds half a surrogate pair
 */
export async function readJsonBody(request: Request, types = ["application/json"]): Promise<unknown> {
  const type = request.headers.get("content-type")?.split(";")[0]?.trim().toLowerCase();
  if (type === undefined || !types.includes(type))
    throw new ApiError(415, "unsupported_media_type", "Wanted the content type application/json.");
  if (request.headers.has("content-encoding"))
    throw new ApiError(415, "unsupported_media_type", "Wanted a body without content encoding.");
  if (Number(request.headers.get("content-length")) > limits.bodyBytes) throw tooLarge();
  const text = utf8(await readBytes(request));
  try {
    checkDepth(text, limits.jsonDepth);
    const json: unknown = JSON.parse(text);
    checkJson(json, /\\u[dD][89a-fA-F]/.test(text));
    return json;
  } catch (cause) {
    if (cause instanceof ApiError) throw cause;
    throw new ApiError(400, "invalid_json", `Wanted JSON, got ${(cause as Error).message}.`.slice(0, 200), { cause });
  }
}

async function readBytes(request: Request): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  try {
    for await (const chunk of request.body ?? []) {
      length += chunk.length;
      if (length > limits.bodyBytes) throw tooLarge();
      chunks.push(chunk);
    }
  } catch (cause) {
    if (cause instanceof ApiError) throw cause;
    throw new ApiError(400, "incomplete_body", "The body ended early.", { cause });
  }
  return Buffer.concat(chunks);
}

function tooLarge(): ApiError {
  return new ApiError(413, "request_too_large", `Wanted a body of at most ${limits.bodyBytes} bytes.`, {
    headers: { connection: "close" },
  });
}

function utf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new ApiError(400, "invalid_utf8", "Wanted UTF-8, got other bytes.", { cause });
  }
}

/**
 * Refuses objects of very many keys, and half a surrogate pair, which tokenizers and encoders of UTF-8 do not take. (A reviver of `JSON.parse` would take seconds for
 * a million numbers.)
 *
 * @param mayBeHalf whether the text has escapes of any
 */
function checkJson(value: unknown, mayBeHalf: boolean): void {
  if (typeof value === "string") {
    if (mayBeHalf && /\p{Surrogate}/u.test(value))
      throw new ApiError(400, "invalid_utf8", "Wanted Unicode text, got half a surrogate pair.");
  } else if (Array.isArray(value)) for (const item of value) checkJson(item, mayBeHalf);
  else if (typeof value === "object" && value !== null) {
    const entries = Object.entries(value);
    if (entries.length > limits.jsonKeys)
      throw new ApiError(400, "invalid_json", `Wanted objects of at most ${limits.jsonKeys} keys.`);
    for (const [key, item] of entries) {
      checkJson(key, mayBeHalf);
      checkJson(item, mayBeHalf);
    }
  }
}

/** @throws {ApiError} unless the headers are few */
export function checkHeaders(headers: Headers): void {
  if ([...headers.keys()].length > limits.headers)
    throw new ApiError(431, "headers_too_large", `Wanted at most ${limits.headers} headers.`);
}

export const tooMany = (param: string, what: string, most: number): ApiError =>
  invalid(param, `wanted at most ${most} ${what}.`);
