/**
 * Safetensors files: a JSON header with names, types, shapes and byte ranges, then the tensors. Reading is lazy: only the
 * header is read and checked at opening, tensors when asked for. Writing is float32 only.
 *
 * @see https://huggingface.co/docs/safetensors (format)
 */
import { closeSync, fsyncSync, openSync } from "node:fs";
import { z } from "zod";
import { FileError } from "../errors.ts";
import type { Weight, Weights } from "../model/config.ts";
import { ReadableFile, writeFully } from "./files.ts";
import { decodeBfloat16, decodeHalf } from "./quantize.ts";

/** The format's own limit on headers. */
const maxHeaderBytes = 100_000_000;

/** Types that become float32, with their width in bytes. */
const elementBytes = { F32: 4, F16: 2, BF16: 2 } as const;
type ElementType = keyof typeof elementBytes;

const size = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER);
const entrySchema = z.object({ dtype: z.string(), shape: z.array(size).max(8), data_offsets: z.tuple([size, size]) });

interface Entry {
  type: string;
  shape: readonly number[];
  /** Position in the file. */
  start: number;
  bytes: number;
}

/** An open safetensors file. Holds a file descriptor until disposed. */
export class SafetensorsFile implements Disposable {
  readonly #file: ReadableFile;
  readonly #entries: ReadonlyMap<string, Entry>;

  /** @throws {FileError} if the file is missing, truncated, or its header does not describe exactly the bytes that follow it */
  constructor(readonly path: string) {
    this.#file = new ReadableFile(path);
    try {
      this.#entries = readHeader(this.#file);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** Tensor names with their shapes, in the order of the file. */
  get shapes(): Map<string, readonly number[]> {
    return new Map([...this.#entries].map(([name, { shape }]) => [name, shape]));
  }

  /** @throws {FileError} if there is no such tensor or it is not of type F32, F16 or BF16 */
  read(name: string): Weight {
    const entry = this.#entries.get(name);
    if (!entry)
      throw new FileError(this.path, `wanted tensor "${name}", got none of that name. Is it another model's file?`);
    if (!isElementType(entry.type)) {
      throw new FileError(
        this.path,
        `tensor "${name}": wanted type ${Object.keys(elementBytes).join(", ")}, got ${entry.type}. Convert it first.`,
      );
    }
    const { buffer } = this.#file.read(entry.start, entry.bytes, `tensor "${name}"`);
    return { shape: entry.shape, data: toFloat32[entry.type](buffer) };
  }

  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }
}

const toFloat32: Record<ElementType, (buffer: ArrayBuffer) => Float32Array> = {
  F32: (buffer) => new Float32Array(buffer),
  F16: (buffer) => decodeHalf(new Uint16Array(buffer)),
  BF16: (buffer) => decodeBfloat16(new Uint16Array(buffer)),
};

function isElementType(type: string): type is ElementType {
  return Object.hasOwn(elementBytes, type);
}

function readHeader(file: ReadableFile): Map<string, Entry> {
  const { path } = file;
  const headerBytes = Number(file.read(0, 8, "header length").readBigUInt64LE());
  if (headerBytes > maxHeaderBytes) {
    throw new FileError(
      path,
      `wanted a header of at most ${maxHeaderBytes} bytes, got ${headerBytes}. Is it safetensors?`,
    );
  }
  const dataStart = 8 + headerBytes;
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(file.read(8, headerBytes, "header")));
  } catch (cause) {
    if (cause instanceof FileError) throw cause;
    throw new FileError(path, `wanted a JSON header, got ${(cause as Error).message}. Is it safetensors?`, { cause });
  }
  if (typeof header !== "object" || header === null || Array.isArray(header)) {
    throw new FileError(path, "wanted a JSON object as header, got something else. Is it safetensors?");
  }
  const entries = new Map<string, Entry>();
  for (const [name, value] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const parsed = entrySchema.safeParse(value);
    if (!parsed.success) {
      throw new FileError(path, `tensor "${name}": ${z.prettifyError(parsed.error)}. Is the file corrupt?`);
    }
    const { dtype: type, shape, data_offsets: offsets } = parsed.data;
    const bytes = offsets[1] - offsets[0];
    const wanted = isElementType(type) ? shape.reduce((product, n) => product * n, elementBytes[type]) : bytes;
    if (bytes < 0 || bytes !== wanted) {
      throw new FileError(
        path,
        `tensor "${name}": wanted ${wanted} bytes for [${shape}], got ${bytes}. Is the file corrupt?`,
      );
    }
    entries.set(name, { type, shape, start: dataStart + offsets[0], bytes });
  }
  // The tensors must tile the data: no hole, no overlap. That also catches a name given twice, of which JSON keeps the last.
  let end = dataStart;
  for (const [name, entry] of [...entries].sort(([, a], [, b]) => a.start - b.start || a.bytes - b.bytes)) {
    if (entry.start !== end) {
      throw new FileError(
        path,
        `tensor "${name}": wanted offset ${end}, got ${entry.start}. Tensors overlap or leave a hole.`,
      );
    }
    end += entry.bytes;
  }
  if (end !== file.size) {
    throw new FileError(path, `wanted ${end} bytes as its header says, got ${file.size}. Is the file truncated?`);
  }
  return entries;
}

/** All tensors of a file, as float32. @throws {FileError} as {@link SafetensorsFile} */
export function readSafetensors(path: string): Weights {
  using file = new SafetensorsFile(path);
  return new Map([...file.shapes.keys()].map((name) => [name, file.read(name)]));
}

/** Writes float32 tensors and syncs them to the disk. Not atomic: write to a temporary name where that matters. */
export function writeSafetensors(path: string, weights: ReadonlyMap<string, Weight>): void {
  let offset = 0;
  const entries = [...weights].map(([name, { shape, data }]) => {
    const start = offset;
    offset += data.byteLength;
    return [name, { dtype: "F32", shape, data_offsets: [start, offset] }] as const;
  });
  const json = Buffer.from(JSON.stringify({ __metadata__: { format: "pt" }, ...Object.fromEntries(entries) }));
  const header = Buffer.alloc(8 + Math.ceil(json.length / 8) * 8, " "); // padded with spaces: tensors start 8-byte aligned
  header.writeBigUInt64LE(BigInt(header.length - 8));
  json.copy(header, 8);
  const descriptor = openSync(path, "w");
  try {
    writeFully(descriptor, header);
    for (const { data } of weights.values())
      writeFully(descriptor, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
