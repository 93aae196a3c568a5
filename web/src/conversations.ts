/** Conversations: kept in the browser, answered by the server, one running answer each. They go on while another view is shown. */
import { type CompletionExtension, makeMask, streamChat } from "./api.ts";
import { maskLayers, rememberMask } from "./masks.ts";
import { askServer, tasks } from "./session.ts";
import { isObject, readStored, Store, writeStored } from "./store.ts";

/** What the server said of an answer. */
export interface AnswerInfo {
  model: string;
  /** Absent of an answer that ended early, where the mask is not known otherwise. */
  mask?: Partial<CompletionExtension["mask"]> & { id: string };
  ms?: CompletionExtension["ms"];
  completionTokens?: number;
  /** `stop`, `length`, … or `stopped` by the reader. */
  finishReason: string;
}

export interface Message {
  role: "user" | "assistant";
  content: string;
  answer?: AnswerInfo;
}

export interface Conversation {
  id: string;
  model: string;
  /** `auto`, `dense` or `task:NAME`. */
  mask: string;
  messages: Message[];
  /** Milliseconds since 1970. */
  changed: number;
}

export interface Settings {
  /** Share of the FFN that masks keep, or `auto`. Absent: as the model does. */
  keep?: number | "auto" | undefined;
  temperature: number;
  maxTokens: number;
}

const isMessage = (value: unknown): value is Message =>
  isObject(value) &&
  (value.role === "user" || value.role === "assistant") &&
  typeof value.content === "string" &&
  (value.answer === undefined ||
    (isObject(value.answer) &&
      typeof value.answer.model === "string" &&
      typeof value.answer.finishReason === "string"));
const isConversation = (value: unknown): value is Conversation =>
  isObject(value) &&
  typeof value.id === "string" &&
  typeof value.model === "string" &&
  typeof value.mask === "string" &&
  typeof value.changed === "number" &&
  Array.isArray(value.messages) &&
  value.messages.every(isMessage);
function isConversations(value: unknown): value is Conversation[] {
  return Array.isArray(value) && value.every(isConversation);
}
const isSettings = (value: unknown): value is Settings =>
  isObject(value) &&
  typeof value.temperature === "number" &&
  typeof value.maxTokens === "number" &&
  (value.keep === undefined || value.keep === "auto" || typeof value.keep === "number");

/** Latest first. */
export const conversations = new Store<Conversation[]>(readStored("conversations", isConversations, []));
/** Of the conversation that is shown; empty: a new one. */
export const currentId = new Store("");
/** What each running answer can be stopped with, by conversation. */
export const running = new Store<ReadonlyMap<string, AbortController>>(new Map());
/** Why the last answer of a conversation failed. */
export const failures = new Store<ReadonlyMap<string, unknown>>(new Map());
export const settings = new Store<Settings>(readStored("settings", isSettings, { temperature: 0, maxTokens: 256 }));

export function setSettings(value: Settings): void {
  settings.set(value);
  writeStored("settings", value);
}

/** The share that a request for a mask asks for, where the reader has chosen one. */
export function keptShare(): { keep?: number | "auto" } {
  const { keep } = settings.value;
  return keep === undefined ? {} : { keep };
}

/** `crypto.randomUUID` exists only on pages that came by TLS or from this machine. */
const newId = (): string => Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("-");

const save = (): boolean => writeStored("conversations", conversations.value);

// What another tab keeps is shown here too, so that neither writes over it. An answer that runs here is not known there.
addEventListener("storage", ({ key }) => {
  if (key !== "ifprune.conversations") return;
  const own = conversations.value.filter(({ id }) => running.value.has(id));
  const theirs = readStored("conversations", isConversations, []).filter(({ id }) => !running.value.has(id));
  conversations.set([...own, ...theirs]);
});

function put(conversation: Conversation): void {
  conversations.set([conversation, ...conversations.value.filter(({ id }) => id !== conversation.id)]);
}

function without<V>(store: Store<ReadonlyMap<string, V>>, id: string): void {
  store.set(new Map([...store.value].filter(([key]) => key !== id)));
}

