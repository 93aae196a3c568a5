/**
 * Load figures of `ifprune serve`: a server of its own, and clients that ask it over HTTP, each the next question once it has the answer to the last.
 *
 *     npx tsx bench/serve.ts [--seconds 20] [--clients 1,8,32,128] [--masks dense,1,4,16]
 *     npx tsx bench/serve.ts --soak 600 [--clients 8] [--masks 4]
 *     … [--tokens 32] [--slots 16] [--queue 128] [--memory BYTES] [--threads N] [--model FOLDER] [--out bench/results/serve]
 *
 * All cells ask the same 16 questions, of different tasks of the suite where that gives enough masks, and get answers of the same length (one letter again
 * and again, by a bias: the work is that of any answer): they differ in masks only. Question i is asked under mask i modulo the number of masks; with 16 masks each has the one that is predicted
 * for it. All sub-networks were loaded before. A cell ends once all answers that were begun in its time have ended. Refused clients ask again after what
 * `Retry-After` says; time to first token counts from their first try, to the first text.
 *
 * Lost is what has neither: no 429, and no 200 with all tokens, the mask that was asked for, and `[DONE]`.
 *
 * Writes `PREFIX.json` and `.md`; a run without --soak keeps the soak that is there, and the other way round. Linux only: memory and processor time are from /proc.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { Agent, type IncomingMessage, request } from "node:http";
import { cpus, loadavg } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { InstructionModel } from "../src/answer/instructionModel.ts";
import { TINY_MODEL } from "../src/bundle/pulledModels.ts";
import { OptionError } from "../src/errors.ts";
import { readJson } from "../src/json.ts";
import type { CompletionExtension, PageMask, PageModel } from "../src/serve/http/pageApi.ts";
import { composePrompt } from "../src/text/prompt.ts";

type Masks = number | "dense";

const numPrompts = 16;
const root = fileURLToPath(new URL("..", import.meta.url));
/** A client that hears nothing for so long gives up. */
const silenceMs = 300_000;

const { values } = parseArgs({
  options: {
    seconds: { type: "string" },
    soak: { type: "string" },
    clients: { type: "string" },
    masks: { type: "string" },
    tokens: { type: "string", default: "32" },
    slots: { type: "string", default: "16" },
    queue: { type: "string", default: "128" },
    memory: { type: "string" },
    threads: { type: "string" },
    model: { type: "string", default: TINY_MODEL },
    out: { type: "string", default: join(root, "bench/results/serve") },
  },
});
const tokens = integer("tokens", values.tokens, 1);
const serverFlags = (["slots", "queue", "memory", "threads"] as const).flatMap((name) =>
  values[name] === undefined ? [] : [`--${name}`, values[name]],
);
const isSoak = values.soak !== undefined;
if (isSoak && values.seconds !== undefined) throw new OptionError("serve: wanted --seconds or --soak, got both.");
const seconds = isSoak ? integer("soak", values.soak!, 5) : integer("seconds", values.seconds ?? "20", 1);
const clientCounts = list("clients", isSoak ? "8" : "1,8,32,128", (text) => integer("clients", text, 1));
const maskCounts = list("masks", isSoak ? "4" : "dense,1,4,16", (text): Masks => {
  if (text === "dense") return text;
  return integer("masks", text, 1, numPrompts);
});

function integer(name: string, text: string, min: number, max = Number.MAX_SAFE_INTEGER): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < min || value > max) {
    const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `in ${min}..${max}`;
    throw new OptionError(`--${name}: wanted an integer ${range}, got "${text}".`);
  }
  return value;
}

function list<T>(name: "clients" | "masks", usual: string, read: (text: string) => T): T[] {
  const all = (values[name] ?? usual).split(",").map(read);
  if (isSoak && all.length > 1) throw new OptionError(`--${name}: wanted one value with --soak, got ${all.length}.`);
  return all;
}

