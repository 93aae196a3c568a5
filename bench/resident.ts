/**
 * The two forms of masks, the choice between them, and the dense model: time to the first token and to the last, memory with many masks, many clients.
 *
 *     npx tsx bench/resident.ts BUNDLE [--parts cells,memory,load] [--keep 0.5] [--prompts 16,128,1024] [--answers 32,256] [--rounds 3]
 *       [--masks 1,8,64] [--clients 32] [--requests 4] [--load-masks 16] [--load-answer 32] [--threads N] [--out FILE]
 *     npx tsx bench/resident.ts --random 1B …        or 135M: a model of random weights in Q8_0, kept in `runs/bench-bundles`; no part `load`
 *
 * BUNDLE has masks of blocks (`ifprune prune`, then `pack`). Masks are random, of whole blocks; what it takes to make one is measured where there is a predictor, and
 * counted in the first and the last token of all but `dense`.
 *
 * cells: each case answers a prompt of so many random tokens with so many tokens; cases take turns, a round of all after the other, and the first round does not
 * count. As in a server, `dense` is loaded, and so are the weights of the resident model. `gathered, cold` gathers and loads a mask that was not seen before;
 * `gathered, warm` loads one that lies on disk; `resident` takes a mask that was not seen before. `auto` does what the cost model chooses for one that was not seen
 * before, `auto, known` for one that lies on disk, and both learn from all that is measured. Contexts are as long as prompt and answer.
 *
 * memory: a process of its own for each row, in which masks answer one after the other through the server's pool, or as many at a time: its resident set in MB.
 *
 * load: clients that ask a service in the form `auto`, at a time, each under one of some masks. An answer is foreign where it is what another mask answers to the same prompt. It parts
 * from what its mask alone answers, in either form, where a batch rounds otherwise: there the two likeliest tokens are nearly level, else it is wrong.
 *
 * Last line: one JSON document.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { InstructionModel } from "../src/answer/instructionModel.ts";
import { chooseMask, openFlaggedSource } from "../src/answer/maskSource.ts";
import { Bundle } from "../src/bundle/bundle.ts";
import { readStoredModel } from "../src/bundle/estimate.ts";
import { cheaperForm, type FormCost } from "../src/bundle/formCost.ts";
import { FormMeter } from "../src/bundle/formMeter.ts";
import type { Form, WantedForm } from "../src/bundle/formOptions.ts";
import { openMaskModel } from "../src/bundle/maskModel.ts";
import { maxKeptBlocks, residentAdapter, residentBytes } from "../src/bundle/residentModel.ts";
import { maskHash } from "../src/bundle/subnetworkCache.ts";
import type { Engine, ScoredToken } from "../src/engine/engine.ts";
import { llamaCpp } from "../src/engine/llamaCpp.ts";
import { greedySampling } from "../src/engine/sampling.ts";
import { OptionError } from "../src/errors.ts";
import { fullMask, type Mask } from "../src/mask/mask.ts";
import { median } from "../src/median.ts";
import { Random } from "../src/random.ts";
import { openLocalService } from "../src/serve/localService.ts";
import { nameMask, TaskStore } from "../src/serve/masks.ts";
import { SubnetworkPool } from "../src/serve/subnetworkPool.ts";
import type { StreamDecoder } from "../src/text/tokenizer.ts";
import { makeBundle, modelShape } from "./randomBundle.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    parts: { type: "string", default: "cells,memory,load" },
    random: { type: "string" },
    keep: { type: "string", default: "0.5" },
    prompts: { type: "string", default: "16,128,1024" },
    answers: { type: "string", default: "32,256" },
    rounds: { type: "string", default: "3" },
    masks: { type: "string", default: "1,8,64" },
    clients: { type: "string", default: "32" },
    requests: { type: "string", default: "4" },
    "load-masks": { type: "string", default: "16" },
    "load-answer": { type: "string", default: "32" },
    threads: { type: "string", default: String(availableParallelism()) },
    out: { type: "string" },
    memory: { type: "string" }, // FORM,MASKS,AT_A_TIME,CACHE: to measure in a process of its own
  },
});

/** Shapes of models: layers, D, F, heads of queries and of keys and values; and the size of blocks. */
const shapes: Record<string, ReturnType<typeof modelShape>> = {
  "135M": modelShape([30, 576, 1536, 9, 3], { block: 64, vocabSize: 49_152 }),
  "1B": modelShape([16, 2048, 8192, 32, 8], { block: 256 }),
};

