/**
 * Memory that llama.cpp takes for a model, and memory that there is. Formulas are of llama.cpp on a CPU with node-llama-cpp's settings: batches of
 * at most 512 tokens, caches in whole 256 cells.
 *
 * Shapes: D model width · F FFN width · H query heads · G key/value heads · C head width · V vocabulary · S cached tokens
 */
import { readFileSync } from "node:fs";
import { freemem } from "node:os";
import { join } from "node:path";
import { MemoryError } from "../errors.ts";
import type { ModelConfig } from "../model/config.ts";
import { familyOf, isLocalLayer } from "../model/families.ts";

/** Types that cached keys and values may have. */
export const KV_TYPES = ["F16", "F32"] as const;
/** Type of the cached keys and values. */
export type KvType = (typeof KV_TYPES)[number];
export const DEFAULT_KV_TYPE: KvType = "F16";

/** Tokens of prompt and answer that memory is taken for, unless told; a model may read fewer. */
export const DEFAULT_CONTEXT_LENGTH = 4096;

const maxBatch = 512;
const cellStep = 256;
const kvBytes = { F16: 2, F32: 4 } as const;
const roundUp = (value: number, step: number) => Math.ceil(value / step) * step;

/** Cells of a layer's key/value cache. Gemma's local layers have those of their window and a batch, not of the whole context. */
function cacheCells(config: ModelConfig, layer: number, contextLength: number): number {
  const cells = roundUp(contextLength, cellStep);
  if (!isLocalLayer(config, layer) || !config.slidingWindow) return cells;
  return Math.min(cells, roundUp(config.slidingWindow + Math.min(contextLength, maxBatch) + 1, cellStep));
}

/** Bytes of the key/value cache at a context length. */
export function kvCacheBytes(config: ModelConfig, contextLength: number, kvType: KvType): number {
  const { numLayers, numKvHeads: G, headWidth: C } = config;
  let cells = 0;
  for (let layer = 0; layer < numLayers; layer++) cells += cacheCells(config, layer, contextLength);
  return cells * 2 * G * C * kvBytes[kvType];
}

/**
 * An allowance for llama.cpp's compute buffers: the widest step of one batch in float32, which is the logits, or the FFN, or, without flash
 * attention, all attention weights of a layer. Calibrated against what llama.cpp reports for six shapes of four families from 0.1B to 8B and
 * contexts of 256 to 16,384 tokens: never below, at most 10 % above.
 */
export function computeBytes(config: ModelConfig, contextLength: number, kvType: KvType): number {
  const { width: D, ffnWidth: F, numHeads: H, vocabSize: V } = config;
  const S = roundUp(contextLength, cellStep);
  const isFlash = kvType === "F16" && familyOf(config).gguf.softCaps.attention === undefined; // llama.cpp's choice with "auto"; see `llamaFile.ts`
  const attention = isFlash ? 0 : H * S + 7 * D + 1.5 * S;
  return 4 * Math.min(contextLength, maxBatch) * Math.max(V + 4 * D, 2 * F + 8 * D + S / 2, attention);
}

/**
 * What copies of weights take beyond their files: with AMX, llama.cpp copies matrices of Q8_0 at loading, from blocks of 34 bytes into blocks
 * of 38. (The file's own pages may go then.)
 */
export function repackedBytes(q8Bytes: number, cpuInfo = ownCpuInfo()): number {
  return cpuInfo && /^flags\s*:.*\bamx_int8\b/m.test(cpuInfo) ? (q8Bytes * 4) / 34 : 0;
}

let ownCpu: { info: string | undefined } | undefined;

/** Read once: a server asks for every request. */
function ownCpuInfo(): string | undefined {
  ownCpu ??= { info: readIfThere("/proc/cpuinfo") };
  return ownCpu.info;
}

type Reader = (path: string) => string | undefined;

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

/**
 * Bytes that a process may still take without swapping: what the system has left, or its cgroup (v1 or v2) allows, whichever is less. Pages of
 * files count as free, for they can go. Without Linux's files, what the system calls free.
 *
 * @param read the text of a file, or undefined where there is none
 */
export function availableBytes(read: Reader = readIfThere): number {
  const kilobytes = /^MemAvailable:\s+(\d+) kB$/m.exec(read("/proc/meminfo") ?? "")?.[1];
  return Math.min(kilobytes === undefined ? freemem() : Number(kilobytes) * 1024, ...cgroupRooms(read));
}

/** Room that is left in each of the process's memory cgroups with a limit, from its own up to the root. */
function* cgroupRooms(read: Reader): Generator<number> {
  for (const line of read("/proc/self/cgroup")?.split("\n") ?? []) {
    const [, controllers, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    if (path === undefined) continue;
    const isV2 = controllers === "";
    if (!isV2 && !controllers!.split(",").includes("memory")) continue;
    const [mount, limitName, usageName, filesKey] = isV2
      ? ["/sys/fs/cgroup", "memory.max", "memory.current", "file"]
      : ["/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"];
    for (let at = path; ; at = at.slice(0, at.lastIndexOf("/")) || "/") {
      const [limit, usage] = [limitName, usageName].map((name) =>
        Number.parseInt(read(join(mount, at, name)) ?? "", 10),
      );
      const files = Number(
        new RegExp(`^${filesKey} (\\d+)$`, "m").exec(read(join(mount, at, "memory.stat")) ?? "")?.[1] ?? 0,
      );
      if (Number.isFinite(limit) && Number.isFinite(usage)) yield Math.max(0, limit! - Math.max(0, usage! - files));
      if (at === "/") break;
    }
  }
}

/** "1.23 GB", of 10^9 bytes, or "4.56 MB". */
export function byteSize(bytes: number): string {
  if (bytes < 1e8) return `${(bytes / 1e6).toFixed(2)} MB`;
  const value = bytes / 1e9;
  return `${value.toFixed(value < 1 ? 3 : value < 100 ? 2 : 0)} GB`;
}

/**
 * Refuses what would swap or be killed.
 *
 * @param needed bytes of weights, cache and buffers together
 * @param what they are for
 * @throws {MemoryError} if there are fewer
 */
export function checkMemory(needed: number, what: string, available = availableBytes()): void {
  if (needed <= available) return;
  throw new MemoryError(
    `load: wanted ${byteSize(needed)} for ${what}, got ${byteSize(available)} available. Use a smaller t_ffn, type or context, or force it.`,
  );
}
