/**
 * The layout of `ffn.gguf`: every FFN channel of a layer as one record of bytes, its gate row, its up row, its down column, one after the
 * other, so that a sub-network's channels are few long reads.
 *
 * Gate and up rows are stored in any type of GGUF: a row is a channel. Of `down`, whose blocks would run across channels, F32, F16 and BF16
 * are stored as columns; every other type becomes one signed byte per output with one half-precision scale per output row
 * (`blk.N.ffn_down.scale`), so that any choice of channels makes Q8_0 blocks of equal scale without quantising again. Its error is at most
 * half of max|row| / 127, where Q8_0 has half of max|block| / 127.
 *
 * Where masks keep or drop blocks of channels, a layer is stored as its sub-networks are: all gate rows, all up rows, then of each block the rows of
 * `down`, [D, block] in its type. Rows are then read to where they belong, and nothing is transposed.
 *
 * Shapes: D model width · F FFN width
 */
import { FileError } from "../errors.ts";
import type { GgufFile, GgufMetadata, GgufTensor } from "../formats/gguf.ts";
import { array, string, uint32 } from "../formats/ggufValues.ts";
import {
  type BlockType,
  blockLength,
  fromHalf,
  isBlockType,
  roundAwayFromZero,
  rowBytes,
  toHalf,
} from "../formats/quantize.ts";
import type { Weight } from "../model/config.ts";

/** Types of a layer's channels in store. `down` is "Q8_0" where its columns are signed bytes with a scale per output. */
export interface ChannelTypes {
  gate: BlockType;
  up: BlockType;
  down: "F32" | "F16" | "BF16" | "Q8_0";
}

/**
 * Where the parts of a channel's record lie, in bytes: the gate row is at 0, `up` and `down` as said, `bytes` is the whole. Of channels in blocks all gate
 * rows are at 0, all up rows at F · `upAt`, all of `down` at F · `downAt`, and `bytes` is what a block takes of all three.
 */
export interface ChannelLayout extends ChannelTypes {
  /** Channels of a block; 1 where they are not stored in blocks. */
  block: number;
  upAt: number;
  downAt: number;
  bytes: number;
}

/** Bytes of an element of a down column. */
export const columnBytes = { F32: 4, F16: 2, BF16: 2, Q8_0: 1 } as const;

/** The type of a down column for weights of this type. */
export function downType(type: BlockType): ChannelTypes["down"] {
  return type === "F32" || type === "F16" || type === "BF16" ? type : "Q8_0";
}

/** @param block as {@link storedBlock} says */
export function channelLayout(types: ChannelTypes, D: number, block = 1): ChannelLayout {
  const upAt = rowBytes(types.gate, D);
  const downAt = upAt + rowBytes(types.up, D);
  const row = block > 1 ? rowBytes(types.down, block) : columnBytes[types.down];
  return { ...types, block, upAt, downAt, bytes: block * downAt + D * row };
}

/** The block of channels in store, where masks are of blocks of so many: rows of `down` are then whole blocks of every type, and long enough to be worth it. */
export function storedBlock(block: number): number {
  return block % blockLength === 0 ? block : 1;
}

/** Where a channel is in a row of `down`, in bytes. A Q8_0 block has its scale first. */
export function placeInRow(type: ChannelTypes["down"], channel: number): number {
  return type === "Q8_0" ? channel + 2 * (Math.floor(channel / blockLength) + 1) : channel * columnBytes[type];
}

export function channelsName(layer: number): string {
  return `blk.${layer}.ffn_channels`;
}

export function downScaleName(layer: number): string {
  return `blk.${layer}.ffn_down.scale`;
}

const typesKey = (matrix: keyof ChannelTypes) => `ifprune.ffn_${matrix}.types`;

const blockKey = "ifprune.ffn_block";

/** Metadata of `ffn.gguf`. */
export function channelMetadata(architecture: string, layers: readonly ChannelTypes[], block = 1): GgufMetadata {
  const typesOf = (matrix: keyof ChannelTypes) =>
    [
      typesKey(matrix),
      array(
        "string",
        layers.map((types) => types[matrix]),
      ),
    ] as const;
  return new Map([
    ["general.architecture", string(`${architecture}-ffn-channels`)],
    typesOf("gate"),
    typesOf("up"),
    typesOf("down"),
    [blockKey, uint32(block)],
  ]);
}

/** Tensors of `ffn.gguf`. */
export function channelTensors(layers: readonly ChannelTypes[], D: number, F: number, block = 1): GgufTensor[] {
  return layers.flatMap((types, layer): GgufTensor[] => [
    { name: channelsName(layer), type: "I8", shape: [F / block, channelLayout(types, D, block).bytes] },
    ...(types.down === "Q8_0" ? [{ name: downScaleName(layer), type: "F16", shape: [D] } as const] : []),
  ]);
}

/**
 * The layouts of all layers, from the metadata of `ffn.gguf`.
 *
 * @throws {FileError} if its tensors are not those of a model of this shape
 */
