/**
 * One prompt on the dense model and on its sub-network, or on another model: tokens over time, drawn while they come; what it took to get ready, apart from answering; and
 * further prompts under the same mask, when both are in memory.
 */
import { useEffect, useRef, useState } from "preact/hooks";
import { type ServedModel, streamChat } from "../api.ts";
import type { AnswerInfo } from "../conversations.ts";
import { count, milliseconds, perSecond, plural } from "../format.ts";
import { Icon } from "../icons.tsx";
import { marked, type Parting, partingMark, partingOf } from "../parting.ts";
import { answerFacts, Empty, Failure, KeepChoice, Markdown, MaskChoice, stages, stopOnClick } from "../parts.tsx";
import { Scroll } from "../Scroll.tsx";
import { askServer, models } from "../session.ts";
import { keptShare, settings } from "../settings.ts";
import { useHeld, useKept, useStore } from "../store.ts";
import { answerMs, readyMs, type Timed, verdict } from "../verdict.ts";

type LaneName = "dense" | "subnetwork";
const laneNames: readonly LaneName[] = ["dense", "subnetwork"];
type Names = Record<LaneName, string>;
const usualTitles: Names = { dense: "Dense model", subnetwork: "Sub-network" };

interface Lane {
  /** Text as it came: about a token each. */
  pieces: string[];
  /** Milliseconds since the request of each piece. */
  times: number[];
  /** Milliseconds from the request to now, or to the end. */
  elapsed: number;
  state: "waiting" | "running" | "done";
  info?: AnswerInfo;
  error?: unknown;
}

const newLane = (): Lane => ({ pieces: [], times: [], elapsed: 0, state: "waiting" });

/** A prompt that was raced. */
interface Run {
  prompt: string;
  lanes: Record<LaneName, Lane>;
}

export function Race({ model }: { model: ServedModel }) {
  const [prompt, setPrompt] = useKept("race.prompt", "");
  const [mask, setMask] = useKept(`race.mask.${model.id}`, "auto");
  const [isAtOnce, setIsAtOnce] = useKept("race.order", false);
  const [chosen, setChosen] = useKept("race.other", "");
  const served = useStore(models);
  const others = served.state === "ready" ? served.value.map(({ id }) => id).filter((id) => id !== model.id) : [];
  /** The model that runs beside; empty: this one's sub-network. */
  const other = others.includes(chosen) ? chosen : "";
  const titles = other ? { dense: model.id, subnetwork: other } : usualTitles;
  const { maxTokens } = useStore(settings);
  const [lanes, setLanes] = useHeld<Record<LaneName, Lane>>(`race.lanes.${model.id}`);
  /** Those that ended, under one mask. */
  const [runs = [], setRuns] = useHeld<Run[]>(`race.runs.${model.id}`);
  const abort = useRef<AbortController>();
  const [isRunning, setIsRunning] = useState(false);
  useEffect(() => () => abort.current?.abort(), []);

  /** @param before runs under the same mask, that this one is counted with */
  const race = async (prompt: string, mask: string, before: Run[]) => {
    if (isRunning || !prompt.trim()) return;
    const stop = new AbortController();
    abort.current = stop;
    const now: Record<LaneName, Lane> = { dense: newLane(), subnetwork: newLane() };
    setIsRunning(true);
    setRuns(before);
    let frame = requestAnimationFrame(function show() {
      setLanes({ dense: { ...now.dense }, subnetwork: { ...now.subnetwork } });
      frame = requestAnimationFrame(show);
    });
    const run = (name: LaneName) =>
      runLane(
        now[name],
        {
          model: name === "subnetwork" && other ? other : model.id,
          mask: name === "dense" || other ? "dense" : mask,
          prompt,
          maxTokens,
        },
        stop.signal,
      );
    if (isAtOnce) await Promise.all(laneNames.map(run));
    else for (const name of laneNames) if (!stop.signal.aborted) await run(name);
    cancelAnimationFrame(frame);
    setLanes({ ...now });
    if (haveAnswered(now)) setRuns([...before, { prompt, lanes: now }]);
    setIsRunning(false);
    void askServer();
  };
  const start = (event: Event) => {
    event.preventDefault();
    void race(prompt, mask, []);
  };
  const lastMask = runs.at(-1)?.lanes.subnetwork.info?.mask?.id;
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: a shortcut of the button below
    <div class="page" onKeyDown={(event) => event.key === "Escape" && abort.current?.abort()}>
      <form class="race-form" onSubmit={start}>
        <label class="field tall">
          <span>Prompt</span>
          <textarea
            rows={3}
            required
            value={prompt}
            onInput={(event) => setPrompt(event.currentTarget.value)}
            onKeyDown={(event) => {
              if (event.key === "Enter" && !event.shiftKey && !event.isComposing) start(event);
            }}
          />
        </label>
        <div class="composer-row">
          {others.length > 0 && (
            <label class="field">
              <span>Beside the whole model</span>
              <select
                value={other}
                onChange={(event) => {
                  setChosen(event.currentTarget.value);
                  setLanes(undefined);
                  setRuns([]);
                }}
                disabled={isRunning}
              >
                <option value="">Its sub-network</option>
                {others.map((id) => (
                  <option key={id} value={id}>
                    {id}
                  </option>
                ))}
              </select>
            </label>
          )}
          {!other && <MaskChoice value={mask} onChange={setMask} withDense={false} />}
          {!other && mask === "auto" && <KeepChoice model={model} />}
          <fieldset class="choice">
            <legend>Order</legend>
            {([false, true] as const).map((value) => (
              <label key={String(value)}>
                <input type="radio" name="order" checked={isAtOnce === value} onChange={() => setIsAtOnce(value)} />
                {value ? "At once" : "One after the other"}
              </label>
            ))}
          </fieldset>
          {isRunning ? (
            <button type="button" class="button primary" onClick={stopOnClick(() => abort.current?.abort())}>
              <Icon name="stop" /> Stop
            </button>
          ) : (
            <button type="submit" class="button primary" disabled={!prompt.trim()}>
              Start
            </button>
          )}
        </div>
        {isAtOnce && <p class="note">At once they share the processor: both are slower than alone.</p>}
      </form>
      {lanes ? (
        <>
          <Outcome lanes={lanes} other={other} titles={titles} />
          <RaceChart lanes={lanes} titles={titles} maxTokens={maxTokens} />
          <div class="lanes" aria-live="polite" aria-busy={isRunning}>
            {laneNames.map((name) => (
              <LaneCard key={name} name={name} title={titles[name]} lane={lanes[name]} lanes={lanes} />
            ))}
          </div>
          {runs.length > 0 && lastMask !== undefined && (
            <Again
              runs={runs}
              titles={titles}
              isOneMask={!other}
              isRunning={isRunning}
              onRun={(prompt) => void race(prompt, lastMask, runs)}
            />
          )}
        </>
      ) : (
        <Empty title={other ? "Which one is faster?" : "How much faster is the part?"}>
          <p>
            {other
              ? `The same prompt runs on ${model.id} and on ${other}, both with all their channels. `
              : `The same prompt runs on all ${model.dFfn} channels and on those that its mask keeps. `}
            What is not in memory has to be loaded first{!other && ", and a new sub-network built"}; that time is shown
            apart from answering.
          </p>
        </Empty>
      )}
    </div>
  );
}

