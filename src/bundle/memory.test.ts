import { describe, expect, test } from "vitest";
import { MemoryError } from "../errors.ts";
import type { ModelConfig } from "../model/config.ts";
import { availableBytes, checkMemory, computeBytes, kvCacheBytes, repackedBytes } from "./memory.ts";

const MiB = 2 ** 20;
const base = { numLayers: 2, contextLength: 131_072, normEps: 1e-5, ropeTheta: 1e4, tieEmbeddings: true };
const llama1b: ModelConfig = {
  ...base,
  family: "llama",
  width: 2048,
  numHeads: 32,
  numKvHeads: 8,
  headWidth: 64,
  ffnWidth: 8192,
  vocabSize: 128_256,
};
const llama8b: ModelConfig = { ...llama1b, width: 4096, headWidth: 128, ffnWidth: 14_336, vocabSize: 32_000 };
const gemma = { numHeads: 8, numKvHeads: 4, headWidth: 256, vocabSize: 64_000 };
const gemma2: ModelConfig = {
  ...base,
  ...gemma,
  family: "gemma2",
  numLayers: 4,
  width: 2304,
  ffnWidth: 9216,
  slidingWindow: 4096,
};
const gemma3: ModelConfig = {
  ...base,
  ...gemma,
  family: "gemma3",
  numLayers: 6,
  width: 2560,
  ffnWidth: 10_240,
  slidingWindow: 1024,
};

/** [model, tokens, type of the cache, MiB of it, MiB of compute buffers]: what llama.cpp itself logged for models of these shapes. */
const logged = [
  [llama1b, 256, "F16", 1, 129.25],
  [llama1b, 4096, "F16", 16, 258.5],
  [llama1b, 16_384, "F16", 64, 258.5],
  [llama1b, 4096, "F32", 32, 286.01],
  [llama8b, 256, "F16", 2, 58.13],
  [llama8b, 4096, "F16", 32, 120.01],
  [llama8b, 16_384, "F16", 128, 132.01],
  [llama8b, 4096, "F32", 64, 308.01],
  [gemma2, 256, "F16", 2 + 2, 69.25],
  [gemma2, 4096, "F16", 32 + 32, 134.26],
  [gemma2, 16_384, "F16", 128 + 38, 327.65],
  [gemma3, 4096, "F32", 32 + 70, 135.27],
  [gemma3, 16_384, "F16", 64 + 35, 135.27],
] as const;

test.each(logged)("cache and buffers are what llama.cpp logs: %#", (config, tokens, type, cacheMiB, computeMiB) => {
  expect(kvCacheBytes(config, tokens, type)).toBe(cacheMiB * MiB);
  const compute = computeBytes(config, tokens, type) / MiB;
  expect(compute).toBeGreaterThanOrEqual(computeMiB);
  expect(compute).toBeLessThan(1.1 * computeMiB);
});

test("only a processor with AMX repacks Q8_0", () => {
  expect(repackedBytes(34, "flags\t\t: fpu avx2 amx_tile amx_int8\n")).toBe(4);
  expect(repackedBytes(34, "flags\t\t: fpu avx2\n")).toBe(0);
});

describe("available memory", () => {
  const meminfo = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    8000000 kB\n";
  const available = (files: Record<string, string>) => availableBytes((path) => files[path]);
  const v2 = { "/proc/meminfo": meminfo, "/proc/self/cgroup": "0::/a/b\n" };

  test("is the system's without a limit", () => {
    expect(available({ "/proc/meminfo": meminfo })).toBe(8_000_000 * 1024);
    expect(available({ ...v2, "/sys/fs/cgroup/a/b/memory.max": "max\n" })).toBe(8_000_000 * 1024);
  });

  test("is the least that a cgroup v2 or one above it leaves, where pages of files can go", () => {
    const limited = {
      ...v2,
      "/sys/fs/cgroup/a/memory.max": "3000000000\n",
      "/sys/fs/cgroup/a/memory.current": "2500000000\n",
      "/sys/fs/cgroup/a/memory.stat": "anon 500000000\nfile 2000000000\nfile_mapped 7\n",
      "/sys/fs/cgroup/a/b/memory.max": "max\n",
      "/sys/fs/cgroup/a/b/memory.current": "1\n",
    };
    expect(available(limited)).toBe(2_500_000_000);
    expect(available({ ...limited, "/sys/fs/cgroup/a/b/memory.max": "1000000\n" })).toBe(999_999);
  });

  test("is what a cgroup v1 leaves", () => {
    const files = {
      "/proc/meminfo": meminfo,
      "/proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/c\n0::/\n",
      "/sys/fs/cgroup/memory/c/memory.limit_in_bytes": "1000000000\n",
      "/sys/fs/cgroup/memory/c/memory.usage_in_bytes": "900000000\n",
      "/sys/fs/cgroup/memory/c/memory.stat": "cache 1\ntotal_cache 300000000\n",
    };
    expect(available(files)).toBe(400_000_000);
  });

  test("of this machine is more than nothing", () => {
    expect(availableBytes()).toBeGreaterThan(0);
  });
});

test("what does not fit is refused with both sizes and what to do", () => {
  checkMemory(5, "a model", 5);
  expect(() => checkMemory(3e9, "a model", 2e9)).toThrow(MemoryError);
  expect(() => checkMemory(3e9, "a model", 2e9)).toThrow(
    "load: wanted 3.00 GB for a model, got 2.00 GB available. Use a smaller t_ffn, type or context, or force it.",
  );
});
