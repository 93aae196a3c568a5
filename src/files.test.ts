import { spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  closeSync,
  existsSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { hostname } from "node:os";
import { basename, join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { expect, test } from "vitest";
import { temporaryFolder } from "../test/support/models.ts";
import { FileError, MemoryError } from "./errors.ts";
import {
  checkNewFolder,
  checkWithin,
  makeFile,
  makeFolder,
  makeFolders,
  ReadableFile,
  removePartials,
  writeWhole,
  writing,
} from "./files.ts";
import { ownTag } from "./processes.ts";

test("a file that was closed is neither read nor closed again, whoever has its descriptor by then", () => {
  const path = join(temporaryFolder(), "own.bin");
  writeFileSync(path, "own");
  const own = new ReadableFile(path);
  own[Symbol.dispose]();
  const others = openSync(path, "r"); // the number that was free
  try {
    expect(() => own.read(0, 3, "a tensor")).toThrow(
      /wanted a tensor of a model that is open, got one that was disposed/,
    );
    own[Symbol.dispose]();
    expect(fstatSync(others).size).toBe(3);
  } finally {
    closeSync(others);
  }
});

test("a new folder has a name, and nothing in its place, not even a link that leads nowhere", () => {
  const link = join(temporaryFolder(), "link");
  symlinkSync("nowhere", link);
  expect(() => checkNewFolder("", "test")).toThrow(/^test: wanted the name of a new folder, got an empty one\./);
  expect(() => checkNewFolder(link, "test")).toThrow(/which exists/);
});

test("a text is written whole or not at all, through a link, and into what is no file", () => {
  const folder = temporaryFolder();
  const [path, link] = [join(folder, "out"), join(folder, "link")];
  writeFileSync(path, "before");
  symlinkSync("out", link);
  writeWhole(link, "after");
  expect([lstatSync(link).isSymbolicLink(), readFileSync(path, "utf8"), readdirSync(folder)]).toEqual([
    true,
    "after",
    ["link", "out"],
  ]);
  writeWhole("/dev/null", "gone");
  expect(statSync("/dev/null").isFile()).toBe(false);
});

test("more than a buffer can hold is a MemoryError", () => {
  const path = join(temporaryFolder(), "x.bin");
  writeFileSync(path, "");
  truncateSync(path, 2 ** 43);
  using file = new ReadableFile(path);
  expect(() => file.read(0, file.size, "tensor")).toThrow(MemoryError);
});

test.skipIf(!existsSync("/dev/full"))(
  "a folder that the disk has no room for is a FileError, and nothing of it is left",
  async () => {
    const parent = temporaryFolder();
    const making = makeFolder(join(parent, "out"), "import", async (partial) => {
      writeFileSync(join(partial, "small"), "x");
      writeFileSync("/dev/full", "x"); // fails as on a full disk
    });
    await expect(making).rejects.toThrow(FileError);
    await expect(making).rejects.toThrow(/wanted room on its disk/);
    expect(readdirSync(parent)).toEqual([]);
  },
);

test.each([
  ["ENOSPC", /wanted room on its disk, got no more\. Make room\. Kept\./],
  ["EDQUOT", /got no more than the user's quota\. Make room, or have it raised\. Kept\./],
  ["EROFS", /wanted a disk that can be written, got a read-only one\. Choose another place\. Kept\./],
  ["EACCES", /wanted to write it, got EACCES\. Kept\./],
])("%s is a FileError that says what to do", (code, words) => {
  const write = () => {
    throw Object.assign(new Error("refused"), { code, syscall: "write" });
  };
  expect(() => writing("a", write, "Kept.")).toThrow(FileError);
  expect(() => writing("a", write, "Kept.")).toThrow(words);
});

test("folders that another thread makes at the same time are there for both", async () => {
  const folder = temporaryFolder();
  const start = new Int32Array(new SharedArrayBuffer(4));
  const code = `
    const { workerData: { url, folder, start, name }, parentPort } = require("node:worker_threads");
    import("tsx/esm/api").then(({ register }) => register()).then(() => import(url)).then(({ makeFolders }) => {
      parentPort.postMessage("ready");
      Atomics.wait(start, 0, 0);
      for (let i = 0; i < 300; i++) makeFolders(folder + "/" + i + "/a/b/" + name);
      parentPort.close();
    });`;
  const url = new URL("./files.ts", import.meta.url).href;
  const workers = ["one", "two"].map(
    (name) => new Worker(code, { eval: true, workerData: { url, folder, start, name } }),
  );
  await Promise.all(workers.map((worker) => once(worker, "message")));
  const ended = Promise.all(workers.map((worker) => once(worker, "exit")));
  Atomics.store(start, 0, 1);
  Atomics.notify(start, 0);
  await ended;
  expect(readdirSync(join(folder, "299/a/b")).sort()).toEqual(["one", "two"]);
});

test("folders that the system refuses are refused, where Node's own recursion spins for ever", () => {
  const folder = temporaryFolder();
  makeFolders(join(folder, "a/b/c/"));
  makeFolders(join(folder, "a/b"));
  expect(readdirSync(folder, { recursive: true }).sort()).toEqual(["a", "a/b", "a/b/c"].sort());
  if (existsSync("/proc/self")) expect(() => makeFolders("/proc/of/ifprune")).toThrow(/got ENOENT/);
  writeFileSync(join(folder, "file"), "");
  for (const path of ["file", "file/a"]) expect(() => makeFolders(join(folder, path))).toThrow(FileError);
});

test("what dead processes left half-written goes before the same is written again; what living ones write stays", async () => {
  const parent = temporaryFolder();
  const { pid } = spawnSync(process.execPath, ["--version"]);
  const left = `out.partial-${pid}-1-${hostname()}`;
  const kept = [
    `out.partial-${ownTag()}-not`, // of another host
    `out.partial-${pid}-1-not-${hostname()}`,
    `other.partial-${pid}-1-${hostname()}`, // something else, which may be written by what names it so
    `out.partial-${pid}`, // someone else's name
  ];
  for (const name of [left, ...kept]) mkdirSync(join(parent, name));
  for (const [i, name] of kept.entries()) utimesSync(join(parent, name), i % 2 === 0 ? 0 : 4e9, i % 2 === 0 ? 0 : 4e9);
  await makeFolder(join(parent, "out"), "test", async (partial) => {
    const own = basename(partial);
    expect(own.endsWith(`.partial-${ownTag()}`)).toBe(true);
    utimesSync(join(parent, own), 0, 0); // a clock that is wrong
    removePartials(parent, "out.");
    expect(readdirSync(parent).sort()).toEqual([...kept, own].sort());
  });
  expect(readdirSync(parent).sort()).toEqual([...kept, "out"].sort());
});

test("of two that make the same folder at a time one makes it, and the other is refused", async () => {
  const parent = temporaryFolder();
  const making = ["a", "b"].map((text) =>
    makeFolder(join(parent, "out"), "test", async (partial) => {
      writeFileSync(join(partial, "text"), text);
      await wait(20);
      writeFileSync(join(partial, "more"), text);
    }),
  );
  const [first, second] = await Promise.allSettled(making);
  expect([first!.status, second!.status]).toEqual(["fulfilled", "rejected"]);
  expect(readdirSync(parent)).toEqual(["out"]);
  for (const name of ["text", "more"]) expect(readFileSync(join(parent, "out", name), "utf8")).toBe("a");
});

test("a file is replaced whole, not what a link in its place leads to", () => {
  const folder = temporaryFolder();
  const [path, other] = [join(folder, "path"), join(folder, "other")];
  writeFileSync(other, "kept");
  symlinkSync(other, path);
  const half = () =>
    makeFile(path, (partial) => {
      writeFileSync(partial, "ha");
      throw new Error("stopped");
    });
  expect(half).toThrow("stopped");
  makeFile(path, (partial) => writeFileSync(partial, "whole"));
  expect([path, other].map((one) => readFileSync(one, "utf8"))).toEqual(["whole", "kept"]);
  expect(readdirSync(folder).sort()).toEqual(["other", "path"]);
});

test("a link out of a folder is refused, one within it is not", () => {
  const [folder, outside] = [temporaryFolder(), join(temporaryFolder(), "secret")];
  writeFileSync(outside, "secret");
  writeFileSync(join(folder, "blob"), "");
  symlinkSync("blob", join(folder, "in"));
  symlinkSync(outside, join(folder, "out"));
  symlinkSync("nowhere", join(folder, "dangling"));
  for (const name of ["in", "blob", "dangling", "absent"]) checkWithin(join(folder, name), folder);
  expect(() => checkWithin(join(folder, "out"), folder)).toThrow(/got a link to elsewhere/);
});
