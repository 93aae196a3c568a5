import { readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { temporaryFolder } from "../../test/support/models.ts";
import { FileError } from "../errors.ts";
import {
  arrayLength,
  encodeHeader,
  GgufFile,
  type GgufMetadata,
  type GgufTensor,
  type GgufValue,
  writeGguf,
} from "./gguf.ts";

const metadata: GgufMetadata = new Map([
  ["general.architecture", { type: "string", value: "llama" }],
  ["u8", { type: "uint8", value: 255 }],
  ["i8", { type: "int8", value: -128 }],
  ["u16", { type: "uint16", value: 65535 }],
  ["i16", { type: "int16", value: -3 }],
  ["u32", { type: "uint32", value: 4294967295 }],
  ["i32", { type: "int32", value: -7 }],
  ["f32", { type: "float32", value: 0.5 }],
  ["f64", { type: "float64", value: Math.PI }],
  ["yes", { type: "bool", value: true }],
  ["u64", { type: "uint64", value: 2n ** 64n - 1n }],
  ["i64", { type: "int64", value: -1n }],
  ["tokens", { type: "array", of: "string", value: ["a", "", "ü🙂"] }],
  ["scores", { type: "array", of: "float32", value: [1, -2] }],
  ["__proto__", { type: "string", value: "a key like any other" }],
]);
const tensors: GgufTensor[] = [
  { name: "a", type: "F32", shape: [2, 3] },
  { name: "b", type: "Q8_0", shape: [2, 32] },
  { name: "c", type: "I8", shape: [5] },
  { name: "d", type: "F16", shape: [3] },
  { name: "e", type: "Q6_K", shape: [1, 256] },
];
const bytesOf = [24, 68, 5, 6, 210].map((length, i) => new Uint8Array(length).fill(i + 1));

async function sample(): Promise<string> {
  const path = join(temporaryFolder(), "x.gguf");
  await writeGguf(path, metadata, tensors, bytesOf);
  return path;
}

test("what is written is read back: every value type, every tensor type, aligned", async () => {
  using file = new GgufFile(await sample());
  expect(file.metadata).toEqual(metadata);
  expect([...file.tensors.values()].map(({ name, type, shape }) => ({ name, type, shape }))).toEqual(tensors);
  for (const [i, { name }] of tensors.entries()) {
    const tensor = file.tensor(name);
    expect(tensor.start % 32).toBe(0);
    const bytes = new Uint8Array(tensor.bytes);
    file.readInto(bytes, tensor, 0);
    expect(bytes).toEqual(bytesOf[i]);
  }
});

test("a vocabulary that is written on is the same, whether its texts were made or not", async () => {
  const path = await sample();
  using file = new GgufFile(path);
  const tokens = file.metadata.get("tokens") as GgufValue & { type: "array" };
  const header = encodeHeader(file.metadata, tensors);
  expect(readFileSync(path).subarray(0, header.length).equals(header)).toBe(true);
  expect([arrayLength(tokens), tokens.value.length]).toEqual([3, 3]);
  const changed: GgufMetadata = new Map([["tokens", { ...tokens, value: ["b"] }]]);
  const wanted: GgufMetadata = new Map([["tokens", { type: "array", of: "string", value: ["b"] }]]);
  expect(encodeHeader(changed, [])).toEqual(encodeHeader(wanted, []));
});

test("tensors may come in pieces", async () => {
  const [whole, pieces] = [await sample(), join(temporaryFolder(), "pieces.gguf")];
  await writeGguf(
    pieces,
    metadata,
    tensors,
    bytesOf.flatMap((bytes) => [bytes.subarray(0, 1), bytes.subarray(1, 4), bytes.subarray(4)]),
  );
  expect(readFileSync(pieces)).toEqual(readFileSync(whole));
});

test.each([
  ["too few bytes", [...bytesOf.slice(0, 4), bytesOf[4]!.subarray(1)], /"e" lacks 1 bytes/],
  ["too few tensors", bytesOf.slice(0, 4), /"e" lacks 210 bytes/],
  ["too many bytes", [new Uint8Array(25), ...bytesOf.slice(1)], /25 bytes for "a"/],
  [
    "a piece of two tensors",
    [new Uint8Array(20), new Uint8Array(10), ...bytesOf.slice(1)],
    /10 bytes for "a", of which 4/,
  ],
  ["too many tensors", [...bytesOf, new Uint8Array(1)], /1 bytes for "undefined"/],
])("%s are an error of ours", async (_, data, message) => {
  await expect(writeGguf(join(temporaryFolder(), "x.gguf"), metadata, tensors, data)).rejects.toThrow(message);
});

test("another alignment is read", () => {
  const path = join(temporaryFolder(), "x.gguf");
  const head = header(0x46554747, 3, 1n, 1n, "general.alignment", 4, 64, "a", 1, 2n, 0, 0n);
  writeFileSync(path, Buffer.concat([head, Buffer.alloc(64 - (head.length % 64)), Buffer.alloc(8, 7)]));
  using file = new GgufFile(path);
  expect(file.tensor("a").start % 64).toBe(0);
});

test("ggml's other types are named", () => {
  const path = join(temporaryFolder(), "x.gguf");
  for (const [id, name] of [
    [10, "Q2_K"],
    [23, "IQ4_XS"],
    [39, "MXFP4"],
    [99, "number 99"],
  ] as const) {
    writeFileSync(path, Buffer.concat([header(0x46554747, 3, 1n, 0n, "a", 1, 256n, id, 0n), Buffer.alloc(512)]));
    expect(() => new GgufFile(path)).toThrow(`got ${name}`);
  }
});

test("a sparse file of any size cannot make us read it all: header, arrays and counts have bounds", () => {
  const path = join(temporaryFolder(), "x.gguf");
  const giant = (...parts: Parameters<typeof header>) => {
    writeFileSync(path, header(0x46554747, 3, ...parts));
    truncateSync(path, 2 ** 34);
    return () => new GgufFile(path);
  };
  expect(giant(0n, 1n, "key", 9, 7, 10n ** 9n)).toThrow(/wanted at most 8388608, got 1000000000/);
  expect(giant(0n, 2n ** 31n)).toThrow(/metadata count: wanted at most/);
  expect(giant(2n ** 28n, 0n)).toThrow(/tensor count: wanted at most/);
  expect(giant(0n, 1n, "key", 8, 2n ** 33n)).toThrow(/wanted at most/);
});

test("a header longer than one read is read whole", async () => {
  const path = join(temporaryFolder(), "x.gguf");
  const value = Array.from({ length: 30_000 }, (_, i) => `token ${i}`);
  await writeGguf(path, new Map([["tokens", { type: "array", of: "string", value }]]), [], []);
  using file = new GgufFile(path);
  expect(file.metadata.get("tokens")!.value).toEqual(value);
});

test("metadata of another type than asked for, and absent tensors, are named", async () => {
  using file = new GgufFile(await sample());
  expect(() => file.number("general.architecture")).toThrow(/metadata "general.architecture": wanted a number/);
  expect(() => file.string("absent")).toThrow(/metadata "absent": wanted a string/);
  expect(() => file.tensor("z")).toThrow(/wanted tensor "z"/);
});

/** Bytes of a header, part by part: numbers are 32-bit, bigints 64-bit, strings have their length before them. */
function header(...parts: (number | bigint | string)[]): Buffer {
  return Buffer.concat(
    parts.map((part) => {
      if (typeof part === "string") return Buffer.concat([header(BigInt(Buffer.byteLength(part))), Buffer.from(part)]);
      const bytes = Buffer.alloc(typeof part === "number" ? 4 : 8);
      if (typeof part === "number") bytes.writeUInt32LE(part);
      else bytes.writeBigUInt64LE(part);
      return bytes;
    }),
  );
}

describe("refuses hostile files with a typed error:", () => {
  const magic = 0x46554747;
  const padding = Buffer.alloc(256);
  const tensor = (name: string, offset: bigint, size = 4n) => [name, 1, size, 0, offset] as const;
  test.each<[string, Buffer]>([
    ["empty", Buffer.alloc(0)],
    ["other magic", Buffer.from("GGML0000")],
    ["unknown version", header(magic, 4, 0n, 0n)],
    ["big-endian", header(magic, 0x03000000, 0n, 0n)],
    ["absurd tensor count", header(magic, 3, 2n ** 62n, 0n)],
    ["absurd metadata count", header(magic, 3, 0n, 2n ** 40n)],
    ["string longer than the file", header(magic, 3, 0n, 1n, 1_000_000n)],
    ["string length beyond 2^63", header(magic, 3, 0n, 1n, 2n ** 64n - 1n, 0n)],
    ["unknown value type", header(magic, 3, 0n, 1n, "key", 13, 0n)],
    ["array of arrays", header(magic, 3, 0n, 1n, "key", 9, 9, 0n)],
    ["array longer than the file", header(magic, 3, 0n, 1n, "key", 9, 4, 2n ** 33n)],
    ["one key twice", header(magic, 3, 0n, 2n, "key", 4, 1, "key", 4, 2)],
    ["array longer than 2^63", header(magic, 3, 0n, 1n, "key", 9, 4, 2n ** 64n - 1n)],
    ["odd alignment", header(magic, 3, 0n, 1n, "general.alignment", 4, 33)],
    ["dimensions that wrap round 2^64", header(magic, 3, 1n, 0n, "a", 2, 2n ** 63n, 2n, 0, 0n)],
    ["alignment 0", header(magic, 3, 0n, 1n, "general.alignment", 4, 0)],
    ["alignment that is no number", header(magic, 3, 0n, 1n, "general.alignment", 8, "x")],
    ["no dimensions", header(magic, 3, 1n, 0n, "a", 0, 0, 0n)],
    ["five dimensions", header(magic, 3, 1n, 0n, "a", 5, 1n, 1n, 1n, 1n, 1n, 0, 0n)],
    ["unknown tensor type", header(magic, 3, 1n, 0n, "a", 1, 4n, 99, 0n)],
    ["rows of part blocks", header(magic, 3, 1n, 0n, "a", 1, 33n, 8, 0n)],
    ["tensor larger than the file", header(magic, 3, 1n, 0n, ...tensor("a", 0n, 1000n))],
    ["dimensions that overflow together", header(magic, 3, 1n, 0n, "a", 4, 200n, 200n, 200n, 200n, 0, 0n)],
    ["offset beyond the file", header(magic, 3, 1n, 0n, ...tensor("a", 1024n))],
    ["offset that is not aligned", header(magic, 3, 1n, 0n, ...tensor("a", 4n))],
    ["overlapping tensors", header(magic, 3, 2n, 0n, ...tensor("a", 0n, 16n), ...tensor("b", 32n))],
    ["one tensor twice", header(magic, 3, 2n, 0n, ...tensor("a", 0n), ...tensor("a", 32n))],
    ["name too long for llama.cpp", header(magic, 3, 1n, 0n, ...tensor("a".repeat(64), 0n))],
  ])("%s", (_, bytes) => {
    const path = join(temporaryFolder(), "x.gguf");
    writeFileSync(path, Buffer.concat([bytes, padding]));
    expect(() => new GgufFile(path)).toThrow(FileError);
  });

  test("truncation anywhere", async () => {
    const bytes = readFileSync(await sample());
    const path = join(temporaryFolder(), "x.gguf");
    const end = bytes.length - 14; // the last tensor's end: what follows is padding
    for (let length = 0; length < end; length += 7) {
      writeFileSync(path, bytes.subarray(0, length));
      expect(() => new GgufFile(path)).toThrow(FileError);
    }
  });

  test("random damage is refused or changes values only (seed 4)", async () => {
    const original = readFileSync(await sample());
    const path = join(temporaryFolder(), "x.gguf");
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat({ max: original.length - 1 }), fc.nat({ max: 255 })), { minLength: 1, maxLength: 4 }),
        (damage) => {
          const bytes = Buffer.from(original);
          for (const [at, byte] of damage) bytes[at] = byte;
          writeFileSync(path, bytes);
          try {
            new GgufFile(path)[Symbol.dispose]();
          } catch (error) {
            expect(error).toBeInstanceOf(FileError);
          }
        },
      ),
      { seed: 4, numRuns: 500 },
    );
  });
});
