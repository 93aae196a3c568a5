/**
 * GGUF files, the weight format of llama.cpp: metadata, tensor descriptions, then the aligned tensors. Versions 2 and 3, little
 * endian; tensors of the types that we decode.
 *
 * @see https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
import { closeSync, openSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import { FileError } from "../errors.ts";
import { ReadableFile, writeFully } from "../files.ts";
import { type BlockType, blockTypes } from "./quantize.ts";

/** A scalar type of metadata values: its number in the format, its bytes (of a string: of its length), and how a view holds it. */
function scalar<T extends GgufScalar>(
  id: number,
  bytes: number,
  get: (view: DataView) => T,
  set: (view: DataView, value: T) => void,
) {
  return { id, bytes, get, set: set as (view: DataView, value: GgufScalar) => void };
}

const scalars = {
  uint8: scalar<number>(
    0,
    1,
    (view) => view.getUint8(0),
    (view, value) => view.setUint8(0, value),
  ),
  int8: scalar<number>(
    1,
    1,
    (view) => view.getInt8(0),
    (view, value) => view.setInt8(0, value),
  ),
  uint16: scalar<number>(
    2,
    2,
    (view) => view.getUint16(0, true),
    (view, value) => view.setUint16(0, value, true),
  ),
  int16: scalar<number>(
    3,
    2,
    (view) => view.getInt16(0, true),
    (view, value) => view.setInt16(0, value, true),
  ),
  uint32: scalar<number>(
    4,
    4,
    (view) => view.getUint32(0, true),
    (view, value) => view.setUint32(0, value, true),
  ),
  int32: scalar<number>(
    5,
    4,
    (view) => view.getInt32(0, true),
    (view, value) => view.setInt32(0, value, true),
  ),
  float32: scalar<number>(
    6,
    4,
    (view) => view.getFloat32(0, true),
    (view, value) => view.setFloat32(0, value, true),
  ),
  bool: scalar<boolean>(
    7,
    1,
    (view) => view.getUint8(0) !== 0,
    (view, value) => view.setUint8(0, Number(value)),
  ),
  uint64: scalar<bigint>(
    10,
    8,
    (view) => view.getBigUint64(0, true),
    (view, value) => view.setBigUint64(0, value, true),
  ),
  int64: scalar<bigint>(
    11,
    8,
    (view) => view.getBigInt64(0, true),
    (view, value) => view.setBigInt64(0, value, true),
  ),
  float64: scalar<number>(
    12,
    8,
    (view) => view.getFloat64(0, true),
    (view, value) => view.setFloat64(0, value, true),
  ),
};
const stringType = { id: 8, bytes: 8 };
const arrayType = { id: 9 };

type ScalarType = keyof typeof scalars | "string";
const scalarFormat = (type: ScalarType) => (type === "string" ? stringType : scalars[type]);

export type GgufScalar = number | bigint | boolean | string;
/** A metadata value: 64-bit integers are bigint. */
export type GgufValue =
  | { type: ScalarType; value: GgufScalar }
  | { type: "array"; of: ScalarType; value: readonly GgufScalar[] };
export type GgufMetadata = Map<string, GgufValue>;

export type GgufTensorType = BlockType | "I8";
/** Tensor types: number in the format, and elements and bytes of a block. */
export const tensorTypes: Record<GgufTensorType, { id: number; elements: number; bytes: number }> = {
  F32: { id: 0, ...blockTypes.F32 },
  F16: { id: 1, ...blockTypes.F16 },
  Q4_0: { id: 2, ...blockTypes.Q4_0 },
  Q4_1: { id: 3, ...blockTypes.Q4_1 },
  Q5_0: { id: 6, ...blockTypes.Q5_0 },
  Q5_1: { id: 7, ...blockTypes.Q5_1 },
  Q8_0: { id: 8, ...blockTypes.Q8_0 },
  Q4_K: { id: 12, ...blockTypes.Q4_K },
  Q5_K: { id: 13, ...blockTypes.Q5_K },
  Q6_K: { id: 14, ...blockTypes.Q6_K },
  I8: { id: 24, elements: 1, bytes: 1 },
  BF16: { id: 30, ...blockTypes.BF16 },
};

