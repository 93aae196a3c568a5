/**
 * Number types of weight files: float32, half precision, bfloat16 and ggml's block types, bit for bit as ggml's reference code does them.
 *
 * A row is cut into blocks. One of Q4_0, Q5_0 or Q8_0 is a half-precision scale d and 32 quants q, value = d · q; Q4_1 and Q5_1 have an offset m
 * too, value = d · q + m. One of Q4_K and Q5_K is 8 sub-blocks of 32 with a scale and an offset of 6 bits each, in units of the block's d and
 * dmin; one of Q6_K 16 sub-blocks of 16 with a signed byte as scale, in units of d.
 *
 * ggml computes in float32, we in float64 and round once, when the value is stored: the same number. The products are exact (a half has 11 bits,
 * sub-scales 8, quants 6), or rounded once; a sum of two float32 keeps its correct rounding through float64.
 */
import { OptionError } from "../errors.ts";

/** Values and bytes of a block. */
export const blockTypes = {
  F32: { elements: 1, bytes: 4 },
  F16: { elements: 1, bytes: 2 },
  BF16: { elements: 1, bytes: 2 },
  Q4_0: { elements: 32, bytes: 18 },
  Q4_1: { elements: 32, bytes: 20 },
  Q5_0: { elements: 32, bytes: 22 },
  Q5_1: { elements: 32, bytes: 24 },
  Q8_0: { elements: 32, bytes: 34 },
  Q4_K: { elements: 256, bytes: 144 },
  Q5_K: { elements: 256, bytes: 176 },
  Q6_K: { elements: 256, bytes: 210 },
} as const;
/** A type that weights are read in. */
export type BlockType = keyof typeof blockTypes;
/** A type that weights are written in. */
export type WeightType = "F32" | "F16" | "BF16" | "Q8_0" | "Q4_0";

export function isBlockType(type: unknown): type is BlockType {
  return typeof type === "string" && Object.hasOwn(blockTypes, type);
}

/** Bytes of a row of `width` values; not an integer where they are no whole blocks. */
export function rowBytes(type: BlockType, width: number): number {
  const { elements, bytes } = blockTypes[type];
  return (width / elements) * bytes;
}

/** Values of a block of the types with 32. */
export const blockLength = blockTypes.Q8_0.elements;
/** Bytes of a Q8_0 block: the scale, then the quants. */
export const blockBytes = blockTypes.Q8_0.bytes;

const bits = new Uint32Array(1);
const float = new Float32Array(bits.buffer);

/** Half precision of a float32, rounded to nearest, ties to even. Beyond the range: ±Infinity. NaN stays NaN. */
export function toHalf(value: number): number {
  float[0] = value;
  const word = bits[0]!;
  const sign = (word >>> 16) & 0x8000;
  const magnitude = word & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x47800000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Subnormal: the ulp is 2^-24. The sum rounds to an integer number of them, as 0.5 has an ulp of 2^-24 in float32.
    float[0] = Math.abs(float[0]!) + 0.5;
    return sign | (bits[0]! - 0x3f000000);
  }
  // Normal: rebias the exponent (127 → 15), round the 13 dropped bits to even; a carry runs into the exponent as it should.
  return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
}

/** Value of a half-precision number given by its 16 bits. */
export function fromHalf(half: number): number {
  return halfValues[half]!;
}

/** Values of all half-precision numbers: looking one up is ten times as fast as taking it apart. */
const halfValues = new Float32Array(0x10000).map((_, half) => {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >>> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
});

function encodeHalf(values: Float32Array): Uint16Array<ArrayBuffer> {
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < values.length; i++) halves[i] = toHalf(values[i]!);
  return halves;
}

function decodeHalf(halves: Uint16Array): Float32Array {
  const values = new Float32Array(halves.length);
  for (let i = 0; i < values.length; i++) values[i] = fromHalf(halves[i]!);
  return values;
}

/** bfloat16 is the upper half of a float32. */
export function decodeBfloat16(halves: Uint16Array): Float32Array {
  const words = new Uint32Array(halves.length);
  for (let i = 0; i < words.length; i++) words[i] = halves[i]! << 16;
  return new Float32Array(words.buffer);
}

/** bfloat16 of a float32, rounded to nearest, ties to even. NaN stays NaN. */
export function encodeBfloat16(values: Float32Array): Uint16Array<ArrayBuffer> {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(words.length);
  for (let i = 0; i < words.length; i++) halves[i] = bfloat16Word(words[i]!) >>> 16;
  return halves;
}

