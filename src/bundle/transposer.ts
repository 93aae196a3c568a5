/**
 * Transposing with SIMD, in a WebAssembly module that is assembled here, byte by byte: no compiler, no binary. Where `down` of a 3B model's
 * sub-network, 28 × 2048 × 3072 bytes, takes the plain loop (`transpose.ts`) 335 ms, it takes 95 ms.
 *
 * @see https://webassembly.github.io/spec/core/binary
 */

/** Bytes of an element. */
export type ElementBytes = 1 | 2 | 4;

/** Bytes of a vector: of so many a strip is wide. */
export const vectorBytes = 16;

/**
 * Transposes `vectorBytes / element bytes` columns to rows: element i of column c, at `from + c · fromStride + i · element bytes`, goes to
 * `to + i · toStride + c · element bytes`. All in bytes of the memory; from and to do not overlap.
 *
 * @param tiles squares of as many rows as there are columns, at least one
 */
export type Strip = (from: number, fromStride: number, to: number, toStride: number, tiles: number) => void;

export interface Transposer {
  /** Where strips are read and written. */
  bytes: Uint8Array<ArrayBuffer>;
  /** By the bytes of an element. */
  strips: Record<ElementBytes, Strip>;
}

/** The part of the standard that is used here: the types of Node 20 have none of it. */
declare const WebAssembly: {
  Module: new (code: Uint8Array) => object;
  Memory: new (size: { initial: number }) => { buffer: ArrayBuffer };
  Instance: new (module: object, imports: object) => { exports: Record<string, Strip> };
};

const pageBytes = 1 << 16;
let compiled: object | undefined;

/** @param bytes of memory; at most 4 GiB */
export function openTransposer(bytes: number): Transposer {
  compiled ??= new WebAssembly.Module(assemble());
  const memory = new WebAssembly.Memory({ initial: Math.ceil(bytes / pageBytes) });
  const { strip1, strip2, strip4 } = new WebAssembly.Instance(compiled, { "": { memory } }).exports;
  return { bytes: new Uint8Array(memory.buffer), strips: { 1: strip1!, 2: strip2!, 4: strip4! } };
}

const [i32, v128] = [0x7f, 0x7b];
const op = {
  loop: [0x03, 0x40],
  branchIf: 0x0d,
  end: 0x0b,
  get: 0x20,
  set: 0x21,
  tee: 0x22,
  const: 0x41,
  add: 0x6a,
  subtract: 0x6b,
  load: [0xfd, 0x00, 0, 0],
  store: [0xfd, 0x0b, 0, 0],
  shuffle: [0xfd, 0x0d],
};

function assemble(): Uint8Array<ArrayBuffer> {
  const sizes: ElementBytes[] = [1, 2, 4];
  const functionType = [0x60, ...list(Array.from({ length: 5 }, () => [i32])), ...list([])];
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0], // "\0asm", version 1
    ...section(1, [functionType]),
    ...section(2, [[...text(""), ...text("memory"), 2, 0, 0]]), // import a memory of any size
    ...section(
      3,
      sizes.map(() => [0]),
    ),
    ...section(
      7,
      sizes.map((size, i) => [...text(`strip${size}`), 0, i]),
    ),
    ...section(
      10,
      sizes.map((size) => withLength(stripCode(size))),
    ),
  ]);
}

/**
 * A loop over tiles of n × n elements: n vectors are loaded, shuffled log2 n times, stored. A shuffle takes vectors i and i + n/2 and
 * alternates their elements in vectors 2i and 2i + 1; after log2 n of them rows are columns.
 */
function stripCode(size: ElementBytes): number[] {
  const n = vectorBytes / size;
  const [from, fromStride, to, toStride, tiles, column, vectors] = [0, 1, 2, 3, 4, 5, 6];
  const element = (i: number) => Array.from({ length: size }, (_, byte) => i * size + byte);
  const alternate = (start: number) =>
    Array.from({ length: n / 2 }, (_, i) => [...element(start + i), ...element(n + start + i)]).flat();
  const [low, high] = [alternate(0), alternate(n / 2)];
  const code = [...op.loop, op.get, from, op.set, column];
  const advance = (pointer: number, stride: number) => [op.get, pointer, op.get, stride, op.add, op.set, pointer];
  for (let i = 0; i < n; i++)
    code.push(op.get, column, ...op.load, op.set, vectors + i, ...advance(column, fromStride));
  let [source, target] = [vectors, vectors + n];
  for (let stage = 1; stage < n; stage *= 2) {
    for (let i = 0; i < n / 2; i++) {
      const pair = [op.get, source + i, op.get, source + i + n / 2, ...op.shuffle];
      code.push(...pair, ...low, op.set, target + 2 * i, ...pair, ...high, op.set, target + 2 * i + 1);
    }
    [source, target] = [target, source];
  }
  for (let i = 0; i < n; i++) code.push(op.get, to, op.get, source + i, ...op.store, ...advance(to, toStride));
  code.push(op.get, from, op.const, vectorBytes, op.add, op.set, from);
  code.push(op.get, tiles, op.const, 1, op.subtract, op.tee, tiles, op.branchIf, 0, op.end);
  const locals = list([
    [1, i32],
    [2 * n, v128],
  ]);
  return [...locals, ...code, op.end];
}

/** LEB128. */
function unsigned(value: number): number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...unsigned(value >>> 7)];
}
const withLength = (bytes: number[]) => [...unsigned(bytes.length), ...bytes];
const list = (items: readonly number[][]) => [...unsigned(items.length), ...items.flat()];
const section = (id: number, items: readonly number[][]) => [id, ...withLength(list(items))];
const text = (value: string) => withLength([...Buffer.from(value)]);
