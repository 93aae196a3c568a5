/** The process of a job says what `specialize` does, and ends when it is told to. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../test/support/models.ts";
import { TINY_MODEL } from "../bundle/pulledModels.ts";
import { jobApart } from "./jobApart.ts";

test("what it refuses comes with its words, and leaves nothing", { timeout: 300_000 }, async () => {
  const out = join(temporaryFolder(), "small");
  const events = jobApart({ model: "/none", out, options: { task: "x" } }, new AbortController().signal);
  await expect(events.next()).rejects.toThrow("/none: wanted a model, got nothing of that name. Check the path.");
  expect(existsSync(`${out}.job`)).toBe(false);
});

test("stopped while it is still being loaded it ends, and has begun nothing", { timeout: 300_000 }, async () => {
  const out = join(temporaryFolder(), "small");
  const stop = new AbortController();
  const events = jobApart({ model: TINY_MODEL, out, options: { task: "x" } }, stop.signal);
  const first = events.next();
  stop.abort();
  expect(await first).toEqual({ done: true, value: undefined });
  expect(existsSync(`${out}.job`)).toBe(false);
});
