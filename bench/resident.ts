/**
 * The two forms of masks, and the dense model: what a new mask costs, the time to the first token and to the last, tokens per second, memory with many masks.
 *
 *     npx tsx bench/resident.ts BUNDLE [--keep 0.5] [--prompts 16,128,1024] [--answers 32,256] [--rounds 5] [--masks 1,8,64] [--out FILE]
 *
 * BUNDLE has masks of blocks (`ifprune prune`, then `pack`). Masks are random, of whole blocks. Cases take turns, a round of all after the other, and the first
 * round does not count. `dense` and `gathered, warm` load a model that lies on disk; `gathered, cold` and `resident` take a mask that was not seen before, which
 * is gathered and loaded, or becomes a context of a model that is loaded. No predictor: making the mask costs all the same. Contexts are as long as prompt and
 * answer. Memory: a process of its own that keeps so many masks loaded; its resident set with the files that it maps, and what of that is its own, in MB.
 * Last line: one JSON document.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Bundle } from "../src/bundle/bundle.ts";
import type { Form } from "../src/bundle/formOptions.ts";
import { openMaskModel } from "../src/bundle/maskModel.ts";
import { maxKeptBlocks, residentBytes } from "../src/bundle/residentModel.ts";
import type { Engine, EngineModel } from "../src/engine/engine.ts";
import { llamaCpp } from "../src/engine/llamaCpp.ts";
import { OptionError } from "../src/errors.ts";
import { fullMask, type Mask } from "../src/mask/mask.ts";
import { Random } from "../src/random.ts";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    keep: { type: "string", default: "0.5" },
    prompts: { type: "string", default: "16,128,1024" },
    answers: { type: "string", default: "32,256" },
    rounds: { type: "string", default: "5" },
    masks: { type: "string", default: "1,8,64" },
    out: { type: "string" },
    memory: { type: "string" }, // FORM,COUNT,CACHE: to measure in a process of its own
  },
});
const [path] = positionals;
if (path === undefined) throw new OptionError("bench: wanted a bundle, got none.");
const numbers = (list: string) => list.split(",").map(Number);
const threads = availableParallelism();
using bundle = new Bundle(path);
const { numLayers, ffnWidth: dFfn, block } = bundle;
const random = new Random("masks");
const keptBlocks = Math.round((Number(values.keep) * dFfn) / block);
if (keptBlocks < 1 || keptBlocks > maxKeptBlocks(bundle))
  throw new OptionError(`bench: wanted 1..${maxKeptBlocks(bundle)} blocks of ${block} channels, got ${keptBlocks}.`);

function blockMask(): Mask {
  const layers = Array.from({ length: numLayers }, () => {
    const order = Array.from({ length: dFfn / block }, (_, b) => ({ b, at: random.float() }));
    const kept = order.sort((x, y) => x.at - y.at).slice(0, keptBlocks);
    const first = kept.map(({ b }) => b * block).sort((x, y) => x - y);
    return Int32Array.from(first.flatMap((from) => Array.from({ length: block }, (_, i) => from + i)));
  });
  return { tFfn: keptBlocks * block, dFfn, layers };
}

async function firstToken(engine: Engine): Promise<void> {
  await engine.generate(Int32Array.of(1), { maxTokens: 1 }).next();
}

/** Megabytes of this process, from `/proc`. */
function memory(): { resident: number; own: number } {
  const status = readFileSync("/proc/self/status", "utf8");
  const of = (key: string) => Number(new RegExp(`^${key}:\\s+(\\d+) kB`, "m").exec(status)![1]) / 1000;
  return { resident: of("VmRSS"), own: of("RssAnon") };
}

if (values.memory !== undefined) {
  const [form, count, root] = values.memory.split(",") as [Form, string, string];
  const options = { contextLength: 512, threads };
  const loaded = new Map<string, EngineModel>();
  for (let i = 0; i < Number(count); i++) {
    const file = await openMaskModel(bundle, blockMask(), form, { root });
    const model = loaded.get(file.path) ?? (await llamaCpp.openModel(file.path, options));
    loaded.set(file.path, model);
    await firstToken(await model.engine(file));
  }
  process.stdout.write(JSON.stringify(memory()));
  process.exit(0);
}

