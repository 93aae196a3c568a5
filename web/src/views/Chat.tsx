/** Conversations with the model, and beside each answer the mask that it ran under. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { AnswerStage, ServedModel } from "../api.ts";
import {
  askAgain,
  type Conversation,
  conversations,
  currentId,
  draftOf,
  editsOf,
  failures,
  renameConversation,
  running,
  send,
  stop,
  titleOf,
} from "../conversations.ts";
import { examplesFor } from "../examples.ts";
import { count, percent } from "../format.ts";
import { Icon } from "../icons.tsx";
import { Empty, Failure, KeepChoice, stopOnClick } from "../parts.tsx";
import { qualityOf } from "../quality.ts";
import { tasks } from "../session.ts";
import { settings } from "../settings.ts";
import { useStore } from "../store.ts";
import { type TranscriptType, transcript, transcriptName } from "../transcript.ts";
import { Conversations } from "./Conversations.tsx";
import { SettingsDialog } from "./Settings.tsx";
import { Answer, Question } from "./Turns.tsx";

export function Chat({ model }: { model: ServedModel }) {
  const all = useStore(conversations).filter((conversation) => conversation.model === model.id);
  const id = useStore(currentId);
  const conversation = all.find((other) => other.id === id);
  const input = useRef<HTMLTextAreaElement>(null);
  const [settingsAreOpen, setSettingsAreOpen] = useState(false);
  const show = (next: string) => {
    currentId.set(next);
    input.current?.focus();
  };
  return (
    <div class="chat">
      <Conversations all={all} id={conversation?.id ?? ""} show={show} />
      <Thread
        key={conversation?.id ?? ""}
        model={model}
        conversation={conversation}
        origin={all.find((other) => other.id === conversation?.branchOf)}
        input={input}
        openSettings={() => setSettingsAreOpen(true)}
      />
      {settingsAreOpen && <SettingsDialog model={model} close={() => setSettingsAreOpen(false)} />}
    </div>
  );
}

interface ThreadProps {
  model: ServedModel;
  /** Nothing: a new one. */
  conversation: Conversation | undefined;
  /** What it is a branch of, if that is still there. */
  origin: Conversation | undefined;
  input: { current: HTMLTextAreaElement | null };
  openSettings: () => void;
}

function Thread({ model, conversation, origin, input, openSettings }: ThreadProps) {
  const id = conversation?.id ?? "";
  const now = useStore(running).get(id);
  const isRunning = now !== undefined;
  const failure = useStore(failures).get(id);
  const draft = useStore(draftOf(id));
  const setDraft = (text: string) => draftOf(id).set(text);
  const edits = useStore(editsOf(id));
  const setEdit = (question: number, text: string | undefined) => {
    const { [question]: _, ...others } = editsOf(id).value;
    editsOf(id).set(text === undefined ? others : { ...others, [question]: text });
  };
  const messages = conversation?.messages ?? [];
  const isAtEnd = useFollow(messages.length > 0);

  useEffect(() => input.current!.focus(), [id]);

  const submit = (event?: Event) => {
    event?.preventDefault();
    const text = draft.trim();
    if (!text || isRunning) return;
    setDraft("");
    isAtEnd.current = true;
    send(id, model.id, text);
  };
  const keys = (event: KeyboardEvent) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
  };
  const last = messages.length - 1;
  const log = useRef<HTMLDivElement>(null);
  const retry = (question: number) => {
    isAtEnd.current = true;
    if (log.current!.contains(document.activeElement)) log.current!.focus({ preventScroll: true }); // its button goes
    askAgain(id, question);
  };
  const actions = (question: number) =>
    isRunning
      ? undefined
      : {
          retry: () => retry(question),
          edit: () => setEdit(question, edits[question] ?? messages[question]!.content),
        };
  /** What a reader opens makes the page grow too, and is to stay in sight. */
  const stay = ({ target }: Event) => {
    if (!(target as Element).closest(".composer")) isAtEnd.current = false;
  };
  return (
    // Escape stops from anywhere in the thread, not only from the text field.
    // biome-ignore lint/a11y/noStaticElementInteractions: a shortcut of the button below
    <section
      class="thread"
      onClickCapture={stay}
      onKeyDown={(event) => event.key === "Escape" && isRunning && stop(id)}
    >
      <ThreadHead conversation={conversation} origin={origin} />
      <div ref={log} tabIndex={-1} class="messages" role="log" aria-live="polite" aria-label="Conversation">
        {messages.length === 0 && <Welcome model={model} onChoose={(text) => send("", model.id, text)} />}
        {messages.map((message, i) =>
          message.role === "user" ? (
            <Question
              key={i}
              conversation={conversation!}
              index={i}
              edit={edits[i]}
              setEdit={(text) => setEdit(i, text)}
              actions={actions(i)}
              isUnanswered={messages[i + 1]?.role !== "assistant" && !(i === last && (isRunning || failure))}
            />
          ) : (
            <Answer
              key={i}
              model={model}
              message={message}
              prompt={id}
              isRunning={isRunning && i === last}
              actions={i === last && failure !== undefined ? undefined : actions(i - 1)}
            />
          ),
        )}
        {now && messages[last]?.role === "user" && <Waiting stage={now.stage} />}
        {failure !== undefined && !isRunning && (
          <Failure
            error={failure}
            retry={actions(lastQuestion(messages))?.retry}
            isHeld={Object.keys(edits).length > 0}
          >
            <button type="button" class="button" onClick={actions(lastQuestion(messages))?.edit}>
              <Icon name="edit" /> Edit the question
            </button>
          </Failure>
        )}
      </div>
      <form class="composer" onSubmit={submit}>
        <textarea
          ref={input}
          rows={2}
          aria-label="Message"
          placeholder="Instruction"
          value={draft}
          onInput={(event) => setDraft(event.currentTarget.value)}
          onKeyDown={keys}
        />
        <div class="composer-row">
          <KeepChoice model={model} withMasks />
          <Quality model={model} />
          <button type="button" class="button icon-only" aria-label="Settings" title="Settings" onClick={openSettings}>
            <Icon name="settings" />
          </button>
          {isRunning ? (
            <button type="button" class="button primary" onClick={stopOnClick(() => stop(id))}>
              <Icon name="stop" /> <span>Stop</span>
            </button>
          ) : (
            <button type="submit" class="button primary" disabled={!draft.trim()}>
              <Icon name="send" /> <span>Send</span>
            </button>
          )}
        </div>
      </form>
    </section>
  );
}

