/** Small parts that several views use. */
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { ApiError, type CompletionExtension, type ServedModel } from "./api.ts";
import { decodeLayers, fits, shareKeeping } from "./channels.ts";
import type { AnswerInfo } from "./conversations.ts";
import { count, milliseconds, percent, perSecond, plural } from "./format.ts";
import { Icon } from "./icons.tsx";
import { MaskStrip, StripLegend } from "./MaskStrip.tsx";
import { renderMarkdown } from "./markdown.ts";
import { maskHistory, maskLayers, otherMasks } from "./masks.ts";
import { measured } from "./quality.ts";
import { type Loaded, tasks } from "./session.ts";
import { changeSettings, settings } from "./settings.ts";
import { useStore } from "./store.ts";

export function Markdown({ text }: { text: string }) {
  const element = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => element.current!.replaceChildren(renderMarkdown(text)), [text]); // before it is painted, not after
  return <div class="markdown" ref={element} />;
}

interface FailureProps {
  error: unknown;
  retry?: () => void;
  /** Whether it is not tried again by itself. */
  isHeld?: boolean;
  /** What else may be done. */
  children?: ComponentChildren;
}

/** What went wrong and what to do. Where the server is busy, tries again by itself when it said to. */
export function Failure({ error, retry, isHeld = false, children }: FailureProps) {
  const wait = error instanceof ApiError && retry && !isHeld ? error.more.retryAfter : undefined;
  const [seconds, setSeconds] = useState(wait);
  const latest = useRef(retry); // what the reader changed while waiting counts
  latest.current = retry;
  useEffect(() => {
    setSeconds(wait);
    if (wait === undefined) return;
    let left = wait;
    const timer = setInterval(() => {
      left--;
      setSeconds(left);
      if (left > 0) return;
      clearInterval(timer);
      latest.current!();
    }, 1000);
    return () => clearInterval(timer);
  }, [error, wait]);
  return (
    <div class="failure" role="alert">
      <p>{errorWords(error)}</p>
      {seconds !== undefined && <p aria-live="off">Trying again in {seconds} s.</p>}
      {retry && (
        <button type="button" class="button" onClick={retry}>
          <Icon name="again" /> Try again
        </button>
      )}
      {children}
    </div>
  );
}

function errorWords(error: unknown): string {
  const tooLong = error instanceof ApiError && error.more.tooLong;
  if (!tooLong) return error instanceof Error ? error.message : String(error);
  const { tokens, is_counted: isCounted, context_length: most } = tooLong;
  const least = isCounted ? "" : "at least ";
  return `Too long by ${least}${plural(tokens - most + 1, "token")}: the prompt has ${least}${count(tokens)}, and with an answer the model reads ${count(most)}. Shorten a message, or begin a new chat.`;
}

/** Command lines to copy, each with what it is for. */
export function Commands({ commands }: { commands: readonly (readonly [what: string, command: string])[] }) {
  return (
    <dl class="commands">
      {commands.map(([what, command]) => (
        <div key={command}>
          <dt>{what}</dt>
          <dd>
            <code>{command}</code>
            <CopyButton text={command} label="Copy" />
          </dd>
        </div>
      ))}
    </dl>
  );
}

export function CopyButton({ text, label }: { text: string; label: string }) {
  const [outcome, setOutcome] = useState("");
  useEffect(() => {
    if (!outcome) return;
    const timer = setTimeout(() => setOutcome(""), 2000);
    return () => clearTimeout(timer);
  }, [outcome]);
  const copy = async () => {
    try {
      // Absent on pages that came neither by TLS nor from this machine.
      await navigator.clipboard.writeText(text);
      setOutcome("Copied");
    } catch {
      setOutcome("The browser forbids it here");
    }
  };
  return (
    <button type="button" class="quiet" onClick={copy}>
      <Icon name={outcome === "Copied" ? "done" : "copy"} /> <span aria-live="polite">{outcome || label}</span>
    </button>
  );
}

/** Of a button that stands where the one was that began what it stops, and turns into that one again. */
export const stopOnClick = (stop: () => void) => (event: MouseEvent) => {
  event.preventDefault(); // it may be that one before the browser is done with the click, and submit
  if (event.detail < 2) stop(); // the second click of a double one was for that one
};

