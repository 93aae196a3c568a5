import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../test/support/models.ts";
import { FileError } from "../errors.ts";
import { JobFolder } from "./jobFolder.ts";

test("what was made is there in the next call, what was under way is not", async () => {
  const path = join(temporaryFolder(), "out.job");
  {
    using job = new JobFolder(path, { task: "a", keep: 0.5 });
    expect(job.isNew).toBe(true);
    await job.made("dense", (partial) => void mkdirSync(partial));
    const failing = job.made("cut", (partial) => {
      writeFileSync(partial, "half");
      throw new Error("killed");
    });
    await expect(failing).rejects.toThrow("killed");
    expect(await job.madeJson("rows.json", async () => ({ rows: 3 }))).toEqual({ rows: 3 });
  }
  using job = new JobFolder(path, { task: "a", keep: 0.5 });
  expect(job.isNew).toBe(false);
  expect(readdirSync(path).sort()).toEqual(["dense", "job.json", "rows.json", "trainer.lock"]);
  expect(await job.madeJson("rows.json", async () => ({ rows: 4 }))).toEqual({ rows: 3 });
});

test("a disk that is full is said to be, nothing of what it broke off is left, and the next call makes it", async () => {
  using job = new JobFolder(join(temporaryFolder(), "out.job"), { task: "a" });
  const cause = Object.assign(new Error("no space left on device"), { code: "ENOSPC", syscall: "write" });
  for (const error of [cause, new FileError("dense", "wanted room, got no more. Nothing of it is left.", { cause })]) {
    const full = job.made("dense", (partial) => {
      mkdirSync(partial);
      throw error;
    });
    await expect(full).rejects.toThrow(FileError);
    await expect(full).rejects.toThrow(/got no more\. Make room\. The same command goes on here/);
  }
  expect(job.has("dense")).toBe(false);
  await job.made("dense", (partial) => void mkdirSync(partial));
  expect(job.has("dense")).toBe(true);
});

test("another job's folder is refused, and so is one of something else; the lock goes with the refusal", () => {
  const path = join(temporaryFolder(), "out.job");
  const key = { model: "0".repeat(32), task: "a", tokens: 500 };
  new JobFolder(path, key)[Symbol.dispose]();
  const other = () => new JobFolder(path, { ...key, model: "1".repeat(32), tokens: 300 });
  expect(other).toThrow(FileError);
  expect(other).toThrow(/got another model, tokens 300 \(before: 500\)\. Give/); // a hash says nothing to people
  using held = new JobFolder(path, key);
  expect(() => new JobFolder(held.path, key)).toThrow(/wanted a run that nobody trains/);
  const own = temporaryFolder();
  writeFileSync(join(own, "mine.txt"), "");
  expect(() => new JobFolder(own, { task: "a" })).toThrow(/got one without job\.json/);
  expect(existsSync(join(own, "mine.txt"))).toBe(true);
});

test("where its state cannot be written at the end, what ended it is told, and the lock goes", () => {
  const path = join(temporaryFolder(), "out.job");
  const ended = () => {
    using job = new JobFolder(path, { task: "a" });
    rmSync(job.at("job.json"));
    mkdirSync(job.at("job.json", "in the way"), { recursive: true });
    throw new FileError("states", "wanted room, got no more.");
  };
  expect(ended).toThrow(FileError); // not a SuppressedError
  rmSync(join(path, "job.json"), { recursive: true });
  using again = new JobFolder(path, { task: "a" });
  expect(again.isNew).toBe(true);
});