async function randomPath(name: string): Promise<string> {
  const shape = shapes[name];
  if (!shape) throw new OptionError(`bench: wanted a shape of ${Object.keys(shapes).join(", ")}, got ${name}.`);
  return makeBundle(name, shape);
}

const path = values.random === undefined ? positionals[0] : await randomPath(values.random);
if (path === undefined) throw new OptionError("bench: wanted a bundle, or --random with a shape, got none.");
const numbers = (list: string) => list.split(",").map(Number);
const parts = values.parts.split(",");
const threads = Number(values.threads);
using bundle = new Bundle(path);
const { numLayers, ffnWidth: dFfn, block } = bundle;
const random = new Random("masks");
const keptBlocks = Math.round((Number(values.keep) * dFfn) / block);
if (keptBlocks < 1 || keptBlocks > maxKeptBlocks(bundle))
  throw new OptionError(`bench: wanted 1..${maxKeptBlocks(bundle)} blocks of ${block} channels, got ${keptBlocks}.`);
const tFfn = keptBlocks * block;

function blockMask(): Mask {
  const layers = Array.from({ length: numLayers }, () => {
    const kept = random
      .permutation(dFfn / block)
      .slice(0, keptBlocks)
      .sort();
    return Int32Array.from(Array.from(kept).flatMap((b) => Array.from({ length: block }, (_, i) => b * block + i)));
  });
  return { tFfn, dFfn, layers };
}

const randomIds = (length: number) => Int32Array.from({ length }, () => 3 + random.int(bundle.config.vocabSize - 3));

/** Megabytes of this process, from `/proc`. */
function memory(): { resident: number; own: number } {
  const status = readFileSync("/proc/self/status", "utf8");
  const of = (key: string) => Number(new RegExp(`^${key}:\\s+(\\d+) kB`, "m").exec(status)![1]) / 1000;
  return { resident: Math.round(of("VmRSS")), own: Math.round(of("RssAnon")) };
}

/** The server's own pool of a form, as one service would have it. */
function openPool(form: WantedForm, root: string, contextLength: number) {
  const pool = new SubnetworkPool({ budget: 2 ** 40, slots: 1, threads, form, cache: { root } });
  const meter = new FormMeter(bundle, { root });
  const origin = {
    info: { id: "m", contextLength },
    model: { bundle, engines: llamaCpp },
    stored: readStoredModel(path!),
    meter,
  };
  const asked = { promptTokens: 16, maxTokens: 8 };
  const never = new AbortController().signal;
  const acquire = (mask: Mask) => pool.acquire(origin, nameMask(mask, "bench"), asked, never);
  return { acquire, [Symbol.asyncDispose]: () => pool[Symbol.asyncDispose]() };
}

if (values.memory !== undefined) {
  const [form, count, atATime, root] = values.memory.split(",") as [Form, string, string, string];
  const pool = openPool(form, root, 512);
  for (let done = 0; done < Number(count); done += Number(atATime)) {
    const leases = [];
    for (let i = 0; i < Number(atATime); i++) leases.push(await pool.acquire(blockMask()));
    for (const { value, release } of leases) {
      for await (const _ of value.generate(randomIds(16), { maxTokens: 8, ignoreEos: true }));
      release();
    }
  }
  process.stdout.write(JSON.stringify(memory()));
  process.exit(0);
}

const cache = mkdtempSync(join(tmpdir(), "ifprune-resident-"));
const root = { root: cache };
const now = () => performance.now();

interface Row {
  /** Until the engine is there, … */
  openMs: number;
  /** … the first token, and the last. */
  firstMs: number;
  totalMs: number;
  /** Tokens per second. */
  prefill: number;
  decode: number;
  /** What auto chose. */
  form?: Form;
}

async function measure(open: () => Promise<Engine>, ids: Int32Array, maxTokens: number): Promise<Row> {
  const start = now();
  const engine = await open();
  const opened = now();
  let first = 0;
  for await (const _ of engine.generate(ids, { maxTokens, ignoreEos: true })) first ||= now();
  const end = now();
  return {
    openMs: opened - start,
    firstMs: first - start,
    totalMs: end - start,
    prefill: (1000 * ids.length) / (first - opened),
    decode: (1000 * (maxTokens - 1)) / (end - first),
  };
}

