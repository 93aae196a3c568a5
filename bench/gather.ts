/**
 * Building sub-networks of 1B, 3B and 8B models: what gathering, loading and the first token take, what is read, what stays in memory.
 *
 *     npx tsx bench/gather.ts [--shapes tiny,1B,…] [--rounds N] [--cold] [--keep]
 *
 * Weights are random Q8_0 (tiny: F16), masks are random with random λ, without runs of neighbours, the worst case, or hard masks of blocks of 64. A plain write of the same bytes, in
 * pieces as large, alternates with the gather on the same file system, with everything flushed before each. Bundles are made in
 * `runs/bench-bundles` and removed at the end without --keep. --cold also measures with an empty page cache, which takes root.
 * Writes `bench/results/gather.json` and `.md`.
 */
import { execFileSync } from "node:child_process";
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Bundle } from "../src/bundle/bundle.ts";
import { ffnTensors } from "../src/bundle/gather.ts";
import { openSubnetwork } from "../src/bundle/subnetworkCache.ts";
import { llamaCpp } from "../src/engine/llamaCpp.ts";
import { writeFully } from "../src/files.ts";
import { tensorBytes } from "../src/formats/gguf.ts";
import type { Mask } from "../src/mask/mask.ts";
import { median } from "../src/median.ts";
import { Random } from "../src/random.ts";
import { makeBundle, modelShape, randomMask, removeMade, root, type Shape } from "./randomBundle.ts";

const { values } = parseArgs({
  options: {
    shapes: { type: "string", default: "tiny,135M, blocks,1B,1B, blocks,1B, F16,3B, half,3B,3B, twice,8B" },
    rounds: { type: "string", default: "5" },
    cold: { type: "boolean", default: false },
    keep: { type: "boolean", default: false },
    memory: { type: "string" }, // a sub-network to measure in a process of its own
  },
});

/** A shape of a model, and K. Masks of whole blocks are hard, others soft. */
interface Gathered extends Shape {
  tFfn: number;
}
const gathered = (tFfn: number, shape: Shape): Gathered => ({ ...shape, tFfn });
const [small, middle, large] = [
  [16, 2048, 8192, 32, 8],
  [28, 3072, 8192, 24, 8],
  [32, 4096, 14336, 32, 8],
] as const satisfies Parameters<typeof modelShape>[0][];
const shapes: Record<string, Gathered> = {
  tiny: gathered(128, modelShape([4, 128, 512, 4, 2], { type: "F16" })),
  "135M, blocks": gathered(768, modelShape([30, 576, 1536, 9, 3], { block: 64, vocabSize: 49152 })),
  "1B": gathered(2048, modelShape([...small])),
  "1B, blocks": gathered(2048, modelShape([...small], { block: 64 })),
  "1B, F16": gathered(2048, modelShape([...small], { type: "F16" })),
  "3B, half": gathered(1024, modelShape([...middle])),
  "3B": gathered(2048, modelShape([...middle])),
  "3B, twice": gathered(4096, modelShape([...middle])),
  "8B": gathered(3584, modelShape([...large])),
};
const contextLength = 512;
const promptTokens = 16;
/** On two cores llama.cpp's default, four, takes 3.1 s for a prefill of a 3B sub-network, two take 0.1 s. */
const threads = availableParallelism();

function drawMask(random: Random, shape: Gathered): Mask {
  const mask = randomMask(random, shape, shape.tFfn);
  if (shape.block > 1) return mask;
  return { ...mask, lambda: mask.layers.map((kept) => Float32Array.from(kept, () => 0.5 + 0.5 * random.float())) };
}

async function timed<T>(work: () => T | Promise<T>): Promise<[ms: number, result: T]> {
  const start = performance.now();
  const result = await work();
  return [performance.now() - start, result];
}

const flush = () => execFileSync("sync");
/** Fills the page cache, which the system may have emptied meanwhile. */
const warm = (path: string) => execFileSync("cat", [path], { stdio: "ignore" });
/** Bytes that this process has had from read calls, of the page cache or not. */
const bytesRead = () => Number(/^rchar: (\d+)/.exec(readFileSync("/proc/self/io", "utf8"))![1]);

function flushFile(path: string): void {
  const descriptor = openSync(path, "r+");
  fsyncSync(descriptor);
  closeSync(descriptor);
}

/** Writes `total` bytes in pieces of at most `piece.length`. */
function plainWrite(path: string, piece: Uint8Array, total: number): void {
  const descriptor = openSync(path, "w");
  for (let done = 0; done < total; done += piece.length)
    writeFully(descriptor, piece.subarray(0, Math.min(piece.length, total - done)));
  closeSync(descriptor);
}

const ffnPart = (path: string) => path.replace("00001-of", "00003-of");

