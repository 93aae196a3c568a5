/** What was said: questions that can be changed, answers with their figures and masks. */
import { useEffect, useRef } from "preact/hooks";
import type { ServedModel } from "../api.ts";
import { type AnswerInfo, askAgain, type Conversation, type Message, makesBranch, titleOf } from "../conversations.ts";
import { count, milliseconds, percent, perSecond } from "../format.ts";
import { Icon } from "../icons.tsx";
import { CopyButton, Markdown, MaskById, origins, stages } from "../parts.tsx";
import { endings } from "../transcript.ts";

/** What can be done with a turn, while nothing is being answered. */
interface Actions {
  retry: () => void;
  edit: () => void;
}

interface QuestionProps {
  conversation: Conversation;
  index: number;
  /** What it is being changed to, if it is. */
  edit: string | undefined;
  setEdit: (text: string | undefined) => void;
  actions: Actions | undefined;
  /** Whether nobody is to answer it any more. */
  isUnanswered: boolean;
}

export function Question({ conversation, index, edit, setEdit, actions, isUnanswered }: QuestionProps) {
  const { content } = conversation.messages[index]!;
  const article = useRef<HTMLElement>(null);
  const wasEdited = useRef(false);
  useEffect(() => {
    if (wasEdited.current && edit === undefined && document.activeElement === document.body)
      (article.current!.querySelector("button") ?? article.current!.closest<HTMLElement>(".messages"))?.focus();
    wasEdited.current = edit !== undefined;
  }, [edit]);
  return (
    <article ref={article} class="question" aria-label="You">
      {edit !== undefined ? (
        <QuestionForm
          conversation={conversation}
          index={index}
          text={edit}
          setText={setEdit}
          canAsk={actions !== undefined}
        />
      ) : (
        <div class="question-row">
          <p>{content}</p>
          {actions && (
            <button type="button" class="quiet" aria-label="Edit the question" title="Edit" onClick={actions.edit}>
              <Icon name="edit" />
            </button>
          )}
        </div>
      )}
      {isUnanswered && edit === undefined && (
        <div class="outcome">
          <p>Not answered.</p>
          {actions && <RetryButton retry={actions.retry} />}
        </div>
      )}
    </article>
  );
}

interface QuestionFormProps {
  conversation: Conversation;
  index: number;
  text: string;
  /** Nothing: it stays as it was. */
  setText: (text: string | undefined) => void;
  /** Whether nothing is being answered. */
  canAsk: boolean;
}

function QuestionForm({ conversation, index, text, setText, canAsk }: QuestionFormProps) {
  const close = () => setText(undefined);
  const input = useRef<HTMLTextAreaElement>(null);
  useEffect(() => input.current!.focus(), []);
  const asked = text.trim();
  const submit = (event: Event) => {
    event.preventDefault();
    if (asked === "" || !canAsk) return;
    close();
    askAgain(conversation.id, index, asked);
  };
  return (
    <form class="question-form" onSubmit={submit}>
      <textarea
        ref={input}
        rows={3}
        aria-label="The question"
        value={text}
        onInput={(event) => setText(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
          else if (event.key === "Escape") {
            event.stopPropagation(); // it would stop the answer too
            close();
          }
        }}
      />
      {makesBranch(conversation, index, asked) && (
        <p class="note">
          It goes on as a conversation of its own: what was said so far stays in “{titleOf(conversation)}”.
        </p>
      )}
      <div class="question-end">
        <button type="submit" class="button primary" disabled={asked === "" || !canAsk}>
          <Icon name="send" /> Ask again
        </button>
        <button type="button" class="button" onClick={close}>
          Cancel
        </button>
      </div>
    </form>
  );
}

const RetryButton = ({ retry }: { retry: () => void }) => (
  <button type="button" class="quiet" onClick={retry}>
    <Icon name="again" /> Retry
  </button>
);

interface AnswerProps {
  model: ServedModel;
  message: Message;
  /** That its mask is of. */
  prompt: string;
  isRunning: boolean;
  actions: Actions | undefined;
}

