/**
 * Changes of valid files that make them hostile, as small plain data: fast-check draws them and, where a case fails, leaves out what is not needed. One file for
 * bytes, JSON and GGUF headers; a change of structure comes before one of bytes.
 */
import fc from "fast-check";
import type { GgufMetadata, GgufTensor, GgufValue } from "../../src/formats/gguf.ts";
import { tensorBytes, tensorTypes } from "../../src/formats/gguf.ts";

/** The content of a file; beyond its bytes it is sparse, up to `size`. */
export interface Content {
  bytes: Buffer;
  size: number;
}

/** Numbers at which readers go wrong: zero, signs, words that wrap round, what no file holds. */
const words = [0n, 1n, 2n, 3n, 7n, 8n, 31n, 33n, 63n, 64n, 255n, 256n, 4096n, 65_535n, 10n ** 6n, 10n ** 9n]
  .concat([2n ** 31n - 1n, 2n ** 31n, 2n ** 32n - 1n, 2n ** 32n, 2n ** 53n, 2n ** 61n, 2n ** 62n])
  .concat([2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 32n, 2n ** 64n - 1n]);
export const anyWord = fc.oneof(
  fc.constantFrom(...words),
  fc.bigInt({ min: 0n, max: 300n }),
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
);
export const anyText = fc.oneof(
  fc.constantFrom(
    "",
    "__proto__",
    "constructor",
    "toString",
    "../../etc/passwd",
    "/dev/zero",
    ".",
    "a/b",
    "\0",
    "\ud800",
  ),
  fc.constantFrom(
    "model.safetensors",
    "base.gguf",
    "tokenizer.json/x",
    "x".repeat(300),
    "x".repeat(70_000),
    "\u2581",
    "é🙂",
  ),
  fc.string({ maxLength: 8 }),
);

/** Where in a file: near the beginning more often than far in. */
const place = fc.oneof(fc.nat(32), fc.nat(2048), fc.nat(1 << 24));
const someBytes = fc.uint8Array({ minLength: 1, maxLength: 9 });
type ByteEdit =
  | ["put" | "insert", number, Uint8Array]
  | ["word", number, 4 | 8, bigint]
  | ["drop", number, number]
  | ["repeat", number, number, number]
  | ["cut", number]
  | ["size", number];
export const byteEdit: fc.Arbitrary<ByteEdit> = fc.oneof(
  { arbitrary: fc.tuple(fc.constantFrom("put", "insert"), place, someBytes), weight: 4 },
  { arbitrary: fc.tuple(fc.constant("word"), place, fc.constantFrom(4, 8), anyWord), weight: 4 },
  { arbitrary: fc.tuple(fc.constant("drop"), place, fc.nat(64)), weight: 2 },
  { arbitrary: fc.tuple(fc.constant("repeat"), place, fc.nat(64), fc.nat(200)), weight: 1 },
  { arbitrary: fc.tuple(fc.constant("cut"), place), weight: 2 },
  { arbitrary: fc.tuple(fc.constant("size"), fc.constantFrom(1, 100, 2 ** 20, 2 ** 32, 10 ** 10)), weight: 1 },
);