export function deleteConversation(id: string): void {
  stop(id);
  conversations.set(conversations.value.filter((conversation) => conversation.id !== id));
  without(failures, id);
  if (currentId.value === id) currentId.set("");
  save();
}

export function stop(id: string): void {
  running.value.get(id)?.abort();
}

/** Adds a message of the reader, in a new conversation where `id` is empty, and has it answered. */
export function send(id: string, model: string, mask: string, content: string): void {
  const known = conversations.value.find((conversation) => conversation.id === id);
  const conversation = known ?? { id: newId(), model, mask, messages: [], changed: 0 };
  put({ ...conversation, mask, messages: [...conversation.messages, { role: "user", content }], changed: Date.now() });
  currentId.set(conversation.id);
  void answer(conversation.id);
}

/** Answers the last message of the reader anew. The old answer comes back if there is no new one. */
export function regenerate(id: string): void {
  const conversation = conversations.value.find((other) => other.id === id);
  if (!conversation) return;
  const last = conversation.messages.findLastIndex(({ role }) => role === "user");
  put({ ...conversation, messages: conversation.messages.slice(0, last + 1), changed: Date.now() });
  void answer(id, conversation.messages.slice(last + 1));
}

async function answer(id: string, before: readonly Message[] = []): Promise<void> {
  const { model, mask, messages } = conversations.value.find((other) => other.id === id)!;
  // A question that got no answer is not asked again with the next one: models know turns alone.
  const asked = messages.filter(({ role }, i) => role !== "user" || messages[i + 1]?.role !== "user");
  const share = keptShare();
  const abort = new AbortController();
  running.set(new Map([...running.value, [id, abort]]));
  without(failures, id);
  save();

  let content = "";
  const info: AnswerInfo = { model, finishReason: "stopped" };
  let frame = 0;
  const show = () => {
    frame = 0;
    const conversation = conversations.value.find((other) => other.id === id);
    if (!conversation) return; // deleted meanwhile
    const isEmpty = content === "" && !info.mask;
    const shown = isEmpty ? before : [{ role: "assistant" as const, content, answer: { ...info } }];
    put({ ...conversation, messages: [...messages, ...shown] });
  };
  try {
    const request = {
      model,
      mask,
      ...(mask === "auto" && share),
      messages: asked.map(({ role, content }) => ({ role, content })),
      max_tokens: settings.value.maxTokens,
      temperature: settings.value.temperature,
    };
    for await (const event of streamChat(request, abort.signal)) {
      if (event.type === "text") content += event.text;
      else if (event.type === "usage") info.completionTokens = event.completionTokens;
      else {
        info.finishReason = event.finishReason;
        info.mask = event.extension?.mask;
        info.ms = event.extension?.ms;
      }
      frame ||= requestAnimationFrame(show); // a fast model sends more pieces than a screen shows
    }
  } catch (error) {
    if (!abort.signal.aborted) failures.set(new Map([...failures.value, [id, error]]));
  }
  cancelAnimationFrame(frame);
  if (abort.signal.aborted && content) info.mask = await maskOfStopped(model, mask, asked, share);
  show();
  without(running, id);
  save();
  void askServer(); // what it has loaded is different now
  if (info.mask && info.mask.id !== "dense") {
    // An answer is not worse for a mask that is gone; the strip says so.
    await maskLayers(model, info.mask.id).then(
      (layers) => rememberMask(model, id, info.mask!.id, layers),
      () => {},
    );
  }
}

/** The last chunk names the mask; an answer that was stopped has none. */
async function maskOfStopped(
  model: string,
  mask: string,
  messages: Message[],
  share: ReturnType<typeof keptShare>,
): Promise<AnswerInfo["mask"]> {
  try {
    if (mask === "auto") {
      const { info } = await makeMask({ model, instruction: messages[0]!.content, ...share });
      return { id: info.id, t_ffn: info.tFfn, d_ffn: info.dFfn, kept_share: info.tFfn / info.dFfn };
    }
    if (mask === "dense") return { id: "dense" };
    const saved = tasks.value.state === "ready" ? tasks.value.value : [];
    const id = saved.find(({ name }) => `task:${name}` === mask)?.maskId;
    return id ? { id } : undefined;
  } catch {
    return undefined;
  }
}