/** Caches, tasks and the log of the server. */
mkdirSync(join(root, "runs"), { recursive: true });
const folder = mkdtempSync(join(root, "runs", "bench-serve-"));
const logPath = join(folder, "server.log");
let child: ChildProcess | undefined;
process.on("exit", () => {
  child?.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(130));

/** @returns its address, and what rejects when it ends by itself */
async function startServer(): Promise<{ url: string; pid: number; died: Promise<never> }> {
  const env = { ...process.env, XDG_CACHE_HOME: join(folder, "cache"), XDG_DATA_HOME: join(folder, "data") };
  const started = spawn(
    process.execPath,
    [join(root, "bin/ifprune.js"), "serve", resolve(values.model), "--port", "0", ...serverFlags],
    { env, stdio: ["ignore", "pipe", openSync(logPath, "w")] },
  );
  child = started;
  const died = once(started, "close").then(([code, signal]): never => {
    throw new Error(`The server ended by itself: ${code ?? signal}.\n${troubles()}`);
  });
  died.catch(() => {}); // told where it is waited for
  let out = "";
  const listens = new Promise<string>((found) => {
    started.stdout!.setEncoding("utf8").on("data", (text: string) => {
      out += text;
      const url = /^API: +(http:\S+)\/v1$/m.exec(out)?.[1];
      if (url) found(url);
    });
  });
  return { url: await Promise.race([listens, died]), pid: started.pid!, died };
}

/** What the server's log says of failures, the latest of it. */
function troubles(): string {
  const lines = readFileSync(logPath, "utf8").trim().split("\n");
  return lines
    .filter((line) => !line.startsWith("{") || Number(/"status":(\d+)/.exec(line)?.[1]) >= 500)
    .slice(-20)
    .join("\n");
}

const server = await startServer();
/** The server ends connections that are idle for 5 s or more; a request that is sent in that moment would be lost by its client's fault. */
const agent = new Agent({ keepAlive: true, timeout: 2000 });

async function send(path: string, body?: object): Promise<IncomingMessage> {
  const asked = request(server.url + path, {
    agent,
    method: body ? "POST" : "GET",
    timeout: silenceMs,
    headers: body && { "content-type": "application/json" },
  });
  asked.on("timeout", () => asked.destroy(new Error(`nothing came for ${silenceMs / 1000} s`)));
  asked.on("error", () => {}); // told below, or by the response
  asked.end(body && JSON.stringify(body));
  const [response] = (await once(asked, "response")) as [IncomingMessage];
  return response.setEncoding("utf8");
}

async function json<T>(path: string, body?: object): Promise<T> {
  const response = await send(path, body);
  const text = await textOf(response);
  if (response.statusCode !== 200) throw new Error(`${path}: wanted 200, got ${response.statusCode}: ${text}`);
  return JSON.parse(text) as T;
}

async function textOf(response: IncomingMessage): Promise<string> {
  let text = "";
  for await (const piece of response) text += piece;
  return text;
}

const model = basename(resolve(values.model));

/** A token with a text. Wanted by a bias that no logit outweighs, it is the whole answer, which so never ends before its time. */
function fillerToken(): number {
  using opened = new InstructionModel(values.model);
  return opened.tokenizer.encode("a").at(-1)!;
}
const filler = fillerToken();

/** Questions whose predicted masks differ: the first of each task, then the second of each, … */
async function choosePrompts(): Promise<{ prompt: string; maskId: string }[]> {
  const rows = ["validation.jsonl", "validation-wordings.jsonl", "extra-validation.jsonl"]
    .flatMap((name) =>
      readFileSync(join(root, "experiments/suite/data", name), "utf8")
        .trim()
        .split("\n"),
    )
    .map((line) => JSON.parse(line) as { task: string; instruction: string; input: string });
  const ofTask = new Map<string, number>();
  const turns = rows
    .map((row) => {
      const turn = ofTask.get(row.task) ?? 0;
      ofTask.set(row.task, turn + 1);
      return { ...row, turn };
    })
    .sort((a, b) => a.turn - b.turn);
  const found = new Map<string, string>();
  for (const { instruction, input } of turns) {
    const prompt = composePrompt(instruction, input);
    const { info } = await json<PageMask>("/ifprune/mask", { model, instruction: prompt });
    if (!found.has(info.id)) found.set(info.id, prompt);
    if (found.size === numPrompts) return [...found].map(([maskId, text]) => ({ prompt: text, maskId }));
  }
  throw new Error(`${values.model}: wanted ${numPrompts} questions whose masks differ, got ${found.size}.`);
}

interface Chunk {
  choices: { delta: { content?: string }; finish_reason: string | null }[];
  usage?: { completion_tokens: number } | null;
  ifprune?: CompletionExtension;
  error?: { message: string };
}

type Outcome =
  | { kind: "done"; firstTextAt: number; wasLoaded: boolean }
  | { kind: "refused"; retrySeconds: number }
  | { kind: "lost"; why: string };

async function ask(prompt: string, maskId: string): Promise<Outcome> {
  try {
    const response = await send("/v1/chat/completions", {
      model,
      messages: [{ role: "user", content: prompt }],
      mask: maskId === "dense" ? maskId : `id:${maskId}`,
      ...{ temperature: 0, max_tokens: tokens, logit_bias: { [filler]: 100 } },
      ...{ stream: true, stream_options: { include_usage: true } },
    });
    const { statusCode, headers } = response;
    if (statusCode === 200) return await readAnswer(response, maskId);
    const text = await textOf(response);
    const retrySeconds = Number(headers["retry-after"]);
    if (statusCode === 429 && retrySeconds > 0) return { kind: "refused", retrySeconds };
    return { kind: "lost", why: `${statusCode}: ${text}` };
  } catch (error) {
    return { kind: "lost", why: String(error) };
  }
}

async function readAnswer(response: IncomingMessage, maskId: string): Promise<Outcome> {
  let firstTextAt: number | undefined;
  let rest = "";
  const last: Pick<Chunk, "ifprune" | "usage"> & { finish?: string | null; isDone?: true } = {};
  for await (const piece of response) {
    const events = (rest + piece).split("\n\n");
    rest = events.pop()!;
    for (const event of events) {
      if (event === "data: [DONE]") {
        last.isDone = true;
        continue;
      }
      const { choices, usage, ifprune, error } = JSON.parse(event.slice("data: ".length)) as Chunk;
      if (error) return { kind: "lost", why: `in the stream: ${error.message}` };
      const choice = choices[0];
      if (choice?.delta.content) firstTextAt ??= performance.now();
      if (choice?.finish_reason) Object.assign(last, { ifprune, finish: choice.finish_reason });
      last.usage = usage;
    }
  }
  const { ifprune, usage, finish, isDone } = last;
  const isWhole =
    rest === "" && isDone && finish === "length" && usage?.completion_tokens === tokens && ifprune?.mask.id === maskId;
  if (!isWhole || firstTextAt === undefined) return { kind: "lost", why: `not whole: ${JSON.stringify(last)}` };
  return { kind: "done", firstTextAt, wasLoaded: ifprune.mask.from === "loaded" };
}

const rss = () => Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${server.pid}/status`, "utf8"))![1]) * 1024;

/** Processor time of the server so far. Linux counts it in hundredths of a second. */
function cpuMs(): number {
  const fields = readFileSync(`/proc/${server.pid}/stat`, "utf8").split(") ").at(-1)!.split(" ");
  return 10 * (Number(fields[11]) + Number(fields[12])); // of the program, and of the system for it
}

/** The value that a share of all is not above. */
function percentile(sorted: readonly number[], share: number): number | null {
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? null;
}

/** Lets so many clients ask for so long. */
async function load(prompts: Prompts, clients: number, masks: Masks) {
  const [rssBegin, cpuBegin, start] = [rss(), cpuMs(), performance.now()];
  const until = start + 1000 * seconds;
  const ttft: number[] = [];
  const lost: string[] = [];
  let [asked, refused, loadedAnew] = [0, 0, 0];
  const client = async () => {
    while (performance.now() < until) {
      const index = asked++ % numPrompts;
      const maskId = masks === "dense" ? masks : prompts[index % masks]!.maskId;
      const since = performance.now();
      let outcome = await ask(prompts[index]!.prompt, maskId);
      for (; outcome.kind === "refused"; outcome = await ask(prompts[index]!.prompt, maskId)) {
        refused++;
        await delay(1000 * outcome.retrySeconds);
      }
      if (outcome.kind === "lost") {
        lost.push(outcome.why);
        await delay(100); // rather than all at once while the server is gone
        continue;
      }
      ttft.push(outcome.firstTextAt - since);
      if (!outcome.wasLoaded) loadedAnew++;
    }
  };
  await Promise.race([Promise.all(Array.from({ length: clients }, client)), server.died]);
  const elapsed = (performance.now() - start) / 1000;
  ttft.sort((a, b) => a - b);
  const generated = tokens * ttft.length;
  return {
    ...{ clients, masks, seconds: elapsed, done: ttft.length, lost: lost.length, refused, loadedAnew },
    ttftMs: { p50: percentile(ttft, 0.5), p95: percentile(ttft, 0.95) },
    tokensPerSecond: generated / elapsed,
    cpuMsPerToken: generated > 0 ? (cpuMs() - cpuBegin) / generated : null,
    ...{ rssBegin, rssEnd: rss() },
    whyLost: [...new Set(lost)].slice(0, 5),
  };
}

type Prompts = Awaited<ReturnType<typeof choosePrompts>>;
type Cell = Awaited<ReturnType<typeof load>>;

async function cells(prompts: Prompts) {
  const plan = clientCounts.flatMap((clients) => maskCounts.map((masks) => ({ clients, masks })));
  const done: Cell[] = [];
  for (const { clients, masks } of plan) {
    const left = Math.ceil(((plan.length - done.length) * seconds) / 60);
    note(`${done.length + 1} of ${plan.length}: ${clients} clients, masks: ${masks}; about ${left} min left`);
    done.push(await load(prompts, clients, masks));
    if (done.at(-1)!.lost > 0) note(`lost: ${done.at(-1)!.whyLost.join("\n")}\n${troubles()}`);
  }
  return { cells: done };
}

/**
 * Memory is read every second: resident, and without JavaScript's heap, in which garbage waits for its collection. Growth is from the time when the server has
 * settled, after two minutes or a fifth of a shorter run, to the end; each is the median over half a minute (an eighth of two minutes …).
 */
async function soak(prompts: Prompts) {
  const samples: { rss: number; heap: number }[] = [];
  const sample = async () => {
    samples.push({ rss: rss(), heap: await heap() });
    if (samples.length % 30 === 0) note(`${samples.length} of ${seconds} s: ${mb(samples.at(-1)!.rss)} MB`);
  };
  const timer = setInterval(() => void sample().catch(() => {}), 1000); // of a server that is gone, the load tells
  const cell = await load(prompts, clientCounts[0]!, maskCounts[0]!);
  clearInterval(timer);
  if (cell.lost > 0) note(`lost: ${cell.whyLost.join("\n")}\n${troubles()}`);
  const settled = Math.floor(Math.min(120, seconds / 5));
  const width = Math.ceil(settled / 4);
  const growth = (of: (one: (typeof samples)[number]) => number) => {
    const median = (some: typeof samples) =>
      percentile(
        some.map(of).toSorted((a, b) => a - b),
        0.5,
      )!;
    const [from, to] = [median(samples.slice(settled, settled + width)), median(samples.slice(-width))];
    return { from, to, share: to / from - 1 };
  };
  return {
    ...cell,
    settled,
    resident: growth(({ rss }) => rss),
    beyondHeap: growth(({ rss, heap }) => rss - heap),
    samples,
  };
}

async function heap(): Promise<number> {
  const metrics = await (await fetch(`${server.url}/metrics`)).text();
  return Number(/^nodejs_heap_size_total_bytes (\S+)$/m.exec(metrics)![1]);
}

const note = (text: string) => process.stderr.write(`${text}\n`);
const mb = (bytes: number) => (bytes / 1e6).toFixed(0);
const round = (value: number | null) => (value === null ? "–" : value < 10 ? value.toFixed(1) : value.toFixed(0));

const columns: readonly (readonly [string, (cell: Cell) => string])[] = [
  ["clients", ({ clients }) => String(clients)],
  ["masks", ({ masks }) => String(masks)],
  ["requests done", ({ done }) => String(done)],
  ["lost", ({ lost }) => String(lost)],
  ["429", ({ refused }) => String(refused)],
  ["loaded anew", ({ loadedAnew }) => String(loadedAnew)],
  ["TTFT p50, ms", ({ ttftMs }) => round(ttftMs.p50)],
  ["TTFT p95, ms", ({ ttftMs }) => round(ttftMs.p95)],
  ["tokens/s", ({ tokensPerSecond }) => round(tokensPerSecond)],
  ["processor ms per token", ({ cpuMsPerToken }) => cpuMsPerToken?.toFixed(2) ?? "–"],
  ["RSS, MB", ({ rssBegin, rssEnd }) => `${mb(rssBegin)} → ${mb(rssEnd)}`],
];

function table(rows: readonly Cell[]): string {
  const lines = [
    columns.map(([title]) => title),
    columns.map(() => "---:"),
    ...rows.map((row) => columns.map(([, cell]) => cell(row))),
  ];
  return lines.map((line) => `| ${line.join(" | ")} |`).join("\n");
}

interface Header {
  command: string;
  date: string;
  machine: string;
  /** Of the last minute, before the benchmark and at its end. */
  loadAverage: [begin: number, end: number];
  model: PageModel;
  serverFlags: string[];
  tokens: number;
}

interface Report {
  benchmark: "serve";
  load?: Header & { cells: Cell[] };
  soak?: Header & Awaited<ReturnType<typeof soak>>;
}

function headerText({ command, date, machine, loadAverage, model: m, serverFlags: flags, tokens: n }: Header): string {
  const [begin, end] = loadAverage.map((value) => value.toFixed(1));
  const queue = Number(flags[flags.indexOf("--queue") + 1]);
  return `\`${command}\`, ${date}, on ${machine}. The machine is shared: its load average was ${begin} before and ${end} at the end, so compare rows and take
no figure for what the machine can do; processor time per token suffers least.

Model \`${m.id}\`: ${m.numLayers} layers, ${m.tFfn} of ${m.dFfn} channels kept, context of ${m.contextLength} tokens. Server: \`${flags.join(" ")}\`; up to ${queue} requests wait for
their turn, what comes beyond is refused with 429 and asks again. Answers of ${n} tokens, streamed.`;
}