export function readChannelLayouts(
  file: GgufFile,
  { numLayers, width: D, ffnWidth: F }: { numLayers: number; width: number; ffnWidth: number },
): ChannelLayout[] {
  const read = (matrix: keyof ChannelTypes): readonly BlockType[] => {
    const entry = file.metadata.get(typesKey(matrix));
    const types = entry?.type === "array" ? entry.value : [];
    if (types.length !== numLayers || !types.every((type) => isBlockType(type)))
      throw new FileError(
        file.path,
        `metadata "${typesKey(matrix)}": wanted ${numLayers} types of tensors. Pack it again.`,
      );
    return types as BlockType[];
  };
  const [gate, up, down] = [read("gate"), read("up"), read("down")];
  const block = file.metadata.has(blockKey) ? file.number(blockKey) : 1;
  if (!(block >= 1 && F % block === 0 && storedBlock(block) === block))
    throw new FileError(
      file.path,
      `metadata "${blockKey}": wanted 1, or a multiple of ${blockLength} that divides ${F}, got ${block}. Pack it again.`,
    );
  const layouts = gate.map((type, layer) => {
    const columns = down[layer]!;
    if (downType(columns) !== columns)
      throw new FileError(
        file.path,
        `layer ${layer}: wanted down columns of type F32, F16, BF16 or Q8_0, got ${columns}.`,
      );
    return channelLayout({ gate: type, up: up[layer]!, down: downType(columns) }, D, block);
  });
  for (const { name, type, shape } of channelTensors(layouts, D, F, block)) {
    const got = file.tensor(name);
    if (got.type !== type || got.shape.join() !== shape.join()) {
      throw new FileError(
        file.path,
        `tensor "${name}": wanted ${type} [${shape.join(", ")}], got ${got.type} [${got.shape.join(", ")}]. Pack it again.`,
      );
    }
  }
  return layouts;
}

/** Half-precision scale of each row of `down` [D, F], rounded up so that no quant exceeds 127. */
export function rowScales({ shape: [D, F], data }: Weight): Uint16Array<ArrayBuffer> {
  const scales = new Uint16Array(D!);
  for (let output = 0; output < D!; output++) {
    let largest = 0;
    for (let i = output * F!; i < (output + 1) * F!; i++) largest = Math.max(largest, Math.abs(data[i]!));
    const half = toHalf(largest / 127);
    scales[output] = fromHalf(half) < largest / 127 ? half + 1 : half;
  }
  return scales;
}

/** Rows of `down` [D, F] as signed bytes in units of each row's scale. */
export function quantizeRows({ shape: [D, F], data }: Weight, scales: Uint16Array): Uint8Array<ArrayBuffer> {
  const quants = new Int8Array(data.length);
  for (let output = 0; output < D!; output++) {
    const scale = fromHalf(scales[output]!);
    if (scale === 0) continue;
    for (let i = output * F!; i < (output + 1) * F!; i++) quants[i] = roundAwayFromZero(data[i]! / scale);
  }
  return new Uint8Array(quants.buffer);
}

/**
 * The bytes of a layer's tensors, made of the records of its channels one by one.
 *
 * @param scales of the rows of `down`, where its columns are signed bytes
 * @param order the channel that comes to each place; absent: as they are
 */
export function* layerData(
  records: Uint8Array,
  layout: ChannelLayout,
  D: number,
  scales: Uint16Array<ArrayBuffer> | undefined,
  order?: Int32Array,
): Generator<Uint8Array> {
  yield order || layout.block > 1 ? arranged(records, layout, D, scales, order) : records;
  if (scales) yield new Uint8Array(scales.buffer);
}

function arranged(
  records: Uint8Array,
  { block, down: type, upAt, downAt, bytes }: ChannelLayout,
  D: number,
  scales: Uint16Array | undefined,
  order: Int32Array | undefined,
): Uint8Array {
  const size = columnBytes[type];
  const record = downAt + size * D;
  const F = records.length / record;
  const row = rowBytes(type, block);
  const all = new Uint8Array((F / block) * bytes);
  for (let place = 0; place < F; place++) {
    const from = (order?.[place] ?? place) * record;
    if (block === 1) {
      all.set(records.subarray(from, from + record), place * record);
      continue;
    }
    all.set(records.subarray(from, from + upAt), place * upAt);
    all.set(records.subarray(from + upAt, from + downAt), F * upAt + place * (downAt - upAt));
    const within = place % block;
    const to = F * downAt + ((place - within) / block) * D * row + placeInRow(type, within);
    for (let output = 0; output < D; output++) {
      const [source, target] = [from + downAt + output * size, to + output * row];
      for (let byte = 0; byte < size; byte++) all[target + byte] = records[source + byte]!;
    }
    if (!scales || within % blockLength > 0) continue;
    for (const [output, scale] of scales.entries()) all.set([scale & 255, scale >> 8], to + output * row - 2);
  }
  return all;
}
