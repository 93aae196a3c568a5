import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { inProcess } from "../../test/support/cli.ts";
import { temporaryFolder } from "../../test/support/models.ts";
import { DEFAULT_MODEL, TINY_MODEL } from "../bundle/pulledModels.ts";

test("doctor says what is there, what is not and what to do, and fails only without what every use needs", async () => {
  process.env.XDG_CACHE_HOME = temporaryFolder();
  const { code, stdout, stderr } = await inProcess("doctor");
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(stdout).toMatch(/^✓ Node\.js +v/m);
  expect(stdout).toMatch(/^✓ engine +llama\.cpp /m);
  expect(stdout).toMatch(/^✓ cache .+: models 0\.00 MB/m);
  const models = [...stdout.matchAll(/^✓ model +(.+?), .+, trained masks \((.+)\)$/gm)].map(([, ...rest]) => rest);
  const others = DEFAULT_MODEL === TINY_MODEL ? [] : [[TINY_MODEL, "--model tiny"]];
  expect(models).toEqual([[DEFAULT_MODEL, "answers unless another is named"], ...others]);
  for (const line of stdout.trim().split("\n")) expect(line).toMatch(/^(✓ \S.+|– \S.+not found: .+) \(.+\)$/);

  process.env.XDG_CACHE_HOME = fileURLToPath(import.meta.url); // no folder
  const without = await inProcess("doctor", "--json");
  expect(without.code).toBe(1);
  const { findings } = JSON.parse(without.stdout);
  expect(findings.find(({ name }: { name: string }) => name === "cache").missing).toContain("Set XDG_CACHE_HOME");
});