/** Rounds values to ones that bfloat16 has, in place. */
export function roundToBfloat16(values: Float32Array): void {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < words.length; i++) words[i] = bfloat16Word(words[i]!) & 0xffff0000;
}

/** A float32's bits; the upper half of the result are those of its bfloat16. NaN becomes a quiet one: rounded, some would become 0 or infinity. */
function bfloat16Word(word: number): number {
  const isNumber = (word & 0x7fffffff) <= 0x7f800000;
  return isNumber ? word + 0x7fff + ((word >>> 16) & 1) : word | 0x400000;
}

/**
 * Consecutive values as `type`. F32 is a view of the values, not a copy.
 *
 * @param values finite; a multiple of 32 of them for Q8_0 and Q4_0
 * @throws {OptionError} if they are not
 */
export function encodeWeights(values: Float32Array, type: WeightType): Uint8Array {
  switch (type) {
    case "F32":
      return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    case "F16":
      return new Uint8Array(encodeHalf(values).buffer);
    case "BF16":
      return new Uint8Array(encodeBfloat16(values).buffer);
    case "Q8_0":
      return encodeQ8(values);
    case "Q4_0":
      return encodeQ4(values);
    default:
      return type satisfies never;
  }
}

/**
 * Q8_0 blocks of consecutive values: |value − decoded| ≤ 0.5 d (plus the half-precision rounding of d), d = max|block| / 127.
 *
 * @param values finite, length a multiple of 32
 * @throws {OptionError} if the length is not
 */
function encodeQ8(values: Float32Array): Uint8Array<ArrayBuffer> {
  const blocks = wholeBlocks(values, "Q8_0");
  const bytes = new Uint8Array(blocks * blockBytes);
  for (let block = 0; block < blocks; block++) {
    const from = block * blockLength;
    let largest = 0;
    for (let i = from; i < from + blockLength; i++) {
      const size = Math.abs(values[i]!);
      if (size > largest) largest = size;
    }
    const scale = Math.fround(largest / 127);
    const inverse = scale ? Math.fround(1 / scale) : 0;
    const at = block * blockBytes + 2;
    writeHalf(bytes, at - 2, scale);
    for (let i = 0; i < blockLength; i++) {
      const quant = Math.fround(values[from + i]! * inverse);
      bytes[at + i] = quant < 0 ? (quant - 0.5) | 0 : (quant + 0.5) | 0; // halves go away from zero; the sum is exact
    }
  }
  return bytes;
}

/** Q4_0 blocks: d = −x / 8 for the value x of largest size, so that x itself is met exactly. */
function encodeQ4(values: Float32Array): Uint8Array<ArrayBuffer> {
  const blocks = wholeBlocks(values, "Q4_0");
  const { bytes: size } = blockTypes.Q4_0;
  const bytes = new Uint8Array(blocks * size);
  for (let block = 0; block < blocks; block++) {
    const from = block * blockLength;
    let largest = 0; // with its sign
    for (let i = from; i < from + blockLength; i++) if (Math.abs(values[i]!) > Math.abs(largest)) largest = values[i]!;
    const scale = largest / -8;
    const inverse = scale ? Math.fround(1 / scale) : 0;
    const at = block * size;
    writeHalf(bytes, at, scale);
    for (let i = 0; i < 16; i++) {
      const low = Math.fround(Math.fround(values[from + i]! * inverse) + 8.5) | 0;
      const high = Math.fround(Math.fround(values[from + i + 16]! * inverse) + 8.5) | 0;
      bytes[at + 2 + i] = Math.min(15, low) | (Math.min(15, high) << 4);
    }
  }
  return bytes;
}

function wholeBlocks(values: Float32Array, type: WeightType): number {
  if (values.length % blockLength !== 0) {
    throw new OptionError(
      `encodeWeights: ${type} wants a multiple of ${blockLength} values, got ${values.length}. Use F16 instead.`,
    );
  }
  return values.length / blockLength;
}

