/** The server's routes as functions. Every failure is an {ApiError} that says what to do. */
import type {
  AddBody,
  AddEvent,
  AnswerStage,
  CompletionExtension,
  ErrorBody,
  MaskBody,
  PageMask,
  SavedTask,
  PageModel as ServedModel,
  PageState as ServiceState,
  SpecializeBody,
  SpecializeJob,
  StageExtension,
  StoredMask,
  TaskBody,
} from "../../src/serve/http/pageApi.ts";
import { serverSentData } from "./sse.ts";
import { isObject } from "./store.ts";

export type {
  AddEvent,
  AnswerStage,
  CompletionExtension,
  PageMask,
  SavedTask,
  ServedModel,
  ServiceState,
  SpecializeBody,
  SpecializeJob,
  StoredMask,
};

export class ApiError extends Error {
  override readonly name = "ApiError";
  constructor(
    /** HTTP status, or what stopped the request before there was one. */
    readonly status: number | "unreachable" | "broken",
    message: string,
    readonly more: {
      /** Seconds to wait, where the server is busy. */
      retryAfter?: number | undefined;
      /** Of a prompt that is longer than the model reads. */
      tooLong?: ErrorBody["ifprune"];
    } = {},
  ) {
    super(message);
  }
}

const keyName = "ifprune.key";
let unauthorized = () => {};

/** Called when the server refuses the key. */
export function onUnauthorized(listener: () => void): void {
  unauthorized = listener;
}

let key: string | null = null;
try {
  key = sessionStorage.getItem(keyName);
} catch {
  // Where the browser keeps nothing, it is asked for again when the page is loaded again.
}

/** Keeps the key until the tab closes. */
export function setKey(value: string): void {
  key = value;
  try {
    sessionStorage.setItem(keyName, value);
  } catch {
    // as above
  }
}

async function request(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (key) headers.set("Authorization", `Bearer ${key}`);
  if (init.body) headers.set("Content-Type", "application/json");
  let response: Response;
  try {
    response = await fetch(path, { ...init, headers });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new ApiError("unreachable", "The server does not answer. Is `ifprune serve` still running?");
  }
  if (response.ok) return response;
  if (response.status === 401) unauthorized();
  const body: unknown = await response.json().catch(() => undefined);
  const { error, ifprune: tooLong } = isErrorBody(body)
    ? body
    : { error: { message: `The server answered ${response.status} ${response.statusText}`.trim() } };
  throw new ApiError(response.status, error.message, {
    retryAfter: response.status === 429 ? Math.max(1, Number(response.headers.get("Retry-After")) || 1) : undefined,
    tooLong,
  });
}

const isErrorBody = (body: unknown): body is ErrorBody =>
  isObject(body) && isObject(body.error) && typeof body.error.message === "string";

const get = async <T>(path: string, signal?: AbortSignal): Promise<T> => (await request(path, { signal })).json();
const segment = encodeURIComponent;

export const getModels = (): Promise<ServedModel[]> => get("/ifprune/models");
/** @throws {ApiError}; AbortError when `signal` aborts, which stops it at the server too */
export async function* addModel(body: AddBody, signal: AbortSignal): AsyncGenerator<AddEvent, void, void> {
  const response = await request("/ifprune/models", { method: "POST", body: JSON.stringify(body), signal });
  for await (const data of serverSentData(response.body!)) {
    if (data === "[DONE]") return;
    const event: AddEvent | ErrorBody = JSON.parse(data);
    if (isErrorBody(event)) throw new ApiError("broken", event.error.message);
    yield event;
  }
  throw new ApiError("broken", "The connection ended before the model was there.");
}

export const getState = (signal: AbortSignal): Promise<ServiceState> => get("/ifprune/state", signal);
export const getMask = (model: string, id: string): Promise<StoredMask> =>
  get(`/ifprune/masks/${segment(model)}/${segment(id)}`);

export async function makeMask(body: MaskBody, signal?: AbortSignal): Promise<PageMask> {
  return (await request("/ifprune/mask", { method: "POST", body: JSON.stringify(body), signal })).json();
}

/** The mask as a file that `ifprune run --mask` and `ifprune export --mask` read. */
export async function getMaskFile(model: string, id: string): Promise<Blob> {
  return (await request(`/ifprune/masks/${segment(model)}/${segment(id)}/file`)).blob();
}

