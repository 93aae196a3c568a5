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
import { type ChannelLayout, channelsName, columnBytes, placeInRow } from "./channels.ts";
import { type FileSum, Fletcher } from "./fletcher.ts";
import { type Kernels, openKernels, stateBytes, vectorBytes } from "./kernels.ts";
import { keptBlocks } from "./maskAdapter.ts";

/** What a gather needs of a bundle. */
export type ChannelStore = Pick<Bundle, "width" | "ffnWidth" | "numLayers" | "layouts" | "ffn" | "downScales">;

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
 * Bytes of the tensors of {@link ffnTensors}, each in a piece of its own. Memory: a layer of the sub-network, and what is read of 32 channels or of `down` of a block.
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
 * sub-network, and what is read of 32 channels or of `down` of a block.
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

interface Gatherer {
  /** Of the largest layer, as {@link Gatherer.layer} makes it. */
  layerBytes: number;
  /** Where the tensors of a layer begin and end. */
  tensors: (layer: number) => [start: number, end: number][];
  /** Puts the tensors of a layer at `at`, as they follow each other in a file. @returns their bytes, with what is left free after the last */
  layer: (kernels: Kernels, layer: number, at: number) => number;
}

/** Puts a layer's kept channels where its tensors gate, up and down begin. */
type Collect = (kernels: Kernels, layer: number, to: [gate: number, up: number, down: number]) => void;

/** @param place for what it needs of the memory */
function gatherer(bundle: ChannelStore, mask: Mask, place: Places): Gatherer {
  const { layouts } = bundle;
  const sizes = ffnTensors(bundle, mask.tFfn).map((tensor) => tensorBytes(tensor)!);
  const tensors = (layer: number) => {
    let start = 0;
    return sizes.slice(3 * layer, 3 * layer + 3).map((bytes): [number, number] => {
      const [from, end] = [start, start + bytes];
      start = alignTensor(end);
      return [from, end];
    });
  };
  const lengths = layouts.map((_, layer) => alignTensor(tensors(layer)[2]![1]));
  const { block } = layouts[0]!; // of all layers
  const blocks = block > 1 ? keptBlocks({ ...mask, lambda: undefined }, block) : "";
  const collect =
    typeof blocks === "string" ? channelCollector(bundle, mask, place) : blockCollector(bundle, blocks, place);
  return {
    layerBytes: Math.max(...lengths),
    tensors,
    layer: (kernels, layer, at) => {
      const { upAt, downAt, up: upType } = layouts[layer]!;
      const places = tensors(layer);
      const [gate, up, down] = places.map(([start]) => at + start) as [number, number, number];
      collect(kernels, layer, [gate, up, down]);
      const { bytes } = kernels;
      const row = downAt - upAt;
      for (const [i, weight] of mask.lambda?.[layer]?.entries() ?? [])
        scaleBlocks(bytes.subarray(up + i * row, up + (i + 1) * row), upType, weight);
      for (const [, end] of places) bytes.fill(0, at + end, at + alignTensor(end));
      return lengths[layer]!;
    },
  };
}

/** Collects whole blocks of channels that are stored in blocks: rows of gate and up are read to their places, and those of `down` put together. */
function blockCollector(bundle: ChannelStore, blocks: readonly Int32Array[], place: Places): Collect {
  const { layouts, width: D, ffnWidth: F, ffn } = bundle;
  const scratch = place.next(Math.max(...layouts.map(downBytes)));
  return ({ bytes, copyRows }, layer, [gate, up, down]) => {
    const layout = layouts[layer]!;
    const { block, upAt, downAt } = layout;
    const tensor = ffn.tensor(channelsName(layer));
    const read = (to: number, length: number, offset: number) =>
      ffn.readInto(bytes.subarray(to, to + length), tensor, offset);
    const kept = blocks[layer]!;
    for (const [from, to] of runs(kept)) {
      const [first, start, count] = [kept[from]! * block, from * block, (to - from) * block];
      read(gate + start * upAt, count * upAt, first * upAt);
      read(up + start * (downAt - upAt), count * (downAt - upAt), F * upAt + first * (downAt - upAt));
    }
    const [narrow, wide] = [rowBytes(layout.down, block), rowBytes(layout.down, kept.length * block)];
    for (const [i, number] of kept.entries()) {
      read(scratch, downBytes(layout), F * downAt + number * downBytes(layout));
      copyRows(scratch, narrow, down + i * narrow, wide, narrow, D);
    }
  };
}

/** Of a block in store. */
const downBytes = ({ block, downAt, bytes }: ChannelLayout) => bytes - block * downAt;

/** Where runs of neighbours begin and end in ascending numbers. */
function runs(numbers: Int32Array): [from: number, to: number][] {
  const found: [number, number][] = [];
  for (let from = 0; from < numbers.length; ) {
    let to = from + 1;
    while (to < numbers.length && numbers[to] === numbers[to - 1]! + 1) to++;
    found.push([from, to]);
    from = to;
  }
  return found;
}