/** @param bytes whole blocks of `type`, little endian. @returns F32 may share their memory */
export function decodeBlocks(bytes: Uint8Array, type: BlockType): Float32Array {
  switch (type) {
    case "F32":
      return new Float32Array(...aligned(bytes, 4));
    case "F16":
      return decodeHalf(new Uint16Array(...aligned(bytes, 2)));
    case "BF16":
      return decodeBfloat16(new Uint16Array(...aligned(bytes, 2)));
    default: {
      const { elements, bytes: size } = blockTypes[type];
      const values = new Float32Array((bytes.length / size) * elements);
      decoders[type](bytes, values);
      return values;
    }
  }
}

/** Where elements of so many bytes lie, in a copy if they are not aligned. */
function aligned(bytes: Uint8Array, size: number): [ArrayBufferLike, number, number] {
  const { buffer, byteOffset, byteLength } = bytes.byteOffset % size === 0 ? bytes : bytes.slice();
  return [buffer, byteOffset, byteLength / size];
}

const readHalf = (bytes: Uint8Array, at: number) => halfValues[bytes[at]! | (bytes[at + 1]! << 8)]!;

function writeHalf(bytes: Uint8Array, at: number, value: number): void {
  const half = toHalf(value);
  bytes[at] = half;
  bytes[at + 1] = half >>> 8;
}

/** Each fills `y` from its blocks. Written out type by type, as a function call per value costs more than the value. */
const decoders: Record<Exclude<BlockType, "F32" | "F16" | "BF16">, (bytes: Uint8Array, y: Float32Array) => void> = {
  Q4_0(bytes, y) {
    for (let at = 0, o = 0; at < bytes.length; at += 18, o += 32) {
      const d = readHalf(bytes, at);
      for (let i = 0; i < 16; i++) {
        const q = bytes[at + 2 + i]!;
        y[o + i] = ((q & 15) - 8) * d;
        y[o + i + 16] = ((q >> 4) - 8) * d;
      }
    }
  },
  Q4_1(bytes, y) {
    for (let at = 0, o = 0; at < bytes.length; at += 20, o += 32) {
      const d = readHalf(bytes, at);
      const m = readHalf(bytes, at + 2);
      for (let i = 0; i < 16; i++) {
        const q = bytes[at + 4 + i]!;
        y[o + i] = (q & 15) * d + m;
        y[o + i + 16] = (q >> 4) * d + m;
      }
    }
  },
  Q5_0(bytes, y) {
    for (let at = 0, o = 0; at < bytes.length; at += 22, o += 32) {
      const d = readHalf(bytes, at);
      const high = readWord(bytes, at + 2); // the fifth bits
      for (let i = 0; i < 16; i++) {
        const q = bytes[at + 6 + i]!;
        y[o + i] = (((q & 15) | (((high >>> i) << 4) & 16)) - 16) * d;
        y[o + i + 16] = (((q >> 4) | ((high >>> (i + 12)) & 16)) - 16) * d;
      }
    }
  },
  Q5_1(bytes, y) {
    for (let at = 0, o = 0; at < bytes.length; at += 24, o += 32) {
      const d = readHalf(bytes, at);
      const m = readHalf(bytes, at + 2);
      const high = readWord(bytes, at + 4);
      for (let i = 0; i < 16; i++) {
        const q = bytes[at + 8 + i]!;
        y[o + i] = ((q & 15) | (((high >>> i) << 4) & 16)) * d + m;
        y[o + i + 16] = ((q >> 4) | ((high >>> (i + 12)) & 16)) * d + m;
      }
    }
  },
  Q8_0(bytes, y) {
    const quants = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let at = 0, o = 0; at < bytes.length; at += 34, o += 32) {
      const d = readHalf(bytes, at);
      for (let i = 0; i < 32; i++) y[o + i] = quants[at + 2 + i]! * d;
    }
  },
  // d, dmin, 12 bytes of sub-scales, 128 bytes of four bits each
  Q4_K(bytes, y) {
    for (let at = 0, o = 0; at < bytes.length; at += 144) {
      const d = readHalf(bytes, at);
      const dmin = readHalf(bytes, at + 2);
      for (let sub = 0; sub < 8; sub++, o += 32) {
        const scale = d * subScale(bytes, at + 4, sub);
        const offset = dmin * subOffset(bytes, at + 4, sub);
        const from = at + 16 + 32 * (sub >> 1); // two sub-blocks side by side
        for (let i = 0; i < 32; i++) y[o + i] = scale * ((bytes[from + i]! >> (4 * (sub & 1))) & 15) - offset;
      }
    }
  },
  // as Q4_K, with 32 bytes of fifth bits before the others
  Q5_K(bytes, y) {
    for (let at = 0, o = 0; at < bytes.length; at += 176) {
      const d = readHalf(bytes, at);
      const dmin = readHalf(bytes, at + 2);
      for (let sub = 0; sub < 8; sub++, o += 32) {
        const scale = d * subScale(bytes, at + 4, sub);
        const offset = dmin * subOffset(bytes, at + 4, sub);
        const from = at + 48 + 32 * (sub >> 1);
        for (let i = 0; i < 32; i++) {
          const fifth = (bytes[at + 16 + i]! >> sub) & 1;
          y[o + i] = scale * (((bytes[from + i]! >> (4 * (sub & 1))) & 15) | (fifth << 4)) - offset;
        }
      }
    }
  },
  // 128 bytes of the low four bits, 64 of the high two, 16 sub-scales, d
  Q6_K(bytes, y) {
    for (let at = 0, o = 0; at < bytes.length; at += 210, o += 256) {
      const d = readHalf(bytes, at + 208);
      for (let half = 0; half < 2; half++) {
        const low = at + 64 * half;
        const high = at + 128 + 32 * half;
        for (let i = 0; i < 32; i++) {
          const sub = at + 192 + 8 * half + (i >> 4);
          const to = o + 128 * half + i;
          const h = bytes[high + i]!;
          y[to] = d * ((bytes[sub]! << 24) >> 24) * (((bytes[low + i]! & 15) | ((h & 3) << 4)) - 32);
          y[to + 32] = d * ((bytes[sub + 2]! << 24) >> 24) * (((bytes[low + i + 32]! & 15) | ((h & 12) << 2)) - 32);
          y[to + 64] = d * ((bytes[sub + 4]! << 24) >> 24) * (((bytes[low + i]! >> 4) | (h & 48)) - 32);
          y[to + 96] = d * ((bytes[sub + 6]! << 24) >> 24) * (((bytes[low + i + 32]! >> 4) | ((h & 192) >> 2)) - 32);
        }
      }
    }
  },
};