function markdown({ load: grid, soak: long }: Report): string {
  const parts = ["# `ifprune serve` under load"];
  if (grid) {
    const waiting = Math.max(...grid.cells.map(({ clients }) => clients));
    const refused = grid.cells.reduce((sum, cell) => sum + cell.refused, 0);
    const lost = grid.cells.reduce((sum, cell) => sum + cell.lost, 0);
    parts.push(
      headerText(grid),
      table(grid.cells),
      `Lost: ${lost} (goal: 0). ${refused === 0 ? `All of ${waiting} clients were admitted.` : `Refused with 429: ${refused}.`}`,
    );
  }
  if (long) {
    const { settled, resident, beyondHeap, seconds: elapsed } = long;
    const grown = ({ from, to, share }: typeof resident) => `${mb(from)} → ${mb(to)} MB, ${(100 * share).toFixed(1)} %`;
    parts.push(
      "## Over time",
      headerText(long),
      table([long]),
      `From ${settled} s to ${elapsed.toFixed(0)} s: resident memory ${grown(resident)} (goal: below 2 %); without JavaScript's heap, whose garbage comes and goes, ${grown(beyondHeap)}. Lost: ${long.lost} (goal: 0).`,
    );
  }
  return `${parts.join("\n\n")}\n`;
}

