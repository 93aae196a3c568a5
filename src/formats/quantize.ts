/**
 * Number types of weight files: half precision, bfloat16 and ggml's Q8_0, bit for bit as ggml's reference code does them.
 *
 * Q8_0: a row is cut into blocks of 32; a block is a half-precision scale d and 32 signed bytes q, value = d · q.
 */
import { OptionError } from "../errors.ts";

export const blockLength = 32;
/** Bytes of a Q8_0 block: the scale, then the quants. */
export const blockBytes = 2 + blockLength;

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

export function encodeHalf(values: Float32Array): Uint16Array<ArrayBuffer> {
  const halves = new Uint16Array(values.length);
  for (let i = 0; i < values.length; i++) halves[i] = toHalf(values[i]!);
  return halves;
}

export function decodeHalf(halves: Uint16Array): Float32Array {
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

/**
 * Q8_0 blocks of consecutive values: |value − decoded| ≤ 0.5 d (plus the half-precision rounding of d), d = max|block| / 127.
 *
 * @param values finite, length a multiple of 32
 * @throws {OptionError} if the length is not
 */
export function encodeQ8(values: Float32Array): Uint8Array {
  if (values.length % blockLength !== 0) {
    throw new OptionError(
      `encodeQ8: wanted a multiple of ${blockLength} values, got ${values.length}. Use F16 instead.`,
    );
  }
  const bytes = new Uint8Array((values.length / blockLength) * blockBytes);
  const view = new DataView(bytes.buffer);
  for (let block = 0; block < values.length / blockLength; block++) {
    const from = values.subarray(block * blockLength, (block + 1) * blockLength);
    const at = block * blockBytes;
    let largest = 0;
    for (const value of from) largest = Math.max(largest, Math.abs(value));
    const scale = Math.fround(largest / 127);
    const inverse = scale ? Math.fround(1 / scale) : 0;
    view.setUint16(at, toHalf(scale), true);
    for (let i = 0; i < blockLength; i++) view.setInt8(at + 2 + i, roundAwayFromZero(Math.fround(from[i]! * inverse)));
  }
  return bytes;
}

/** @param bytes whole Q8_0 blocks */
export function decodeQ8(bytes: Uint8Array): Float32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const values = new Float32Array((bytes.length / blockBytes) * blockLength);
  for (let i = 0; i < values.length; i++) {
    const at = Math.floor(i / blockLength) * blockBytes;
    values[i] = fromHalf(view.getUint16(at, true)) * view.getInt8(at + 2 + (i % blockLength));
  }
  return values;
}

/** Nearest integer, halves away from zero (C's roundf); Math.round takes halves upwards. */
export function roundAwayFromZero(value: number): number {
  return value < 0 ? -Math.round(-value) : Math.round(value);
}