const round = (value: number) => Math.round(10 * value) / 10;
const say = (row: object) => void process.stderr.write(`${JSON.stringify(row)}\n`);

/** Milliseconds to make a mask, where there is a predictor. */
async function predictMs(): Promise<number> {
  if (!bundle.predictor) return 0;
  using model = new InstructionModel(path);
  await using source = await openFlaggedSource(model, {}, { threads });
  const times = [];
  for (const word of ["red", "green", "blue", "black", "white", "grey"]) {
    const start = now();
    const instruction = model.format.instruction(`Say what else is as ${word} as it, and why.`);
    await chooseMask(source, instruction, { tFfn, ffnWidth: dFfn });
    times.push(now() - start);
  }
  return median(times.slice(1));
}

const states = (isGathered: boolean) => ({
  gathered: { isWritten: isGathered, isLoaded: false, isOpen: false },
  resident: { isWritten: true, isLoaded: true, isOpen: false },
});

async function measureCells() {
  const cells = [];
  const predict = await predictMs();
  const writing = now();
  const { path: resident } = await openMaskModel(bundle, blockMask(), "resident", root);
  const writtenMs = now() - writing;
  const dense = await openMaskModel(bundle, fullMask(numLayers, dFfn), "gathered", root);
  const known = blockMask();
  await openMaskModel(bundle, known, "gathered", root);
  const meter = new FormMeter(bundle, root);
  for (const promptTokens of numbers(values.prompts)) {
    for (const answerTokens of numbers(values.answers)) {
      const options = { contextLength: promptTokens + answerTokens, threads };
      const ids = randomIds(promptTokens);
      await using model = await llamaCpp.openModel(resident, options);
      await using oneResident = await model.engine({ adapter: residentAdapter(bundle, known) });
      const loading = now();
      await using oneDense = await llamaCpp.open(dense.path, options);
      const denseLoadMs = now() - loading;
      let opened: Engine | undefined;
      const gathered = async (mask: Mask) => {
        opened = await llamaCpp.open((await openMaskModel(bundle, mask, "gathered", root)).path, options);
        return opened;
      };
      const turned = async (mask: Mask) => {
        await oneResident.adapt(residentAdapter(bundle, mask));
        return oneResident;
      };
      /** What a request takes in a form, of which the meter learns. */
      const run = async (form: Form, mask: Mask): Promise<Row> => {
        const row = await measure(() => (form === "gathered" ? gathered(mask) : turned(mask)), ids, answerTokens);
        await opened?.[Symbol.asyncDispose]();
        opened = undefined;
        const prefill = row.firstMs - row.openMs;
        const before: Partial<FormCost> =
          form === "resident" ? { open: row.openMs } : mask === known ? { load: row.openMs } : {};
        const took = { ...before, prefill, decode: row.totalMs - row.firstMs };
        meter.learn(form, tFfn, took, { promptTokens, answerTokens });
        return { ...row, firstMs: row.firstMs + predict, totalMs: row.totalMs + predict };
      };
      const auto = async (mask: Mask): Promise<Row> => {
        const costs = meter.costs(tFfn, states(mask === known), { promptTokens, maxTokens: answerTokens });
        const { form } = cheaperForm(costs);
        return { ...(await run(form, mask)), form };
      };
      const cases: Record<string, () => Promise<Row>> = {
        dense: () => measure(async () => oneDense, ids, answerTokens),
        "gathered, cold": () => run("gathered", blockMask()),
        "gathered, warm": () => run("gathered", known),
        resident: () => run("resident", blockMask()),
        auto: () => auto(blockMask()),
        "auto, known": () => auto(known),
      };
      const rows = new Map<string, Row[]>(Object.keys(cases).map((name) => [name, []]));
      for (let turn = 0; turn <= Number(values.rounds); turn++)
        for (const [name, work] of Object.entries(cases)) rows.get(name)!.push(await work());
      const cell = [...rows].map(([name, all]) => {
        const counted = all.slice(1);
        const of = (key: Exclude<keyof Row, "form">) => round(median(counted.map((row) => row[key])));
        const keys = ["openMs", "firstMs", "totalMs", "prefill", "decode"] as const;
        const forms = counted.flatMap(({ form }) => form ?? []);
        const measured = Object.fromEntries(keys.map((key) => [key, of(key)])) as Record<(typeof keys)[number], number>;
        const spread = round(
          Math.max(...counted.map((row) => row.totalMs)) - Math.min(...counted.map((row) => row.totalMs)),
        );
        return { name, promptTokens, answerTokens, ...measured, spread, ...(forms.length > 0 && { forms }) };
      });
      const total = (name: string) => cell.find((one) => one.name === name)!.totalMs;
      const ratio = (name: string, to: number) => Math.round((1000 * total(name)) / to) / 1000;
      const verdict = {
        // Of what there is for such a mask: 1 is as good as the best, 1.05 what is wanted.
        autoToBest: ratio("auto", Math.min(total("gathered, cold"), total("resident"))),
        knownToBest: ratio("auto, known", Math.min(total("gathered, warm"), total("resident"))),
        // The dense model is loaded; from disk it takes so much more.
        autoToDense: ratio("auto", total("dense")),
        knownToDense: ratio("auto, known", total("dense")),
        denseLoadMs: round(denseLoadMs),
        autoToDenseFromDisk: ratio("auto", total("dense") + denseLoadMs),
      };
      cells.push(...cell, { name: "verdict", promptTokens, answerTokens, ...verdict });
      for (const row of cells.slice(-cell.length - 1)) say(row);
    }
  }
  return { predictMs: round(predict), residentBytes: residentBytes(bundle), writtenMs: round(writtenMs), cells };
}

