/**
 * Conversations: kept in the browser, answered by the server, one running answer each. They go on while another view is shown.
 *
 * Nothing that was said is lost in silence. Whoever asks again from the middle gets a *branch*, a conversation of its own, and what followed stays in the
 * first. So with two tabs that answer in one conversation at a time: what one of them got is a branch.
 */
import { type AnswerStage, type CompletionExtension, streamChat } from "./api.ts";
import { maskLayers, rememberMask } from "./masks.ts";
import { askServer, models } from "./session.ts";
import { keptShare, settings } from "./settings.ts";
import {
  isObject,
  keptStore,
  onStored,
  parseStored,
  removeStored,
  Store,
  storedKeys,
  storedText,
  writeStored,
} from "./store.ts";

/** What the server said of an answer. */
export interface AnswerInfo {
  model: string;
  /** Absent of an answer that ended before its mask was known. */
  mask?: Partial<CompletionExtension["mask"]> & { id: string };
  ms?: CompletionExtension["ms"];
  /** Whether it began with thoughts. */
  hasThought?: boolean;
  /** From the question to the first text, as the page saw it. */
  firstMs?: number;
  completionTokens?: number;
  /** `stop`, `length`, …; `stopped` by the reader, `failed` on its way. */
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
  /** That the reader gave it. */
  name?: string;
  /** The conversation that it is a branch of. */
  branchOf?: string;
  messages: Message[];
  /** Milliseconds since 1970. */
  changed: number;
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
  (value.name === undefined || typeof value.name === "string") &&
  (value.branchOf === undefined || typeof value.branchOf === "string") &&
  typeof value.changed === "number" &&
  Array.isArray(value.messages) &&
  value.messages.every(isMessage);

const keyStart = "conversation.";
const keyOf = (id: string): string => keyStart + id;
/** Each conversation as it was last read or written here: what differs from that was written by another tab. */
const known = new Map<string, string>();

function readConversation(id: string, text = storedText(keyOf(id))): Conversation | undefined {
  const conversation = parseStored(text, isConversation);
  if (conversation?.id !== id) return undefined;
  known.set(id, text!);
  return conversation;
}

const readAll = (): Conversation[] =>
  storedKeys(keyStart)
    .flatMap((key) => readConversation(key.slice(keyStart.length)) ?? [])
    .sort(latestFirst);

const latestFirst = (a: Conversation, b: Conversation): number => b.changed - a.changed;

/** Latest first. */
export const conversations = new Store<Conversation[]>(readAll());
/** Of the conversation that is shown; empty: a new one. */
export const currentId = keptStore("conversation", "");

/** An answer on its way. */
export interface Running {
  /** Of its conversation: another one once that became a branch. */
  id: string;
  stop: AbortController;
  /** What it waits for; nothing before the server has said. */
  stage?: AnswerStage | "think";
  /** The answer that it replaces, or nothing: kept until there is something of the new one. */
  before: readonly Message[];
  /** Puts what has come into the conversation. */
  show: () => void;
}
/** By conversation. */
export const running = new Store<ReadonlyMap<string, Running>>(new Map());
/** What is written in a conversation and not sent: the next message, and by their indices questions that are being changed. */
export const draftOf = (id: string): Store<string> => keptStore(`draft.${id}`, "");
export type Edits = Readonly<Record<number, string>>;
const noEdits: Edits = {};
export const editsOf = (id: string): Store<Edits> => keptStore(`edits.${id}`, noEdits);
/** Why the last answer of a conversation failed. */
export const failures = new Store<ReadonlyMap<string, unknown>>(new Map());

onStored((key, written) => {
  if (key !== undefined && !key.startsWith(keyStart)) return;
  const changed = key === undefined ? conversations.value.map(({ id }) => id) : [key.slice(keyStart.length)];
  for (const id of changed) {
    if (running.value.has(id)) continue; // seen when the answer is written
    const text = storedText(keyOf(id));
    if (text !== null && text === known.get(id)) {
      if (text !== written) keepOverwritten(id, written);
      continue;
    }
    const theirs = readConversation(id, text);
    if (!theirs) {
      known.delete(id);
      const written = draftOf(id).value; // goes on as a new conversation, which is shown now
      if (currentId.value === id && draftOf("").value === "") draftOf("").set(written);
      forgetTyped(id);
    }
    const others = conversations.value.filter((other) => other.id !== id);
    conversations.set([...others, ...(theirs ? [theirs] : [])].sort(latestFirst));
  }
});
/** Browsers tell tabs of each other's writing a little late: what was written here meanwhile may have taken the place of what is told now. */
function keepOverwritten(id: string, text: string | null): void {
  const theirs = parseStored(text, isConversation);
  const ours = find(id);
  if (!theirs || !ours) return;
  if (!continues(ours, theirs)) {
    const branch = branchOf(theirs, theirs.messages);
    conversations.set([...conversations.value, branch].sort(latestFirst));
    save(branch.id);
  } else if (theirs.name !== undefined && theirs.name !== ours.name) renameConversation(id, theirs.name);
}
/** What has come of an answer stays when the page goes. A hidden one draws nothing, and may go without a word. */
function keepWhatCame(): void {
  for (const now of running.value.values()) {
    now.show();
    if (find(now.id)?.messages.at(-1)?.role === "assistant") save(now.id); // else it is kept already
  }
}
addEventListener("pagehide", keepWhatCame);
document.addEventListener("visibilitychange", keepWhatCame);

/** `crypto.randomUUID` exists only on pages that came by TLS or from this machine. */
const newId = (): string => Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("-");

const find = (id: string): Conversation | undefined => conversations.value.find((other) => other.id === id);

export const titleOf = ({ name, messages }: Conversation): string =>
  name ?? (messages[0]?.content ?? "").trim().split("\n")[0]!.slice(0, 80);

/** Replaces the conversation of the same id, or adds it; it becomes the latest. */
function put(conversation: Conversation): void {
  conversations.set([conversation, ...conversations.value.filter(({ id }) => id !== conversation.id)]);
}

function setIn<V>(store: Store<ReadonlyMap<string, V>>, id: string, value: V | undefined): void {
  const others = [...store.value].filter(([key]) => key !== id);
  store.set(new Map(value === undefined ? others : [...others, [id, value]]));
}

/** Writes a conversation. @returns its id, which is another where it became a branch, as another tab had written something else meanwhile */
function save(id: string): string {
  const shown = find(id);
  if (!shown) return id;
  const now = running.value.get(id);
  const isWaiting = shown.messages.at(-1)?.role === "user";
  const before = isWaiting ? (now?.before ?? []) : [];
  const ours = { ...shown, messages: [...shown.messages, ...before] };
  const text = storedText(keyOf(id));
  const theirs = text === null || text === known.get(id) ? undefined : readConversation(id, text);
  if (theirs && !continues(ours, theirs)) {
    if (!now && continues(theirs, ours)) {
      put(theirs);
      setIn(failures, id, undefined); // of a question that is not the last any more
      return id;
    }
    const branch = branchOf(shown, shown.messages);
    put(theirs);
    put(branch);
    if (now) now.id = branch.id;
    draftOf(branch.id).set(draftOf(id).value);
    editsOf(branch.id).set(editsOf(id).value);
    forgetTyped(id);
    for (const store of [running, failures] as Store<ReadonlyMap<string, unknown>>[]) {
      const moved = store.value.get(id);
      setIn(store, id, undefined);
      setIn(store, branch.id, moved);
    }
    if (currentId.value === id) currentId.set(branch.id);
    return save(branch.id);
  }
  const named = theirs ? { ...ours, name: theirs.name } : ours; // what another tab may change meanwhile
  if (theirs) put({ ...shown, name: theirs.name });
  if (writeStored(keyOf(id), named)) known.set(id, JSON.stringify(named));
  return id;
}

/** Whether all that one conversation says is the beginning of another. */
const continues = (longer: Conversation, { messages }: Conversation): boolean =>
  messages.every((message, i) => JSON.stringify(message) === JSON.stringify(longer.messages[i]));

/** A conversation of its own, named after the one that it comes from. */
function branchOf(from: Conversation, messages: Message[]): Conversation {
  const base = titleOf(from).replace(/ \(\d+\)$/, "");
  const taken = new Set(conversations.value.map(titleOf));
  let number = 2;
  while (taken.has(`${base} (${number})`)) number++;
  return { ...from, id: newId(), name: `${base} (${number})`, branchOf: from.id, messages, changed: Date.now() };
}

/** @param name empty: its first message is its title again */
export function renameConversation(id: string, name: string): void {
  const conversation = find(save(id)); // what is shown gets the name, wherever it is after another tab's writing
  if (!conversation) return;
  const renamed = { ...conversation, name: name.trim() || undefined };
  conversations.set(conversations.value.map((other) => (other.id === renamed.id ? renamed : other)));
  save(renamed.id);
}

export function deleteConversation(id: string): void {
  stop(id);
  conversations.set(conversations.value.filter((conversation) => conversation.id !== id));
  setIn(failures, id, undefined);
  if (currentId.value === id) currentId.set("");
  known.delete(id);
  forgetTyped(id);
  removeStored(keyOf(id));
}

function forgetTyped(id: string): void {
  draftOf(id).set("");
  editsOf(id).set(noEdits);
}

export function stop(id: string): void {
  running.value.get(id)?.stop.abort();
}

/** Adds a message of the reader, in a new conversation where `id` is empty, and has it answered. */
export function send(id: string, model: string, content: string): void {
  const conversation = find(id) ?? { id: newId(), model, messages: [], changed: 0 };
  put({ ...conversation, messages: [...conversation.messages, { role: "user", content }], changed: Date.now() });
  currentId.set(conversation.id);
  void answer(conversation.id);
}

/** Whether asking again makes a branch: where more would go than the answer that is asked for again. */
export function makesBranch({ messages }: Conversation, question: number, content?: string): boolean {
  const after = messages.length - question - 1;
  return content === undefined || content === messages[question]!.content ? after > 1 : after > 0;
}

/**
 * Has a message of the reader answered anew. The last answer is replaced, and comes back where there is no new one; else see {@link makesBranch}.
 *
 * @param question its index among the messages
 * @param content what it says now. Default: the same
 */
export function askAgain(id: string, question: number, content?: string): void {
  const conversation = find(id);
  if (!conversation || running.value.has(id)) return;
  const before = conversation.messages.slice(0, question);
  const asked = { role: "user" as const, content: content ?? conversation.messages[question]!.content };
  const messages = [...before, asked];
  const isBranch = makesBranch(conversation, question, content);
  const next = isBranch ? branchOf(conversation, messages) : { ...conversation, messages, changed: Date.now() };
  put(next);
  currentId.set(next.id);
  void answer(next.id, isBranch ? [] : conversation.messages.slice(question + 1));
}

/** @param before the answer that comes back where there is none */
async function answer(id: string, before: readonly Message[] = []): Promise<void> {
  const { model, messages } = find(id)!;
  const { mask, system, temperature, topP, seed, stop: stopTexts, maxTokens } = settings.value;
  // A question that got no answer is not asked again with the next one: models know turns alone.
  const isAnswer = (message: Message | undefined) => message?.role === "assistant" && message.content !== "";
  const served = models.value.state === "ready" ? models.value.value.find((other) => other.id === model) : undefined;
  const takesSystem = served?.hasChatTemplate && system.trim() !== "";
  const asked = messages.filter((message, i) =>
    message.role === "user" ? i === messages.length - 1 || isAnswer(messages[i + 1]) : isAnswer(message),
  );
  const request = {
    model,
    mask,
    ...(mask === "auto" && keptShare()),
    messages: [
      ...(takesSystem ? [{ role: "system" as const, content: system }] : []),
      ...asked.map(({ role, content }) => ({ role, content })),
    ],
    max_tokens: maxTokens,
    temperature,
    top_p: topP,
    ...(seed !== undefined && { seed }),
    stop: stopTexts.filter((text) => text !== ""),
  };
  const stop = new AbortController();
  let content = "";
  const info: AnswerInfo = { model, finishReason: "failed" }; // unless it comes to another end
  const started = performance.now();
  let frame = 0;
  let isOver = false;
  const show = () => {
    frame = 0;
    const conversation = find(now.id);
    if (!conversation) return; // deleted meanwhile
    const hasCome = content !== "" || info.ms !== undefined;
    const isStopped = stop.signal.aborted && before.length === 0;
    const shown = { role: "assistant" as const, content, answer: { ...info } };
    const said = hasCome || isStopped ? [shown] : isOver ? before : [];
    put({ ...conversation, messages: [...messages, ...said] });
  };
  const now: Running = { id, stop, before, show };
  const waitFor = (stage: Running["stage"]) => {
    now.stage = stage;
    setIn(running, now.id, now);
  };
  setIn(running, id, now);
  setIn(failures, id, undefined);
  save(id);

  try {
    for await (const event of streamChat(request, stop.signal)) {
      if (event.type === "stage") {
        waitFor(event.stage);
        continue;
      }
      if (event.type === "thought") {
        info.hasThought = true;
        waitFor("think");
        continue;
      }
      if (event.type === "text") {
        info.firstMs ??= performance.now() - started;
        content += event.text;
      } else if (event.type === "start") info.mask = event.mask;
      else if (event.type === "usage") info.completionTokens = event.completionTokens;
      else {
        info.finishReason = event.finishReason;
        info.ms = event.extension?.ms;
      }
      frame ||= requestAnimationFrame(show); // a fast model sends more pieces than a screen shows
    }
  } catch (error) {
    if (stop.signal.aborted) info.finishReason = "stopped";
    else setIn(failures, now.id, error);
  }
  cancelAnimationFrame(frame);
  isOver = true;
  show();
  setIn(running, now.id, undefined);
  id = save(now.id);
  void askServer(); // what it has loaded is different now
  if (info.mask && info.mask.id !== "dense") {
    // An answer is not worse for a mask that is gone; the strip says so.
    await maskLayers(model, info.mask.id).then(
      (layers) => rememberMask(model, id, info.mask!.id, layers),
      () => {},
    );
  }
}
