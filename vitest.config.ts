import { defineConfig } from "vitest/config";

// Limits are for what hangs, on a slow machine with other work to do: no test measures time by them.
export default defineConfig({
  test: {
    include: ["{src,test,bench,experiments,web/src}/**/*.test.ts"],
    pool: "forks", // native addons (ONNX Runtime, llama.cpp, tokenizers) do not unload from worker threads
    maxWorkers: 2,
    testTimeout: 180_000,
    hookTimeout: 180_000,
    teardownTimeout: 60_000,
    expect: { poll: { timeout: 60_000 } },
    reporters: ["default", "./test/support/skipped.ts"],
  },
});