/** Channels that are read at a time, whole blocks of Q8_0: what they take stays in a core's cache. */
const recordCount = 32;

/** Collects any channels, by their records. */
function channelCollector(bundle: ChannelStore, mask: Mask, place: Places): Collect {
  const { layouts, width: D } = bundle;
  const K = mask.tFfn;
  const recordBytes = ({ downAt, down }: ChannelLayout) => downAt + columnBytes[down] * D;
  const records = place.next(Math.min(recordCount, K) * Math.max(...layouts.map(recordBytes)));
  const scratch = place.next(Math.max(...layouts.map((layout) => (layout.block > 1 ? downBytes(layout) : 0))));
  return (kernels, layer, [gate, up, down]) => {
    const { bytes, copyRows } = kernels;
    const layout = layouts[layer]!;
    const { upAt, downAt, block } = layout;
    const [record, upBytes] = [recordBytes(layout), downAt - upAt];
    const kept = mask.layers[layer]!;
    const writeColumns = columnWriter(kernels, bundle, layer, { from: records + downAt, record, to: down, K });
    for (let start = 0; start < K; start += recordCount) {
      const count = Math.min(recordCount, K - start);
      const channels = kept.subarray(start, start + count);
      if (block > 1) readParts(bundle, layer, channels, bytes, { to: records, record, scratch });
      else readRecords(bundle, layer, channels, bytes, { to: records, record });
      copyRows(records, record, gate + start * upAt, upAt, upAt, count);
      copyRows(records + upAt, record, up + start * upBytes, upBytes, upBytes, count);
      writeColumns(start, count);
    }
  };
}

/** Reads the records of channels, one read for each run of neighbours. */
function readRecords(
  { ffn }: ChannelStore,
  layer: number,
  channels: Int32Array,
  bytes: Uint8Array,
  { to, record }: { to: number; record: number },
): void {
  const tensor = ffn.tensor(channelsName(layer));
  for (const [start, end] of runs(channels))
    ffn.readInto(bytes.subarray(to + start * record, to + end * record), tensor, channels[start]! * record);
}

/** Makes the records of channels that are stored in blocks, value by value: masks of other channels than whole blocks are rare there. */
function readParts(
  { ffn, layouts, width: D, ffnWidth: F }: ChannelStore,
  layer: number,
  channels: Int32Array,
  bytes: Uint8Array,
  { to, record, scratch }: { to: number; record: number; scratch: number },
): void {
  const layout = layouts[layer]!;
  const { block, upAt, downAt, down: type } = layout;
  const [upBytes, row, size] = [downAt - upAt, rowBytes(type, block), columnBytes[type]];
  const tensor = ffn.tensor(channelsName(layer));
  const read = (at: number, length: number, offset: number) =>
    ffn.readInto(bytes.subarray(at, at + length), tensor, offset);
  let inScratch = -1;
  for (const [i, channel] of channels.entries()) {
    const at = to + i * record;
    read(at, upAt, channel * upAt);
    read(at + upAt, upBytes, F * upAt + channel * upBytes);
    const number = Math.floor(channel / block);
    if (number !== inScratch) read(scratch, downBytes(layout), F * downAt + number * downBytes(layout));
    inScratch = number;
    const from = scratch + placeInRow(type, channel % block);
    for (let output = 0; output < D; output++)
      for (let byte = 0; byte < size; byte++)
        bytes[at + downAt + output * size + byte] = bytes[from + output * row + byte]!;
  }
}

/** Makes what puts the columns of `count` records, of which the first's is at `from`, into `down` [D, K] at `to`, from channel `start` on. */
function columnWriter(
  { bytes, strip }: Kernels,
  bundle: ChannelStore,
  layer: number,
  { from, record, to, K }: { from: number; record: number; to: number; K: number },
): (start: number, count: number) => void {
  const D = bundle.width;
  const { down: type } = bundle.layouts[layer]!;
  const size = columnBytes[type];
  const n = vectorBytes / size;
  const transpose = strip(size);
  const row = rowBytes(type, K);
  const scales = type === "Q8_0" ? bundle.downScales(layer) : undefined;
  const halves = new Uint16Array(bytes.buffer);
  return (start, count) => {
    // What is no whole strip, in models of odd widths, goes value by value.
    const [whole, tiles] = [count - (count % n), Math.floor(D / n)];
    for (let i = 0; i < whole && tiles > 0; i += n)
      transpose(from + i * record, record, to + placeInRow(type, start + i), row, tiles);
    for (let i = 0; i < count; i++) {
      for (let output = i < whole ? tiles * n : 0; output < D; output++) {
        const [source, target] = [from + i * record + output * size, to + output * row + placeInRow(type, start + i)];
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
