import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["{src,test,bench,experiments,web/src}/**/*.test.ts"],
    pool: "forks", // native addons (ONNX Runtime, llama.cpp, tokenizers) do not unload from worker threads
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
