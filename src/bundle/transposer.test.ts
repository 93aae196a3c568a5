/** The assembled module against its definition. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { openTransposer, vectorBytes } from "./transposer.ts";

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
        const { bytes, strips } = openTransposer(to + tiles * n * toStride);
        for (let i = 0; i < bytes.length; i++) bytes[i] = Math.imul(i, 0x9e3779b1) >>> 24;
        const wanted = bytes.slice();
        for (let column = 0; column < n; column++)
          for (let row = 0; row < tiles * n; row++)
            for (let byte = 0; byte < size; byte++)
              wanted[to + row * toStride + column * size + byte] =
                bytes[start + column * fromStride + row * size + byte]!;
        strips[size](start, fromStride, to, toStride, tiles);
        expect(Buffer.compare(bytes, wanted)).toBe(0);
      },
    ),
  );
});