const timesOf = ({ info, elapsed }: Lane): Timed | undefined =>
  info?.ms && { total: elapsed, ms: info.ms, tokens: info.completionTokens ?? 0 };

/** Who was faster and why, and where the answers part. */
function Outcome({ lanes, other, titles }: { lanes: Record<LaneName, Lane>; other: string; titles: Names }) {
  if (!haveAnswered(lanes)) return null;
  if (!other && lanes.subnetwork.info?.mask?.id === "dense") {
    return (
      <p class="note" role="status">
        The mask keeps every channel, so both were the dense model. Choose under Keep how much of it masks keep.
      </p>
    );
  }
  const [dense, subnetwork] = laneNames.map((name) => timesOf(lanes[name]));
  const parting = partingOfLanes(lanes);
  const same =
    parting &&
    `${count(parting.pieces)} of ${other ? titles.dense : "the dense answer"}'s ${plural(lanes.dense.pieces.length, "token")}`;
  const named = other ? { dense: `“${titles.dense}”`, subnetwork: `“${titles.subnetwork}”` } : undefined;
  return (
    <div role="status">
      {dense && subnetwork && <p class="verdict">{verdict(dense, subnetwork, named)}</p>}
      <p class="note">{same ? `The answers part at ${partingMark}, after ${same}.` : "Both gave the same answer."}</p>
    </div>
  );
}