const loadBefore = loadavg()[0]!;
const [served] = await Promise.race([json<PageModel[]>("/ifprune/models"), server.died]);
const prompts = await Promise.race([choosePrompts(), server.died]);
for (const [i, { prompt, maskId }] of [{ prompt: prompts[0]!.prompt, maskId: "dense" }, ...prompts].entries()) {
  const outcome = await Promise.race([ask(prompt, maskId), server.died]);
  if (outcome.kind !== "done") throw new Error(`Loading ${maskId}: ${JSON.stringify(outcome)}\n${troubles()}`);
  note(`loaded ${i + 1} of ${numPrompts + 1}: ${maskId}`);
}
const measured = {
  soak: isSoak ? await soak(prompts) : undefined,
  load: isSoak ? undefined : await cells(prompts),
};

const closing = once(child!, "close");
child!.kill("SIGTERM");
const [code] = await closing;
if (code !== 0) throw new Error(`The server ended with ${code} after SIGTERM.\n${troubles()}`);

const header: Header = {
  command: ["npx tsx bench/serve.ts", ...process.argv.slice(2)].join(" "),
  date: new Date().toISOString().slice(0, 10),
  machine: `${cpus().length} × ${cpus()[0]!.model}, Node ${process.version}`,
  loadAverage: [loadBefore, loadavg()[0]!],
  model: served!,
  ...{ serverFlags, tokens },
};
const jsonPath = `${values.out}.json`;
const before = existsSync(jsonPath) ? (readJson(jsonPath) as Report) : undefined;
const report: Report = {
  ...before,
  benchmark: "serve",
  ...(measured.soak && { soak: { ...header, ...measured.soak } }),
  ...(measured.load && { load: { ...header, ...measured.load } }),
};
mkdirSync(dirname(jsonPath), { recursive: true });
writeFileSync(jsonPath, `${JSON.stringify(report)}\n`);
writeFileSync(`${values.out}.md`, markdown(report));
process.stdout.write(markdown(isSoak ? { ...report, load: undefined } : { ...report, soak: undefined }));
process.exit(0); // without waiting for connections that are kept open
