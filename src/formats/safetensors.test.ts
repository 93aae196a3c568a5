import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { fixtures, temporaryFolder } from "../../test/support/models.ts";
import { FileError } from "../errors.ts";
import type { Weights } from "../model/config.ts";
import { readSafetensors, SafetensorsFile, writeSafetensors } from "./safetensors.ts";

/** A file of a given header and so many bytes of data. */
function fileOf(header: string | object, dataBytes: number, headerBytes?: number): string {
  const json = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(headerBytes ?? json.length));
  const path = join(temporaryFolder(), "x.safetensors");
  writeFileSync(path, Buffer.concat([length, json, Buffer.alloc(dataBytes, 1)]));
  return path;
}

const f32 = (shape: number[], start: number, end: number) => ({ dtype: "F32", shape, data_offsets: [start, end] });

test("reads what an independent writer wrote", () => {
  const weights = readSafetensors(join(fixtures, "golden/llama/model.safetensors"));
  expect(weights.size).toBe(21);
  expect(weights.get("model.layers.1.mlp.down_proj.weight")!.shape).toEqual([32, 48]);
});

test("what is written is read back bit for bit, names of any kind included (seed 2)", () => {
  const tensor = fc.float32Array({ maxLength: 8 }).map((data) => ({ shape: [data.length], data }));
  const path = join(temporaryFolder(), "x.safetensors");
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.tuple(fc.string(), tensor), { selector: ([name]) => name, maxLength: 5 }),
      (entries) => {
        const weights: Weights = new Map(entries.filter(([name]) => !/^__(metadata|proto)__$/.test(name)));
        writeSafetensors(path, weights);
        const back = readSafetensors(path);
        expect([...back.keys()].sort()).toEqual([...weights.keys()].sort());
        for (const [name, { data }] of weights)
          expect(Buffer.from(back.get(name)!.data.buffer)).toEqual(Buffer.from(data.slice().buffer));
      },
    ),
    { seed: 2, numRuns: 50 },
  );
});

test("the header is 8-byte aligned and says that the tensors are PyTorch's", () => {
  const path = join(temporaryFolder(), "x.safetensors");
  writeSafetensors(path, new Map([["a", { shape: [1], data: Float32Array.of(1) }]]));
  const bytes = readFileSync(path);
  expect(bytes.readBigUInt64LE() % 8n).toBe(0n);
  expect(bytes.toString("utf8", 8)).toContain('"__metadata__":{"format":"pt"}');
});

test("F16 and BF16 become float32, other types are refused by name", () => {
  const path = fileOf(
    { h: { dtype: "F16", shape: [2], data_offsets: [0, 4] }, i: { dtype: "I64", shape: [1], data_offsets: [4, 12] } },
    12,
  );
  using file = new SafetensorsFile(path);
  expect([...file.read("h").data]).toEqual([0x101 * 2 ** -24, 0x101 * 2 ** -24]);
  expect(() => file.read("i")).toThrow(/tensor "i": wanted type F32, F16, BF16, got I64/);
  expect(() => file.read("j")).toThrow(/wanted tensor "j"/);
});

test("rows are read alone", () => {
  const path = join(temporaryFolder(), "x.safetensors");
  const data = Float32Array.from({ length: 24 }, (_, i) => i);
  writeSafetensors(path, new Map([["a", { shape: [4, 3, 2], data }]]));
  using file = new SafetensorsFile(path);
  expect(file.read("a", { from: 1, to: 3 })).toEqual({ shape: [2, 3, 2], data: data.subarray(6, 18) });
  expect(() => file.read("a", { from: 1, to: 5 })).toThrow(/internal: rows 1..5/);
});

test("names with quotes, backslashes and colons are counted as one key each", () => {
  const weights: Weights = new Map(
    ['a":{"b', "c\\\\", "d:e", "{[", '\\"'].map((name) => [name, { shape: [1], data: Float32Array.of(1) }]),
  );
  const path = join(temporaryFolder(), "x.safetensors");
  writeSafetensors(path, weights);
  expect([...readSafetensors(path).keys()].sort()).toEqual([...weights.keys()].sort());
});