export const getTasks = (model: string): Promise<SavedTask[]> => get(`/ifprune/tasks/${segment(model)}`);

export async function saveTask(model: string, name: string, body: TaskBody): Promise<SavedTask> {
  const path = `/ifprune/tasks/${segment(model)}/${segment(name)}`;
  return (await request(path, { method: "PUT", body: JSON.stringify(body) })).json();
}

export async function deleteTask(model: string, name: string): Promise<void> {
  await request(`/ifprune/tasks/${segment(model)}/${segment(name)}`, { method: "DELETE" });
}

export const getJobs = (): Promise<SpecializeJob[]> => get("/ifprune/specialize");

export async function beginJob(body: SpecializeBody): Promise<void> {
  await request("/ifprune/specialize", { method: "POST", body: JSON.stringify(body) });
}

const post = (name: string, what: "go-on" | "stop" | "serve"): Promise<Response> =>
  request(`/ifprune/specialize/${segment(name)}/${what}`, { method: "POST" });

export async function goOnWithJob(name: string): Promise<void> {
  await post(name, "go-on");
}

/** What it has made stays. */
export async function stopJob(name: string): Promise<void> {
  await post(name, "stop");
}

/** Lets the model that a job has made be served. */
export async function serveJob(name: string): Promise<ServedModel> {
  return (await post(name, "serve")).json();
}

export async function deleteJob(name: string): Promise<void> {
  await request(`/ifprune/specialize/${segment(name)}`, { method: "DELETE" });
}

export interface ChatRequest {
  model: string;
  messages: { role: "system" | "user" | "assistant"; content: string }[];
  /** `auto`, `dense`, `task:NAME` or a mask's id. */
  mask: string;
  /** Share of the FFN, of `auto` alone. */
  keep?: number | "auto";
  max_tokens: number;
  temperature: number;
  top_p?: number;
  seed?: number;
  stop?: string[];
}

export type ChatEvent =
  /** What it waits for, before it starts. */
  | { type: "stage"; stage: AnswerStage }
  /** It has begun to think, which is not shown. */
  | { type: "thought" }
  | { type: "start"; mask: CompletionExtension["mask"] }
  | { type: "text"; text: string }
  | { type: "end"; finishReason: string; extension: CompletionExtension | undefined }
  | { type: "usage"; completionTokens: number };

interface Chunk {
  choices?: { delta?: { content?: string | null; reasoning_content?: string | null }; finish_reason?: string | null }[];
  usage?: { completion_tokens: number } | null;
  ifprune?: StageExtension | CompletionExtension;
}

/** @throws {ApiError}; AbortError when `signal` aborts */
export async function* streamChat(body: ChatRequest, signal: AbortSignal): AsyncGenerator<ChatEvent, void, void> {
  const response = await request("/v1/chat/completions", {
    method: "POST",
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true, include_stages: true } }),
    signal,
  });
  let isThinking = false;
  try {
    for await (const data of serverSentData(response.body!)) {
      if (data === "[DONE]") return;
      const chunk: Chunk = JSON.parse(data);
      if (isErrorBody(chunk)) throw new ApiError("broken", chunk.error.message);
      const { ifprune } = chunk;
      const choice = chunk.choices?.[0];
      if (ifprune && "stage" in ifprune) yield { type: "stage", stage: ifprune.stage };
      else if (ifprune && !("ms" in ifprune)) yield { type: "start", mask: ifprune.mask };
      if (choice?.delta?.reasoning_content && !isThinking) {
        isThinking = true;
        yield { type: "thought" };
      }
      if (choice?.delta?.content) yield { type: "text", text: choice.delta.content };
      if (choice?.finish_reason) {
        const extension = ifprune && "ms" in ifprune ? ifprune : undefined;
        yield { type: "end", finishReason: choice.finish_reason, extension };
      }
      if (chunk.usage) yield { type: "usage", completionTokens: chunk.usage.completion_tokens };
    }
  } catch (error) {
    if (error instanceof ApiError || signal.aborted) throw error;
  }
  throw new ApiError("broken", "The connection ended before the answer did.");
}
