import { existsSync, readdirSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../test/support/models.ts";
import { FileError, OptionError } from "../errors.ts";
import { ResumableFile } from "./resumableFile.ts";

const job = { model: "m", seed: 1 };
const none = { lines: 0 };

test("a text whose writer is gone, also in the middle of a part, goes on after the last whole one, and has its name once whole", () => {
  const folder = temporaryFolder();
  const path = join(folder, "out");
  {
    using first = new ResumableFile(path, job, none);
    first.append("one\n", { lines: 1 });
    first.append("two ☃\n", { lines: 2 });
    writeFileSync(`${path}.partial`, "one\ntwo ☃\nthr"); // killed while it wrote
  }
  expect(existsSync(path)).toBe(false);
  {
    using second = new ResumableFile(path, job, none);
    expect(() => new ResumableFile(path, { ...job, seed: 2 }, none)).toThrow(/nobody writes, got one held by process/);
    expect(second.counts).toEqual({ lines: 2 });
    second.append("three\n", { lines: 3 });
    second.finish();
  }
  expect(readFileSync(path, "utf8")).toBe("one\ntwo ☃\nthree\n");
  expect(readdirSync(folder)).toEqual(["out"]);
});

test("one that was killed before its first part, or whose text was removed, begins anew", () => {
  const path = join(temporaryFolder(), "out");
  {
    using removed = new ResumableFile(path, { model: "other" }, none);
    removed.append("one\n", { lines: 1 });
  }
  rmSync(`${path}.partial`);
  new ResumableFile(path, job, none)[Symbol.dispose]();
  writeFileSync(`${path}.partial`, "some");
  using file = new ResumableFile(path, job, none);
  file.append("", { lines: 0 });
  file.finish();
  expect(readFileSync(path, "utf8")).toBe("");
});

test("another job, a file that exists and one that was changed are refused, and what is there stays", () => {
  const path = join(temporaryFolder(), "out");
  const open = (changed: object = {}, counts: Record<string, number> = none) =>
    new ResumableFile(path, { ...job, ...changed }, counts)[Symbol.dispose]();
  {
    using file = new ResumableFile(path, job, none);
    file.append("one\n", { lines: 1 });
  }
  expect(() => open({ seed: 2 })).toThrow(/got another seed 2 \(before: 1\)\. .*remove ".*out\.partial"/);
  expect(() => open({ seed: 2 })).toThrow(FileError);
  expect(() => open({ topP: 1 })).toThrow("another topP 1 (before: none)");
  expect(() => open({}, { words: 0 })).toThrow("wanted the counts words");
  truncateSync(`${path}.partial`, 2);
  expect(() => open()).toThrow("wanted at least 4 bytes, got 2. Was it changed?");
  writeFileSync(`${path}.progress.json`, "{");
  expect(() => open()).toThrow(FileError);
  writeFileSync(path, "kept");
  expect(() => open()).toThrow(OptionError);
  expect(readFileSync(path, "utf8")).toBe("kept");
});

test.runIf(existsSync("/dev/full"))("a full disk is said, with what to do", () => {
  const path = join(temporaryFolder(), "out");
  symlinkSync("/dev/full", `${path}.partial`);
  using file = new ResumableFile(path, job, none);
  expect(() => file.append("one\n", { lines: 1 })).toThrow(
    /wanted room on its disk, got no more\. Make room\. What is whole stays: run it again/,
  );
  expect(file.counts).toEqual(none);
});

test("a folder that is not there is said", () => {
  expect(() => new ResumableFile(join(temporaryFolder(), "no/out"), job, none)).toThrow(/got ENOENT/);
});
