import { readFileSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { temporaryFolder } from "../../test/support/models.ts";
import { describeFiles } from "../manifest.ts";

/** Verifies as a process that has just started. */
async function verify(folder: string, files: Awaited<ReturnType<typeof describeFiles>>): Promise<number> {
  vi.resetModules();
  const { verifyUnlessKnown } = await import("./verifiedFiles.ts");
  let read = 0;
  await verifyUnlessKnown(folder, { files }, { onProgress: (done) => (read = done) });
  return read;
}

async function sample() {
  const folder = temporaryFolder();
  const path = join(folder, "weights.bin");
  writeFileSync(path, "weights");
  return { folder, path, files: await describeFiles(folder, ["weights.bin"]) };
}

beforeEach(() => vi.stubEnv("XDG_CACHE_HOME", temporaryFolder()));
afterEach(() => {
  vi.unstubAllEnvs();
  vi.useRealTimers();
});
/** Lets files look as if they had lain there for a minute. */
const later = () => vi.useFakeTimers({ now: Date.now() + 60_000, toFake: ["Date"] });

test("what was read is known by later processes too", async () => {
  const { folder, files } = await sample();
  later();
  expect(await verify(folder, files)).toBe(7);
  expect(await verify(folder, files)).toBe(0);
});

test("what changed a moment ago is read again: it may change once more within a tick of the clock", async () => {
  const { folder, files } = await sample();
  expect(await verify(folder, files)).toBe(7);
  expect(await verify(folder, files)).toBe(7);
});

test("a known file that changes is found, also where its size and time of modification are put back", async () => {
  const { folder, path, files } = await sample();
  const { atime, mtime } = statSync(path);
  later();
  await verify(folder, files);
  writeFileSync(path, "weighty");
  utimesSync(path, atime, mtime);
  await expect(verify(folder, files)).rejects.toThrow(/weights\.bin: wanted sha256 .+ changed or damaged/);
  writeFileSync(path, "weights");
  expect(await verify(folder, files)).toBe(7);
});

test("a file that is missing or of another size is told without reading any", async () => {
  const { folder, path, files } = await sample();
  writeFileSync(path, readFileSync(path).subarray(1));
  const { verifyUnlessKnown } = await import("./verifiedFiles.ts");
  const onProgress = vi.fn();
  await expect(verifyUnlessKnown(folder, { files }, { onProgress })).rejects.toThrow(/wanted 7 bytes .+ got 6/);
  expect(onProgress).not.toHaveBeenCalled();
});
