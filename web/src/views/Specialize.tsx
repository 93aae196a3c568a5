/** Smaller models for one task, made of the served one: what it would take, how it goes, and what came. */
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { lossWords } from "../../../src/specialize/specialization.ts";
import { shellWord } from "../../../src/words.ts";
import {
  beginJob,
  deleteJob,
  goOnWithJob,
  type ServedModel,
  type SpecializeBody,
  type SpecializeJob,
  serveJob,
  stopJob,
} from "../api.ts";
import { fileName } from "../fileName.ts";
import { bytes, count, duration, milliseconds, percent, plural } from "../format.ts";
import { Icon } from "../icons.tsx";
import { jobs, loadJobs, watchJobs } from "../jobs.ts";
import { LineChart } from "../LineChart.tsx";
import { Commands, DeleteButton, Failure, stopOnClick } from "../parts.tsx";
import { Scroll } from "../Scroll.tsx";
import { addServed, chooseModel, models, serviceState } from "../session.ts";
import { keptStore, useKept, useStore } from "../store.ts";

export function Specialize({ model }: { model: ServedModel }) {
  const said = useStore(serviceState);
  const state = useRef(said);
  if (said) state.current = said; // a server that does not answer for a moment takes nothing from the reader
  if (!state.current) return null;
  return (
    <section class="specialize" aria-labelledby="specialize-title">
      <div>
        <h2 id="specialize-title">A model for one task</h2>
        <p class="note">
          Of {model.id}, a smaller model that says what it says at one job: the channels that matter for the job stay,
          and learn from its answers. It takes minutes to hours.
        </p>
      </div>
      {state.current.allowsSpecialize ? <Jobs model={model} /> : <HowToSpecialize model={model} />}
    </section>
  );
}

/** Hours of the server's processor are for whoever may have them: it is off unless the server was told. */
function HowToSpecialize({ model: { id, location = id } }: { model: ServedModel }) {
  const commands = [
    ["Let this page make them", "ifprune serve --allow-specialize"],
    [
      "Make one on the server's machine",
      `ifprune specialize ${shellWord(location)} --task "Translate into SQL: {input}" --prompts questions.txt --out sql`,
    ],
  ] as const;
  return (
    <div class="card">
      <p class="note">This server makes none.</p>
      <Commands commands={commands} />
    </div>
  );
}

function Jobs({ model }: { model: ServedModel }) {
  useEffect(watchJobs, []);
  const { list, error } = useStore(jobs);
  const running = list.find(({ state }) => state === "running" || state === "stopping");
  return (
    <>
      {error !== undefined && <Failure error={error} retry={loadJobs} />}
      {list.toReversed().map((job) => (
        <JobCard key={job.asked.name} job={job} isBusy={running !== undefined} />
      ))}
      {model.isTrained ? <NotDense model={model} /> : <JobForm model={model} running={running} />}
    </>
  );
}

/** Which models it takes, beside one that it does not. */
function NotDense({ model }: { model: ServedModel }) {
  const served = useStore(models);
  const dense = served.state === "ready" ? served.value.filter(({ isTrained }) => !isTrained) : [];
  return (
    <div class="card">
      <p>
        {model.id} is none to begin with: its channels were trained to be a part of the whole under masks that follow
        the prompt, so all of them together are no model of its own. Take the model that it was made from.
      </p>
      {dense.length > 0 && (
        <div class="job-actions">
          {dense.map(({ id }) => (
            <button key={id} type="button" class="button" onClick={() => chooseModel(id)}>
              Take {id}
            </button>
          ))}
        </div>
      )}
    </div>
  );
}

const kinds = {
  prompts: "Prompts",
  examples: "Examples with answers",
  none: "None: the model drafts them",
} as const;

