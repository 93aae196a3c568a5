/**
 * What a gather does with each byte, in a WebAssembly module that is assembled here, byte by byte: no compiler, no binary. Where `down` of a 3B model's
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

export interface Kernels {
  /** The memory. */
  bytes: Uint8Array<ArrayBuffer>;
  /** By the bytes of an element. */
  strips: Record<ElementBytes, Strip>;
  /** Copies rows of `length` bytes: row i, at `from + i · fromStride`, goes to `to + i · toStride`. @param count at least one */
  copyRows: (from: number, fromStride: number, to: number, toStride: number, length: number, count: number) => void;
  /**
   * Goes on with Fletcher's sums of 32-bit words in 64 bits: each of a vector's four words has a sum and a sum of these sums, eight numbers at `state`.
   *
   * @param count of vectors, at least one
   */
  sum: (state: number, from: number, count: number) => void;
}

/** Bytes of the state of {@link Kernels.sum}. */
export const stateBytes = 4 * vectorBytes;

/** The part of the standard that is used here: the types of Node 20 have none of it. */
declare const WebAssembly: {
  Module: new (code: Uint8Array) => object;
  Memory: new (size: { initial: number }) => { buffer: ArrayBuffer };
  Instance: new (module: object, imports: object) => { exports: Record<string, (...args: number[]) => void> };
};

const pageBytes = 1 << 16;
let compiled: object | undefined;

/** @param bytes of memory; at most 4 GiB */
export function openKernels(bytes: number): Kernels {
  compiled ??= new WebAssembly.Module(assemble());
  const memory = new WebAssembly.Memory({ initial: Math.ceil(bytes / pageBytes) });
  const { strip1, strip2, strip4, copyRows, sum } = new WebAssembly.Instance(compiled, { "": { memory } }).exports;
  return {
    bytes: new Uint8Array(memory.buffer),
    strips: { 1: strip1!, 2: strip2!, 4: strip4! },
    copyRows: copyRows!,
    sum: sum!,
  };
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
  copy: [0xfc, 0x0a, 0, 0],
  load: [0xfd, 0x00, 0, 0],
  store: [0xfd, 0x0b, 0, 0],
  shuffle: [0xfd, 0x0d],
  lowWords: [0xfd, 0xc9, 1],
  highWords: [0xfd, 0xca, 1],
  addPairs: [0xfd, 0xce, 1],
};

/** A function of so many numbers. */
interface Code {
  name: string;
  parameters: number;
  code: number[];
}

function assemble(): Uint8Array<ArrayBuffer> {
  const sizes: ElementBytes[] = [1, 2, 4];
  const functions: Code[] = [
    ...sizes.map((size) => ({ name: `strip${size}`, parameters: 5, code: stripCode(size) })),
    { name: "copyRows", parameters: 6, code: copyRowsCode() },
    { name: "sum", parameters: 3, code: sumCode() },
  ];
  const typeOf = ({ parameters }: Code) => [
    0x60,
    ...list(Array.from({ length: parameters }, () => [i32])),
    ...list([]),
  ];
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0], // "\0asm", version 1
    ...section(1, functions.map(typeOf)),
    ...section(2, [[...text(""), ...text("memory"), 2, 0, 0]]), // import a memory of any size
    ...section(
      3,
      functions.map((_, i) => [i]),
    ),
    ...section(
      7,
      functions.map(({ name }, i) => [...text(name), 0, i]),
    ),
    ...section(
      10,
      functions.map(({ code }) => withLength(code)),
    ),
  ]);
}

const advance = (pointer: number, stride: number) => [op.get, pointer, op.get, stride, op.add, op.set, pointer];
/** To the start of the loop, unless that was the last of so many rounds. */
const again = (rounds: number) => [op.get, rounds, op.const, 1, op.subtract, op.tee, rounds, op.branchIf, 0, op.end];
const nextVector = (pointer: number) => [op.get, pointer, op.const, vectorBytes, op.add, op.set, pointer];

function copyRowsCode(): number[] {
  const [from, fromStride, to, toStride, length, count] = [0, 1, 2, 3, 4, 5];
  const copy = [op.get, to, op.get, from, op.get, length, ...op.copy];
  return [
    ...list([]),
    ...op.loop,
    ...copy,
    ...advance(from, fromStride),
    ...advance(to, toStride),
    ...again(count),
    op.end,
  ];
}

/** The state is four vectors: the sums of words 0 and 1, those of words 2 and 3, and the sums of both. */
function sumCode(): number[] {
  const [state, from, count, vector, sums] = [0, 1, 2, 3, 4];
  const at = (i: number) => [op.get, state, op.const, i * vectorBytes, op.add];
  const each = (code: (i: number) => number[]) => [0, 1, 2, 3].flatMap(code);
  const code = each((i) => [...at(i), ...op.load, op.set, sums + i]);
  code.push(...op.loop, op.get, from, ...op.load, op.set, vector);
  for (const [half, words] of [op.lowWords, op.highWords].entries()) {
    const [sum, sumOfSums] = [sums + half, sums + 2 + half];
    code.push(op.get, vector, ...words, op.get, sum, ...op.addPairs, op.tee, sum);
    code.push(op.get, sumOfSums, ...op.addPairs, op.set, sumOfSums);
  }
  code.push(...nextVector(from), ...again(count));
  code.push(...each((i) => [...at(i), op.get, sums + i, ...op.store]));
  return [...list([[5, v128]]), ...code, op.end];
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
  code.push(...nextVector(from), ...again(tiles));
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
