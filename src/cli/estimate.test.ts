import { join } from "node:path";
import { expect, test } from "vitest";
import { inProcess, succeed } from "../../test/support/cli.ts";
import { randomModel, temporaryFolder, writeCheckpoint } from "../../test/support/models.ts";

test("says what a model and its sub-network take, for people and for programs, from a folder that is not imported yet", async () => {
  const checkpoint = await writeCheckpoint(temporaryFolder(), randomModel({ family: "llama" }, 1)); // F 96
  const args = ["estimate", join(checkpoint, "llm"), "--t-ffn", "32", "--context", "64", "--threads", "1"];
  const { dense, subnetwork, bandwidth, ...rest } = JSON.parse(await succeed(...args, "--json"));
  expect(rest).toMatchObject({ tFfn: 32, contextLength: 64, kvType: "F16", predictor: 0, threads: 1 });
  expect(dense.ffn).toBe(3 * subnetwork.ffn);
  expect({ dense: dense.fits, subnetwork: subnetwork.fits }).toEqual({ dense: true, subnetwork: true });
  expect(subnetwork.maxTokensPerSecond).toBeCloseTo(bandwidth / subnetwork.perToken, 6);

  const table = await succeed(...args);
  expect(table).toContain("32 of 96 FFN channels (33 %), 64 tokens of context");
  expect(table).toMatch(/^fits +yes +yes$/m);
});

test("a context that the model does not read is an error", async () => {
  const checkpoint = await writeCheckpoint(temporaryFolder(), randomModel({ family: "llama" }, 1));
  const ended = await inProcess("estimate", join(checkpoint, "llm"), "--context", "1000");
  expect(ended).toMatchObject({ code: 1, stdout: "" });
  expect(ended.stderr).toContain("the context must be an integer in 2..64, what the model reads, got 1000");
});