const lastQuestion = (messages: Conversation["messages"]): number =>
  messages.findLastIndex(({ role }) => role === "user");

/** As a `ref`: once, where a function of each rendering would select again whatever is typed. */
const select = (input: HTMLInputElement | null) => input?.select();

/** The title, and what can be done with all of a conversation. */
function ThreadHead({ conversation, origin }: Pick<ThreadProps, "conversation" | "origin">) {
  const [isRenaming, setIsRenaming] = useState(false);
  const begin = useRef<HTMLButtonElement>(null);
  const wasRenaming = useRef(false);
  useEffect(() => {
    if (wasRenaming.current && !isRenaming) begin.current!.focus();
    wasRenaming.current = isRenaming;
  }, [isRenaming]);
  if (!conversation) return null;
  const title = titleOf(conversation);
  const rename = (event: Event) => {
    event.preventDefault();
    const { value } = (event.currentTarget as HTMLFormElement).elements.namedItem("name") as HTMLInputElement;
    renameConversation(conversation.id, value);
    setIsRenaming(false);
  };
  const leave = (event: KeyboardEvent) => {
    if (event.key !== "Escape") return;
    event.stopPropagation(); // it would stop the answer too
    setIsRenaming(false);
  };
  const download = (type: TranscriptType) => {
    const address = URL.createObjectURL(new Blob([transcript(conversation, title, type)], { type: "text/plain" }));
    Object.assign(document.createElement("a"), { href: address, download: transcriptName(title, type) }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000); // the download reads it after the click
  };
  return (
    <div class="thread-head">
      <h2 class={isRenaming ? "unseen" : ""}>{title}</h2>
      {isRenaming ? (
        <form class="rename" onSubmit={rename} onKeyDown={leave}>
          <input ref={select} name="name" aria-label="Name of the conversation" maxLength={120} defaultValue={title} />
          <button type="submit" class="button">
            Rename
          </button>
          <button type="button" class="quiet" onClick={() => setIsRenaming(false)}>
            Cancel
          </button>
        </form>
      ) : (
        <div class="thread-actions">
          <button ref={begin} type="button" class="quiet" onClick={() => setIsRenaming(true)}>
            <Icon name="edit" /> Rename
          </button>
          <button type="button" class="quiet" aria-label="Save as Markdown" onClick={() => download("markdown")}>
            <Icon name="download" /> Markdown
          </button>
          <button type="button" class="quiet" aria-label="Save as JSON" onClick={() => download("json")}>
            <Icon name="download" /> JSON
          </button>
        </div>
      )}
      {origin && (
        <p class="note">
          A branch of{" "}
          <button type="button" class="link" onClick={() => currentId.set(origin.id)}>
            {titleOf(origin)}
          </button>
          , which is as it was.
        </p>
      )}
    </div>
  );
}