/** @param edits positions are taken modulo the file's length */
export function editBytes(original: Uint8Array, edits: readonly ByteEdit[]): Content {
  let bytes = Buffer.from(original);
  let extra = 0;
  for (const edit of edits) {
    const at = edit[1] % (bytes.length + 1);
    if (edit[0] === "put") bytes.set(edit[2].subarray(0, bytes.length - at), at);
    else if (edit[0] === "insert") bytes = Buffer.concat([bytes.subarray(0, at), edit[2], bytes.subarray(at)]);
    else if (edit[0] === "word") {
      const word = Buffer.alloc(8);
      word.writeBigUInt64LE(edit[3]);
      bytes.set(word.subarray(0, Math.min(edit[2], bytes.length - at)), at);
    } else if (edit[0] === "drop") bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + edit[2])]);
    else if (edit[0] === "repeat") {
      const part = bytes.subarray(at, at + edit[2]);
      bytes = Buffer.concat([bytes.subarray(0, at), ...new Array(edit[3]).fill(part), bytes.subarray(at)]);
    } else if (edit[0] === "cut") bytes = bytes.subarray(0, at);
    else extra = edit[1];
  }
  return { bytes, size: bytes.length + extra };
}

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
/** What no JSON value stands for: text that takes its place in the file. */
const rawMark = "\u0002";
const raws: Record<string, string> = {
  deep: "[".repeat(20_000) + "]".repeat(20_000),
  deepObject: `${'{"a":'.repeat(5000)}1${"}".repeat(5000)}`,
  infinite: "1e999",
  minusZero: "-0",
  many: `[${"0,".repeat(10_000)}0]`,
  proto: '{"__proto__":{"x":1},"constructor":1}',
};
const anyJson: fc.Arbitrary<Json> = fc.oneof(
  fc.constantFrom<Json>(null, true, false, 0, -1, 0.5, 2, 1e-9, 1e9, 2 ** 31, 2 ** 32, 2 ** 53, 1e308, [], {}),
  fc.constantFrom<Json>({ toString: 1, valueOf: 1 }, [{ toString: 1 }], ["a"], [0, 0], { a: "b" }),
  fc.constantFrom<Json>(...Object.keys(raws).map((name) => rawMark + name)),
  anyText,
  fc.integer({ min: 0, max: 300 }),
  fc.jsonValue({ maxDepth: 2 }) as fc.Arbitrary<Json>,
);
const operations = ["set", "set", "set", "delete", "rename", "twice", "add", "copy"] as const;
/** At a place that `path` leads to: each number chooses a child, modulo their count. */
export interface JsonEdit {
  path: number[];
  operation: (typeof operations)[number];
  key: string;
  value: Json;
}
export const jsonEdit: fc.Arbitrary<JsonEdit> = fc.record({
  path: fc.array(fc.nat(1000), { minLength: 1, maxLength: 6 }),
  operation: fc.constantFrom(...operations),
  key: anyText,
  value: anyJson,
});

/** @returns the text of the changed JSON */
export function editJson(text: string, edits: readonly JsonEdit[]): Buffer {
  if (edits.length === 0) return Buffer.from(text);
  const json = edits.reduce<Json>((tree, edit) => edited(tree, edit.path, edit), JSON.parse(text));
  const raw = JSON.stringify(json).replaceAll(/"\\u0002(\w+)"/g, (_, name: string) => raws[name] ?? "0");
  return Buffer.from(raw.replaceAll("\\u0001", "")); // a key that was there, and again under a mark
}

function edited(tree: Json, [index, ...rest]: readonly number[], { operation, key, value }: JsonEdit): Json {
  const isLeaf = typeof tree !== "object" || tree === null || Object.keys(tree).length === 0;
  if (isLeaf || index === undefined) return value;
  const entries = Object.entries(tree);
  const at = index % entries.length;
  const [name, child] = entries[at]!;
  const childIsLeaf = rest.length === 0 || typeof child !== "object" || child === null;
  if (!childIsLeaf) entries[at] = [name, edited(child, rest, { path: [], operation, key, value })];
  else if (operation === "set") entries[at] = [name, value];
  else if (operation === "delete") entries.splice(at, 1);
  else if (operation === "rename") entries[at] = [key, child];
  else if (operation === "twice") entries.splice(at, 0, [`${name}\u0001`, value]);
  else if (operation === "add") entries.push([key, value]);
  else entries[at] = [name, entries[(at + 1) % entries.length]![1]];
  return Array.isArray(tree) ? entries.map(([, item]) => item) : Object.fromEntries(entries);
}

const scalarIds = {
  ...{ uint8: 0, int8: 1, uint16: 2, int16: 3, uint32: 4, int32: 5, float32: 6, bool: 7, string: 8 },
  ...{ uint64: 10, int64: 11, float64: 12 },
};
type ScalarName = keyof typeof scalarIds;
const anyNumber = fc.oneof(
  fc.integer({ min: 0, max: 300 }),
  fc.constantFrom(-1, 0.5, 1.5, 1e9, 2 ** 31, 2 ** 32 - 1, Number.NaN, Number.POSITIVE_INFINITY),
);
const scalarOf = (type: ScalarName): fc.Arbitrary<number | bigint | boolean | string> =>
  type === "string"
    ? anyText
    : type === "bool"
      ? fc.boolean()
      : type.endsWith("64") && type[0] !== "f"
        ? anyWord
        : anyNumber;
const anyScalarName = fc.constantFrom(...(Object.keys(scalarIds) as ScalarName[]));
export const anyGgufValue: fc.Arbitrary<GgufValue> = anyScalarName.chain((type) =>
  fc.oneof(
    scalarOf(type).map((value): GgufValue => ({ type, value })),
    fc.array(scalarOf(type), { maxLength: 9 }).map((value): GgufValue => ({ type: "array", of: type, value })),
  ),
);

