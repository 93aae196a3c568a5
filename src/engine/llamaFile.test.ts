import { expect, test, vi } from "vitest";
import { EngineError } from "../errors.ts";
import { startBackend } from "./llamaFile.ts";

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
