/**
 * Preloaded into a process under test (`--import`): counts its writing file-system calls under the folder `KILL_UNDER`, and kills
 * the process inside call number `KILL_AT` as `kill -9` would, with a write half done; with `KILL_BY=SIGINT` it gets that as if by Ctrl-C, and
 * goes on; with `KILL_BY=ENOSPC` that call and all later ones that take room fail as on a full disk; with `KILL_BY=parent` the parent is told by a byte on descriptor 3, and kills it a little later. Without `KILL_AT`, or when the process ends before, all calls are reported to the file `KILL_REPORT` as JSON: [call, path][].
 */
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";

const under = process.env.KILL_UNDER!;
const killAt = Number(process.env.KILL_AT ?? Number.POSITIVE_INFINITY);
const report = process.env.KILL_REPORT;
const signal = process.env.KILL_BY ?? "SIGKILL";

/** Calls that a full disk allows. */
const freeing = ["ftruncateSync", "renameSync", "rmSync", "unlinkSync"];

const calls: [name: string, path: string][] = [];
const pathOf = new Map<number, string>();

/** Sends the signal in its call. @returns whether the process is to die there, which it does by {@link die} */
function count(name: string, file: unknown): boolean {
  const path = typeof file === "number" ? pathOf.get(file) : String(file);
  if (!path?.startsWith(under)) return false;
  calls.push([name, path]);
  if (signal === "ENOSPC" && calls.length >= killAt && !freeing.includes(name))
    throw Object.assign(new Error(`ENOSPC: no space left on device, ${name} '${path}'`), { code: "ENOSPC" });
  if (calls.length !== killAt || signal === "ENOSPC") return false;
  if (signal === "SIGKILL") return true;
  if (signal === "parent") {
    writeSync(3, ".");
    return false;
  }
  process.kill(process.pid, signal);
  return false;
}

function die(): never {
  process.kill(process.pid, "SIGKILL");
  throw new Error("internal: SIGKILL returned");
}

const { openSync, writeSync, writeFileSync } = fs;
fs.openSync = (path, ...rest) => {
  const descriptor = openSync(path, ...rest);
  pathOf.set(descriptor, String(path));
  return descriptor;
};
fs.writeSync = ((descriptor: number, data: Uint8Array, ...rest: []) => {
  if (count("writeSync", descriptor)) {
    writeSync(descriptor, data.subarray(0, data.length >> 1));
    die();
  }
  return writeSync(descriptor, data, ...rest);
}) as typeof fs.writeSync;
fs.writeFileSync = (file, data, ...rest) => {
  if (count("writeFileSync", file)) {
    const bytes = Buffer.from(data as string);
    writeFileSync(file, bytes.subarray(0, bytes.length >> 1));
    die();
  }
  writeFileSync(file, data, ...rest);
};
const { writeFile, open } = fs.promises;
fs.promises.writeFile = (async (file, data, ...rest) => {
  if (count("writeFile", file)) {
    const bytes = Buffer.from(data as string);
    writeFileSync(file as string, bytes.subarray(0, bytes.length >> 1));
    die();
  }
  return writeFile(file, data, ...rest);
}) as typeof writeFile;
fs.promises.open = (async (path, ...rest) => {
  const handle = await open(path, ...rest);
  const sync = handle.sync.bind(handle);
  const write = handle.write.bind(handle) as (bytes: Uint8Array, ...rest: unknown[]) => ReturnType<typeof handle.write>;
  Object.assign(handle, {
    async write(bytes: Uint8Array, offset = 0, length = bytes.length - offset, ...position: unknown[]) {
      if (count("write", path)) {
        await write(bytes, offset, length >> 1, ...position);
        die();
      }
      return write(bytes, offset, length, ...position);
    },
  });
  handle.sync = async () => {
    if (count("sync", path)) die();
    return sync();
  };
  return handle;
}) as typeof open;
for (const name of [
  "fsyncSync",
  "ftruncateSync",
  "linkSync",
  "mkdirSync",
  "renameSync",
  "rmSync",
  "symlinkSync",
  "unlinkSync",
] as const) {
  const call = fs[name] as (...args: unknown[]) => unknown;
  Object.assign(fs, {
    [name]: (...args: unknown[]) => {
      if (count(name, args[name.endsWith("linkSync") && name !== "unlinkSync" ? 1 : 0])) die();
      return call(...args);
    },
  });
}
syncBuiltinESMExports();

if (report) process.on("exit", () => writeFileSync(report, JSON.stringify(calls)));
