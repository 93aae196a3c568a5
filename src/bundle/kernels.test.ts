/** The assembled module against its definition. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { openKernels, stateBytes, vectorBytes } from "./kernels.ts";

function scramble(bytes: Uint8Array): void {
  for (let i = 0; i < bytes.length; i++) bytes[i] = Math.imul(i, 0x9e3779b1) >>> 24;
}

test("a strip is its columns, transposed, and nothing else is written", () => {
  fc.assert(
    fc.property(
      fc.constantFrom(1 as const, 2 as const, 4 as const),
      fc.integer({ min: 1, max: 5 }),
      fc.integer({ min: 0, max: 40 }),
      fc.integer({ min: 0, max: 40 }),
      fc.integer({ min: 0, max: 7 }),
      (size, tiles, fromGap, toGap, start) => {
        const n = vectorBytes / size;
        const [fromStride, toStride] = [tiles * vectorBytes + fromGap, vectorBytes + toGap];
        const to = start + n * fromStride;
        const { bytes, strip } = openKernels(to + tiles * n * toStride);
        scramble(bytes);
        const wanted = bytes.slice();
        for (let column = 0; column < n; column++)
          for (let row = 0; row < tiles * n; row++)
            for (let byte = 0; byte < size; byte++)
              wanted[to + row * toStride + column * size + byte] =
                bytes[start + column * fromStride + row * size + byte]!;
        strip(size)(start, fromStride, to, toStride, tiles);
        expect(Buffer.compare(bytes, wanted)).toBe(0);
      },
    ),
  );
});

test.each([1, 15, 16, 17, 33, 68])(
  "rows of %d bytes are copied from their stride to the other, and nothing else is written",
  (length) => {
    const [from, to, count] = [3, 900, 9];
    const [fromStride, toStride] = [length + 6, length + 2];
    const { bytes, copyRows } = openKernels(2000);
    scramble(bytes);
    const wanted = bytes.slice();
    for (let row = 0; row < count; row++)
      wanted.set(wanted.subarray(from + row * fromStride, from + row * fromStride + length), to + row * toStride);
    copyRows(from, fromStride, to, toStride, length, count);
    expect(Buffer.compare(bytes, wanted)).toBe(0);
  },
);

test("sums are Fletcher's, and go on from where they were", () => {
  const { bytes, sum } = openKernels(4096);
  scramble(bytes);
  bytes.fill(255, 512, 1024); // words as large as can be
  bytes.fill(0, 0, stateBytes);
  const words = new BigUint64Array(8);
  const read = new Uint32Array(bytes.buffer, stateBytes, 4 * 100);
  for (const [i, word] of read.entries()) words[i % 4]! += BigInt(word);
  const sums = new BigUint64Array(4);
  for (const [i, word] of read.entries()) {
    sums[i % 4]! += BigInt(word);
    words[4 + (i % 4)]! += sums[i % 4]!;
  }
  sum(0, stateBytes, 37);
  sum(0, stateBytes + 37 * vectorBytes, 63);
  expect(new BigUint64Array(bytes.buffer, 0, 8)).toEqual(words);
});