/** A GGUF header as it lies in the file, where nothing needs to fit together. */
export interface RawGguf {
  magic: number;
  version: number;
  /** Absent: as many as there are. */
  tensorCount?: bigint;
  entryCount?: bigint;
  entries: { key: string; value: GgufValue; type?: number; of?: number; length?: bigint }[];
  tensors: { name: string; dimensions: number; shape: bigint[]; type: number; offset: bigint }[];
  data: Buffer;
}

export function rawGguf(metadata: GgufMetadata, tensors: readonly (GgufTensor & { bytes: Uint8Array })[]): RawGguf {
  let offset = 0;
  const data: Uint8Array[] = [];
  const raw = tensors.map(({ name, type, shape, bytes }) => {
    const at = BigInt(offset);
    const room = Math.ceil(tensorBytes({ type, shape })! / 32) * 32;
    data.push(bytes, new Uint8Array(room - bytes.length));
    offset += room;
    const reversed = shape.map(BigInt).reverse();
    return { name, dimensions: shape.length, shape: reversed, type: tensorTypes[type].id, offset: at };
  });
  const entries = [...metadata].map(([key, value]) => ({ key, value }));
  return { magic: 0x46554747, version: 3, entries, tensors: raw, data: Buffer.concat(data) };
}

export type GgufEdit =
  | ["entry", number, "drop" | "twice"]
  | ["entry", number, "key", string]
  | ["entry", number, "value", GgufValue]
  | ["entry", number, "type" | "of", number]
  | ["entry", number, "length", bigint]
  | ["item", number, number, number | bigint | boolean | string]
  | ["tensor", number, "drop" | "twice"]
  | ["tensor", number, "name", string]
  | ["tensor", number, "shape", number, bigint]
  | ["tensor", number, "type" | "dimensions", number]
  | ["tensor", number, "offset", bigint]
  | ["head", "magic" | "version", number]
  | ["head", "tensorCount" | "entryCount", bigint];
const index = fc.nat(1000);
const small = fc.oneof(fc.nat(45), fc.constantFrom(2 ** 31, 2 ** 32 - 1));
export const ggufEdit: fc.Arbitrary<GgufEdit> = fc.oneof<fc.Arbitrary<GgufEdit>[]>(
  fc.tuple(fc.constant("entry"), index, fc.constantFrom("drop", "twice")),
  fc.tuple(fc.constant("entry"), index, fc.constant("key"), anyText),
  fc.tuple(fc.constant("entry"), index, fc.constant("value"), anyGgufValue),
  fc.tuple(fc.constant("entry"), index, fc.constant("value"), anyGgufValue),
  fc.tuple(fc.constant("entry"), index, fc.constantFrom("type", "of"), small),
  fc.tuple(fc.constant("entry"), index, fc.constant("length"), anyWord),
  fc.tuple(fc.constant("item"), index, index, fc.oneof(anyNumber, anyText)),
  fc.tuple(fc.constant("tensor"), index, fc.constantFrom("drop", "twice")),
  fc.tuple(fc.constant("tensor"), index, fc.constant("name"), anyText),
  fc.tuple(fc.constant("tensor"), index, fc.constant("shape"), fc.nat(4), anyWord),
  fc.tuple(fc.constant("tensor"), index, fc.constantFrom("type", "dimensions"), small),
  fc.tuple(fc.constant("tensor"), index, fc.constant("offset"), anyWord),
  fc.tuple(fc.constant("head"), fc.constantFrom("magic", "version"), small),
  fc.tuple(fc.constant("head"), fc.constantFrom("tensorCount", "entryCount"), anyWord),
);

/** @param edits indices are taken modulo what there is */
export function editGguf(original: RawGguf, edits: readonly GgufEdit[]): RawGguf {
  const raw = { ...original, entries: [...original.entries], tensors: [...original.tensors] };
  for (const edit of edits) {
    if (edit[0] === "head") {
      Object.assign(raw, { [edit[1]]: edit[2] });
      continue;
    }
    const list: object[] = edit[0] === "tensor" ? raw.tensors : raw.entries;
    if (list.length === 0) continue;
    const at = edit[1] % list.length;
    if (edit[0] === "item") {
      const arrays = raw.entries.flatMap(({ value }, i) =>
        value.type === "array" && value.value.length > 0 ? [i] : [],
      );
      const entry = arrays.length > 0 ? raw.entries[arrays[edit[1] % arrays.length]!]! : undefined;
      if (entry?.value.type !== "array") continue;
      const item =
        entry.value.of === "string" ? String(edit[3]) : typeof edit[3] === "string" ? edit[3].length : edit[3];
      const value = { ...entry.value, value: entry.value.value.with(edit[2] % entry.value.value.length, item) };
      raw.entries[raw.entries.indexOf(entry)] = { ...entry, value };
    } else if (edit[2] === "drop") list.splice(at, 1);
    else if (edit[2] === "twice") list.splice(at, 0, list[at]!);
    else if (edit[0] === "tensor" && edit[2] === "shape") {
      const tensor = raw.tensors[at]!;
      raw.tensors[at] = { ...tensor, shape: tensor.shape.with(edit[3] % tensor.shape.length, edit[4]) };
    } else list[at] = { ...list[at], [edit[2]]: edit[3] };
  }
  return raw;
}

