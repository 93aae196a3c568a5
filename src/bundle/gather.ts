/**
 * Gathering a sub-network's FFN: the kept channels of a bundle, λ folded into `up`, in the layout of GGUF's ffn_gate, ffn_up and
 * ffn_down. Reads the kept channels and nothing else of the FFN.
 *
 * Shapes: D model width · F full FFN width · K kept FFN width (t_ffn) · L layers
 */
import { closeSync, ftruncateSync, openSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import { OptionError } from "../errors.ts";
import { writeFully } from "../files.ts";
import { alignTensor, encodeHeader, type GgufMetadata, type GgufTensor, tensorBytes } from "../formats/gguf.ts";
import { blockBytes, blockLength, rowBytes, scaleBlocks } from "../formats/quantize.ts";
import { checkMask, type Mask } from "../mask/mask.ts";
import type { Bundle } from "./bundle.ts";
import { type ChannelLayout, channelsName, columnBytes } from "./channels.ts";
import { openTransposer, type Transposer, vectorBytes } from "./transposer.ts";

/** What a gather needs of a bundle. */
export type ChannelStore = Pick<Bundle, "width" | "numLayers" | "layouts" | "ffn" | "downScales">;

/**
 * @throws {ShapeError} if the mask is not for this bundle's model
 * @throws {OptionError} if it is malformed, or its width does not suit the type of `down`
 */
export function checkBundleMask(bundle: Bundle, mask: Mask): void {
  checkMask(mask, "sub-network", bundle);
  if (mask.tFfn % blockLength !== 0 && bundle.layouts.some(({ down }) => down === "Q8_0")) {
    throw new OptionError(
      `sub-network: Q8_0 wants t_ffn in multiples of ${blockLength}, got ${mask.tFfn}. Choose one, or pack the bundle as F16.`,
    );
  }
}

/** FFN tensors of a sub-network of K channels, in the order of {@link gatherFfn}. */
export function ffnTensors({ layouts, width: D }: ChannelStore, K: number): GgufTensor[] {
  return layouts.flatMap(({ gate, up, down }, layer): GgufTensor[] => {
    const name = (matrix: string) => `blk.${layer}.ffn_${matrix}.weight`;
    return [
      { name: name("gate"), type: gate, shape: [K, D] },
      { name: name("up"), type: up, shape: [K, D] },
      { name: name("down"), type: down, shape: [D, K] },
    ];
  });
}

/**
 * Bytes of the tensors of {@link ffnTensors}, each in a piece of its own. Memory: about two layers of the sub-network.
 *
 * @param mask checked by {@link checkBundleMask}
 */
export function* gatherFfn(bundle: ChannelStore, mask: Mask): Generator<Uint8Array> {
  const sizes = ffnTensors(bundle, mask.tFfn).map((tensor) => tensorBytes(tensor)!);
  const tensors = new Map<number, Uint8Array>();
  for (const { tensor, offset, bytes, endsLayer } of gatherPieces(bundle, mask)) {
    const whole = tensors.get(tensor) ?? new Uint8Array(sizes[tensor]!);
    whole.set(bytes, offset);
    tensors.set(tensor, whole);
    if (!endsLayer) continue;
    yield* tensors.values();
    tensors.clear();
  }
}

/**
 * Writes a GGUF file of the tensors of {@link ffnTensors}. Memory: `down` of one layer of the sub-network, and the records of 288 channels.
 *
 * @param mask checked by {@link checkBundleMask}
 * @param signal stops between two layers
 */
export async function writeFfn(
  path: string,
  metadata: GgufMetadata,
  bundle: ChannelStore,
  mask: Mask,
  signal?: AbortSignal,
): Promise<void> {
  const tensors = ffnTensors(bundle, mask.tFfn);
  const header = encodeHeader(metadata, tensors);
  const starts: number[] = [];
  let end = header.length;
  for (const tensor of tensors) {
    starts.push(end);
    end = alignTensor(end + tensorBytes(tensor)!);
  }
  const descriptor = openSync(path, "w");
  try {
    ftruncateSync(descriptor, end);
    writeFully(descriptor, header, 0);
    for (const { tensor, offset, bytes, endsLayer } of gatherPieces(bundle, mask)) {
      writeFully(descriptor, bytes, starts[tensor]! + offset);
      if (!endsLayer) continue;
      await setImmediate(); // all else is synchronous: let others in between layers
      signal?.throwIfAborted();
    }
  } finally {
    closeSync(descriptor);
  }
}

/** A stretch of a tensor, which goes by its number in {@link ffnTensors}. The bytes are valid until the next piece is taken. */
interface Piece {
  tensor: number;
  offset: number;
  bytes: Uint8Array;
  /** Whether it is the last of the layer's three tensors. */
  endsLayer: boolean;
}

/** Channels that are read at a time, and that are written at a time, whole blocks: what they take stays in a core's cache. */
const [recordCount, chunkCount] = [32, 256];

/** The tensors of each layer: gate and up chunk by chunk, in turn, then `down` in one piece. */
function* gatherPieces(bundle: ChannelStore, mask: Mask): Generator<Piece> {
  const { width: D, layouts } = bundle;
  const K = mask.tFfn;
  let end = 0;
  const place = (count: number, bytesOf: (layout: ChannelLayout) => number) => {
    const start = end;
    end += Math.ceil((count * Math.max(...layouts.map(bytesOf))) / 4) * 4;
    return start;
  };
  const chunk = Math.min(chunkCount, K);
  const records = place(Math.min(recordCount, K), ({ bytes }) => bytes);
  const gates = place(chunk, ({ upAt }) => upAt);
  const ups = place(chunk, ({ upAt, downAt }) => downAt - upAt);
  const columns = place(chunk, ({ downAt, bytes }) => bytes - downAt);
  const downs = place(D, ({ down }) => rowBytes(down, K));
  const transposer = openTransposer(end);
  const { bytes } = transposer;
  for (const [layer, { upAt, downAt, up: upType, down, bytes: record }] of layouts.entries()) {
    const kept = mask.layers[layer]!;
    const lambda = mask.lambda?.[layer];
    const [upBytes, columnLength] = [downAt - upAt, record - downAt];
    const writeColumns = columnWriter(transposer, bundle, layer, { from: columns, to: downs, K });
    for (let start = 0; start < K; start += chunk) {
      const count = Math.min(chunk, K - start);
      for (let i = 0; i < count; i++) {
        const at = records + (i % recordCount) * record;
        if (at === records)
          readRecords(bundle, layer, kept.subarray(start + i, start + Math.min(i + recordCount, count)), bytes, at);
        const up = ups + i * upBytes;
        bytes.copyWithin(gates + i * upAt, at, at + upAt);
        bytes.copyWithin(up, at + upAt, at + downAt);
        bytes.copyWithin(columns + i * columnLength, at + downAt, at + record);
        if (lambda) scaleBlocks(bytes.subarray(up, up + upBytes), upType, lambda[start + i]!);
      }
      writeColumns(start, count);
      const piece = (matrix: number, at: number, length: number): Piece => ({
        tensor: 3 * layer + matrix,
        offset: start * length,
        bytes: bytes.subarray(at, at + count * length),
        endsLayer: false,
      });
      yield piece(0, gates, upAt);
      yield piece(1, ups, upBytes);
    }
    const whole = bytes.subarray(downs, downs + D * rowBytes(down, K));
    yield { tensor: 3 * layer + 2, offset: 0, bytes: whole, endsLayer: true };
  }
}

/** Reads the records of channels to `at`, one read for each run of neighbours. */
function readRecords(bundle: ChannelStore, layer: number, channels: Int32Array, bytes: Uint8Array, at: number): void {
  const tensor = bundle.ffn.tensor(channelsName(layer));
  const record = bundle.layouts[layer]!.bytes;
  for (let from = 0; from < channels.length; ) {
    let to = from + 1;
    while (to < channels.length && channels[to] === channels[to - 1]! + 1) to++;
    bundle.ffn.readInto(bytes.subarray(at + from * record, at + to * record), tensor, channels[from]! * record);
    from = to;
  }
}

/** Makes what puts the columns at `from`, those of `count` channels from `start` on, into `down` [D, K] at `to`. */
function columnWriter(
  { bytes, strips }: Transposer,
  bundle: ChannelStore,
  layer: number,
  { from, to, K }: { from: number; to: number; K: number },
): (start: number, count: number) => void {
  const D = bundle.width;
  const { down: type } = bundle.layouts[layer]!;
  const size = columnBytes[type];
  const n = vectorBytes / size;
  const row = rowBytes(type, K);
  const scales = type === "Q8_0" ? bundle.downScales(layer) : undefined;
  const halves = new Uint16Array(bytes.buffer);
  /** Of a channel in a row. A Q8_0 block has its scale first. */
  const position = (channel: number) =>
    scales ? channel + 2 * (Math.floor(channel / blockLength) + 1) : channel * size;
  return (start, count) => {
    // What is no whole strip, in models of odd widths, goes value by value.
    const [whole, tiles] = [count - (count % n), Math.floor(D / n)];
    for (let i = 0; i < whole && tiles > 0; i += n)
      strips[size](from + i * D * size, D * size, to + position(start + i), row, tiles);
    for (let i = 0; i < count; i++) {
      for (let output = i < whole ? tiles * n : 0; output < D; output++) {
        const [source, target] = [from + (i * D + output) * size, to + output * row + position(start + i)];
        bytes.copyWithin(target, source, source + size);
      }
    }
    if (scales) writeScales(halves, scales, to + (start / blockLength) * blockBytes, row, count / blockLength);
  };
}

/** Puts the scale of each row before its quants, in `blocks` blocks of every row; the first row's are at `to`. */
function writeScales(halves: Uint16Array, scales: Uint16Array, to: number, row: number, blocks: number): void {
  for (let output = 0; output < scales.length; output++) {
    const first = (to + output * row) / 2;
    for (let block = 0; block < blocks; block++) halves[first + (block * blockBytes) / 2] = scales[output]!;
  }
}
