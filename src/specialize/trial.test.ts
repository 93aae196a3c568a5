import { tmpdir } from "node:os";
import { expect, test } from "vitest";
import { randomModel } from "../../test/support/models.ts";
import { MemoryError } from "../errors.ts";
import { checkRoom, type JobPlan, jobBytes } from "./trial.ts";

const { config } = randomModel({ family: "llama" }, 1);
const plan: JobPlan = {
  ...{ config, tFfn: 48, shape: { T: 256, B: 4 }, shortRuns: { count: 0, share: 1 } },
  ...{ tokens: 1000, rows: 40, heldOut: 8, answers: 40, drafts: 0, isTuned: false, maxTokens: 8 },
};

test("what no machine has is refused before it is begun, unless it is forced", () => {
  const large = { ...plan, config: { ...config, width: 1 << 16, ffnWidth: 1 << 18, numLayers: 100 } };
  expect(() => checkRoom(large, tmpdir(), false)).toThrow(MemoryError);
  expect(() => checkRoom(large, tmpdir(), false)).toThrow(/wanted about [\d.]+ GB of memory/);
  checkRoom(large, tmpdir(), true);
});

test("a wider model and a longer row take more", () => {
  const less = jobBytes(plan);
  expect(jobBytes({ ...plan, tFfn: 96 }).memory).toBeGreaterThan(less.memory);
  expect(jobBytes({ ...plan, shape: { T: 512, B: 4 } }).memory).toBeGreaterThan(less.memory);
  expect(jobBytes({ ...plan, isTuned: true }).disk).toBeGreaterThan(less.disk);
  expect(jobBytes({ ...plan, tFfn: 96 }).disk).toBeGreaterThan(less.disk);
});