/** ggml's other types by number, for messages. */
const otherTypes: Record<number, string> = {
  9: "Q8_1",
  10: "Q2_K",
  11: "Q3_K",
  15: "Q8_K",
  16: "IQ2_XXS",
  17: "IQ2_XS",
  18: "IQ3_XXS",
  19: "IQ1_S",
  20: "IQ4_NL",
  21: "IQ3_S",
  22: "IQ2_S",
  23: "IQ4_XS",
  25: "I16",
  26: "I32",
  27: "I64",
  28: "F64",
  29: "IQ1_M",
  34: "TQ1_0",
  35: "TQ2_0",
  39: "MXFP4",
  40: "NVFP4",
  41: "Q1_0",
  42: "Q2_0",
};

export interface GgufTensor {
  name: string;
  type: GgufTensorType;
  /** Row-major, outermost dimension first (the file has them innermost first). */
  shape: readonly number[];
}

const magic = 0x46554747; // "GGUF"
const defaultAlignment = 32;
const maxDimensions = 4;
const maxNameBytes = 63; // llama.cpp keeps 64 with the closing zero
const maxStringBytes = 1 << 24;
// Largest known: 14 MB, a few million values in arrays, some thousands of keys and tensors. A sparse file of any size costs its author nothing.
const maxHeaderBytes = 1 << 28;
const maxArrayValues = 1 << 23;
const maxEntries = 1 << 16;

/** Bytes of a tensor, or undefined where its rows are not whole blocks or it is too large to address. */
export function tensorBytes({ type, shape }: Omit<GgufTensor, "name">): number | undefined {
  const { elements, bytes } = tensorTypes[type];
  const total = (shape.reduce((product, n) => product * n, 1) / elements) * bytes;
  return shape.at(-1)! % elements === 0 && Number.isSafeInteger(total) ? total : undefined;
}

/** An open GGUF file. Holds a file descriptor until disposed. */
export class GgufFile implements Disposable {
  readonly metadata: GgufMetadata;
  readonly tensors: ReadonlyMap<string, GgufTensor & { start: number; bytes: number }>;
  readonly #file: ReadableFile;

