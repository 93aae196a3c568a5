import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs, { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, expect, test, vi } from "vitest";
import { FileError } from "./errors.ts";
import { lockRun } from "./runLock.ts";

const folder = mkdtempSync(join(tmpdir(), "run-lock-"));
const path = join(folder, "trainer.lock");
beforeEach(() => rmSync(path, { force: true }));
afterAll(() => rmSync(folder, { recursive: true }));

test("a run is locked until its trainer is done, and leaves nothing behind", () => {
  const lock = lockRun(folder);
  expect(() => lockRun(folder)).toThrow(FileError);
  expect(() => lockRun(folder)).toThrow(`held by process ${process.pid} on ${hostname()}`);
  lock[Symbol.dispose]();
  lockRun(folder)[Symbol.dispose]();
  expect(readdirSync(folder)).toEqual([]);
});

test("the lock of a killed process is taken over", () => {
  const { pid } = spawnSync(process.execPath, ["--version"]);
  writeFileSync(path, JSON.stringify({ pid, host: hostname() }));
  using _ = lockRun(folder);
  expect(JSON.parse(readFileSync(path, "utf8")).pid).toBe(process.pid);
});

test("a lock of another host is respected, one that no trainer wrote is not", () => {
  writeFileSync(path, JSON.stringify({ pid: 1, host: `not-${hostname()}` }));
  expect(() => lockRun(folder)).toThrow(FileError);
  for (const text of ["", "{}", "rubbish"]) {
    writeFileSync(path, text);
    lockRun(folder)[Symbol.dispose]();
    expect(existsSync(path)).toBe(false);
  }
});

test("without hard links a run is locked all the same", () => {
  const link = vi.spyOn(fs, "linkSync").mockImplementation(() => {
    throw Object.assign(new Error("no links here"), { code: "EPERM" });
  });
  syncBuiltinESMExports();
  try {
    const lock = lockRun(folder);
    expect(() => lockRun(folder)).toThrow(`held by process ${process.pid}`);
    lock[Symbol.dispose]();
    expect(link).toHaveBeenCalled();
    expect(readdirSync(folder)).toEqual([]);
  } finally {
    link.mockRestore();
    syncBuiltinESMExports();
  }
});

test.runIf(process.platform === "linux")("a later process with the number of the holder does not hold its lock", () => {
  writeFileSync(path, JSON.stringify({ pid: process.pid, host: hostname(), processStart: "1" }));
  lockRun(folder)[Symbol.dispose]();
  expect(existsSync(path)).toBe(false);
});

test("of many trainers that find a stale lock at once, one gets the run", async () => {
  writeFileSync(path, "stale");
  const module = JSON.stringify(new URL("runLock.ts", import.meta.url).href);
  // Each reports what it got and keeps its lock until its input ends, as all of them have reported.
  const program = `
    const { lockRun } = await import(${module});
    let lock;
    try { lock = lockRun(${JSON.stringify(folder)}); } catch {}
    console.log(lock ? "got" : "refused");
    process.stdin.on("end", () => lock?.[Symbol.dispose]()).resume();`;
  const trainers = Array.from({ length: 4 }, () =>
    spawn(process.execPath, ["--import", "tsx", "--input-type=module", "-e", program], {
      stdio: ["pipe", "pipe", "inherit"],
    }),
  );
  const reports = await Promise.all(trainers.map(async ({ stdout }) => String((await once(stdout, "data"))[0]).trim()));
  const ends = trainers.map((trainer) => once(trainer, "exit"));
  for (const { stdin } of trainers) stdin.end();
  await Promise.all(ends);
  expect(reports.sort()).toEqual(["got", "refused", "refused", "refused"]);
  expect(readdirSync(folder)).toEqual([]);
});