interface FormFields {
  name: string;
  task: string;
  kind: keyof typeof kinds;
  rows: string;
  draft: string;
  keep: string;
  maxLoss: string;
  tokens: string;
  maxTokens: string;
  licence: string;
}
const emptyForm: FormFields = {
  ...{ name: "", task: "", kind: "prompts", rows: "", draft: "", keep: "0.5", maxLoss: "0.1", tokens: "200000" },
  ...{ maxTokens: "128", licence: "" },
};

function bodyOf(model: string, { kind, ...fields }: FormFields): SpecializeBody {
  const { name, task, rows, draft, keep, maxLoss, tokens, maxTokens, licence } = fields;
  return {
    ...{ name, model, tokens: Number(tokens), max_tokens: Number(maxTokens) },
    ...(task.trim() && { task: task.trim() }),
    ...(kind !== "none" && { [kind]: rows }),
    ...(kind !== "examples" && draft.trim() && { draft: Number(draft) }),
    ...(keep === "auto" ? { keep, max_loss: Number(maxLoss) } : { keep: Number(keep) }),
    ...(licence.trim() && { licence: licence.trim() }),
  };
}

const proposedName = (task: string): string => fileName(task).slice(0, 40);

function JobForm({ model, running }: { model: ServedModel; running: SpecializeJob | undefined }) {
  const [fields, setFields] = useKept("specialize", emptyForm);
  /** What the last job was given: it stays in the form until the job has read it, as that may refuse it. */
  const [sent, setSent] = useKept<{ name: string; fields: FormFields } | undefined>("specialize.sent", undefined);
  const { list } = useStore(jobs);
  useEffect(() => {
    const job = list.find(({ asked }) => asked.name === sent?.name);
    if (!sent || !(job?.estimate || job?.drafts)) return;
    if (JSON.stringify(fields) === JSON.stringify(sent.fields)) setFields(emptyForm);
    setSent(undefined);
  }, [list, sent]);
  const [isSending, setIsSending] = useState(false);
  const [error, setError] = useState<unknown>();
  const change = (changed: Partial<FormFields>) => setFields({ ...fields, ...changed });
  const { kind, rows, task } = fields;
  const name = fields.name || proposedName(task);
  const lines = rows.split("\n").filter((line) => line.trim() !== "").length;
  const begin = async (event: Event) => {
    event.preventDefault();
    setIsSending(true);
    setError(undefined);
    try {
      await beginJob(bodyOf(model.id, { ...fields, name }));
      setSent({ name, fields });
      await loadJobs();
    } catch (failure) {
      setError(failure);
    }
    setIsSending(false);
  };
  const field = (key: keyof FormFields) => ({
    value: fields[key],
    onInput: ({ currentTarget }: { currentTarget: { value: string } }) => change({ [key]: currentTarget.value }),
  });
  return (
    <form class="card task-form" onSubmit={begin}>
      <label class="field">
        <span>Task in words, asked of inputs that have no instruction; {"{input}"} is their place</span>
        <input required={kind === "none"} placeholder="Translate into SQL: {input}" {...field("task")} />
      </label>
      <fieldset class="choice">
        <legend>What it learns from</legend>
        {(Object.keys(kinds) as (keyof typeof kinds)[]).map((one) => (
          <label key={one}>
            <input type="radio" name="rows" checked={kind === one} onChange={() => change({ kind: one })} />
            {kinds[one]}
          </label>
        ))}
      </fieldset>
      {kind === "none" ? (
        <p class="note">
          From the task's words alone a small model drafts poorly: read what you are shown before it is used. Twenty
          prompts of your own help more.
        </p>
      ) : (
        <div class="field">
          <label class="field">
            <span>
              {kind === "prompts"
                ? 'One a line: inputs of the task, or JSON Lines of {"instruction"?, "input"?}'
                : 'JSON Lines of {"instruction"?, "input"?, "output"}'}
            </span>
            <textarea rows={5} required spellcheck={false} {...field("rows")} />
          </label>
          <p class="note">
            {plural(lines, "line")}. At least 32 are wanted
            {kind === "prompts" && ", or 12 beside drafts"}; a few hundred are better. A tenth, at least 8, is held out.
          </p>
          <RowsFile onRead={(text) => change({ rows: text })} />
        </div>
      )}
      <div class="form-row">
        {kind !== "examples" && (
          <label class="field narrow">
            <span>{kind === "none" ? "Drafts" : "Drafts like them"}</span>
            <input type="number" min={32} step={1} placeholder={kind === "none" ? "256" : "none"} {...field("draft")} />
          </label>
        )}
        <label class="field">
          <span>Keep</span>
          <select {...field("keep")}>
            {[0.75, 0.5, 0.375, 0.25].map((share) => (
              <option key={share} value={String(share)}>
                {percent(share)} of the FFN
              </option>
            ))}
            <option value="auto">Auto: the smallest within a loss</option>
          </select>
        </label>
        {fields.keep === "auto" && (
          <label class="field narrow">
            <span>Largest loss, nats</span>
            <input type="number" required min={0.001} step="any" {...field("maxLoss")} />
          </label>
        )}
        <label class="field narrow">
          <span>Tokens to read</span>
          <input type="number" required min={1} step={1} {...field("tokens")} />
        </label>
        <label class="field narrow">
          <span>Longest answer</span>
          <input type="number" required min={1} max={model.contextLength} step={1} {...field("maxTokens")} />
        </label>
        <label class="field">
          <span>Licence of the prompts</span>
          <input placeholder="unknown" {...field("licence")} />
        </label>
        <label class="field">
          <span>Name of the model</span>
          <input
            required
            pattern="[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}"
            title="letters, digits, dots, hyphens and underscores, a letter or digit first"
            {...field("name")}
            value={name}
          />
        </label>
        <button type="submit" class="button primary" disabled={isSending || running !== undefined}>
          Estimate
        </button>
      </div>
      <p class="note">
        {running
          ? `One at a time: wait until “${running.asked.name}” is done, or stop it.`
          : `A few steps show what it takes; no more is done before you say so. It starts from the weights of ${model.id} as they are served, with what they were rounded to.`}
      </p>
      {error !== undefined && <Failure error={error} />}
    </form>
  );
}