async function measure(name: string) {
  const given = shapes[name]!;
  using bundle = new Bundle(await makeBundle(name.replace(/,.*/, ""), given));
  await bundle.verify(); // once a bundle, not once a mask
  const random = new Random(`masks/${name}`);
  const cache = join(root, "cache");
  const tensors = ffnTensors(bundle, given.tFfn);
  const keptBytes = tensors.reduce((sum, tensor) => sum + tensorBytes(tensor)!, 0);
  const selectedBytes = bundle.layouts.reduce((sum, { bytes, block }) => sum + (given.tFfn / block) * bytes, 0);
  const piece = new Uint8Array(keptBytes / bundle.numLayers).fill(7);
  const plain = join(root, "plain.bin");
  const ids = Int32Array.from({ length: promptTokens }, () => random.int(256));
  await llamaCpp.start();
  const open = async (path: string) => llamaCpp.open(path, { contextLength, threads });
  const firstToken = async (path: string) => {
    await using engine = await open(path);
    await engine.generate(ids, { maxTokens: 1 }).next();
  };
  const rounds = [];
  for (let round = 0; round <= Number(values.rounds); round++) {
    rmSync(cache, { recursive: true, force: true });
    flush();
    const [plainMs] = await timed(() => plainWrite(plain, piece, keptBytes));
    const [plainFlushMs] = await timed(() => flushFile(plain));
    rmSync(plain);
    flush();
    warm(bundle.ffn.path);
    const mask = drawMask(random, given);
    const readBefore = bytesRead();
    const [gatherMs, { path }] = await timed(() => openSubnetwork(bundle, mask, { root: cache }));
    const read = bytesRead() - readBefore;
    const [loadMs, engine] = await timed(() => open(path));
    const [prefillMs] = await timed(() => engine.generate(ids, { maxTokens: 1 }).next());
    await engine[Symbol.asyncDispose]();
    const [flushMs] = await timed(() => flushFile(ffnPart(path)));
    const [cachedMs] = await timed(async () => firstToken((await openSubnetwork(bundle, mask, { root: cache })).path));
    rounds.push({ plainMs, plainFlushMs, gatherMs, flushMs, read, loadMs, prefillMs, cachedMs });
  }
  const later = rounds.slice(1); // the first one compiles
  const of = (key: keyof (typeof later)[number]) => median(later.map((round) => round[key]));
  const flushed = (a: "plainMs" | "gatherMs", b: "plainFlushMs" | "flushMs") =>
    median(later.map((round) => round[a] + round[b]));
  let coldMs: number | undefined;
  if (values.cold) {
    rmSync(cache, { recursive: true, force: true });
    flush();
    writeFileSync("/proc/sys/vm/drop_caches", "1");
    [coldMs] = await timed(() => openSubnetwork(bundle, drawMask(random, given), { root: cache }));
  }
  const { path } = await openSubnetwork(bundle, drawMask(random, given), { root: cache });
  const memory = JSON.parse(
    execFileSync(process.execPath, [...process.execArgv, fileURLToPath(import.meta.url), "--memory", path], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    }),
  );
  rmSync(cache, { recursive: true, force: true });
  const { numLayers, numKvHeads, headWidth } = given.config;
  return {
    shape: name,
    type: given.type,
    block: given.block,
    ...{ L: numLayers, D: bundle.width, F: bundle.ffnWidth, K: given.tFfn },
    keptBytes,
    sharedBytes: statSync(join(bundle.path, "base.gguf")).size,
    readShare: of("read") / selectedBytes,
    plainMs: of("plainMs"),
    gatherMs: of("gatherMs"),
    firstGatherMs: rounds[0]!.gatherMs,
    speed: median(later.map(({ plainMs, gatherMs }) => plainMs / gatherMs)),
    plainFlushedMs: flushed("plainMs", "plainFlushMs"),
    gatherFlushedMs: flushed("gatherMs", "flushMs"),
    loadMs: of("loadMs"),
    gatherAndLoadMs: median(later.map((round) => round.gatherMs + round.loadMs)),
    prefillMs: of("prefillMs"),
    cachedFirstTokenMs: of("cachedMs"),
    coldMs,
    kvBytes: 2 * numLayers * numKvHeads * headWidth * 2 * contextLength,
    ...memory,
    rounds,
  };
}

/** What a process holds of a sub-network, by llama.cpp's own words and the system's: bytes, before loading and after a prefill. */
async function measureMemory(path: string): Promise<void> {
  const { getLlama, LlamaLogLevel } = await import("node-llama-cpp");
  let computeBytes = 0;
  let repackedBytes = 0;
  const llama = await getLlama({
    ...{ build: "never", skipDownload: true, gpu: false, logLevel: LlamaLogLevel.debug },
    logger: (_, message) => {
      const mib = (pattern: RegExp) => Number(pattern.exec(message)?.[1] ?? 0) * 2 ** 20;
      computeBytes = Math.max(computeBytes, mib(/compute buffer size = +([\d.]+) MiB/)); // said more than once
      repackedBytes = Math.max(repackedBytes, mib(/(?:AMX|REPACK) model buffer size = +([\d.]+) MiB/));
    },
  });
  const pss = () => Number(/^Pss: +(\d+)/m.exec(readFileSync("/proc/self/smaps_rollup", "utf8"))![1]) * 1024;
  const basePss = pss();
  const model = await llama.loadModel({ modelPath: path, defaultContextFlashAttention: "auto" });
  const context = await model.createContext({ contextSize: contextLength, sequences: 1, threads });
  await context
    .getSequence()
    .evaluate(Array.from({ length: promptTokens }, (_, i) => i as never))
    .next();
  const loadedPss = pss();
  process.stdout.write(JSON.stringify({ basePss, loadedPss, computeBytes, repackedBytes }));
  process.exit(0);
}

