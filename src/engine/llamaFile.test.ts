import { expect, test, vi } from "vitest";
import { EngineError } from "../errors.ts";
import { keepsThreads, startBackend } from "./llamaFile.ts";

const { getLlama } = vi.hoisted(() => ({ getLlama: vi.fn() }));
vi.mock("node-llama-cpp", () => ({ getLlama, LlamaLogLevel: {} }));

test("an engine that does not start says where, and may start the next time", async () => {
  getLlama.mockRejectedValueOnce(Object.assign(new Error(), { name: "NoBinaryFoundError" }));
  const starting = startBackend();
  await expect(starting).rejects.toThrow(EngineError);
  await expect(starting).rejects.toThrow(/wanted a binary that runs on \w+ \w+, got: NoBinaryFoundError\./);
  getLlama.mockResolvedValueOnce("llama");
  expect(await startBackend()).toBe("llama");
  expect(await startBackend()).toBe("llama");
  expect(getLlama).toHaveBeenCalledTimes(2);
});

test("threads are kept where somebody says how many, and in what is steady where their number is in the bits: F16 keys of more than 256 tokens", () => {
  const short = { contextLength: 256, kvType: "F16" } as const;
  const long = { contextLength: 257, kvType: "F16" } as const;
  expect([short, long].map(keepsThreads)).toEqual([false, false]);
  expect([short, long].map((options) => keepsThreads({ ...options, steady: true }))).toEqual([false, true]);
  expect([short, long].map((options) => keepsThreads({ ...options, threads: 2 }))).toEqual([true, true]);
  expect(keepsThreads({ ...long, steady: true, kvType: "F32" })).toBe(false);
});