describe("refuses hostile files with a typed error:", () => {
  test.each<[string, () => string]>([
    ["missing file", () => join(temporaryFolder(), "none")],
    ["a folder", temporaryFolder],
    [
      "shorter than its length field",
      () => {
        const path = fileOf("", 0);
        writeFileSync(path, "abc");
        return path;
      },
    ],
    ["absurd header length", () => fileOf("{}", 0, 2 ** 52)],
    ["header beyond any model's", () => fileOf(`${" ".repeat(2 ** 24)}{}`, 0)],
    ["header longer than the file", () => fileOf("{}", 0, 1000)],
    ["header that is no JSON", () => fileOf("{", 0)],
    ["header that is no object", () => fileOf("[]", 0)],
    [
      "header that is not UTF-8",
      () => {
        const path = fileOf("{}", 0);
        writeFileSync(path, Buffer.from([2, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe]));
        return path;
      },
    ],
    ["truncated data", () => fileOf({ a: f32([2], 0, 8) }, 7)],
    ["bytes after the data", () => fileOf({ a: f32([2], 0, 8) }, 9)],
    ["shape that is not its bytes", () => fileOf({ a: f32([3], 0, 8) }, 8)],
    ["huge shape", () => fileOf({ a: f32([2 ** 40, 2 ** 40], 0, 8) }, 8)],
    ["negative dimension", () => fileOf({ a: f32([-2, -1], 0, 8) }, 8)],
    ["offsets backwards", () => fileOf({ a: f32([2], 8, 0) }, 8)],
    ["overlapping tensors", () => fileOf({ a: f32([2], 0, 8), b: f32([2], 4, 12) }, 12)],
    ["hole between tensors", () => fileOf({ a: f32([1], 0, 4), b: f32([1], 8, 12) }, 12)],
    [
      "one name twice",
      () => fileOf(`{"a":${JSON.stringify(f32([1], 0, 4))},"a":${JSON.stringify(f32([1], 4, 8))}}`, 8),
    ],
    [
      "one name twice, of one place",
      () => fileOf(`{"a":${JSON.stringify(f32([2], 0, 8))},"a":${JSON.stringify(f32([1, 2], 0, 8))}}`, 8),
    ],
    [
      "one key of a tensor twice, the first of them right",
      () => fileOf('{"a":{"dtype":"F32","shape":[2],"shape":[1,2],"data_offsets":[0,8]}}', 8),
    ],
    ["nesting without end", () => fileOf(`{"a":${"[".repeat(1e5)}${"]".repeat(1e5)}}`, 0)],
    ["a huge shape that holds nothing", () => fileOf({ a: f32([2 ** 52, 2 ** 52, 2 ** 52], 0, 0) }, 0)],
    ["__proto__ as a name", () => fileOf(`{"__proto__":${JSON.stringify(f32([1], 0, 4))}}`, 4)],
    ["__proto__ of a wrong form", () => fileOf('{"__proto__":{"x":1}}', 0)],
  ])("%s", (_, make) => expect(() => readSafetensors(make())).toThrow(FileError));

  test("random damage is refused or changes values only (seed 3)", () => {
    const original = readFileSync(join(fixtures, "golden/llama/model.safetensors"));
    const path = join(temporaryFolder(), "x.safetensors");
    fc.assert(
      fc.property(
        fc.nat({ max: 3000 }),
        fc.nat({ max: 255 }),
        fc.option(fc.nat({ max: original.length })),
        (at, byte, cut) => {
          const bytes = Buffer.from(original.subarray(0, cut ?? original.length));
          if (at < bytes.length) bytes[at] = byte;
          writeFileSync(path, bytes);
          try {
            readSafetensors(path);
          } catch (error) {
            expect(error).toBeInstanceOf(FileError);
          }
        },
      ),
      { seed: 3, numRuns: 200 },
    );
  });
});
