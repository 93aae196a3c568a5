import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { isConfirmed } from "./confirmation.ts";

test.each([
  ["y\n", true],
  [" Yes \n", true],
  ["n\n", false],
  ["\n", false],
  ["yellow\n", false],
  ["", false],
])("the input %j counts as %s; where it ends without an answer too, nothing waits", async (text, expected) => {
  const streams = { input: new PassThrough(), output: new PassThrough() };
  streams.input.end(text);
  expect(await isConfirmed("Go on?", new AbortController().signal, streams)).toBe(expected);
  expect(String(streams.output.read())).toContain("Go on? [y/N]");
});

test("who interrupts is not asked any more", async () => {
  const stop = new AbortController();
  const asked = isConfirmed("Go on?", stop.signal, { input: new PassThrough(), output: new PassThrough() });
  stop.abort(new Error("stopped"));
  await expect(asked).rejects.toThrow("stopped");
});