  /** @throws {FileError} if the file is missing, truncated, or describes what it cannot hold */
  constructor(readonly path: string) {
    this.#file = new ReadableFile(path);
    try {
      ({ metadata: this.metadata, tensors: this.tensors } = readHeader(this.#file));
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** A metadata number. @throws {FileError} if it is absent or no number */
  number(key: string): number {
    const entry = this.metadata.get(key)?.value;
    const value = typeof entry === "bigint" ? Number(entry) : entry;
    if (typeof value !== "number")
      throw new FileError(this.path, `metadata "${key}": wanted a number, got ${typeof value}.`);
    return value;
  }

  /** A metadata string. @throws {FileError} if it is absent or no string */
  string(key: string): string {
    const value = this.metadata.get(key)?.value;
    if (typeof value !== "string")
      throw new FileError(this.path, `metadata "${key}": wanted a string, got ${typeof value}.`);
    return value;
  }

  /** The description of a tensor. @throws {FileError} if there is none of that name */
  tensor(name: string): GgufTensor & { start: number; bytes: number } {
    const tensor = this.tensors.get(name);
    if (!tensor)
      throw new FileError(this.path, `wanted tensor "${name}", got none of that name. Is it another kind of file?`);
    return tensor;
  }

  /** Fills `target` with a tensor's bytes from `offset` within it. */
  readInto(
    target: Uint8Array,
    { name, start, bytes }: { name: string; start: number; bytes: number },
    offset: number,
  ): void {
    if (offset + target.length > bytes) throw new Error(`internal: read beyond tensor "${name}"`);
    this.#file.readInto(target, start + offset, `tensor "${name}"`);
  }

  /** A tensor's bytes, piece by piece. */
  *chunks(tensor: { name: string; start: number; bytes: number }): Generator<Uint8Array> {
    for (let offset = 0; offset < tensor.bytes; offset += chunkBytes) {
      const chunk = new Uint8Array(Math.min(chunkBytes, tensor.bytes - offset));
      this.readInto(chunk, tensor, offset);
      yield chunk;
    }
  }

  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }
}

/** Bytes that a copy reads at a time. */
const chunkBytes = 1 << 24;

/** Reads forward through a file by a window, so that a header of any length costs few reads and no trust. */
class Cursor {
  offset = 0;
  /** Values of all arrays that may still come. */
  arrayValues = maxArrayValues;
  #window = Buffer.alloc(0);
  #windowStart = 0;

  constructor(readonly file: ReadableFile) {}

  /** The next `length` bytes. */
  take(length: number, what: string): Buffer {
    const start = this.#pass(length, what);
    return this.#window.subarray(start, start + length);
  }

  /** Passes the next `length` bytes. @returns where in the window they begin */
  #pass(length: number, what: string): number {
    const within = this.offset - this.#windowStart;
    if (within + length > this.#window.length) {
      const room = Math.max(0, Math.min(1 << 16, this.file.size - this.offset));
      this.#window = this.file.read(this.offset, Math.max(length, room), what);
      this.#windowStart = this.offset;
    }
    const start = this.offset - this.#windowStart;
    this.offset += length;
    if (this.offset > maxHeaderBytes)
      throw new FileError(this.file.path, `wanted a header of at most ${maxHeaderBytes} bytes, got more in ${what}.`);
    return start;
  }

  uint32(what: string): number {
    return this.take(4, what).readUInt32LE();
  }

  /** A 64-bit size, at most `max`. */
  size(what: string, max: number): number {
    const at = this.#pass(8, what);
    const value = this.#window.readUInt32LE(at) + 2 ** 32 * this.#window.readUInt32LE(at + 4);
    if (value > max) {
      throw new FileError(
        this.file.path,
        `${what}: wanted at most ${Math.floor(max)}, got ${this.#window.readBigUInt64LE(at)}. Is the file corrupt?`,
      );
    }
    return value;
  }

  /** The next strings with their lengths. */
  strings(count: number, what: string): Buffer {
    const start = this.offset;
    const lengthOf = `length of ${what}`;
    for (let i = 0; i < count; i++) this.#pass(this.size(lengthOf, maxStringBytes), what);
    return this.file.read(start, this.offset - start, what);
  }

  /** At most `max`, and what the rest of the file can hold, if each takes `bytes`. */
  count(what: string, bytes: number, max: number): number {
    return this.size(what, Math.min(max, (this.file.size - this.offset) / bytes));
  }

  string(what: string, maxBytes = maxStringBytes): string {
    return this.take(this.size(`length of ${what}`, maxBytes), what).toString("utf8");
  }
}

function readHeader(file: ReadableFile): Pick<GgufFile, "metadata" | "tensors"> {
  const { path } = file;
  const cursor = new Cursor(file);
  if (cursor.uint32("magic") !== magic)
    throw new FileError(path, 'wanted the magic "GGUF", got other bytes. Is it a GGUF file?');
  const version = cursor.uint32("version");
  if (version !== 2 && version !== 3)
    throw new FileError(path, `wanted GGUF version 2 or 3, got ${version}. Convert it first.`);
  const tensorCount = cursor.count("tensor count", 8 + 4 + 8 + 4 + 8, maxEntries);
  const metadataCount = cursor.count("metadata count", 8 + 4 + 1, maxEntries);

  const metadata: GgufMetadata = new Map();
  for (let i = 0; i < metadataCount; i++) {
    const key = cursor.string("metadata key");
    if (metadata.has(key))
      throw new FileError(path, `wanted distinct metadata keys, got "${key}" twice. Is the file corrupt?`);
    metadata.set(key, readValue(cursor, `metadata "${key}"`));
  }

  const infos = new Map<string, GgufTensor & { offset: number; bytes: number }>();
  for (let i = 0; i < tensorCount; i++) {
    const info = readTensorInfo(cursor);
    if (infos.has(info.name))
      throw new FileError(path, `wanted distinct tensors, got "${info.name}" twice. Is the file corrupt?`);
    infos.set(info.name, info);
  }

  const alignment = metadata.get("general.alignment")?.value ?? defaultAlignment;
  if (typeof alignment !== "number" || alignment < 8 || alignment > 1 << 20 || alignment % 8 !== 0) {
    throw new FileError(path, `wanted an alignment that is a multiple of 8, got ${alignment}. Is the file corrupt?`);
  }
  const dataStart = roundUp(cursor.offset, alignment);
  const tensors = new Map(
    [...infos].map(([name, { offset, ...info }]) => [name, { ...info, start: dataStart + offset }]),
  );
  let end = dataStart;
  for (const { name, start, bytes } of [...tensors.values()].sort((a, b) => a.start - b.start)) {
    if (start < end || (start - dataStart) % alignment !== 0) {
      throw new FileError(
        path,
        `tensor "${name}": wanted an aligned offset of its own, got ${start - dataStart}. Tensors overlap.`,
      );
    }
    end = start + bytes;
    if (end > file.size) {
      throw new FileError(
        path,
        `tensor "${name}": wanted bytes ${start}..${end}, got a file of ${file.size}. Is it truncated?`,
      );
    }
  }
  return { metadata, tensors };
}

function readScalarType(cursor: Cursor, what: string, id: number): ScalarType {
  const types: ScalarType[] = ["string", ...(Object.keys(scalars) as (keyof typeof scalars)[])];
  const type = types.find((name) => scalarFormat(name).id === id);
  if (!type)
    throw new FileError(cursor.file.path, `${what}: wanted a known value type, got ${id}. Is the file corrupt?`);
  return type;
}

function readValue(cursor: Cursor, what: string): GgufValue {
  const id = cursor.uint32(what);
  if (id !== arrayType.id) {
    const type = readScalarType(cursor, what, id);
    return { type, value: readScalar(cursor, type, what) };
  }
  const of = readScalarType(cursor, what, cursor.uint32(what));
  const length = cursor.count(what, scalarFormat(of).bytes, cursor.arrayValues);
  cursor.arrayValues -= length;
  const bytes = of === "string" ? cursor.strings(length, what) : cursor.take(length * scalars[of].bytes, what);
  let values: GgufScalar[] | undefined;
  const entry: GgufValue = {
    type: "array",
    of,
    get value() {
      values ??= of === "string" ? textsIn(bytes, length) : numbersIn(of, bytes);
      return values;
    },
  };
  stored.set(entry, { bytes, length });
  return entry;
}

/** Arrays as they lie in their files: a vocabulary is ten thousands of values, which opening a model and writing its metadata on need not make. They are made when asked for. */
const stored = new WeakMap<GgufValue, { bytes: Buffer; length: number }>();

function numbersIn(of: keyof typeof scalars, bytes: Buffer): GgufScalar[] {
  const { bytes: size, get } = scalars[of];
  return Array.from({ length: bytes.length / size }, (_, i) => get(viewOf(bytes.subarray(i * size, (i + 1) * size))));
}

function textsIn(bytes: Buffer, count: number): string[] {
  let end = 0;
  return Array.from({ length: count }, () => {
    const start = end + 8;
    end = start + bytes.readUInt32LE(end); // the longest are far shorter
    return bytes.toString("utf8", start, end);
  });
}

/** How many values an array has, without making them. */
export function arrayLength(entry: GgufValue & { type: "array" }): number {
  return stored.get(entry)?.length ?? entry.value.length;
}

function readScalar(cursor: Cursor, type: ScalarType, what: string): GgufScalar {
  if (type === "string") return cursor.string(what);
  const { bytes, get } = scalars[type];
  return get(viewOf(cursor.take(bytes, what)));
}

function viewOf({ buffer, byteOffset, byteLength }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}

function readTensorInfo(cursor: Cursor): GgufTensor & { offset: number; bytes: number } {
  const { path, size } = cursor.file;
  const name = cursor.string("tensor name", maxNameBytes);
  const dimensions = cursor.uint32(`dimensions of "${name}"`);
  if (dimensions < 1 || dimensions > maxDimensions) {
    throw new FileError(
      path,
      `tensor "${name}": wanted 1..${maxDimensions} dimensions, got ${dimensions}. Is the file corrupt?`,
    );
  }
  const shape = Array.from({ length: dimensions }, () => cursor.size(`dimension of "${name}"`, size)).reverse();
  const typeId = cursor.uint32(`type of "${name}"`);
  const type = (Object.keys(tensorTypes) as GgufTensorType[]).find((key) => tensorTypes[key].id === typeId);
  if (!type) {
    const got = otherTypes[typeId] ?? `number ${typeId}`;
    throw new FileError(
      path,
      `tensor "${name}": wanted type ${Object.keys(tensorTypes).join(", ")}, got ${got}. Get the model in one of these.`,
    );
  }
  const offset = cursor.size(`offset of "${name}"`, size);
  const bytes = tensorBytes({ type, shape });
  if (bytes === undefined)
    throw new FileError(path, `tensor "${name}": wanted rows of whole blocks, got [${shape}] ${type}.`);
  return { name, type, shape, offset, bytes };
}

/**
 * Writes a GGUF file (version 3). Not atomic.
 *
 * @param data the bytes of the tensors, in the order of `tensors`, each in one piece or several; taken one by one, so memory holds one
 */
export async function writeGguf(
  path: string,
  metadata: GgufMetadata,
  tensors: readonly GgufTensor[],
  data: Iterable<Uint8Array>,
): Promise<void> {
  const descriptor = openSync(path, "w");
  try {
    let written = 0;
    const write = (bytes: Uint8Array) => {
      writeFully(descriptor, bytes);
      written += bytes.length;
    };
    write(encodeHeader(metadata, tensors));
    const waiting = tensors.map((tensor) => ({ name: tensor.name, left: tensorBytes(tensor)! }));
    for (const bytes of data) {
      const tensor = waiting[0];
      if (!tensor || bytes.length > tensor.left)
        throw new Error(`internal: ${bytes.length} bytes for "${tensor?.name}", of which ${tensor?.left} are left`);
      write(bytes);
      tensor.left -= bytes.length;
      if (tensor.left === 0) {
        write(new Uint8Array(alignTensor(written) - written));
        waiting.shift();
      }
      await setImmediate(); // all else is synchronous: let others in between pieces
    }
    if (waiting.length > 0) throw new Error(`internal: "${waiting[0]!.name}" lacks ${waiting[0]!.left} bytes`);
  } finally {
    closeSync(descriptor);
  }
}

/** The end of a tensor with what is left free after it, in files that we write: each begins at a multiple of 32. */
export function alignTensor(bytes: number): number {
  return roundUp(bytes, defaultAlignment);
}

/** What a GGUF file has before its tensors, which follow in this order, aligned by {@link alignTensor}. */
export function encodeHeader(metadata: GgufMetadata, tensors: readonly GgufTensor[]): Uint8Array {
  const out = new HeaderBytes();
  out.uint32(magic);
  out.uint32(3);
  out.size(tensors.length);
  out.size(metadata.size);
  for (const [key, entry] of metadata) {
    out.text(key);
    if (entry.type === "array") {
      out.uint32(arrayType.id);
      out.uint32(scalarFormat(entry.of).id);
      out.size(arrayLength(entry));
      out.add(stored.get(entry)?.bytes ?? encodeArray(entry.of, entry.value));
    } else {
      out.uint32(scalarFormat(entry.type).id);
      if (entry.type === "string") out.text(entry.value as string);
      else out.add(encodeArray(entry.type, [entry.value]));
    }
  }
  let offset = 0;
  for (const tensor of tensors) {
    const bytes = tensorBytes(tensor);
    if (bytes === undefined || Buffer.byteLength(tensor.name) > maxNameBytes) {
      throw new Error(`internal: tensor "${tensor.name}" [${tensor.shape}] cannot be ${tensor.type}`);
    }
    out.text(tensor.name);
    out.uint32(tensor.shape.length);
    for (const n of [...tensor.shape].reverse()) out.size(n);
    out.uint32(tensorTypes[tensor.type].id);
    out.size(offset);
    offset = alignTensor(offset + bytes);
  }
  out.add(new Uint8Array(alignTensor(out.length) - out.length));
  return out.bytes;
}

/** A header as it grows: it has thousands of numbers, too many for an array each. */
class HeaderBytes {
  length = 0;
  #all = Buffer.allocUnsafe(1 << 14);

  get bytes(): Uint8Array {
    return this.#all.subarray(0, this.length);
  }

  uint32(value: number): void {
    const at = this.#next(4);
    this.#all.writeUInt32LE(value, at);
  }

  /** In 64 bits. */
  size(value: number): void {
    this.uint32(value % 2 ** 32);
    this.uint32(Math.floor(value / 2 ** 32));
  }

  text(value: string): void {
    const bytes = Buffer.byteLength(value);
    this.size(bytes);
    const at = this.#next(bytes);
    this.#all.write(value, at);
  }

  add(bytes: Uint8Array): void {
    const at = this.#next(bytes.length);
    this.#all.set(bytes, at);
  }

  /** Makes room. @returns where it is */
  #next(bytes: number): number {
    const at = this.length;
    this.length += bytes;
    if (this.length > this.#all.length) {
      const larger = Buffer.allocUnsafe(2 * this.length);
      larger.set(this.#all);
      this.#all = larger;
    }
    return at;
  }
}

/** In one piece: vocabularies have a hundred thousand texts. */
function encodeArray(of: ScalarType, values: readonly GgufScalar[]): Uint8Array {
  if (of !== "string") {
    const { bytes, set } = scalars[of];
    const all = new Uint8Array(values.length * bytes);
    for (const [i, value] of values.entries()) set(new DataView(all.buffer, i * bytes, bytes), value);
    return all;
  }
  const texts = values as readonly string[];
  const most = texts.reduce((sum, text) => sum + 8 + 3 * text.length, 0); // three bytes of UTF-8 for one unit of UTF-16
  const all = Buffer.allocUnsafe(most);
  let end = 0;
  for (const text of texts) {
    const bytes = all.write(text, end + 8);
    all.writeUInt32LE(bytes, end);
    all.writeUInt32LE(0, end + 4);
    end += 8 + bytes;
  }
  return all.subarray(0, end);
}

function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}
