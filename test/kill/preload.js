/**
 * Preloaded into a process under test (`--import`): counts its writing file-system calls under the folder `KILL_UNDER`, and kills
 * the process inside call number `KILL_AT` as `kill -9` would, with a write half done; with `KILL_BY=SIGINT` it gets that as if by Ctrl-C, and
 * goes on; with `KILL_BY=ENOSPC` that call and all later ones that take room fail as on a full disk; with `KILL_BY=parent` the parent is told by a byte on descriptor 3, and kills it a little later. Without `KILL_AT`, or when the process ends before, all calls are reported to the file `KILL_REPORT` as JSON: [call, path][].
 *
 * In JavaScript, as the command line starts in half the time without what runs TypeScript.
 */
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";

const under = process.env.KILL_UNDER;
const killAt = Number(process.env.KILL_AT ?? Number.POSITIVE_INFINITY);
const report = process.env.KILL_REPORT;
const signal = process.env.KILL_BY ?? "SIGKILL";

/** Calls that a full disk allows. */
const freeing = ["ftruncateSync", "renameSync", "rmSync", "unlinkSync"];

/** @type {[name: string, path: string][]} */
const calls = [];
/** @type {Map<number, string>} */
const pathOf = new Map();

/** Sends the signal in its call. @returns whether the process is to die there, which it does by {@link die} */
function count(name, file) {
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

function die() {
  process.kill(process.pid, "SIGKILL");
  throw new Error("internal: SIGKILL returned");
}

const { openSync, writeSync, writeFileSync } = fs;
fs.openSync = (path, ...rest) => {
  const descriptor = openSync(path, ...rest);
  pathOf.set(descriptor, String(path));
  return descriptor;
};
fs.writeSync = (descriptor, data, ...rest) => {
  if (count("writeSync", descriptor)) {
    writeSync(descriptor, data.subarray(0, data.length >> 1));
    die();
  }
  return writeSync(descriptor, data, ...rest);
};
fs.writeFileSync = (file, data, ...rest) => {
  if (count("writeFileSync", file)) {
    const bytes = Buffer.from(data);
    writeFileSync(file, bytes.subarray(0, bytes.length >> 1));
    die();
  }
  writeFileSync(file, data, ...rest);
};
const { writeFile, open } = fs.promises;
fs.promises.writeFile = async (file, data, ...rest) => {
  if (count("writeFile", file)) {
    const bytes = Buffer.from(data);
    writeFileSync(file, bytes.subarray(0, bytes.length >> 1));
    die();
  }
  return writeFile(file, data, ...rest);
};
fs.promises.open = async (path, ...rest) => {
  const handle = await open(path, ...rest);
  const write = handle.write.bind(handle);
  handle.write = async (data, offset = 0, length = data.length - offset, ...position) => {
    if (count("write", path)) {
      await write(data, offset, length >> 1, ...position);
      die();
    }
    return write(data, offset, length, ...position);
  };
  return handle;
};
for (const name of [
  "fsyncSync",
  "ftruncateSync",
  "linkSync",
  "mkdirSync",
  "renameSync",
  "rmSync",
  "symlinkSync",
  "unlinkSync",
]) {
  const call = fs[name];
  fs[name] = (...args) => {
    if (count(name, args[name.endsWith("linkSync") && name !== "unlinkSync" ? 1 : 0])) die();
    return call(...args);
  };
}
syncBuiltinESMExports();

if (report) process.on("exit", () => writeFileSync(report, JSON.stringify(calls)));
