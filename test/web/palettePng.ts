/** Makes pictures of a page small: PNGs of at most 64 colours, the most frequent ones, a fraction of the bytes of what a browser writes. */
import { crc32, deflateSync, inflateSync } from "node:zlib";

const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
const maxColors = 64;

interface Picture {
  width: number;
  height: number;
  /** Red, green, blue of each pixel, row by row. */
  rgb: Uint8Array;
}

/** @param png of 8 bits a channel, RGB or RGBA, not interlaced, as browsers write it; what is transparent is lost */
export function withPalette(png: Buffer): Buffer {
  const { width, height, rgb } = decode(png);
  const { palette, colorOf } = choosePalette(rgb);
  const rows = Buffer.alloc(height * (width + 1)); // each begins with its filter, 0: none
  for (let i = 0; i < width * height; i++) rows[i + Math.floor(i / width) + 1] = colorOf(bucketOf(rgb, 3 * i));
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 3, 0, 0, 0], 8); // 8 bits, a palette
  const chunks = [
    chunk("IHDR", header),
    chunk("PLTE", Buffer.from(palette.flat())),
    chunk("IDAT", deflateSync(rows, { level: 9 })),
    chunk("IEND", Buffer.alloc(0)),
  ];
  return Buffer.concat([signature, ...chunks]);
}

function chunk(type: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(type), data]);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(data.length);
  const sum = Buffer.alloc(4);
  sum.writeUInt32BE(crc32(body));
  return Buffer.concat([length, body, sum]);
}

function decode(png: Buffer): Picture {
  const [width, height, color] = [png.readUInt32BE(16), png.readUInt32BE(20), png[25]];
  if (png[24] !== 8 || (color !== 2 && color !== 6) || png[28] !== 0)
    throw new Error(`wanted 8 bits of RGB or RGBA, got ${png[24]} of type ${color}`);
  const data: Buffer[] = [];
  for (let at = signature.length; at < png.length; ) {
    const length = png.readUInt32BE(at);
    if (png.toString("latin1", at + 4, at + 8) === "IDAT") data.push(png.subarray(at + 8, at + 8 + length));
    at += length + 12;
  }
  const raw = inflateSync(Buffer.concat(data));
  const channels = color === 2 ? 3 : 4;
  const stride = width * channels;
  const bytes = new Uint8Array(height * stride);
  for (let y = 0; y < height; y++) {
    const filter = raw[y * (stride + 1)]!;
    for (let x = 0; x < stride; x++) {
      const i = y * stride + x;
      const left = x < channels ? 0 : bytes[i - channels]!;
      const up = y === 0 ? 0 : bytes[i - stride]!;
      const corner = x < channels || y === 0 ? 0 : bytes[i - stride - channels]!;
      bytes[i] = raw[i + y + 1]! + [0, left, up, (left + up) >> 1, paeth(left, up, corner)][filter]!;
    }
  }
  if (channels === 3) return { width, height, rgb: bytes };
  return { width, height, rgb: bytes.filter((_, i) => i % 4 !== 3) };
}

function paeth(left: number, up: number, corner: number): number {
  const [a, b, c] = [Math.abs(up - corner), Math.abs(left - corner), Math.abs(left + up - 2 * corner)];
  return a <= b && a <= c ? left : b <= c ? up : corner;
}

type Color = [red: number, green: number, blue: number];

/** Colours of 5 bits a channel. */
const bucketOf = (rgb: Uint8Array, i: number): number =>
  ((rgb[i]! >> 3) << 10) | ((rgb[i + 1]! >> 3) << 5) | (rgb[i + 2]! >> 3);

/** The means of the most frequent buckets, and for every bucket the number of the nearest of them. */
function choosePalette(rgb: Uint8Array): { palette: Color[]; colorOf: (bucket: number) => number } {
  const buckets = new Map<number, { count: number; sum: Color }>();
  for (let i = 0; i < rgb.length; i += 3) {
    const key = bucketOf(rgb, i);
    const bucket = buckets.get(key) ?? { count: 0, sum: [0, 0, 0] };
    buckets.set(key, bucket);
    bucket.count++;
    for (let c = 0; c < 3; c++) bucket.sum[c]! += rgb[i + c]!;
  }
  const meanOf = ({ count, sum }: { count: number; sum: Color }) =>
    sum.map((value) => Math.round(value / count)) as Color;
  const frequent = [...buckets.values()].sort((a, b) => b.count - a.count).slice(0, maxColors);
  const palette = frequent.map(meanOf);
  const distance = (a: Color, b: Color) => a.reduce((sum, value, c) => sum + (value - b[c]!) ** 2, 0);
  const nearest = new Map<number, number>();
  const colorOf = (key: number): number => {
    let index = nearest.get(key);
    if (index === undefined) {
      const color = meanOf(buckets.get(key)!);
      const distances = palette.map((other) => distance(color, other));
      index = distances.indexOf(Math.min(...distances));
      nearest.set(key, index);
    }
    return index;
  };
  return { palette, colorOf };
}