export function encodeRawGguf(raw: RawGguf): Buffer {
  const parts: Uint8Array[] = [];
  const word = (value: number) => parts.push(Buffer.from(Uint32Array.of(value).buffer));
  const long = (value: bigint) => parts.push(Buffer.from(BigUint64Array.of(value).buffer));
  const text = (value: string, length?: bigint) => {
    const bytes = Buffer.from(value);
    long(length ?? BigInt(bytes.length));
    parts.push(bytes);
  };
  word(raw.magic);
  word(raw.version);
  long(raw.tensorCount ?? BigInt(raw.tensors.length));
  long(raw.entryCount ?? BigInt(raw.entries.length));
  for (const { key, value, type, of, length } of raw.entries) {
    text(key);
    const scalarType = value.type === "array" ? value.of : value.type;
    const values = value.type === "array" ? value.value : [value.value];
    if (value.type === "array") {
      word(type ?? 9);
      word(of ?? scalarIds[scalarType]);
      long(length ?? BigInt(values.length));
    } else word(type ?? scalarIds[scalarType]);
    for (const item of values) {
      if (scalarType === "string") text(String(item), value.type === "array" ? undefined : length);
      else parts.push(scalarBytes(scalarType, item));
    }
  }
  for (const { name, dimensions, shape, type, offset } of raw.tensors) {
    text(name);
    word(dimensions);
    for (const n of shape) long(n);
    word(type);
    long(offset);
  }
  const header = Buffer.concat(parts);
  return Buffer.concat([header, Buffer.alloc((32 - (header.length % 32)) % 32), raw.data]);
}

function scalarBytes(type: Exclude<ScalarName, "string">, value: unknown): Uint8Array {
  const n = Number(value);
  const long = () =>
    BigInt.asUintN(64, typeof value === "bigint" ? value : BigInt(Number.isFinite(n) ? Math.trunc(n) : 0));
  const arrays = {
    ...{ uint8: () => Uint8Array.of(n), int8: () => Int8Array.of(n), bool: () => Uint8Array.of(n) },
    ...{ uint16: () => Uint16Array.of(n), int16: () => Int16Array.of(n), uint32: () => Uint32Array.of(n) },
    ...{ int32: () => Int32Array.of(n), float32: () => Float32Array.of(n), float64: () => Float64Array.of(n) },
    ...{ uint64: () => BigUint64Array.of(long()), int64: () => BigInt64Array.of(BigInt.asIntN(64, long())) },
  };
  return new Uint8Array(arrays[type]().buffer);
}

/** A text as parts of it and words that mean something to its reader. */
export type TextEdit = ["drop" | "repeat", number, number, number] | ["insert", number, string, number];
export function textEdit(dictionary: readonly string[]): fc.Arbitrary<TextEdit> {
  return fc.oneof(
    fc.tuple(fc.constantFrom("drop", "repeat"), index, fc.nat(6), fc.constantFrom(1, 2, 40, 5000)),
    fc.tuple(fc.constant("insert"), index, fc.constantFrom(...dictionary), fc.constantFrom(1, 1, 1, 2, 30, 5000)),
  );
}

export function editText(original: string, edits: readonly TextEdit[]): string {
  const parts = original.split(/(\{[%{#]-?|-?[%}#]\}|\s+|\W)/).filter((part) => part !== "");
  for (const edit of edits) {
    const at = edit[1] % (parts.length + 1);
    if (edit[0] === "insert") parts.splice(at, 0, edit[2].repeat(edit[3]));
    else if (edit[0] === "drop") parts.splice(at, edit[2]);
    else
      parts.splice(
        at,
        0,
        parts
          .slice(at, at + edit[2])
          .join("")
          .repeat(edit[3]),
      );
  }
  return parts.join("").slice(0, 300_000);
}