/** Runs under one mask, or of two models: the first with what it took to load, and further ones on demand. */
function Again({
  runs,
  titles,
  isOneMask,
  isRunning,
  onRun,
}: {
  runs: readonly Run[];
  titles: Names;
  isOneMask: boolean;
  isRunning: boolean;
  onRun: (prompt: string) => void;
}) {
  const [prompt, setPrompt] = useKept("race.next", "");
  const sums = laneNames.map((name) => runs.reduce((sum, { lanes }) => sum + lanes[name].elapsed, 0));
  return (
    <section class="card again" aria-labelledby="again-title">
      <h2 id="again-title">{isOneMask ? "Under this mask" : "Prompts so far"}</h2>
      <Scroll label="Runs">
        <table class="runs">
          <thead>
            <tr>
              <th scope="col">Prompt</th>
              {laneNames.map((name) => (
                <th key={name} scope="col">
                  {titles[name]}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {runs.map(({ prompt, lanes }, i) => (
              <tr key={i}>
                <th scope="row">
                  {i + 1} <span class="run-prompt">{prompt}</span>
                </th>
                {laneNames.map((name) => (
                  <td key={name}>
                    <strong>{milliseconds(lanes[name].elapsed)}</strong> {readiness(lanes[name])}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
          {runs.length > 1 && (
            <tfoot>
              <tr>
                <th scope="row">All {runs.length}</th>
                {sums.map((sum, i) => (
                  <td key={laneNames[i]}>
                    <strong>{milliseconds(sum)}</strong>
                  </td>
                ))}
              </tr>
            </tfoot>
          )}
        </table>
      </Scroll>
      <form
        class="form-row"
        onSubmit={(event) => {
          event.preventDefault();
          onRun(prompt);
        }}
      >
        <button type="button" class="button" disabled={isRunning} onClick={() => onRun(runs.at(-1)!.prompt)}>
          <Icon name="again" /> The same again
        </button>
        <label class="field wide">
          <span>Another prompt{isOneMask && " under the same mask"}</span>
          <input required value={prompt} onInput={(event) => setPrompt(event.currentTarget.value)} />
        </label>
        <button type="submit" class="button" disabled={isRunning || !prompt.trim()}>
          Run it
        </button>
      </form>
    </section>
  );
}

const origins = { loaded: "warm", disk: "loaded from disk", cold: "built and loaded" } as const;

/** `warm`, `built and loaded in 812 ms` */
function readiness({ info }: Lane): string {
  if (!info?.ms || !info.mask?.from) return "";
  const { from } = info.mask;
  return from === "loaded" ? origins.loaded : `${origins[from]} in ${milliseconds(readyMs(info.ms))}`;
}

const haveAnswered = (lanes: Record<LaneName, Lane>): boolean =>
  laneNames.every((name) => lanes[name].state === "done" && lanes[name].info?.ms !== undefined);

/** Where the two answers part; undefined until both are there, and where they do not. */
const partingOfLanes = (lanes: Record<LaneName, Lane>): Parting | undefined =>
  haveAnswered(lanes) ? partingOf(lanes.dense.pieces, lanes.subnetwork.pieces) : undefined;

interface LaneRequest {
  model: string;
  mask: string;
  prompt: string;
  maxTokens: number;
}

/** Runs to the end and writes into `lane` what comes; a failure too. */
async function runLane(
  lane: Lane,
  { model, mask, prompt, maxTokens }: LaneRequest,
  signal: AbortSignal,
): Promise<void> {
  const started = performance.now();
  lane.state = "running";
  const info: AnswerInfo = { model, finishReason: "stopped" };
  const timer = setInterval(() => {
    lane.elapsed = performance.now() - started;
  }, 50);
  try {
    const messages = [{ role: "user" as const, content: prompt.trim() }];
    const request = {
      model,
      mask,
      ...(mask === "auto" && keptShare()),
      messages,
      max_tokens: maxTokens,
      temperature: 0,
    };
    for await (const event of streamChat(request, signal)) {
      if (event.type === "text") {
        lane.pieces.push(event.text);
        lane.times.push(performance.now() - started);
      } else if (event.type === "usage") info.completionTokens = event.completionTokens;
      else if (event.type === "end") {
        info.finishReason = event.finishReason;
        info.mask = event.extension?.mask;
        info.ms = event.extension?.ms;
      }
    }
  } catch (error) {
    if (!signal.aborted) lane.error = error;
  }
  clearInterval(timer);
  lane.elapsed = performance.now() - started;
  lane.info = info;
  lane.state = "done";
}

/** Tokens so far over the time since each one's own start. */
function RaceChart({ lanes, titles, maxTokens }: { lanes: Record<LaneName, Lane>; titles: Names; maxTokens: number }) {
  const svg = useRef<SVGSVGElement>(null);
  const [W, setWidth] = useState(720); // a unit is a pixel, so that text keeps its size
  useEffect(() => {
    const sizes = new ResizeObserver(() => setWidth(Math.max(240, svg.current!.clientWidth)));
    sizes.observe(svg.current!);
    return () => sizes.disconnect();
  }, []);
  const H = W < 500 ? 190 : 260;
  const [left, right, top, bottom] = [44, 28, 12, 28];
  const longest = Math.max(...laneNames.map((name) => lanes[name].elapsed), 1);
  const most = Math.max(...laneNames.map((name) => lanes[name].times.length), Math.min(maxTokens, 8));
  const xTicks = ticks(longest);
  const yTicks = ticks(most).filter(Number.isInteger);
  const x = (ms: number) => left + (ms / longest) * (W - left - right);
  const y = (tokens: number) => H - bottom - (tokens / most) * (H - top - bottom);
  /** Until its network is ready; known once the server has told it. */
  const ready = ({ info }: Lane) => (info?.ms ? readyMs(info.ms) : 0);
  const line = (lane: Lane) => {
    const { times, elapsed, state } = lane;
    const points = times.map((time, i) => `${x(time).toFixed(1)},${y(i + 1).toFixed(1)}`);
    const start = `${x(ready(lane)).toFixed(1)},${y(0)} ${x(times[0] ?? elapsed).toFixed(1)},${y(0)}`;
    const end =
      state === "running" && times.length > 0 ? ` ${x(elapsed).toFixed(1)},${y(times.length).toFixed(1)}` : "";
    return `${start} ${points.join(" ")}${end}`;
  };
  return (
    <figure class="race-chart">
      <figcaption class="keys">
        {laneNames.map((name) => (
          <span key={name} class={`key ${name}`}>
            {titles[name]}
          </span>
        ))}
        <span class="note">tokens over the time since the request; dotted: getting ready</span>
      </figcaption>
      <svg
        ref={svg}
        viewBox={`0 0 ${W} ${H}`}
        role="img"
        aria-label="Tokens over time of both models; the numbers are below."
      >
        {yTicks.map((tokens) => (
          <g key={tokens}>
            <line class="grid" x1={left} x2={W - right} y1={y(tokens)} y2={y(tokens)} />
            <text class="tick" x={left - 6} y={y(tokens) + 4} text-anchor="end">
              {count(tokens)}
            </text>
          </g>
        ))}
        {xTicks.map((ms) => (
          <text key={ms} class="tick" x={x(ms)} y={H - 8} text-anchor="middle">
            {milliseconds(ms)}
          </text>
        ))}
        {laneNames.map((name) => (
          <g key={name} class={name}>
            {ready(lanes[name]) > 0 && (
              <line class="line ready" x1={x(0)} x2={x(ready(lanes[name]))} y1={y(0)} y2={y(0)} />
            )}
            <polyline class="line" points={line(lanes[name])} />
          </g>
        ))}
      </svg>
    </figure>
  );
}

/** About five round numbers from 0 to `limit`. */
function ticks(limit: number): number[] {
  const rough = limit / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough)! * power;
  return Array.from({ length: Math.floor(limit / step) + 1 }, (_, i) => i * step);
}

interface LaneCardProps {
  name: LaneName;
  title: string;
  lane: Lane;
  lanes: Record<LaneName, Lane>;
}

function LaneCard({ name, title, lane, lanes }: LaneCardProps) {
  const { times, info, state } = lane;
  const [first] = times;
  // The server's count and time where it has told them; before, pieces of text since the first.
  const rate =
    info?.ms && info.completionTokens
      ? perSecond(info.completionTokens, info.ms.decode)
      : first !== undefined && times.length > 1
        ? perSecond(times.length - 1, times.at(-1)! - first)
        : "–";
  const slowest = Math.max(...laneNames.map((other) => lanes[other].elapsed), 1);
  const timed = timesOf(lane);
  const figures = [
    ["Getting ready", timed ? milliseconds(readyMs(timed.ms)) : "–"],
    ["Answering", timed ? milliseconds(answerMs(timed.ms)) : "–"],
    ["Total", state === "waiting" ? "–" : milliseconds(lane.elapsed)],
    ["First token", first === undefined ? "–" : milliseconds(first)],
    ["Speed", rate],
  ];
  return (
    <section class={`lane ${name}`} aria-label={title}>
      <h2>{title}</h2>
      <dl class="numbers">
        {figures.map(([name, figure]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{figure}</dd>
          </div>
        ))}
      </dl>
      {info?.ms && <StageBar ms={info.ms} slowest={slowest} />}
      {state === "waiting" && <p class="note">Not started.</p>}
      <Markdown text={marked(lane.pieces.join(""), partingOfLanes(lanes))} />
      {lane.error !== undefined && <Failure error={lane.error} />}
      {info && <p class="facts">{answerFacts({ ...info, ms: undefined })}</p>}
    </section>
  );
}

/** Where the time went, on the scale of the slower lane. */
function StageBar({ ms, slowest }: { ms: NonNullable<AnswerInfo["ms"]>; slowest: number }) {
  const parts = stages(ms);
  return (
    <div class="stages">
      <div class="stage-bar" aria-hidden="true">
        {parts.map(([stage, time]) => (
          <span key={stage} class={`stage ${stage}`} style={{ width: `${Math.min(100, (time / slowest) * 100)}%` }} />
        ))}
      </div>
      <p class="facts">
        {parts.map(([stage, time]) => (
          <span key={stage} class={`stage-key ${stage}`}>
            {stage} {milliseconds(time)}
          </span>
        ))}
      </p>
    </div>
  );
}