interface SureButtonProps {
  label: string;
  title: string;
  question: string;
  /** Whether there is nothing to ask about. */
  isSure?: boolean;
  onSure: () => void;
  children: ComponentChildren;
}

/** Asks before it does what cannot be undone, in place. */
export function SureButton({ label, title, question, isSure = false, onSure, children }: SureButtonProps) {
  const [asks, setAsks] = useState(false);
  if (!asks) {
    const press = () => (isSure ? onSure() : setAsks(true));
    return (
      <button type="button" class="quiet" aria-label={label} title={title} onClick={press}>
        {children}
      </button>
    );
  }
  return (
    <button
      type="button"
      class="quiet danger"
      ref={(button) => button?.focus()}
      aria-label={`${label}: sure?`}
      onClick={({ detail }) => detail < 2 && onSure()} // the second click of a double one knew of no question
      onBlur={() => setAsks(false)}
      onKeyDown={(event) => {
        if (event.key === "Escape") setAsks(false);
        else if (event.repeat) event.preventDefault(); // of a key that was held down on the first button
      }}
    >
      {question}
    </button>
  );
}

export const DeleteButton = ({ what, onDelete }: { what: string; onDelete: () => void }) => (
  <SureButton label={`Delete ${what}`} title="Delete" question="Delete?" onSure={onDelete}>
    <Icon name="trash" />
  </SureButton>
);

/** Loads a value when `keys` change. */
export function useLoaded<T>(load: () => Promise<T>, keys: readonly unknown[]): Loaded<T> {
  const [loaded, setLoaded] = useState<Loaded<T>>({ state: "loading" });
  useEffect(() => {
    let isCurrent = true;
    setLoaded({ state: "loading" });
    load().then(
      (value) => isCurrent && setLoaded({ state: "ready", value }),
      (error: unknown) => isCurrent && setLoaded({ state: "failed", error }),
    );
    return () => {
      isCurrent = false;
    };
  }, keys);
  return loaded;
}

/** The strip of a mask by its id, against those of other recent prompts. @param prompt that the mask belongs to */
export function MaskById({ model, id, dFfn, prompt }: { model: string; id: string; dFfn: number; prompt: string }) {
  const layers = useLoaded(async () => decodeLayers(await maskLayers(model, id)), [model, id]);
  const history = useStore(maskHistory(model));
  const bits = layers.state === "ready" && layers.value.length > 0 ? layers.value : undefined;
  const { others, common } = useMemo(() => {
    if (!bits) return { others: 0, common: undefined };
    const masks = otherMasks(history, prompt).filter((mask) => fits(mask, bits.length, dFfn));
    return { others: masks.length, common: masks.length > 0 ? shareKeeping(masks, bits.length, dFfn) : undefined };
  }, [bits, history, prompt, dFfn]);
  if (layers.state === "failed") return <p class="note">The server no longer has this mask.</p>;
  if (!bits || !fits(bits, bits.length, dFfn)) return <div class="strip-placeholder" />;
  return (
    <>
      <MaskStrip
        layers={bits}
        dFfn={dFfn}
        common={common}
        describe={(share) =>
          share > 0 ? `kept by ${percent(share)} of recent prompts` : "kept by no other recent prompt"
        }
        label={`Mask of ${bits.length} layers. Arrow keys walk through the layers.`}
      />
      {common ? (
        <StripLegend low={`shared with ${plural(others, "recent prompt")}`} high="only here" />
      ) : (
        <p class="note">Colours come with a second chat, to compare with.</p>
      )}
    </>
  );
}

export const origins = { loaded: "from memory", disk: "from disk", cold: "built now" } as const;

/** `12.5 % of the FFN · sub-network built now · predict 80 ms · … · 709 tokens/s` */
export function answerFacts({ mask, ms, completionTokens, finishReason }: AnswerInfo): string {
  const facts: string[] = [];
  if (mask?.id === "dense") facts.push("all channels kept");
  else if (mask?.kept_share !== undefined) facts.push(`${percent(mask.kept_share)} of the FFN`);
  if (mask?.loss !== undefined) facts.push(`measured: ${mask.loss.toFixed(2)} nats lost a token`);
  if (mask?.from) facts.push(`${mask.id === "dense" ? "model" : "sub-network"} ${origins[mask.from]}`);
  if (ms) facts.push(...stages(ms).map(([name, time]) => `${name} ${milliseconds(time)}`));
  if (ms && completionTokens) facts.push(perSecond(completionTokens, ms.decode));
  if (finishReason === "length") facts.push("ended at the token limit");
  if (finishReason === "stopped") facts.push("stopped");
  return facts.join("\u00a0· ");
}

