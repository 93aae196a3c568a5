/**
 * Gathering a sub-network's FFN: the kept channels of a bundle, λ folded into `up`, in the layout of GGUF's ffn_gate, ffn_up and
 * ffn_down. Reads the kept channels and nothing else of the FFN.
 *
 * Shapes: D model width · F full FFN width · K kept FFN width (t_ffn) · L layers
 */
import { open } from "node:fs/promises";
import { OptionError } from "../errors.ts";
import { writeBeside } from "../files.ts";
import { alignTensor, encodeHeader, type GgufMetadata, type GgufTensor, tensorBytes } from "../formats/gguf.ts";
import { blockBytes, blockLength, rowBytes, scaleBlocks } from "../formats/quantize.ts";
import { checkMask, type Mask } from "../mask/mask.ts";
import type { Bundle } from "./bundle.ts";
import { channelsName, columnBytes } from "./channels.ts";
import { type FileSum, Fletcher } from "./fletcher.ts";
import { type Kernels, openKernels, stateBytes, vectorBytes } from "./kernels.ts";

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
 * Bytes of the tensors of {@link ffnTensors}, each in a piece of its own. Memory: a layer of the sub-network, and the records of 32 channels.
 *
 * @param mask checked by {@link checkBundleMask}
 */
export function* gatherFfn(bundle: ChannelStore, mask: Mask): Generator<Uint8Array> {
  const place = new Places();
  const gather = gatherer(bundle, mask, place);
  const at = place.next(gather.layerBytes);
  const kernels = openKernels(place.end);
  for (let layer = 0; layer < bundle.numLayers; layer++) {
    gather.layer(kernels, layer, at);
    for (const [start, end] of gather.tensors(layer)) yield kernels.bytes.slice(at + start, at + end);
  }
}

/**
 * Writes a GGUF file of the tensors of {@link ffnTensors}. A layer is gathered while another thread writes the one before. Memory: two layers of the
 * sub-network, and the records of 32 channels.
 *
 * @param mask checked by {@link checkBundleMask}
 * @param signal stops between two layers
 * @returns the file's checksum
 */
export async function writeFfn(
  path: string,
  metadata: GgufMetadata,
  bundle: ChannelStore,
  mask: Mask,
  signal?: AbortSignal,
): Promise<FileSum> {
  const header = encodeHeader(metadata, ffnTensors(bundle, mask.tFfn));
  const place = new Places();
  const gather = gatherer(bundle, mask, place);
  const turns = [place.next(gather.layerBytes), place.next(gather.layerBytes)];
  const [state, headerAt] = [place.next(stateBytes), place.next(header.length)];
  const kernels = openKernels(place.end);
  const sum = new Fletcher(kernels, state);
  await using file = await open(path, "w");
  let end = 0;
  const write = (at: number, length: number) => {
    sum.add(at, length);
    const writing = writeBeside(file, kernels.bytes.subarray(at, at + length), end);
    writing.catch(() => {}); // it is awaited later, unless the next layer cannot be read
    end += length;
    return writing;
  };
  kernels.bytes.set(header, headerAt);
  let writing = write(headerAt, header.length);
  for (let layer = 0; layer < bundle.numLayers; layer++) {
    const at = turns[layer % 2]!;
    const length = gather.layer(kernels, layer, at);
    await writing; // which lets others in, too: all else is synchronous
    signal?.throwIfAborted();
    writing = write(at, length);
  }
  await writing;
  return { bytes: end, fletcher: sum.words };
}

/** Places in the memory of kernels. */
class Places {
  end = 0;

  next(bytes: number): number {
    const start = this.end;
    this.end += Math.ceil(bytes / vectorBytes) * vectorBytes;
    return start;
  }
}

/** Channels that are read at a time, whole blocks: what they take stays in a core's cache. */
const recordCount = 32;

interface Gatherer {
  /** Of the largest layer, as {@link Gatherer.layer} makes it. */
  layerBytes: number;
  /** Where the tensors of a layer begin and end. */
  tensors: (layer: number) => [start: number, end: number][];
  /** Puts the tensors of a layer at `at`, as they follow each other in a file. @returns their bytes, with what is left free after the last */
  layer: (kernels: Kernels, layer: number, at: number) => number;
}

/** @param place for what it needs of the memory */
function gatherer(bundle: ChannelStore, mask: Mask, place: Places): Gatherer {
  const { layouts } = bundle;
  const K = mask.tFfn;
  const sizes = ffnTensors(bundle, K).map((tensor) => tensorBytes(tensor)!);
  const tensors = (layer: number) => {
    let start = 0;
    return sizes.slice(3 * layer, 3 * layer + 3).map((bytes): [number, number] => {
      const [from, end] = [start, start + bytes];
      start = alignTensor(end);
      return [from, end];
    });
  };
  const lengths = layouts.map((_, layer) => alignTensor(tensors(layer)[2]![1]));
  const records = place.next(Math.min(recordCount, K) * Math.max(...layouts.map(({ bytes }) => bytes)));
  return {
    layerBytes: Math.max(...lengths),
    tensors,
    layer: (kernels, layer, at) => {
      const { bytes, copyRows } = kernels;
      const { upAt, downAt, up: upType, bytes: record } = layouts[layer]!;
      const places = tensors(layer);
      const [gate, up, down] = places.map(([start]) => at + start) as [number, number, number];
      const upBytes = downAt - upAt;
      const kept = mask.layers[layer]!;
      const lambda = mask.lambda?.[layer];
      const writeColumns = columnWriter(kernels, bundle, layer, { from: records + downAt, to: down, K });
      for (let start = 0; start < K; start += recordCount) {
        const count = Math.min(recordCount, K - start);
        readRecords(bundle, layer, kept.subarray(start, start + count), bytes, records);
        copyRows(records, record, gate + start * upAt, upAt, upAt, count);
        copyRows(records + upAt, record, up + start * upBytes, upBytes, upBytes, count);
        writeColumns(start, count);
      }
      for (const [i, weight] of lambda?.entries() ?? [])
        scaleBlocks(bytes.subarray(up + i * upBytes, up + (i + 1) * upBytes), upType, weight);
      for (const [, end] of places) bytes.fill(0, at + end, at + alignTensor(end));
      return lengths[layer]!;
    },
  };
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

/** Makes what puts the columns of `count` records, of which the first's is at `from`, into `down` [D, K] at `to`, from channel `start` on. */
function columnWriter(
  { bytes, strips }: Kernels,
  bundle: ChannelStore,
  layer: number,
  { from, to, K }: { from: number; to: number; K: number },
): (start: number, count: number) => void {
  const D = bundle.width;
  const { down: type, bytes: record } = bundle.layouts[layer]!;
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
      strips[size](from + i * record, record, to + position(start + i), row, tiles);
    for (let i = 0; i < count; i++) {
      for (let output = i < whole ? tiles * n : 0; output < D; output++) {
        const [source, target] = [from + i * record + output * size, to + output * row + position(start + i)];
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