const cache = mkdtempSync(join(tmpdir(), "ifprune-resident-"));
const root = { root: cache };
const now = () => performance.now();

interface Row {
  /** Until the engine is there. */
  openMs: number;
  firstMs: number;
  totalMs: number;
  /** Tokens per second. */
  prefill: number;
  decode: number;
}

async function measure(open: () => Promise<Engine>, ids: Int32Array, maxTokens: number): Promise<Row> {
  const start = now();
  await using engine = await open();
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

function median(sorted: readonly number[]): number {
  const all = [...sorted].sort((a, b) => a - b);
  return (all[Math.floor((all.length - 1) / 2)]! + all[Math.ceil((all.length - 1) / 2)]!) / 2;
}

try {
  await llamaCpp.start();
  const cells = [];
  const writing = now();
  await openMaskModel(bundle, blockMask(), "resident", root);
  const writtenMs = now() - writing;
  const dense = await openMaskModel(bundle, fullMask(numLayers, dFfn), "gathered", root);
  const known = blockMask();
  const warm = await openMaskModel(bundle, known, "gathered", root);
  for (const promptTokens of numbers(values.prompts)) {
    for (const answerTokens of numbers(values.answers)) {
      const options = { contextLength: promptTokens + answerTokens, threads };
      const ids = Int32Array.from({ length: promptTokens }, () => 3 + random.int(bundle.config.vocabSize - 3));
      const { path: resident } = await openMaskModel(bundle, known, "resident", root);
      await using model = await llamaCpp.openModel(resident, options);
      const cases: Record<string, () => Promise<Engine>> = {
        dense: () => llamaCpp.open(dense.path, options),
        "gathered, cold": async () =>
          llamaCpp.open((await openMaskModel(bundle, blockMask(), "gathered", root)).path, options),
        "gathered, warm": () => llamaCpp.open(warm.path, options),
        resident: async () => model.engine(await openMaskModel(bundle, blockMask(), "resident", root)),
      };
      const rows = new Map<string, Row[]>(Object.keys(cases).map((name) => [name, []]));
      for (let round = 0; round <= Number(values.rounds); round++)
        for (const [name, open] of Object.entries(cases)) rows.get(name)!.push(await measure(open, ids, answerTokens));
      for (const [name, all] of rows) {
        const of = (key: keyof Row) => Math.round(10 * median(all.slice(1).map((row) => row[key]))) / 10;
        const keys = ["openMs", "firstMs", "totalMs", "prefill", "decode"] as const;
        const cell = { name, promptTokens, answerTokens, ...Object.fromEntries(keys.map((key) => [key, of(key)])) };
        cells.push(cell);
        process.stderr.write(`${JSON.stringify(cell)}\n`);
      }
    }
  }
  const memories = [];
  for (const form of ["gathered", "resident"] as const) {
    for (const count of numbers(values.masks)) {
      const own = ["--keep", values.keep, "--memory", `${form},${count},${cache}`];
      const args = [...process.execArgv, fileURLToPath(import.meta.url), path, ...own];
      const megabytes = JSON.parse(execFileSync(process.execPath, args, { encoding: "utf8" }));
      memories.push({ form, masks: count, ...megabytes });
      process.stderr.write(`${JSON.stringify(memories.at(-1))}\n`);
    }
  }
  const result = {
    regime: { cpu: cpus()[0]!.model, threads, load: loadavg()[0], date: new Date().toISOString().slice(0, 10) },
    model: { L: numLayers, D: bundle.width, F: dFfn, block, keptBlocks, types: bundle.layouts[0]!.gate },
    resident: { bytes: residentBytes(bundle), writtenMs },
    cells,
    memories,
  };
  const json = JSON.stringify(result);
  if (values.out) writeFileSync(values.out, `${json}\n`);
  process.stdout.write(`${json}\n`);
} finally {
  rmSync(cache, { recursive: true, force: true });
}