/** Stages that took time, in order. */
export function stages(ms: CompletionExtension["ms"]): [string, number][] {
  return (["queue", "predict", "gather", "load", "prefill", "decode"] as const)
    .map((name): [string, number] => [name, ms[name]])
    .filter(([, time]) => time >= 0.05);
}

interface MaskChoiceProps {
  value: string;
  onChange: (value: string) => void;
  /** What `auto` makes the mask from. */
  auto?: string;
  withDense?: boolean;
}

/** Chooses `auto`, `dense` or `task:NAME`. */
export function MaskChoice({ auto = "this prompt", ...props }: MaskChoiceProps) {
  const saved = useStore(tasks);
  const names = saved.state === "ready" ? saved.value.map(({ name }) => `task:${name}`) : [];
  // A task that was deleted stays chosen until another is: the server then says that it is unknown.
  if (props.value.startsWith("task:") && !names.includes(props.value)) names.push(props.value);
  return (
    <label class="field">
      <span>Mask</span>
      <select value={props.value} onChange={(event) => props.onChange(event.currentTarget.value)}>
        <option value="auto">Auto: by {auto}</option>
        {names.map((name) => (
          <option key={name} value={name}>
            Task: {name.slice("task:".length)}
          </option>
        ))}
        {props.withDense !== false && <option value="dense">Dense: all channels</option>}
      </select>
    </label>
  );
}

/** Shares that are offered; those that were measured on import are among them. */
const shares = [0.9, 0.75, 0.5, 0.25];

interface KeepChoiceProps {
  model: ServedModel;
  /** Whether a saved mask, or all of the model, may be chosen too: which part answers, rather than how large masks are. */
  withMasks?: boolean;
}

/** Chooses how much of the FFN masks keep, and says what that was measured to cost the model. */
export function KeepChoice({ model, withMasks = false }: KeepChoiceProps) {
  const { keep, mask } = useStore(settings);
  const saved = useStore(tasks);
  const names = withMasks && saved.state === "ready" ? saved.value.map(({ name }) => `task:${name}`) : [];
  // A task that was deleted stays chosen until another is: the server then says that it is unknown.
  if (withMasks && mask.startsWith("task:") && !names.includes(mask)) names.push(mask);
  const cost = (share: number) => {
    const row = measured(model, share);
    return row ? `: ${row.loss.toFixed(2)} nats lost, ${percent(row.agreement)} agree` : "";
  };
  const isWhole = model.tFfn === model.dFfn;
  const own = isWhole ? "all" : percent(model.tFfn / model.dFfn);
  const isOffered = keep === undefined || keep === "auto" || shares.includes(keep);
  const isGiven = withMasks && (mask.startsWith("task:") || (mask === "dense" && !isWhole));
  const choose = (value: string) => {
    if (value === "dense" || value.startsWith("task:")) return changeSettings({ mask: value });
    const chosen = value === "" ? undefined : value === "auto" ? value : Number(value);
    changeSettings({ keep: chosen, ...(withMasks && { mask: "auto" }) });
  };
  return (
    <label class="field keep">
      <span>Keep</span>
      <select
        value={isGiven ? mask : keep === undefined ? "" : String(keep)}
        onChange={(event) => choose(event.currentTarget.value)}
      >
        <option value="">Its own ({own})</option>
        {(model.autoTFfn !== undefined || keep === "auto") && (
          <option value="auto">Auto: the least that costs little</option>
        )}
        {[...shares, ...(isOffered ? [] : [keep])].map((share) => (
          <option key={share} value={String(share)}>
            {percent(share)}
            {cost(share)}
          </option>
        ))}
        {withMasks && !isWhole && <option value="dense">Dense: all channels</option>}
        {names.length > 0 && (
          <optgroup label="Tasks">
            {names.map((name) => (
              <option key={name} value={name}>
                Task: {name.slice("task:".length)}
              </option>
            ))}
          </optgroup>
        )}
      </select>
    </label>
  );
}

export function Empty({ title, children }: { title: string; children: ComponentChildren }) {
  return (
    <div class="empty">
      <h2>{title}</h2>
      {children}
    </div>
  );
}
