/**
 * What a gather does with each byte, in WebAssembly modules that are assembled here, byte by byte, when they are first wanted: no compiler, no binary.
 * Where `down` of a 3B model's sub-network, 28 × 2048 × 3072 bytes, takes the plain loop (`transpose.ts`) 335 ms, it takes 95 ms.
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
  /** Of elements of so many bytes. */
  strip: (size: ElementBytes) => Strip;
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
type KernelName = `strip${ElementBytes}` | "copyRows" | "sum";
const modules = new Map<KernelName, object>();

/** @param bytes of memory; at most 4 GiB */
export function openKernels(bytes: number): Kernels {
  const memory = new WebAssembly.Memory({ initial: Math.ceil(bytes / pageBytes) });
  const opened = new Map<KernelName, (...args: number[]) => void>();
  const kernel = (name: KernelName) => {
    const found = opened.get(name) ?? open(name, memory);
    opened.set(name, found);
    return found;
  };
  return {
    bytes: new Uint8Array(memory.buffer),
    strip: (size) => kernel(`strip${size}`),
    copyRows: kernel("copyRows"),
    sum: kernel("sum"),
  };
}

function open(name: KernelName, memory: object): (...args: number[]) => void {
  const compiled = modules.get(name) ?? new WebAssembly.Module(assemble(...kernels[name]));
  modules.set(name, compiled);
  return new WebAssembly.Instance(compiled, { "": { memory } }).exports.kernel!;
}

const [i32, v128] = [0x7f, 0x7b];
const op = {
  loop: [0x03, 0x40],
  if: [0x04, 0x40],
  else: 0x05,
  branchIf: 0x0d,
  end: 0x0b,
  get: 0x20,
  set: 0x21,
  tee: 0x22,
  const: 0x41,
  lessOrEqual: 0x4d,
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

/** By name, the numbers that each takes and its code. */
const kernels: Record<KernelName, [parameters: number, code: () => number[]]> = {
  strip1: [5, () => stripCode(1)],
  strip2: [5, () => stripCode(2)],
  strip4: [5, () => stripCode(4)],
  copyRows: [6, copyRowsCode],
  sum: [3, sumCode],
};

/** A module of one function, "kernel". */
function assemble(parameters: number, code: () => number[]): Uint8Array<ArrayBuffer> {
  const type = [0x60, ...list(Array.from({ length: parameters }, () => [i32])), ...list([])];
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0], // "\0asm", version 1
    ...section(1, [type]),
    ...section(2, [[...text(""), ...text("memory"), 2, 0, 0]]), // import a memory of any size
    ...section(3, [[0]]),
    ...section(7, [[...text("kernel"), 0, 0]]),
    ...section(10, [withLength(code())]),
  ]);
}

const advance = (pointer: number, stride: number) => [op.get, pointer, op.get, stride, op.add, op.set, pointer];
/** To the start of the loop, unless that was the last of so many rounds. */
const again = (rounds: number) => [op.get, rounds, op.const, 1, op.subtract, op.tee, rounds, op.branchIf, 0, op.end];
const nextVector = (pointer: number) => [op.get, pointer, op.const, vectorBytes, op.add, op.set, pointer];

/** Rows are too short for `memory.copy`, which is a call: they go by vectors, of which the last overlaps the one before. */
function copyRowsCode(): number[] {
  const [from, fromStride, to, toStride, length, count, at] = [0, 1, 2, 3, 4, 5, 6];
  const atEnd = [op.get, length, op.const, vectorBytes, op.subtract, op.set, at];
  const plus = (pointer: number) => [op.get, pointer, op.get, at, op.add];
  const copyVector = [...plus(to), ...plus(from), ...op.load, ...op.store];
  const vectors = [
    ...[op.const, 0, op.set, at, ...op.loop, ...copyVector, ...nextVector(at)],
    ...[op.get, at, op.const, vectorBytes, op.add, op.get, length, op.lessOrEqual, op.branchIf, 0, op.end],
    ...[...atEnd, ...copyVector],
  ];
  const bytes = [op.get, to, op.get, from, op.get, length, ...op.copy];
  return [
    ...list([[1, i32]]),
    ...op.loop,
    ...[op.const, vectorBytes, op.get, length, op.lessOrEqual, ...op.if, ...vectors, op.else, ...bytes, op.end],
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
