/**
 * Safetensors files: a JSON header with names, types, shapes and byte ranges, then the tensors. Reading is lazy: only the
 * header is read and checked at opening, tensors when asked for.
 *
 * @see https://huggingface.co/docs/safetensors (format)
 */
import { closeSync, fsyncSync, openSync } from "node:fs";
import { z } from "zod";
import { FileError } from "../errors.ts";
import { ReadableFile, writeFully } from "../files.ts";
import { checkDepth } from "../json.ts";
import type { Weight, Weights } from "../model/config.ts";
import { oneLine, zodWords } from "../words.ts";
import { decodeBlocks, encodeWeights, rowBytes } from "./quantize.ts";

/** The format allows 100 MB, of which 1.5 million names took 2 GB of memory; those of the models that we know are below 1 MB. */
const maxHeaderBytes = 1 << 24;

/** Types that become float32. */
const elementTypes = ["F32", "F16", "BF16"] as const;
export type ElementType = (typeof elementTypes)[number];

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
  /** Tensor names with their shapes, in the order of the file. */
  readonly shapes: ReadonlyMap<string, readonly number[]>;
  readonly #file: ReadableFile;
  readonly #entries: ReadonlyMap<string, Entry>;

  /** @throws {FileError} if the file is missing, truncated, or its header does not describe exactly the bytes that follow it */
  constructor(readonly path: string) {
    this.#file = new ReadableFile(path);
    try {
      this.#entries = readHeader(this.#file);
      this.shapes = new Map([...this.#entries].map(([name, { shape }]) => [name, shape]));
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** @throws {FileError} if there is no such tensor or it is not of type F32, F16 or BF16 */
  check(name: string): void {
    this.#entry(name);
  }

  /** The type that a tensor is stored in. @throws {FileError} as {@link check} */
  type(name: string): ElementType {
    return this.#entry(name).type;
  }

  /**
   * A tensor as float32.
   *
   * @param rows only these, of a tensor of two or more dimensions
   * @throws {FileError} as {@link check}
   */
  read(name: string, rows?: { from: number; to: number }): Weight {
    const { type, shape, start, bytes } = this.#entry(name);
    if (!rows) return { shape, data: decodeBlocks(this.#file.read(start, bytes, `tensor "${name}"`), type) };
    const { from, to } = rows;
    const [count, ...rest] = shape;
    if (!(shape.length > 1 && from >= 0 && from <= to && to <= count!))
      throw new Error(`internal: rows ${from}..${to} of "${name}"`);
    const row = bytes / count!;
    const part = this.#file.read(start + from * row, (to - from) * row, `tensor "${name}"`);
    return { shape: [to - from, ...rest], data: decodeBlocks(part, type) };
  }

  #entry(name: string): Entry & { type: ElementType } {
    const entry = this.#entries.get(name);
    if (!entry)
      throw new FileError(this.path, `wanted tensor "${name}", got none of that name. Is it another model's file?`);
    const { type } = entry;
    if (!isElementType(type)) {
      throw new FileError(
        this.path,
        `tensor "${name}": wanted type ${elementTypes.join(", ")}, got ${type}. Convert it first.`,
      );
    }
    return { ...entry, type };
  }

  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]();
  }
}

function isElementType(type: string): type is ElementType {
  return (elementTypes as readonly string[]).includes(type);
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
  const headerText = file.read(8, headerBytes, "header");
  let text: string;
  let header: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(headerText);
    checkDepth(text);
    header = JSON.parse(text);
  } catch (cause) {
    throw new FileError(path, `wanted a JSON header, got ${oneLine((cause as Error).message)}. Is it safetensors?`, {
      cause,
    });
  }
  if (typeof header !== "object" || header === null || Array.isArray(header)) {
    throw new FileError(path, "wanted a JSON object as header, got something else. Is it safetensors?");
  }
  if (writtenKeys(text) !== readKeys(header))
    throw new FileError(path, "wanted distinct names and keys, got one twice. Is the file corrupt?");
  const entries = new Map<string, Entry>();
  for (const [name, value] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    if (name === "__proto__") throw new FileError(path, `wanted names of tensors, got "${name}". Is the file hostile?`);
    const parsed = entrySchema.safeParse(value);
    if (!parsed.success) {
      throw new FileError(path, `tensor "${name}": ${zodWords(parsed.error)}. Is the file corrupt?`);
    }
    const { dtype: type, shape, data_offsets: offsets } = parsed.data;
    const bytes = offsets[1] - offsets[0];
    const wanted = isElementType(type) ? shapeBytes(shape, type) : bytes;
    if (bytes < 0 || bytes !== wanted) {
      throw new FileError(
        path,
        `tensor "${name}": wanted ${wanted} bytes for [${shape}], got ${bytes}. Is the file corrupt?`,
      );
    }
    entries.set(name, { type, shape, start: dataStart + offsets[0], bytes });
  }
  // The tensors must tile the data: no hole, no overlap.
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

/** Keys of all objects of a text that is known to be JSON; `JSON.parse` keeps only the last of equal ones. */
function writtenKeys(text: string): number {
  let [count, inString] = [0, false];
  for (let i = 0; i < text.length; i++) {
    const character = text[i];
    if (character === '"') inString = !inString;
    else if (inString) i += character === "\\" ? 1 : 0;
    else if (character === ":") count++;
  }
  return count;
}

function readKeys(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  const own = Array.isArray(value) ? 0 : Object.keys(value).length;
  return Object.values(value).reduce((sum: number, item) => sum + readKeys(item), own);
}

/** All tensors of a file, as float32. @throws {FileError} as {@link SafetensorsFile} */
export function readSafetensors(path: string): Weights {
  using file = new SafetensorsFile(path);
  return new Map([...file.shapes.keys()].map((name) => [name, file.read(name)]));
}

/** Writes float32 tensors and syncs them to the disk. Not atomic: write to a temporary name where that matters. */
export function writeSafetensors(
  path: string,
  weights: ReadonlyMap<string, Weight>,
  type: "F32" | "BF16" = "F32",
): void {
  const tensors = [...weights].map(([name, { shape }]) => ({ name, shape, type }));
  const steps = writeTensors(path, tensors, (name) => encodeWeights(weights.get(name)!.data, type));
  while (!steps.next().done);
}

/**
 * Writes tensors one by one and syncs them to the disk. Not atomic.
 *
 * @param bytesOf the bytes of a tensor, little endian; called once for each
 * @returns yields after each tensor, so that a caller can let others in between
 */
export function* writeTensors(
  path: string,
  tensors: readonly { name: string; shape: readonly number[]; type: ElementType }[],
  bytesOf: (name: string) => Uint8Array,
): Generator<void> {
  let offset = 0;
  const entries = tensors.map(({ name, shape, type }) => {
    const start = offset;
    offset += shapeBytes(shape, type);
    return [name, { dtype: type, shape, data_offsets: [start, offset] }] as const;
  });
  const json = Buffer.from(JSON.stringify({ __metadata__: { format: "pt" }, ...Object.fromEntries(entries) }));
  const header = Buffer.alloc(8 + Math.ceil(json.length / 8) * 8, " "); // padded with spaces: tensors start 8-byte aligned
  header.writeBigUInt64LE(BigInt(header.length - 8));
  json.copy(header, 8);
  const descriptor = openSync(path, "w");
  try {
    writeFully(descriptor, header);
    for (const { name, shape, type } of tensors) {
      const bytes = bytesOf(name);
      if (bytes.length !== shapeBytes(shape, type)) throw new Error(`internal: ${bytes.length} bytes for "${name}"`);
      writeFully(descriptor, bytes);
      yield;
    }
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

export function shapeBytes(shape: readonly number[], type: ElementType): number {
  return shape.reduce((product, n) => product * n, rowBytes(type, 1));
}
