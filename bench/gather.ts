/**
 * Building sub-networks of 1B, 3B and 8B models: what gathering, loading and the first token take, what is read, what stays in memory.
 *
 *     npx tsx bench/gather.ts [--shapes tiny,1B,…] [--rounds N] [--cold] [--keep]
 *
 * Weights are random Q8_0 (tiny: F16), masks are random with random λ: no runs of neighbours, the worst case. A plain write of the same bytes, in
 * pieces as large, alternates with the gather on the same file system, with everything flushed before each. Bundles are made in
 * `runs/bench-bundles` and removed at the end without --keep. --cold also measures with an empty page cache, which takes root.
 * Writes `bench/results/gather.json` and `.md`.
 */
import { execFileSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { availableParallelism, cpus } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Bundle, splitCount } from "../src/bundle/bundle.ts";
import { type ChannelTypes, channelLayout, channelMetadata, channelTensors } from "../src/bundle/channels.ts";
import { ffnTensors } from "../src/bundle/gather.ts";
import { openSubnetwork } from "../src/bundle/subnetworkCache.ts";
import { llamaCpp } from "../src/engine/llamaCpp.ts";
import { writeFully } from "../src/files.ts";
import { type GgufTensor, tensorBytes, writeGguf } from "../src/formats/gguf.ts";
import { ggufName, modelMetadata, splitMetadata } from "../src/formats/ggufModel.ts";
import { array, bool, string, uint32 } from "../src/formats/ggufValues.ts";
import { writeManifest } from "../src/manifest.ts";
import type { Mask } from "../src/mask/mask.ts";
import { type ModelConfig, parameterShapes } from "../src/model/config.ts";
import { Random } from "../src/random.ts";

const { values } = parseArgs({
  options: {
    shapes: { type: "string", default: "tiny,1B,1B, F16,3B, half,3B,3B, twice,8B" },
    rounds: { type: "string", default: "5" },
    cold: { type: "boolean", default: false },
    keep: { type: "boolean", default: false },
    memory: { type: "string" }, // a sub-network to measure in a process of its own
  },
});

interface Shape {
  config: ModelConfig;
  /** K */
  tFfn: number;
  type: "F16" | "Q8_0";
}
const shape = (L: number, D: number, F: number, K: number, H: number, G: number, type: Shape["type"]): Shape => ({
  ...{ tFfn: K, type },
  config: {
    ...{ family: "llama", width: D, numLayers: L, numHeads: H, numKvHeads: G, headWidth: D / H, ffnWidth: F },
    ...{ vocabSize: 2048, contextLength: 4096, normEps: 1e-5, ropeTheta: 500_000, tieEmbeddings: true },
  },
});
const shapes: Record<string, Shape> = {
  tiny: shape(4, 128, 512, 128, 4, 2, "F16"),
  "1B": shape(16, 2048, 8192, 2048, 32, 8, "Q8_0"),
  "3B": shape(28, 3072, 8192, 2048, 24, 8, "Q8_0"),
  "1B, F16": shape(16, 2048, 8192, 2048, 32, 8, "F16"),
  "3B, half": shape(28, 3072, 8192, 1024, 24, 8, "Q8_0"),
  "3B, twice": shape(28, 3072, 8192, 4096, 24, 8, "Q8_0"),
  "8B": shape(32, 4096, 14336, 3584, 32, 8, "Q8_0"),
};
const root = fileURLToPath(new URL("../runs/bench-bundles/", import.meta.url));
const contextLength = 512;
const promptTokens = 16;
/** On two cores llama.cpp's default, four, takes 3.1 s for a prefill of a 3B sub-network, two take 0.1 s. */
const threads = availableParallelism();