function measureMemory() {
  const rows: object[] = [];
  const measureRow = (form: Form, masks: number, atATime: number) => {
    const own = [
      "--keep",
      values.keep,
      "--threads",
      values.threads,
      "--memory",
      `${form},${masks},${atATime},${cache}`,
    ];
    const model = values.random === undefined ? [path!] : ["--random", values.random];
    const args = [...process.execArgv, fileURLToPath(import.meta.url), ...model, ...own];
    rows.push({ form, masks, atATime, ...JSON.parse(execFileSync(process.execPath, args, { encoding: "utf8" })) });
    say(rows.at(-1)!);
  };
  for (const masks of numbers(values.masks)) measureRow("resident", masks, 1);
  measureRow("resident", 8, 8);
  for (const masks of numbers(values.masks).filter((masks) => masks <= 8)) measureRow("gathered", masks, 1);
  return rows;
}

/** Nats: tokens that are nearer to each other than that change places where a batch rounds otherwise. */
const TIE = 0.1;
const loadMasks = Number(values["load-masks"]);
const loadAnswer = Number(values["load-answer"]);

/** What a mask alone answers, and the text after each of its tokens. */
interface Alone {
  ids: number[];
  texts: string[];
}

async function answerOf(tokens: AsyncIterable<number>, decoder: StreamDecoder): Promise<Alone & { text: string }> {
  const [ids, texts]: [number[], string[]] = [[], []];
  let text = "";
  for await (const id of tokens) {
    ids.push(id);
    text += decoder.push(id);
    texts.push(text);
  }
  return { ids, texts, text: text + decoder.end() };
}

/** By how many nats the token that an answer alone goes on with, where another answer parts from it, is before the next likely. */
async function leadWhereTheyPart(engine: Engine, prompt: Int32Array, { ids, texts }: Alone, other: string) {
  const found = texts.findIndex((text) => !other.startsWith(text));
  const parted = found < 0 ? ids.length : found; // it ended there
  const read = Int32Array.from([...prompt, ...ids.slice(0, parted), 0]);
  const [{ top }] = (await engine.score(read, { top: 2, from: read.length - 1 })) as [ScoredToken];
  return top[0]!.logprob - top[1]!.logprob;
}

