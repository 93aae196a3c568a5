import { existsSync, mkdirSync, readdirSync, utimesSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, onTestFinished, test, vi } from "vitest";
import { temporaryFolder } from "../../test/support/models.ts";
import { FileError } from "../errors.ts";
import type { BundleManifest } from "../manifest.ts";
import { openEntry } from "./cacheEntries.ts";

const bundle = { hash: "0".repeat(64), manifest: { files: {} } as BundleManifest, verify: async () => {} };

function systemError(code: string): Error {
  return Object.assign(new Error(code), { code });
}

/** Warnings of the process, instead of on stderr. */
function warnings(): unknown[] {
  const said = vi.spyOn(process, "emitWarning").mockImplementation(() => {});
  onTestFinished(() => said.mockRestore());
  return said.mock.calls;
}

test("of a folder that holds other things too, only entries go", async () => {
  const root = temporaryFolder();
  const old = new Date(Date.now() - 3_600_000);
  const others = [join(root, "photos/2024"), join(root, "1".repeat(32), "notes")];
  const entry = async (name: string) =>
    (await openEntry(bundle, name, { root, maxBytes: 1 }, buildBeside("/none"))).folder;
  for (const folder of others) {
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "a.jpg"), "mine");
    utimesSync(folder, old, old);
  }
  const first = await entry("one");
  utimesSync(first, old, old);
  utimesSync(join(first, "model.gguf"), old, old);
  const second = await entry("two");
  expect([first, second, ...others].map((path) => existsSync(path))).toEqual([false, true, true, true]);
});

/** Fills an entry, unless it is in a folder whose disk is full. */
const buildBeside = (full: string) => async (folder: string) => {
  writeFileSync(join(folder, "half.gguf"), "half");
  if (folder.startsWith(full)) throw systemError("ENOSPC");
  writeFileSync(join(folder, "model.gguf"), "weights");
};

test.each([
  ["full", temporaryFolder],
  ["not to be written", () => "/sys/ifprune"],
])("a cache that is %s gives way to a folder of this process, said once", async (_, rootOf) => {
  const root = rootOf();
  const said = warnings();
  const build = buildBeside(root);
  const first = await openEntry(bundle, "one", { root }, build);
  expect(first).toEqual({ folder: expect.stringMatching(/one$/), cached: false });
  expect(readdirSync(first.folder)).toContain("model.gguf");
  expect(await openEntry(bundle, "one", { root }, build)).toEqual({ ...first, cached: true });
  await openEntry(bundle, "two", { root }, build);
  expect(said).toEqual([
    [expect.stringMatching(/^sub-network cache: wanted to write to .+, got (ENOSPC|EPERM|EACCES|EROFS)\./)],
  ]);
  const left = existsSync(root) ? readdirSync(root, { recursive: true }) : [];
  expect(left.filter((name) => String(name).endsWith(".gguf"))).toEqual([]);
});

test("a folder of this process goes when it ends", async () => {
  warnings();
  const { folder } = await openEntry(bundle, "one", { root: "/sys/ifprune-of-its-own" }, buildBeside("/nowhere"));
  const listeners = process.listeners("exit") as (() => void)[];
  listeners.at(-1)!();
  expect(existsSync(dirname(dirname(folder)))).toBe(false);
});

test("no room anywhere is said, with what to do", async () => {
  warnings();
  const opening = openEntry(bundle, "none", { root: temporaryFolder() }, buildBeside("/"));
  await expect(opening).rejects.toThrow(FileError);
  await expect(opening).rejects.toThrow(
    /wanted room for a sub-network, got ENOSPC, and ENOSPC in .+\. Make room in one\./,
  );
});

test("what is not the system's refusal is thrown as it is", async () => {
  const root = temporaryFolder();
  await expect(openEntry(bundle, "bad", { root }, () => Promise.reject(new Error("internal")))).rejects.toThrow(
    /^internal$/,
  );
  expect(readdirSync(join(root, "0".repeat(32)))).toEqual([]);
});

test("a thread that has no folder of its own throws what the cache refuses, and leaves nothing", async () => {
  vi.resetModules(); // another thread's state
  const { openEntry: open, withoutOwnFolder } = await import("./cacheEntries.ts");
  withoutOwnFolder();
  const [root, temporary] = [temporaryFolder(), temporaryFolder()];
  vi.stubEnv("TMPDIR", temporary);
  onTestFinished(() => void vi.unstubAllEnvs());
  await expect(open(bundle, "apart", { root }, buildBeside(root))).rejects.toThrow("ENOSPC");
  expect(readdirSync(temporary)).toEqual([]);
});