/** What is known of how well the chosen part answers; why, on demand. */
function Quality({ model }: { model: ServedModel }) {
  const { text, detail } = qualityOf(model, useStore(settings));
  return (
    <details class="badge">
      <summary class="badge-words">{text}</summary>
      <p>{detail}</p>
    </details>
  );
}

const steps: readonly [stage: AnswerStage | "think", words: string][] = [
  ["predict", "Choosing channels"],
  ["gather", "Gathering their weights"],
  ["load", "Loading"],
  ["prefill", "Reading the prompt"],
  ["think", "Thinking"], // of models that do
];

/** What is done before the first token. */
function Waiting({ stage }: { stage: AnswerStage | "think" | undefined }) {
  const at = steps.findIndex(([name]) => name === stage);
  const shown = steps.filter(([name]) => name !== "think" || stage === "think");
  const words =
    stage === undefined ? "Waiting for the server" : stage === "queue" ? "Waiting for memory" : steps[at]![1];
  return (
    <div class="waiting">
      <p role="status" class={at < 0 ? "" : "unseen"}>
        <span class="dots" aria-hidden="true" /> {words}
      </p>
      <ol aria-hidden="true">
        {shown.map(([name, step], i) => (
          <li key={name} class={i < at ? "done" : i === at ? "current" : ""}>
            {step}
          </li>
        ))}
      </ol>
    </div>
  );
}

/** Keeps the end of the page in sight while it grows, by an answer or its mask, unless the reader scrolled up. */
function useFollow(hasMessages: boolean): { current: boolean } {
  const isAtEnd = useRef(true);
  useEffect(() => {
    let lastY = scrollY;
    let readerAt = -Infinity;
    const note = () => {
      const end = innerHeight + scrollY >= document.documentElement.scrollHeight - 80;
      // Elsewhere than at the end after scrolling down is where the page has grown since; up scrolls a browser too, to show what has the focus.
      if (end || (scrollY < lastY && performance.now() - readerAt < 1000)) isAtEnd.current = end;
      lastY = scrollY;
    };
    const byReader = (event: Event) => {
      if (event instanceof KeyboardEvent && !/^(Page|Arrow|Home)/.test(event.key)) return;
      if (event.type === "mousedown" && event.target !== document.documentElement) return; // a scroll bar is the page's
      readerAt = performance.now();
    };
    const listeners = new AbortController();
    const how = { passive: true, signal: listeners.signal };
    addEventListener("scroll", note, how);
    for (const name of ["wheel", "touchmove", "mousedown", "keydown"]) addEventListener(name, byReader, how);
    return () => listeners.abort();
  }, []);
  useEffect(() => {
    if (!hasMessages) return;
    const follow = () => isAtEnd.current && scrollTo({ top: document.documentElement.scrollHeight });
    const sizes = new ResizeObserver(follow);
    sizes.observe(document.body);
    return () => sizes.disconnect();
  }, [hasMessages]);
  return isAtEnd;
}

function Welcome({ model, onChoose }: { model: ServedModel; onChoose: (text: string) => void }) {
  const saved = useStore(tasks);
  const offered = examplesFor(model, saved.state === "ready" ? saved.value : []);
  return (
    <Empty title="Give an instruction">
      {model.tFfn === model.dFfn ? (
        <p>
          This model has no trained masks, so all of it answers. Choose a share under Keep to try masks that need no
          training: the channels that are most active at your prompt.
        </p>
      ) : (
        <p>
          The model reads it, keeps {count(model.tFfn)} of {count(model.dFfn)} channels in each of {model.numLayers}{" "}
          layers ({percent(model.tFfn / model.dFfn)}), and answers with those. Beside the answer you see which.
        </p>
      )}
      {offered.length > 0 && (
        <ul class="examples">
          {offered.map((text) => (
            <li key={text}>
              <button type="button" class="button" onClick={() => onChoose(text)}>
                {text}
              </button>
            </li>
          ))}
        </ul>
      )}
    </Empty>
  );
}
