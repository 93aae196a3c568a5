/** Conversations with the model, and beside each answer the mask that it ran under. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { ServedModel } from "../api.ts";
import {
  type Conversation,
  conversations,
  currentId,
  deleteConversation,
  failures,
  type Message,
  regenerate,
  running,
  send,
  setSettings,
  settings,
  stop,
} from "../conversations.ts";
import { count, percent } from "../format.ts";
import { Icon } from "../icons.tsx";
import {
  answerFacts,
  CopyButton,
  DeleteButton,
  Empty,
  Failure,
  KeepChoice,
  Markdown,
  MaskById,
  MaskChoice,
} from "../parts.tsx";
import { tasks } from "../session.ts";
import { useStore } from "../store.ts";

export function Chat({ model }: { model: ServedModel }) {
  const all = useStore(conversations).filter((conversation) => conversation.model === model.id);
  const id = useStore(currentId);
  const conversation = all.find((other) => other.id === id);
  const [listIsOpen, setListIsOpen] = useState(false);
  const input = useRef<HTMLTextAreaElement>(null);
  const show = (next: string) => {
    currentId.set(next);
    setListIsOpen(false);
    input.current?.focus();
  };
  return (
    <div class="chat">
      <aside class={`conversations ${listIsOpen ? "open" : ""}`} aria-label="Conversations">
        <div class="conversations-head">
          <button
            type="button"
            class="button list-toggle"
            aria-expanded={listIsOpen}
            onClick={() => setListIsOpen(!listIsOpen)}
          >
            <Icon name="list" /> Conversations
          </button>
          <button type="button" class="button" onClick={() => show("")}>
            <Icon name="plus" /> New chat
          </button>
        </div>
        <ul>
          {all.map((other) => (
            <li key={other.id} class={other.id === id ? "current" : ""}>
              <button
                type="button"
                class="conversation"
                aria-current={other.id === id ? "true" : undefined}
                onClick={() => show(other.id)}
              >
                {titleOf(other)}
              </button>
              <DeleteButton what={`conversation ${titleOf(other)}`} onDelete={() => deleteConversation(other.id)} />
            </li>
          ))}
        </ul>
        {all.length === 0 && <p class="note">Conversations are kept in this browser only.</p>}
      </aside>
      <Thread key={conversation?.id ?? ""} model={model} conversation={conversation} input={input} />
    </div>
  );
}

const titleOf = ({ messages }: Conversation): string => messages[0]?.content.slice(0, 80) ?? "";

interface ThreadProps {
  model: ServedModel;
  conversation: Conversation | undefined;
  input: { current: HTMLTextAreaElement | null };
}

function Thread({ model, conversation, input }: ThreadProps) {
  const id = conversation?.id ?? "";
  const isRunning = useStore(running).has(id);
  const failure = useStore(failures).get(id);
  const [draft, setDraft] = useState("");
  const [mask, setMask] = useState(conversation?.mask ?? "auto");
  const [settingsAreOpen, setSettingsAreOpen] = useState(false);
  const messages = conversation?.messages ?? [];
  const isAtEnd = useFollow(messages.length > 0);

  useEffect(() => {
    input.current!.focus();
  }, [id]);

  const submit = (event?: Event) => {
    event?.preventDefault();
    const text = draft.trim();
    if (!text || isRunning) return;
    setDraft("");
    isAtEnd.current = true;
    send(id, model.id, mask, text);
  };
  const keys = (event: KeyboardEvent) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
    else if (event.key === "Escape" && isRunning) stop(id);
  };
  return (
    // Escape stops from anywhere in the thread, not only from the text field.
    // biome-ignore lint/a11y/noStaticElementInteractions: a shortcut of the button below
    <section class="thread" onKeyDown={(event) => event.key === "Escape" && isRunning && stop(id)}>
      <div class="messages" role="log" aria-live="polite" aria-label="Conversation">
        {messages.length === 0 && <Welcome model={model} onChoose={(text) => send("", model.id, mask, text)} />}
        {messages.map((message, i) =>
          message.role === "user" ? (
            <article key={i} class="question" aria-label="You">
              <p>{message.content}</p>
            </article>
          ) : (
            <Answer
              key={i}
              model={model}
              message={message}
              prompt={id}
              isRunning={isRunning && i === messages.length - 1}
              onAgain={!isRunning && i === messages.length - 1 ? () => regenerate(id) : undefined}
            />
          ),
        )}
        {isRunning && messages.at(-1)?.role === "user" && (
          <p class="waiting" role="status">
            <span class="dots" aria-hidden="true" />{" "}
            {mask === "dense" ? "Waiting for the model" : "Choosing and building the sub-network"}
          </p>
        )}
        {failure !== undefined && !isRunning && <Failure error={failure} retry={() => regenerate(id)} />}
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
          <MaskChoice
            value={mask}
            onChange={setMask}
            auto={messages.length > 0 ? "the first message" : "this prompt"}
          />
          {mask === "auto" && <KeepChoice model={model} />}
          <button
            type="button"
            class="button settings-toggle"
            aria-label="Settings"
            title="Settings"
            aria-expanded={settingsAreOpen}
            onClick={() => setSettingsAreOpen(!settingsAreOpen)}
          >
            <Icon name="settings" />
          </button>
          {settingsAreOpen && <SettingsFields model={model} />}
          {isRunning ? (
            <button type="button" class="button primary" onClick={() => stop(id)}>
              <Icon name="stop" /> Stop
            </button>
          ) : (
            <button type="submit" class="button primary" disabled={!draft.trim()}>
              <Icon name="send" /> Send
            </button>
          )}
        </div>
      </form>
    </section>
  );
}

/** Keeps the end of the page in sight while it grows, by an answer or its mask, unless the reader scrolled up. */
function useFollow(hasMessages: boolean): { current: boolean } {
  const isAtEnd = useRef(true);
  useEffect(() => {
    let last = scrollY;
    const note = () => {
      const end = innerHeight + scrollY >= document.documentElement.scrollHeight - 80;
      // Only a reader scrolls up; elsewhere than at the end after scrolling down is where the page has grown since.
      if (end || scrollY < last) isAtEnd.current = end;
      last = scrollY;
    };
    addEventListener("scroll", note, { passive: true });
    return () => removeEventListener("scroll", note);
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

interface AnswerProps {
  model: ServedModel;
  message: Message;
  prompt: string;
  isRunning: boolean;
  onAgain: (() => void) | undefined;
}

function Answer({ model, message, prompt, isRunning, onAgain }: AnswerProps) {
  const { content, answer } = message;
  const mask = answer?.mask;
  return (
    <article class="answer" aria-label="Answer" aria-busy={isRunning}>
      <div class="answer-text">
        <Markdown text={content} />
        {isRunning && <span class="cursor" aria-hidden="true" />}
        {!isRunning && content.trim() === "" && <p class="note">The model ended its answer at once.</p>}
        {!isRunning && (
          <div class="answer-actions">
            <CopyButton text={content} label="Copy" />
            {onAgain && (
              <button type="button" class="quiet" onClick={onAgain}>
                <Icon name="again" /> Regenerate
              </button>
            )}
          </div>
        )}
      </div>
      <div class="answer-mask">
        {mask && mask.id !== "dense" && (
          <MaskById model={model.id} id={mask.id} dFfn={mask.d_ffn ?? model.dFfn} prompt={prompt} />
        )}
        {isRunning && !mask && <div class="strip-placeholder live" />}
        {answer && !isRunning && <p class="facts">{answerFacts(answer)}</p>}
      </div>
    </article>
  );
}

/** What the model in the package was trained to answer. */
const examples = ["What is the plural of wolf?", "How do you write 4711 in words?", "What is house in German?"];

function Welcome({ model, onChoose }: { model: ServedModel; onChoose: (text: string) => void }) {
  const saved = useStore(tasks);
  const offered =
    model.id === "default"
      ? examples
      : saved.state === "ready"
        ? saved.value.map(({ instruction }) => instruction).slice(0, 3)
        : [];
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

function SettingsFields({ model }: { model: ServedModel }) {
  const now = useStore(settings);
  const number = (event: { currentTarget: HTMLInputElement }) =>
    event.currentTarget.validity.valid && event.currentTarget.value !== ""
      ? event.currentTarget.valueAsNumber
      : undefined;
  return (
    <>
      <label class="field narrow">
        <span>Tokens</span>
        <input
          type="number"
          min={1}
          max={model.contextLength}
          step={1}
          required
          value={now.maxTokens}
          onChange={(event) => setSettings({ ...now, maxTokens: number(event) ?? now.maxTokens })}
        />
      </label>
      <label class="field narrow">
        <span>Temperature</span>
        <input
          type="number"
          min={0}
          max={2}
          step={0.1}
          required
          value={now.temperature}
          onChange={(event) => setSettings({ ...now, temperature: number(event) ?? now.temperature })}
        />
      </label>
    </>
  );
}
