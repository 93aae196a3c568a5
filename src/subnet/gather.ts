/**
 * Gathering a sub-network's FFN: the kept channels of a bundle, λ folded into `up`, in the layout of GGUF's ffn_gate, ffn_up and
 * ffn_down. Reads the kept channels and nothing else of the FFN.
 *
 * Shapes: D model width · F full FFN width · K kept FFN width (t_ffn) · L layers
 */
import { type FileHandle, open } from "node:fs/promises";
import { OptionError } from "../errors.ts";
import type { Bundle } from "../formats/bundle.ts";
import { type ChannelLayout, channelsName, columnBytes } from "../formats/channels.ts";
import { alignTensor, encodeHeader, type GgufMetadata, type GgufTensor, tensorBytes } from "../formats/gguf.ts";
import { blockBytes, blockLength, rowBytes, scaleBlocks } from "../formats/quantize.ts";
import { checkMask, type Mask } from "../mask/mask.ts";
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
      `sub-network: Q8_0 wants t_ffn in multiples of ${blockLength}, got ${mask.tFfn}. Pack the bundle as F16.`,
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
 * Bytes of the tensors of {@link ffnTensors}, each in a piece of its own. Memory: two layers of the sub-network and a tensor.
 *
 * @param mask checked by {@link checkBundleMask}
 */
export function* gatherFfn(bundle: ChannelStore, mask: Mask): Generator<Uint8Array> {
  const tensors = ffnTensors(bundle, mask.tFfn).values();
  for (const layer of gatherLayers(bundle, mask)) {
    for (let start = 0; start < layer.length; ) {
      const bytes = tensorBytes(tensors.next().value!)!;
      yield layer.slice(start, start + bytes);
      start += alignTensor(bytes);
    }
  }
}

/**
 * Writes a GGUF file of the tensors of {@link ffnTensors}: a layer is gathered while the one before it is written.
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
  const file = await open(path, "w");
  let writing: Promise<void> = Promise.resolve();
  try {
    const header = encodeHeader(metadata, ffnTensors(bundle, mask.tFfn));
    await writeAll(file, header, 0);
    let position = header.length;
    for (const layer of gatherLayers(bundle, mask)) {
      await writing;
      signal?.throwIfAborted();
      writing = writeAll(file, layer, position);
      position += layer.length;
    }
    await writing;
  } finally {
    await writing.catch(() => {}); // it failed before: that error is on its way
    await file.close();
  }
}

/** One write call may take only a part. */
async function writeAll(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; )
    done += (await file.write(bytes, done, bytes.length - done, position + done)).bytesWritten;
}

/** Channels that are read before they are cut: about 1 MB of records, which stays in a core's cache. Whole blocks. */
const chunkChannels = 128;

/**
 * The bytes of each layer's tensors as they lie in a GGUF file, aligned. Valid until the next but one is taken.
 */
function* gatherLayers(bundle: ChannelStore, mask: Mask): Generator<Uint8Array> {
  const { width: D, layouts, numLayers: L } = bundle;
  const K = mask.tFfn;
  const images = layouts.map((layout) => layerImage(layout, D, K));
  const slotBytes = Math.max(...images.map(({ bytes }) => bytes));
  const recordsAt = 2 * slotBytes;
  const records = Math.min(chunkChannels, K) * Math.max(...layouts.map(({ bytes }) => bytes));
  const transposer = openTransposer(recordsAt + records);
  const { bytes } = transposer;
  for (let layer = 0; layer < L; layer++) {
    const layout = layouts[layer]!;
    const { upAt, downAt } = layout;
    const kept = mask.layers[layer]!;
    const lambda = mask.lambda?.[layer];
    const slot = (layer % 2) * slotBytes;
    const image = images[layer]!;
    const down = downWriter(transposer, bundle, layer, slot + image.downAt, K);
    for (let start = 0; start < K; start += chunkChannels) {
      const count = Math.min(chunkChannels, K - start);
      readChannels(bundle, layer, kept.subarray(start, start + count), bytes, recordsAt);
      for (let i = 0; i < count; i++) {
        const record = recordsAt + i * layout.bytes;
        const up = slot + image.upAt + (start + i) * (downAt - upAt);
        bytes.copyWithin(slot + (start + i) * upAt, record, record + upAt);
        bytes.copyWithin(up, record + upAt, record + downAt);
        if (lambda) scaleBlocks(bytes.subarray(up, up + downAt - upAt), layout.up, lambda[start + i]!);
      }
      down(recordsAt + downAt, start, count);
    }
    yield bytes.subarray(slot, slot + image.bytes);
  }
}

/** Where a layer's tensors lie in its stretch of a file, and the length of that; gate is at 0. */
function layerImage({ upAt, downAt, down }: ChannelLayout, D: number, K: number) {
  const up = alignTensor(K * upAt);
  const downStart = up + alignTensor(K * (downAt - upAt));
  return { upAt: up, downAt: downStart, bytes: downStart + alignTensor(D * rowBytes(down, K)) };
}

/** Reads the records of channels to `at`, one read for each run of neighbours. */
function readChannels(bundle: ChannelStore, layer: number, channels: Int32Array, bytes: Uint8Array, at: number): void {
  const tensor = bundle.ffn.tensor(channelsName(layer));
  const record = bundle.layouts[layer]!.bytes;
  for (let from = 0; from < channels.length; ) {
    let to = from + 1;
    while (to < channels.length && channels[to] === channels[to - 1]! + 1) to++;
    bundle.ffn.readInto(bytes.subarray(at + from * record, at + to * record), tensor, channels[from]! * record);
    from = to;
  }
}

/**
 * Fills `down` [D, K] at `to` by its columns: a function that takes those of `count` channels from `start` on, the first at `from`,
 * a record apart.
 */
function downWriter({ bytes, strips }: Transposer, bundle: ChannelStore, layer: number, to: number, K: number) {
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
  return (from: number, start: number, count: number): void => {
    // What is no whole strip, in models of odd widths, goes byte by byte.
    const [whole, tiles] = [count - (count % n), Math.floor(D / n)];
    if (tiles > 0)
      for (let i = 0; i < whole; i += n) strips[size](from + i * record, record, to + position(start + i), row, tiles);
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