/** Reads a file of the reader's into the form. */
function RowsFile({ onRead }: { onRead: (text: string) => void }) {
  const input = useRef<HTMLInputElement>(null);
  const [refused, setRefused] = useState("");
  const read = async () => {
    const [file] = input.current!.files ?? [];
    const isTooLarge = file !== undefined && file.size > MAX_FILE_BYTES;
    setRefused(
      isTooLarge
        ? `${file.name} has ${bytes(file.size)}, more than the ${bytes(MAX_FILE_BYTES)} that fit here: ifprune specialize takes it.`
        : "",
    );
    if (file && !isTooLarge) onRead(await file.text());
    input.current!.value = ""; // the same may be read again
  };
  return (
    <div>
      <input
        ref={input}
        type="file"
        hidden
        aria-label="File of prompts"
        accept=".txt,.jsonl,.ndjson,.json,text/plain"
        onChange={read}
      />
      <button type="button" class="button" onClick={() => input.current!.click()}>
        Read a file …
      </button>
      <p class="failure" role="status" hidden={refused === ""}>
        {refused}
      </p>
    </div>
  );
}

/** A request's body may have 4 MiB, in which what is quoted takes more. */
const MAX_FILE_BYTES = 3.5e6;

const stateWords: Record<SpecializeJob["state"], string> = {
  running: "at work",
  stopping: "stopping",
  elsewhere: "at work elsewhere",
  asks: "waits for you",
  stopped: "stopped",
  failed: "failed",
  done: "done",
};