/** A bundle of random weights, made unless it is there. */
async function makeBundle(name: string, { config, type }: Shape): Promise<string> {
  const folder = join(root, `${name.replace(/,.*/, "")}-${type}`);
  if (existsSync(join(folder, "ifprune.json"))) return folder;
  mkdirSync(folder, { recursive: true });
  const random = new Random(name);
  const types: ChannelTypes = { gate: type, up: type, down: type };
  const { width: D, ffnWidth: F, numLayers: L, vocabSize: V } = config;
  const names = [...parameterShapes(config)].filter(([name]) => !name.includes(".mlp."));
  const tensors = names.map(
    ([name, shape]): GgufTensor => ({ name: ggufName(config, name), type: shape.length === 1 ? "F32" : type, shape }),
  );
  const tokens = Array.from({ length: V }, (_, i) => (i < 256 ? String.fromCodePoint(0x4e00 + i) : `[unused${i}]`));
  await writeGguf(
    join(folder, "base.gguf"),
    new Map([
      ...modelMetadata(config),
      ["tokenizer.ggml.model", string("gpt2")],
      ["tokenizer.ggml.pre", string("smollm")],
      ["tokenizer.ggml.tokens", array("string", tokens)],
      [
        "tokenizer.ggml.token_type",
        array(
          "int32",
          tokens.map(() => 1),
        ),
      ],
      ["tokenizer.ggml.merges", array("string", [])],
      ["tokenizer.ggml.bos_token_id", uint32(1)],
      ["tokenizer.ggml.eos_token_id", uint32(2)],
      ["tokenizer.ggml.add_bos_token", bool(false)],
      ...splitMetadata(1, splitCount, tensors.length + 3 * L),
    ]),
    tensors,
    (function* () {
      for (const tensor of tensors)
        yield randomWeights(random, tensor.type as "F32" | Shape["type"], tensorBytes(tensor)!);
    })(),
  );
  const layout = channelLayout(types, D);
  const rows = randomWeights(random, type, 2 * layout.upAt * 1024); // gate and up of as many channels, over and over
  await writeGguf(
    join(folder, "ffn.gguf"),
    channelMetadata(
      "llama",
      Array.from({ length: L }, () => types),
    ),
    channelTensors(
      Array.from({ length: L }, () => types),
      D,
      F,
    ),
    (function* () {
      const column = layout.bytes - layout.downAt;
      const columns = type === "Q8_0" ? randomBytes(random, 1024 * column) : randomWeights(random, type, 1024 * column);
      const records = new Uint8Array(F * layout.bytes);
      for (let channel = 0; channel < F; channel++) {
        const i = channel % 1024;
        records.set(rows.subarray(i * layout.downAt, (i + 1) * layout.downAt), channel * layout.bytes);
        records.set(columns.subarray(i * column, (i + 1) * column), channel * layout.bytes + layout.downAt);
      }
      for (let layer = 0; layer < L; layer++) {
        yield records;
        if (type === "Q8_0") yield new Uint8Array(new Uint16Array(D).fill(smallHalf).buffer);
      }
    })(),
  );
  writeFileSync(join(folder, "tokenizer.json"), "{}");
  const files = Object.fromEntries(
    ["base.gguf", "ffn.gguf", "tokenizer.json"].map((name) => [
      name,
      { bytes: statSync(join(folder, name)).size, sha256: "0".repeat(64) }, // is not looked at
    ]),
  );
  const provenance = { recipe: "bench", data: [], created: "2026-11-25T00:00:00Z" };
  const common = {
    version: 1 as const,
    lambda: "soft" as const,
    predictorInput: "prompt" as const,
    predictorPooling: "last" as const,
    promptTemplate: "{prompt}",
  };
  writeManifest(folder, { format: "ifprune-bundle", ...common, eosId: 2, provenance, files });
  return folder;
}

/** 2⁻¹⁰ in half precision. */
const smallHalf = 0x1400;

function randomBytes(random: Random, length: number): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(Math.ceil(length / 4));
  for (let i = 0; i < words.length; i++) words[i] = random.int(2 ** 32);
  return new Uint8Array(words.buffer, 0, length);
}

/** Small finite values. */
function randomWeights(random: Random, type: "F32" | Shape["type"], length: number): Uint8Array {
  if (type === "F32") return new Uint8Array(new Float32Array(length / 4).fill(1).buffer);
  const bytes = randomBytes(random, length);
  const halves = new Uint16Array(bytes.buffer, 0, length / 2);
  if (type === "F16") for (let i = 0; i < halves.length; i++) halves[i] = (halves[i]! & 0x83ff) | smallHalf;
  else for (let i = 0; i < halves.length; i += 17) halves[i] = smallHalf;
  return bytes;
}

function randomMask(random: Random, { config: { numLayers, ffnWidth: F }, tFfn: K }: Shape): Mask {
  const layers = Array.from({ length: numLayers }, () => random.permutation(F).slice(0, K).sort());
  const lambda = layers.map((kept) => Float32Array.from(kept, () => 0.5 + 0.5 * random.float()));
  return { tFfn: K, dFfn: F, layers, lambda };
}

async function timed<T>(work: () => T | Promise<T>): Promise<[ms: number, result: T]> {
  const start = performance.now();
  const result = await work();
  return [performance.now() - start, result];
}

const median = (numbers: readonly number[]) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1]!;
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
  using bundle = new Bundle(await makeBundle(name, given));
  const random = new Random(`masks/${name}`);
  const cache = join(root, "cache");
  const tensors = ffnTensors(bundle, given.tFfn);
  const keptBytes = tensors.reduce((sum, tensor) => sum + tensorBytes(tensor)!, 0);
  const selectedBytes = bundle.layouts.reduce((sum, { bytes }) => sum + given.tFfn * bytes, 0);
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
    const mask = randomMask(random, given);
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
    [coldMs] = await timed(() => openSubnetwork(bundle, randomMask(random, given), { root: cache }));
  }
  const { path } = await openSubnetwork(bundle, randomMask(random, given), { root: cache });
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
  `# Building a sub-network\n\n\`npx tsx bench/gather.ts\` on ${machine}; medians of ${values.rounds} rounds, the page cache warm unless said; other processes were running at a lower priority. Random weights and masks, soft λ.\n\n${table(results)}\n`,
);
if (!values.keep) rmSync(root, { recursive: true, force: true });
process.exit(0);
