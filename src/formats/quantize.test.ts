import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { OptionError } from "../errors.ts";
import {
  type BlockType,
  blockLength,
  blockTypes,
  decodeBfloat16,
  decodeBlocks,
  encodeBfloat16,
  encodeWeights,
  fromHalf,
  isBlockType,
  roundAwayFromZero,
  roundToBfloat16,
  rowBytes,
  scaleBlocks,
  toHalf,
} from "./quantize.ts";

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

describe("bfloat16", () => {
  test("is the upper half of a float32", () => {
    expect([...decodeBfloat16(Uint16Array.of(0x3f80, 0xc040, 0x0001))]).toEqual([1, -3, 2 ** -133]);
  });

  test("rounds to nearest, ties to even, large numbers to infinity; NaN stays NaN", () => {
    const words = Uint32Array.of(
      0x3f80_7fff,
      0x3f80_8000,
      0x3f81_8000,
      0xbf80_8001,
      0x7f7f_ffff,
      0x7f80_0001,
      0xff80_0000,
    );
    const got = [...encodeBfloat16(new Float32Array(words.buffer))];
    expect(got).toEqual([0x3f80, 0x3f80, 0x3f82, 0xbf81, 0x7f80, 0x7fc0, 0xff80]);
  });

  test("rounding in place is encoding and decoding, of all upper halves and of what is between them", () => {
    const lower = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
    for (const low of lower) {
      const words = Uint32Array.from({ length: 1 << 16 }, (_, high) => ((high << 16) | low) >>> 0);
      const values = new Float32Array(words.buffer);
      const expected = decodeBfloat16(encodeBfloat16(values));
      roundToBfloat16(values);
      expect(Buffer.compare(new Uint8Array(words.buffer), new Uint8Array(expected.buffer))).toBe(0); // bits: NaN equals NaN
    }
  });
});

describe("Q8_0", () => {
  test("a block is the scale max/127 and the quants", () => {
    const values = new Float32Array(blockLength);
    values.set([127, -1, 0.5, -0.5, 63.4]);
    const bytes = encodeWeights(values, "Q8_0");
    expect([...bytes.subarray(0, 7)]).toEqual([0x00, 0x3c, 127, 255, 1, 255, 63]); // halves round away from zero, as roundf does
    expect(bytes.length).toBe(34);
  });

  test("zeros stay zeros", () =>
    expect([...decodeBlocks(encodeWeights(new Float32Array(64), "Q8_0"), "Q8_0")]).toEqual(new Array(64).fill(0)));

  test("decoding is within half a scale, and the scale's own rounding, of the value (seed 1)", () => {
    const block = fc.float32Array({ minLength: 32, maxLength: 32, min: -1000, max: 1000, noNaN: true });
    fc.assert(
      fc.property(block, (values) => {
        const largest = Math.max(...values.map(Math.abs));
        const bound = largest / 254 + largest * 2 ** -11 + 127 * 2 ** -25 + 1e-6;
        const decoded = decodeBlocks(encodeWeights(values, "Q8_0"), "Q8_0");
        for (const [i, value] of values.entries()) expect(Math.abs(value - decoded[i]!)).toBeLessThanOrEqual(bound);
      }),
      { seed: 1 },
    );
  });

  test("a part of a block is refused", () =>
    expect(() => encodeWeights(new Float32Array(33), "Q8_0")).toThrow(OptionError));
});

test("roundAwayFromZero differs from Math.round at negative halves", () => {
  expect([-2.5, -0.5, 0.5, 2.5, 0.49].map(roundAwayFromZero)).toEqual([-3, -1, 1, 3, 0]);
});

describe("Q4_0", () => {
  test("the largest value is -8 scales, sign and all; low quants first", () => {
    const values = new Float32Array(blockLength);
    values.set([4, -4, 0.5, 0.26, 0.24]);
    values[16] = -1;
    const bytes = encodeWeights(values, "Q4_0");
    expect([...bytes.subarray(0, 7)]).toEqual([0x00, 0xb8, 0xa0, 0x8f, 0x87, 0x87, 0x88]); // d = -0.5; +8 scales would be 16: cut to 15
    expect([...decodeBlocks(bytes, "Q4_0").subarray(0, 5)]).toEqual([4, -3.5, 0.5, 0.5, -0]);
  });

  test("decoding is within half a scale, of the other end within one (seed 2)", () => {
    const block = fc.float32Array({ minLength: 32, maxLength: 32, min: -1000, max: 1000, noNaN: true });
    fc.assert(
      fc.property(block, (values) => {
        const largest = values.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a));
        const decoded = decodeBlocks(encodeWeights(values, "Q4_0"), "Q4_0");
        const rounding = Math.abs(largest) * 2 ** -11 + 8 * 2 ** -25 + 1e-6; // of the scale
        for (const [i, value] of values.entries()) {
          const bound =
            (value * largest < 0 && Math.abs(value) > (7.5 / 8) * Math.abs(largest) ? 1 / 8 : 1 / 16) *
            Math.abs(largest);
          expect(Math.abs(value - decoded[i]!)).toBeLessThanOrEqual(bound + rounding);
        }
      }),
      { seed: 2 },
    );
  });
});

// That all types decode as llama.cpp does is tested in test/llamaCpp.test.ts.
describe.each(Object.keys(blockTypes) as BlockType[])("%s", (type) => {
  const { elements, bytes: size } = blockTypes[type];
  /** Blocks whose scales are whole numbers of units that a half, a bfloat16 and a float32 hold. */
  const blocks = fc
    .array(fc.uint8Array({ minLength: size, maxLength: size }), { minLength: 1, maxLength: 3 })
    .map((parts) => {
      const bytes = new Uint8Array(Buffer.concat(parts));
      if (elements === 1)
        return encodeWeights(
          Float32Array.from(bytes.subarray(0, parts.length), (byte) => byte - 128),
          type as "F16",
        );
      for (let at = 0; at < bytes.length; at += size)
        for (const scale of type === "Q6_K" ? [208] : type.endsWith("_0") ? [0] : [0, 2])
          bytes[at + scale + 1] = 0x30 | (bytes[at + scale + 1]! & 0x87);
      return bytes;
    });

  test("halving the scales halves every value exactly (seed 5)", () => {
    fc.assert(
      fc.property(blocks, (bytes) => {
        const wanted = decodeBlocks(bytes, type).map((value) => value / 2);
        const scaled = bytes.slice();
        scaleBlocks(scaled, type, 0.5);
        expect(decodeBlocks(scaled, type)).toEqual(wanted);
      }),
      { seed: 5, numRuns: 50 },
    );
  });

  test("where its bytes begin does not matter", () => {
    const [bytes] = fc.sample(blocks, { seed: 6, numRuns: 1 }) as [Uint8Array];
    const shifted = new Uint8Array(bytes.length + 1);
    shifted.set(bytes, 1);
    expect(decodeBlocks(shifted.subarray(1), type)).toEqual(decodeBlocks(bytes, type));
  });

  test("a row of 256 values is whole blocks", () => {
    expect(decodeBlocks(new Uint8Array(rowBytes(type, 256)), type).length).toBe(256);
    expect(isBlockType(type)).toBe(true);
  });
});

test("names of other types, and of properties that all objects have, are no types", () => {
  expect(["Q2_K", "I8", "toString", "__proto__", 3].map(isBlockType)).toEqual([false, false, false, false, false]);
});