function JobCard({ job, isBusy }: { job: SpecializeJob; isBusy: boolean }) {
  const { asked, state, estimate, drafts, evaluations, curve, notes, result } = job;
  const { name } = asked;
  const served = useStore(models);
  const isServed = served.state === "ready" && served.value.some(({ id }) => id === name);
  const [error, setError] = useState<unknown>();
  useEffect(() => setError(undefined), [state]); // of what it was before
  const [isPending, setIsPending] = useState(false);
  const attempt = (action: (name: string) => Promise<unknown>) => async () => {
    if (isPending) return;
    setIsPending(true);
    setError(undefined);
    try {
      await action(name);
      await loadJobs();
    } catch (failure) {
      setError(failure);
    }
    setIsPending(false);
  };
  const isAtWork = state === "running" || state === "stopping";
  const stops = state === "stopping" || isPending;
  const asksAboutDrafts = state === "asks" && drafts !== undefined;
  const goOn = (label: string) => (
    <button type="button" class="button primary" disabled={isBusy || isPending} onClick={attempt(goOnWithJob)}>
      {label}
    </button>
  );
  const points = evaluations.filter(({ run }) => run === evaluations.at(-1)!.run);
  return (
    <article class="card job" aria-labelledby={`job-${name}`}>
      <div class="task-head">
        <div>
          <h3 id={`job-${name}`}>{name}</h3>
          <p>{askedWords(job)}</p>
        </div>
        <span class={`tag ${isAtWork || state === "asks" ? "trained" : ""}`}>{stateWords[state]}</span>
      </div>
      {isAtWork && <JobProgress job={job} />}
      {state === "failed" && <p class="failure">{job.error}</p>}
      {estimate && !result && <EstimateFigures estimate={estimate} />}
      {asksAboutDrafts && <Drafts prompts={drafts} />}
      {points.length > 0 && (
        <LineChart
          title={`${lossWords(points[0]!.run).title}${points[0]!.run.startsWith("short-") ? ", short run" : ""}`}
          xLabel="step"
          series={[{ name: lossWords(points[0]!.run).loss, points: points.map(({ step, loss }) => [step, loss]) }]}
          fromZero
        />
      )}
      {curve.length > 0 && <Curve job={job} />}
      {result && <ResultFigures result={result} />}
      {notes.length > 0 && (
        <details>
          <summary>{plural(notes.length, "note")}</summary>
          <ul class="examples-shown">
            {notes.map((text) => (
              <li key={text} class="lines">
                {text}
              </li>
            ))}
          </ul>
        </details>
      )}
      <div class="job-actions">
        {isAtWork && (
          <button type="button" class="button" disabled={stops} onClick={stopOnClick(attempt(stopJob))}>
            <Icon name="stop" /> {stops ? "Stopping …" : "Stop"}
          </button>
        )}
        {state === "asks" && goOn(asksAboutDrafts ? "Use these" : "Start")}
        {(state === "stopped" || state === "failed") && goOn("Go on")}
        {result && <TryIt job={job} attempt={attempt} />}
        {!isAtWork && state !== "elsewhere" && !isServed && (
          <DeleteButton what={`job ${name}`} onDelete={attempt(deleteJob)} />
        )}
      </div>
      {(state === "stopped" || state === "failed") && (
        <p class="note">What it has made is kept: it goes on from there.</p>
      )}
      {state === "elsewhere" && (
        <p class="note">Another server or command on this folder is at it: it can be stopped there.</p>
      )}
      {error !== undefined && <Failure error={error} />}
    </article>
  );
}

/** `SmolLM2: Translate … · keeps 50 % · prompts given · 200,000 tokens` */
function askedWords({ asked: { model, task, rows, draft, keep = 0.5, maxLoss, tokens } }: SpecializeJob): string {
  const kept = keep === "auto" ? `the smallest within ${maxLoss ?? 0.1} nats` : `keeps ${percent(keep)}`;
  const given = draft === undefined ? `${rows} given` : `${rows} given, ${count(draft)} more drafted`;
  return [
    task === undefined ? model : `${model}: ${task}`,
    kept,
    rows === undefined ? "drafts its prompts" : given,
    ...(tokens === undefined ? [] : [plural(tokens, "token")]),
  ].join("\u00a0· ");
}

