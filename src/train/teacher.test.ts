import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { forward } from "../../test/reference/decoder.ts";
import { difference, integers, quiet } from "../../test/support/graphs.ts";
import { randomModel, temporaryFolder } from "../../test/support/models.ts";
import { FileError } from "../errors.ts";
import { type TaughtRow, Teacher } from "./teacher.ts";

const disk = vi.hoisted(() => ({ isFull: false }));
vi.mock("../files.ts", async (original) => {
  const files = await original<typeof import("../files.ts")>();
  const writeFully: typeof files.writeFully = (...args) => {
    if (disk.isFull) throw Object.assign(new Error("no space left"), { code: "ENOSPC", syscall: "write" });
    files.writeFully(...args);
  };
  return { ...files, writeFully };
});

const T = 12;
const model = randomModel({ family: "llama" }, 1);
const { width: D, vocabSize } = model.config;
const rows: TaughtRow[] = [12, 3, 7, 12, 1, 9].map((length, i) => ({ ids: integers(`row ${i}`, length, vocabSize) }));
const all = Int32Array.from(rows.keys());

const open = (folder: string, { teacher = model, of = rows } = {}) =>
  new Teacher(teacher, of, { folder, sequenceLength: T, session: quiet });
/** States of rows; how many runs of the teacher it took does not show. */
async function statesOf(folder: string, places: Int32Array = all, changes = {}): Promise<Float32Array> {
  await using teacher = open(folder, changes);
  return await teacher.states(places);
}
const fileOf = (folder: string, name: string) => join(folder, readdirSync(folder)[0]!, name);

test("states are those after the final norm, to half precision; zero beyond a row's end", async () => {
  const folder = temporaryFolder();
  const states = await statesOf(folder);
  for (const [i, { ids }] of rows.entries()) {
    const own = states.subarray(i * T * D, (i + 1) * T * D);
    const expected = forward(model, ids).hidden.flatMap((row) => [...row]);
    expect(difference(own.subarray(0, ids.length * D), expected)).toBeLessThan(2 ** -10); // a half has 11 bits
    expect(own.subarray(ids.length * D).every((value) => value === 0)).toBe(true);
  }
  expect(statSync(fileOf(folder, "states")).size).toBe(rows.length * T * D * 2);
});

test("texts that share a row have the states that each has alone", async () => {
  const [one, other] = [rows[1]!.ids, rows[2]!.ids];
  const ids = Int32Array.of(...one, ...other);
  const starts = new Int32Array(ids.length).fill(one.length, one.length);
  const states = await statesOf(temporaryFolder(), Int32Array.of(0), {
    of: [{ ids, starts, shared: new Int32Array(ids.length) }],
  });
  const alone = await statesOf(temporaryFolder());
  const own = (row: number, { length }: Int32Array) => alone.subarray(row * T * D, (row * T + length) * D);
  expect(difference(states.subarray(0, ids.length * D), [...own(1, one), ...own(2, other)])).toBeLessThan(2 ** -10);
  const joint = await statesOf(temporaryFolder(), Int32Array.of(0), { of: [{ ids }] });
  expect(difference(joint, states)).toBeGreaterThan(0.1);
});

test("a row's states are the same whatever it is asked for with, and kept: not computed or written again", async () => {
  const folder = temporaryFolder();
  const few = await statesOf(folder, Int32Array.of(4, 1));
  const before = statSync(fileOf(folder, "checksums")).mtimeMs;
  expect(await statesOf(folder, Int32Array.of(4, 1))).toEqual(few);
  expect(statSync(fileOf(folder, "checksums")).mtimeMs).toBe(before);
  const whole = await statesOf(temporaryFolder());
  expect(few.subarray(0, T * D)).toEqual(whole.subarray(4 * T * D, 5 * T * D));
  expect(await statesOf(folder)).toEqual(whole);
});

test.each<[string, (states: Buffer, checksums: Buffer) => void]>([
  ["half-written", (states) => states.fill(0, 2.5 * T * D * 2)],
  ["altered in one bit", (states) => (states[3 * T * D * 2 + 5]! ^= 1)],
  ["without their checksums", (_, checksums) => checksums.fill(0)],
  ["with other checksums", (_, checksums) => checksums.fill(7)],
])("states that are %s are computed anew", async (_, damage) => {
  const folder = temporaryFolder();
  const sound = await statesOf(folder);
  const paths = ["states", "checksums"].map((name) => fileOf(folder, name));
  const [states, checksums] = paths.map((path) => readFileSync(path));
  const [soundStates, soundSums] = [Buffer.from(states!), Buffer.from(checksums!)];
  damage(states!, checksums!);
  writeFileSync(paths[0]!, states!);
  writeFileSync(paths[1]!, checksums!);
  expect(await statesOf(folder)).toEqual(sound);
  expect([readFileSync(paths[0]!), readFileSync(paths[1]!)]).toEqual([soundStates, soundSums]);
});

test("files cut short are filled up again", async () => {
  const folder = temporaryFolder();
  const sound = await statesOf(folder);
  for (const name of ["states", "checksums"]) {
    writeFileSync(fileOf(folder, name), readFileSync(fileOf(folder, name)).subarray(0, 6));
    expect(await statesOf(folder)).toEqual(sound);
  }
});

test("another teacher, other rows or another length use no states of these", async () => {
  const folder = temporaryFolder();
  const own = await statesOf(folder);
  const teacher = randomModel({ family: "llama" }, 2);
  expect(await statesOf(folder, all, { teacher })).not.toEqual(own);
  expect(await statesOf(folder, all, { of: rows.toReversed() })).not.toEqual(own);
  const parted = rows.map(({ ids }, i) => ({
    ids,
    ...(i === 0 && { starts: new Int32Array(12).fill(6, 6), shared: new Int32Array(12) }),
  }));
  expect(await statesOf(folder, all, { of: parted })).not.toEqual(own);
  expect(readdirSync(folder)).toHaveLength(4);
  expect(await statesOf(folder)).toEqual(own);
});

test("a full disk is a FileError that says what to do; what is asked for when there is room again is right", async () => {
  const folder = temporaryFolder();
  await using teacher = open(folder);
  disk.isFull = true;
  try {
    const failed = teacher.states(all);
    await expect(failed).rejects.toThrow(FileError);
    await expect(failed).rejects.toThrow(/wanted room on its disk, got no more\. Make room\. What is there stays/);
  } finally {
    disk.isFull = false;
  }
  const states = await teacher.states(all);
  expect(states).toEqual(await statesOf(temporaryFolder()));
});

test("a folder that cannot be made is a FileError", () => {
  const path = join(temporaryFolder(), "file");
  writeFileSync(path, "");
  expect(() => open(join(path, "states"))).toThrow(FileError);
  expect(() => open(join(path, "states"))).toThrow(/wanted to write it, got ENOTDIR/);
});

test("states that half precision does not hold are refused, and not kept", async () => {
  const folder = temporaryFolder();
  const weights = new Map(model.weights);
  const { shape, data } = weights.get("model.norm.weight")!;
  weights.set("model.norm.weight", { shape, data: data.map((gain) => gain * 1e6) });
  await using teacher = open(folder, { teacher: { ...model, weights } });
  await expect(teacher.states(Int32Array.of(0))).rejects.toThrow(
    /wanted hidden states below 65504, the largest of half precision/,
  );
  expect(readFileSync(fileOf(folder, "checksums")).every((byte) => byte === 0)).toBe(true);
});
