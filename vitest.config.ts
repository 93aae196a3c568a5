import { configDefaults, defineConfig, type ViteUserConfig } from "vitest/config";

/** Of every test. Limits are for what hangs, on a slow machine with other work to do: no test measures time by them. */
export const settings: ViteUserConfig["test"] = {
  include: ["{src,test,bench,experiments,web/src}/**/*.test.ts"],
  pool: "forks", // native addons (ONNX Runtime, llama.cpp, tokenizers) do not unload from worker threads
  testTimeout: 180_000,
  hookTimeout: 180_000,
  teardownTimeout: 60_000,
  expect: { poll: { timeout: 60_000 } },
};

/** Tests that leave their process as it was share two: to start one for each, and to load in it what they test, takes longer than most of them. */
const shared = [
  "src/{mask,model,text,formats,graph,net,report}/**/*.test.ts",
  "src/train/**/!(teacher).test.ts", // that one replaces a module
  "{experiments/{report,smollm2},web/src}/**/*.test.ts",
];

export default defineConfig({
  test: {
    maxWorkers: 2,
    reporters: ["default", "./test/support/skipped.ts"],
    // In the order of their names: the long ones first.
    projects: [
      { test: { ...settings, name: "alone", exclude: [...configDefaults.exclude, ...shared] } },
      { test: { ...settings, name: "shared", include: shared, isolate: false } },
    ],
  },
});