const phases: Record<NonNullable<SpecializeJob["progress"]>["phase"], string> = {
  import: "Reading the model",
  trial: "A few steps, to see what it takes",
  draft: "Drafting prompts",
  answers: "The whole model answers the prompts",
  cut: "Choosing channels",
  heal: "Training",
  compare: "Both models answer held-out prompts",
  export: "Writing the model",
};

function JobProgress({ job: { progress, seconds, estimate } }: { job: SpecializeJob }) {
  const spent = `${duration(seconds)} so far`;
  const all = estimate ? `${spent}, about ${duration(estimate.totalSeconds)} in all` : spent;
  if (!progress) return <p role="status">Starting; {all}</p>;
  const { phase, detail, done, total, secondsLeft, loss } = progress;
  const isSteps = total <= 1e5; // more are bytes
  const facts = [
    isSteps ? `${count(done)} of ${count(total)}` : `${bytes(done)} of ${bytes(total)}`,
    ...(loss === undefined ? [] : [`${lossWords(detail!).loss} ${loss.toFixed(3)}`]),
    ...(secondsLeft === undefined ? [] : [`at most ${duration(secondsLeft)} left of this part`]),
    all,
  ];
  return (
    <div>
      <p role="status">{phases[phase]}</p>
      <progress aria-label={phases[phase]} value={done} max={total} />
      <p class="facts">
        {detail && detail !== "healed" && `${detail}\u00a0· `}
        {facts.join("\u00a0· ")}
      </p>
    </div>
  );
}

function EstimateFigures({ estimate }: { estimate: NonNullable<SpecializeJob["estimate"]> }) {
  const { seconds, totalSeconds, memoryBytes, memoryAvailable, diskBytes, diskAvailable } = estimate;
  const { answers, tuning, pruning, healing, compare } = seconds;
  const parts = [
    ["answers", answers],
    ...(tuning > 0 ? ([["right answers", tuning]] as const) : []),
    ["channels", pruning],
    ["training", healing],
    ["comparison", compare],
  ] as const;
  const free = (wanted: number, there: number) =>
    `${bytes(wanted)} of ${bytes(there)} free${wanted > there ? ": too little" : ""}`;
  return (
    <dl class="sizes">
      <dt>Time</dt>
      <dd>
        about {duration(totalSeconds)} ({parts.map(([name, own]) => `${name} ${duration(own)}`).join(", ")})
      </dd>
      <dt>Memory</dt>
      <dd>{free(memoryBytes, memoryAvailable)}</dd>
      <dt>Disk</dt>
      <dd>at most {free(diskBytes, diskAvailable)}</dd>
    </dl>
  );
}

/** Of drafts that are shown. */
const SHOWN = 20;

function Drafts({ prompts }: { prompts: readonly string[] }) {
  return (
    <div>
      <p>Do these drafts belong to the task?</p>
      <ul class="examples-shown">
        {prompts.slice(0, SHOWN).map((text) => (
          <li key={text}>{text}</li>
        ))}
      </ul>
      <p class="note">
        {Math.min(SHOWN, prompts.length)} of {count(prompts.length)}. If they do not, delete this and say the task in
        other words, or give more prompts.
      </p>
    </div>
  );
}

const Row = ({ name, children }: { name: string; children: ComponentChildren }) => (
  <tr>
    <th scope="row">{name}</th>
    {children}
  </tr>
);