export function Answer({ model, message, prompt, isRunning, actions }: AnswerProps) {
  const { content, answer } = message;
  const mask = answer?.mask;
  const reason = answer?.finishReason ?? "";
  const isEmpty = content.trim() === "";
  return (
    <article class="answer" aria-label="Answer" aria-busy={isRunning}>
      <div class="answer-text">
        <Markdown text={content} />
        {isRunning && <span class="cursor" aria-hidden="true" />}
        {!isRunning && (
          <>
            {(endings[reason] || isEmpty) && (
              <p class="outcome">
                {endings[reason]}{" "}
                {isEmpty && answer?.hasThought && "It only thought: more tokens let it come to an answer."}
                {isEmpty &&
                  !answer?.hasThought &&
                  reason === "stop" &&
                  "The model ended its answer at once, without a word."}{" "}
                {isEmpty &&
                  !answer?.hasThought &&
                  mask &&
                  (mask.t_ffn ?? 0) < (mask.d_ffn ?? 0) &&
                  "With a part of its FFN that happens: keep more, or all of it."}
              </p>
            )}
            <div class="answer-actions">
              {!isEmpty && <CopyButton text={content} label="Copy" />}
              {actions && <RetryButton retry={actions.retry} />}
              {actions && (endings[reason] || isEmpty) && (
                <button type="button" class="quiet" onClick={actions.edit}>
                  <Icon name="edit" /> Edit the question
                </button>
              )}
            </div>
          </>
        )}
      </div>
      <div class="answer-mask">
        {mask && mask.id !== "dense" && (
          <MaskById model={model.id} id={mask.id} dFfn={mask.d_ffn ?? model.dFfn} prompt={prompt} />
        )}
        {isRunning && !mask && <div class="strip-placeholder live" />}
        {answer && !isRunning && <Figures answer={answer} />}
      </div>
    </article>
  );
}

/** Three figures, and the rest on demand. */
function Figures({ answer }: { answer: AnswerInfo }) {
  const { mask, ms, firstMs, completionTokens } = answer;
  const share = mask?.id === "dense" ? 1 : mask?.kept_share;
  const speed = ms && completionTokens ? perSecond(completionTokens, ms.decode) : "–";
  const details = detailsOf(answer);
  return (
    <>
      <dl class="figures">
        <div>
          <dt>First token</dt>
          <dd>{firstMs === undefined ? "–" : milliseconds(firstMs)}</dd>
        </div>
        <div>
          <dt>Speed</dt>
          <dd>{speed}</dd>
        </div>
        <div>
          <dt>Kept</dt>
          <dd>{share === undefined ? "–" : percent(share)}</dd>
        </div>
      </dl>
      {details.length > 0 && (
        <details class="more">
          <summary class="more-words">Details</summary>
          <dl>
            {details.map(([name, value]) => (
              <div key={name}>
                <dt>{name}</dt>
                <dd>{value}</dd>
              </div>
            ))}
          </dl>
        </details>
      )}
    </>
  );
}

const sources: Record<string, string> = {
  predictor: "trained, from the prompt",
  griffin: "not trained: the channels most active at the prompt",
  task: "saved for a task",
  dense: "none: all channels",
};

function detailsOf({ mask, ms, completionTokens }: AnswerInfo): [name: string, value: string][] {
  const all: [string, string][] = [];
  if (mask?.source) all.push(["Mask", sources[mask.source] ?? mask.source]);
  if (mask?.t_ffn && mask.d_ffn) all.push(["Channels", `${count(mask.t_ffn)} of ${count(mask.d_ffn)} in each layer`]);
  if (mask?.loss !== undefined && mask.agreement !== undefined)
    all.push(["Measured", `${mask.loss.toFixed(2)} nats lost a token, ${percent(mask.agreement)} agree`]);
  if (mask?.from) all.push([mask.id === "dense" ? "Model" : "Sub-network", origins[mask.from]]);
  if (ms) for (const [name, time] of stages(ms)) all.push([stageNames[name] ?? name, milliseconds(time)]);
  if (completionTokens) all.push(["Tokens", count(completionTokens)]);
  if (mask && mask.id !== "dense") all.push(["Mask id", mask.id]);
  return all;
}

const stageNames: Record<string, string> = {
  queue: "Queue",
  predict: "Choosing channels",
  gather: "Gathering weights",
  load: "Loading",
  prefill: "Reading the prompt",
  decode: "Answering",
};