async function measureLoad() {
  const tasksRoot = join(cache, "tasks");
  const prompts = Array.from({ length: 4 }, (_, i) => randomIds(16 + 16 * i));
  const masks = Array.from({ length: loadMasks }, blockMask);
  const store = new TaskStore(bundle, tasksRoot);
  for (const [i, mask] of masks.entries())
    store.save({ name: `mask ${i}`, instruction: `mask ${i}`, maskId: maskHash(mask) }, mask);
  // What each mask answers to each prompt alone, in either form: rounding may tell them apart.
  const expected = masks.map(() => prompts.map((): Awaited<ReturnType<typeof answerOf>>[] => []));
  const options = { contextLength: 256, threads };
  {
    using instructed = new InstructionModel(path);
    const { path: resident } = await openMaskModel(bundle, masks[0]!, "resident", root);
    await using model = await llamaCpp.openModel(resident, options);
    await using engine = await model.engine();
    for (const [m, mask] of masks.entries()) {
      await engine.adapt(residentAdapter(bundle, mask));
      await using small = await llamaCpp.open((await openMaskModel(bundle, mask, "gathered", root)).path, options);
      for (const one of [engine, small])
        for (const [p, ids] of prompts.entries())
          expected[m]![p]!.push(
            await answerOf(one.generate(ids, { maxTokens: loadAnswer }), instructed.tokenizer.stream()),
          );
    }
  }
  const ownCache = join(cache, "load"); // nothing is gathered yet
  await using service = await openLocalService([{ id: "m", path: path! }], {
    ...{ threads, tasksRoot, contextLength: 256, cache: { root: ownCache }, maxQueued: 1000 },
  });
  const counts = { answers: 0, foreign: 0, errors: 0, tokens: 0, gathered: 0, resident: 0 };
  const parted: { m: number; p: number; text: string }[] = [];
  const firsts: number[] = [];
  const client = async (number: number) => {
    const own = new Random(`client ${number}`);
    for (let request = 0; request < Number(values.requests); request++) {
      const [m, p] = [own.int(loadMasks), own.int(prompts.length)];
      const start = now();
      let first = 0;
      let text = "";
      try {
        const asked = {
          prompt: { kind: "ids", ids: prompts[p]! },
          mask: { kind: "task", name: `mask ${m}` },
          maxTokens: loadAnswer,
          stop: [],
          sampling: greedySampling,
          signal: new AbortController().signal,
        } as const;
        for await (const event of service.generate("m", asked)) {
          if (event.type === "start") counts[event.mask.form]++;
          if (event.type === "end") counts.tokens += event.completionTokens;
          if (event.type !== "text") continue;
          first ||= now();
          text += event.text;
        }
      } catch (error) {
        counts.errors++;
        process.stderr.write(`${(error as Error).message}\n`);
        continue;
      }
      firsts.push(first - start);
      counts.answers++;
      const saysIt = (of: (typeof expected)[number]) => of[p]!.some((alone) => alone.text === text);
      if (saysIt(expected[m]!)) continue;
      parted.push({ m, p, text });
      if (expected.some(saysIt)) counts.foreign++;
    }
  };
  const start = now();
  await Promise.all(Array.from({ length: Number(values.clients) }, (_, number) => client(number)));
  const seconds = (now() - start) / 1000;
  const leads: number[] = [];
  for (const { m, p, text } of parted) {
    const { path: small } = await openMaskModel(bundle, masks[m]!, "gathered", root);
    await using engine = await llamaCpp.open(small, options);
    const each: number[] = [];
    for (const alone of expected[m]![p]!) each.push(await leadWhereTheyPart(engine, prompts[p]!, alone, text));
    leads.push(Math.min(...each));
  }
  const sorted = firsts.sort((a, b) => a - b);
  const result = {
    clients: Number(values.clients),
    masks: loadMasks,
    ...counts,
    ties: leads.filter((lead) => lead <= TIE).length,
    wrong: leads.filter((lead) => lead > TIE).length,
    largestLead: Number(Math.max(0, ...leads).toFixed(4)),
    seconds: round(seconds),
    tokensPerSecond: round(counts.tokens / seconds),
    firstMs: { median: round(median(sorted)), p95: round(sorted[Math.floor(0.95 * (sorted.length - 1))] ?? 0) },
    memory: memory(),
  };
  say(result);
  return result;
}

try {
  await llamaCpp.start();
  const result = {
    regime: { cpu: cpus()[0]!.model, threads, load: loadavg()[0], date: new Date().toISOString().slice(0, 10) },
    model: { L: numLayers, D: bundle.width, F: dFfn, block, keptBlocks, types: bundle.layouts[0]!.gate },
    ...(parts.includes("cells") && (await measureCells())),
    ...(parts.includes("memory") && { memory: measureMemory() }),
    ...(parts.includes("load") && values.random === undefined && { load: await measureLoad() }),
  };
  const json = JSON.stringify(result);
  if (values.out) writeFileSync(values.out, `${json}\n`);
  process.stdout.write(`${json}\n`);
} finally {
  rmSync(cache, { recursive: true, force: true });
}