function Curve({ job: { curve } }: { job: SpecializeJob }) {
  return (
    <Scroll label="Shares that were tried">
      <table class="quality">
        <thead>
          <tr>
            <th scope="col">Tried in short runs</th>
            <th scope="col">KL</th>
            <th scope="col">Same token</th>
          </tr>
        </thead>
        <tbody>
          {curve.map(({ tFfn, keep, kl, agreement }) => (
            <Row key={tFfn} name={`${percent(keep)} of the FFN`}>
              <td>{kl.toFixed(3)}</td>
              <td>{percent(agreement)}</td>
            </Row>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

function ResultFigures({ result }: { result: NonNullable<SpecializeJob["result"]> }) {
  const { model, parameters, before, after, perplexity, speed, gold, answers, data, training, auto, tuned } = result;
  const rate = (value: number | undefined) => (value === undefined ? "–" : `${value.toFixed(1)}`);
  const rows: [string, string, string][] = [
    ["Parameters", `${count(parameters.dense / 1e6)} M`, `${count(parameters.small / 1e6)} M`],
    ["Weights, F16", bytes(result.bytes.dense), bytes(result.bytes.small)],
    ["First token", milliseconds(speed.dense.firstTokenMs), milliseconds(speed.small.firstTokenMs)],
    ["Tokens a second", rate(speed.dense.tokensPerSecond), rate(speed.small.tokensPerSecond)],
    ["Held out: KL, nats a token", "0", after.kl.toFixed(3)],
    ["Held out: the same token", "100\u00a0%", percent(after.agreement)],
    ["Held out: perplexity of the answers", perplexity.dense.toFixed(2), perplexity.small.toFixed(2)],
    ...(gold
      ? [
          ["Held out: right answer in it", percent(gold.dense.contains), percent(gold.small.contains)] as [
            string,
            string,
            string,
          ],
        ]
      : []),
  ];
  return (
    <>
      <Scroll label="What came">
        <table class="quality">
          <thead>
            <tr>
              <td />
              <th scope="col">{model.name}</th>
              <th scope="col">This one</th>
            </tr>
          </thead>
          <tbody>
            {rows.map(([name, whole, small]) => (
              <Row key={name} name={name}>
                <td>{whole}</td>
                <td>{small}</td>
              </Row>
            ))}
          </tbody>
        </table>
      </Scroll>
      <p class="note">
        {after.step > 0
          ? `Training brought its KL from ${before.kl.toFixed(3)} to ${after.kl.toFixed(3)}, best at step ${count(after.step)} of ${count(training.steps)};`
          : `It is as it was cut: ${count(training.steps)} steps of training brought it no nearer;`}{" "}
        measured on {plural(data.heldOut, "prompt")} that were never trained on. At other tasks it may fail.
        {tuned?.step === 0 && " Learning the right answers made the whole model no better: it is as it came."}
        {auto && !auto.isReached && ` No share was within ${auto.maxLoss} nats: this is the nearest.`}
      </p>
      <details>
        <summary>{plural(answers.length, "answer")} side by side</summary>
        <dl class="answers-shown">
          {answers.map(({ prompt, dense, small, gold }) => (
            <div key={prompt}>
              <dt>{prompt}</dt>
              <dd>Whole: {dense || "(nothing)"}</dd>
              <dd>This one: {small || "(nothing)"}</dd>
              {gold !== undefined && <dd>Right: {gold}</dd>}
            </div>
          ))}
        </dl>
      </details>
    </>
  );
}

interface TryItProps {
  job: SpecializeJob;
  attempt: (action: (name: string) => Promise<unknown>) => () => Promise<void>;
}

/** Serves what came, and opens the race of both where the whole model is still served. */
function TryIt({ job: { asked, result }, attempt }: TryItProps) {
  const served = useStore(models);
  const list = served.state === "ready" ? served.value : [];
  const hasWhole = list.some(({ id }) => id === asked.model);
  const open = attempt(async (name) => {
    const small = await serveJob(name);
    addServed(small);
    keptStore("race.other", "").set(hasWhole ? small.id : "");
    keptStore("race.prompt", "").set(result!.answers[0]?.prompt ?? "");
    chooseModel(hasWhole ? asked.model : small.id);
    location.hash = hasWhole ? "#/race" : "#/chat";
  });
  return (
    <button type="button" class="button primary" onClick={open}>
      {hasWhole ? `Try it beside ${asked.model}` : "Try it"}
    </button>
  );
}
