import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { OptionError } from "../errors.ts";
import { blockLength, decodeBfloat16, decodeQ8, encodeQ8, fromHalf, roundAwayFromZero, toHalf } from "./quantize.ts";

describe("half precision", () => {
  test("all 65,536 numbers but NaN survive a round trip", () => {
    for (let half = 0; half < 0x10000; half++) {
      const value = fromHalf(half);
      if (Number.isNaN(value)) expect(fromHalf(toHalf(value))).toBeNaN();
      else if (toHalf(value) !== half) expect(toHalf(value)).toBe(half);
    }
  });

  test("halfway between two neighbours goes to the even one, anything else to the nearer one", () => {
    for (let half = 0; half < 0x7bff; half++) {
      const [low, high] = [fromHalf(half), fromHalf(half + 1)];
      const middle = (low + high) / 2;
      expect(toHalf(middle)).toBe(half % 2 === 0 ? half : half + 1);
      expect(toHalf(low + (high - low) * 0.49)).toBe(half);
      expect(toHalf(-(low + (high - low) * 0.51))).toBe((half + 1) | 0x8000);
    }
  });

  test("known values, and overflow to infinity from 65,520 on", () => {
    expect([1, -2, 65504, 65519.996, 65520, 1e30, 2 ** -24, 2 ** -26].map(toHalf)).toEqual([
      0x3c00, 0xc000, 0x7bff, 0x7bff, 0x7c00, 0x7c00, 1, 0,
    ]);
  });
});

test("bfloat16 is the upper half of a float32", () => {
  expect([...decodeBfloat16(Uint16Array.of(0x3f80, 0xc040, 0x0001))]).toEqual([1, -3, 2 ** -133]);
});

describe("Q8_0", () => {
  test("a block is the scale max/127 and the quants", () => {
    const values = new Float32Array(blockLength);
    values.set([127, -1, 0.5, -0.5, 63.4]);
    const bytes = encodeQ8(values);
    expect([...bytes.subarray(0, 7)]).toEqual([0x00, 0x3c, 127, 255, 1, 255, 63]); // halves round away from zero, as roundf does
    expect(bytes.length).toBe(34);
  });

  test("zeros stay zeros", () => expect([...decodeQ8(encodeQ8(new Float32Array(64)))]).toEqual(new Array(64).fill(0)));

  test("decoding is within half a scale, and the scale's own rounding, of the value (seed 1)", () => {
    const block = fc.float32Array({ minLength: 32, maxLength: 32, min: -1000, max: 1000, noNaN: true });
    fc.assert(
      fc.property(block, (values) => {
        const largest = Math.max(...values.map(Math.abs));
        const bound = largest / 254 + largest * 2 ** -11 + 127 * 2 ** -25 + 1e-6;
        const decoded = decodeQ8(encodeQ8(values));
        for (const [i, value] of values.entries()) expect(Math.abs(value - decoded[i]!)).toBeLessThanOrEqual(bound);
      }),
      { seed: 1 },
    );
  });

  test("a part of a block is refused", () => expect(() => encodeQ8(new Float32Array(33))).toThrow(OptionError));
});

test("roundAwayFromZero differs from Math.round at negative halves", () => {
  expect([-2.5, -0.5, 0.5, 2.5, 0.49].map(roundAwayFromZero)).toEqual([-3, -1, 1, 3, 0]);
});