type Result = Awaited<ReturnType<typeof measure>> & {
  basePss: number;
  loadedPss: number;
  computeBytes: number;
  repackedBytes: number;
};

function table(results: readonly Result[]): string {
  const ms = (value: number | undefined) =>
    value === undefined ? "" : value < 10 ? value.toFixed(1) : value.toFixed(0);
  const mb = (value: number) => (value / 1e6).toFixed(value < 1e7 ? 1 : 0);
  const columns: [string, (result: Result) => string][] = [
    ["L × D × F → K, type", ({ L, D, F, K, type }) => `${L} × ${D} × ${F} → ${K}, ${type}`],
    ["mask", ({ block }) => (block > 1 ? `hard, blocks of ${block}` : "soft, single channels")],
    ["kept FFN, MB", ({ keptBytes }) => mb(keptBytes)],
    ["plain write, ms", ({ plainMs }) => ms(plainMs)],
    ["gather + write, ms", ({ gatherMs }) => ms(gatherMs)],
    ["share of the plain write's speed", ({ speed }) => `${(100 * speed).toFixed(0)} %`],
    ["first gather of the process, ms", ({ firstGatherMs }) => ms(firstGatherMs)],
    ["gather + write, µs per MB", ({ gatherMs, keptBytes }) => ((gatherMs * 1e3) / (keptBytes / 1e6)).toFixed(0)],
    ["plain write + fsync, ms", ({ plainFlushedMs }) => ms(plainFlushedMs)],
    ["gather + write + fsync, ms", ({ gatherFlushedMs }) => ms(gatherFlushedMs)],
    ["gather, nothing in the page cache, ms", ({ coldMs }) => ms(coldMs)],
    ["bytes read ÷ selected", ({ readShare }) => readShare.toFixed(2)],
    ["load + context, ms", ({ loadMs }) => ms(loadMs)],
    ["gather + load + context, ms", ({ gatherAndLoadMs }) => ms(gatherAndLoadMs)],
    [`prefill of ${promptTokens} tokens, ms`, ({ prefillMs }) => ms(prefillMs)],
    ["mask on disk → first token, ms", ({ cachedFirstTokenMs }) => ms(cachedFirstTokenMs)],
    ["shared + kept FFN, MB", ({ sharedBytes, keptBytes }) => mb(sharedBytes + keptBytes)],
    ["PSS, loaded, MB", ({ loadedPss }) => mb(loadedPss)],
    ["… of which Node and llama.cpp before loading", ({ basePss }) => mb(basePss)],
    [`… KV cache (${contextLength} tokens, F16)`, ({ kvBytes }) => mb(kvBytes)],
    ["… compute buffers", ({ computeBytes }) => mb(computeBytes)],
    ["… weights that llama.cpp copied for this processor (AMX)", ({ repackedBytes }) => mb(repackedBytes)],
    [
      "(PSS − KV − compute) ÷ (shared + kept FFN)",
      ({ loadedPss, kvBytes, computeBytes, sharedBytes, keptBytes }) =>
        ((loadedPss - kvBytes - computeBytes) / (sharedBytes + keptBytes)).toFixed(2),
    ],
  ];
  columns.push([
    "… without the copied weights",
    ({ loadedPss, kvBytes, computeBytes, repackedBytes, sharedBytes, keptBytes }) =>
      ((loadedPss - kvBytes - computeBytes - repackedBytes) / (sharedBytes + keptBytes)).toFixed(2),
  ]);
  const lines = [
    ["", ...results.map(({ shape }) => shape)],
    ["---", ...results.map(() => "---:")],
    ...columns.map(([title, cell]) => [title, ...results.map(cell)]),
  ];
  return lines.map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

if (values.memory) await measureMemory(values.memory);
const results: Result[] = [];
for (const name of values.shapes.split(/,(?! )/)) {
  results.push((await measure(name)) as Result);
  console.log(`${table(results.slice(-1))}\n`);
}
const machine = `${cpus().length} × ${cpus()[0]!.model}, Node ${process.version}`;
const out = new URL("results/gather", import.meta.url);
mkdirSync(dirname(fileURLToPath(out)), { recursive: true });
writeFileSync(
  fileURLToPath(`${out}.json`),
  `${JSON.stringify({ benchmark: "gather", machine, contextLength, results }, null, 1)}\n`,
);
writeFileSync(
  fileURLToPath(`${out}.md`),
  `# Building a sub-network\n\n\`npx tsx bench/gather.ts\` on ${machine}; medians of ${values.rounds} rounds, the page cache warm unless said; other processes were running at a lower priority. Random weights and masks.\n\n${table(results)}\n`,
);
if (!values.keep) removeMade();
process.exit(0);