const readWord = (bytes: Uint8Array, at: number) =>
  bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);

/** Sub-block i's 6-bit scale of the 12 bytes at `at`: the last four keep their two high bits in the bytes of the first four. */
const subScale = (bytes: Uint8Array, at: number, i: number) =>
  i < 4 ? bytes[at + i]! & 63 : (bytes[at + i + 4]! & 15) | ((bytes[at + i - 4]! >> 6) << 4);

const subOffset = (bytes: Uint8Array, at: number, i: number) =>
  i < 4 ? bytes[at + i + 4]! & 63 : (bytes[at + i + 4]! >> 4) | ((bytes[at + i]! >> 6) << 4);

/** Where a block's half-precision scales are: all its values are linear in them. */
const scalesAt: Record<Exclude<BlockType, "F32" | "F16" | "BF16">, readonly number[]> = {
  Q4_0: [0],
  Q4_1: [0, 2],
  Q5_0: [0],
  Q5_1: [0, 2],
  Q8_0: [0],
  Q4_K: [0, 2],
  Q5_K: [0, 2],
  Q6_K: [208],
};

/** Multiplies values by `factor` in place: each value, or each block's scales, rounded to its type. @param bytes whole blocks */
export function scaleBlocks(bytes: Uint8Array, type: BlockType, factor: number): void {
  switch (type) {
    case "F32": {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      for (let at = 0; at < bytes.length; at += 4) view.setFloat32(at, view.getFloat32(at, true) * factor, true);
      return;
    }
    case "F16":
      for (let at = 0; at < bytes.length; at += 2) writeHalf(bytes, at, readHalf(bytes, at) * factor);
      return;
    case "BF16": {
      const values = decodeBlocks(bytes, type);
      for (let i = 0; i < values.length; i++) values[i]! *= factor;
      bytes.set(encodeWeights(values, type));
      return;
    }
    default: {
      const { bytes: size } = blockTypes[type];
      for (const scale of scalesAt[type])
        for (let at = scale; at < bytes.length; at += size) writeHalf(bytes, at, readHalf(bytes, at) * factor);
    }
  }
}

/** Nearest integer, halves away from zero (C's roundf); Math.round takes halves upwards. */
export function roundAwayFromZero(value: number): number {
  return value < 0 ? -Math.round(-value) : Math.round(value);
}
