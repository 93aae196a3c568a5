/**
 * The layout of `ffn.gguf`: every FFN channel of a layer as one record of bytes, its gate row, its up row, its down column, one after the
 * other, so that a sub-network's channels are few long reads.
 *
 * Gate and up rows are stored in any type of GGUF: a row is a channel. Of `down`, whose blocks would run across channels, F32, F16 and BF16
 * are stored as columns; every other type becomes one signed byte per output with one half-precision scale per output row
 * (`blk.N.ffn_down.scale`), so that any choice of channels makes Q8_0 blocks of equal scale without quantising again. Its error is at most
 * half of max|row| / 127, where Q8_0 has half of max|block| / 127.
 *
 * Shapes: D model width · F FFN width
 */
import { FileError } from "../errors.ts";
import type { GgufFile, GgufMetadata, GgufTensor } from "../formats/gguf.ts";
import { array, string } from "../formats/ggufValues.ts";
import { type BlockType, fromHalf, isBlockType, roundAwayFromZero, rowBytes, toHalf } from "../formats/quantize.ts";
import type { Weight } from "../model/config.ts";

/** Types of a layer's channels in store. `down` is "Q8_0" where its columns are signed bytes with a scale per output. */
export interface ChannelTypes {
  gate: BlockType;
  up: BlockType;
  down: "F32" | "F16" | "BF16" | "Q8_0";
}

/** Where the parts of a channel's record lie, in bytes: the gate row is at 0, `up` and `down` as said, `bytes` is the whole. */
export interface ChannelLayout extends ChannelTypes {
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

export function channelLayout(types: ChannelTypes, D: number): ChannelLayout {
  const upAt = rowBytes(types.gate, D);
  const downAt = upAt + rowBytes(types.up, D);
  return { ...types, upAt, downAt, bytes: downAt + columnBytes[types.down] * D };
}

export function channelsName(layer: number): string {
  return `blk.${layer}.ffn_channels`;
}

export function downScaleName(layer: number): string {
  return `blk.${layer}.ffn_down.scale`;
}

const typesKey = (matrix: keyof ChannelTypes) => `ifprune.ffn_${matrix}.types`;

/** Metadata of `ffn.gguf`. */
export function channelMetadata(architecture: string, layers: readonly ChannelTypes[]): GgufMetadata {
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
  ]);
}

/** Tensors of `ffn.gguf`. */
export function channelTensors(layers: readonly ChannelTypes[], D: number, F: number): GgufTensor[] {
  return layers.flatMap((types, layer): GgufTensor[] => [
    { name: channelsName(layer), type: "I8", shape: [F, channelLayout(types, D).bytes] },
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
  const layouts = gate.map((type, layer) => {
    const columns = down[layer]!;
    if (downType(columns) !== columns)
      throw new FileError(
        file.path,
        `layer ${layer}: wanted down columns of type F32, F16, BF16 or Q8_0, got ${columns}.`,
      );
    return channelLayout({ gate: type, up: up[layer]!, down: downType(columns) }, D);
  });
  for (const { name, type, shape } of channelTensors(layouts, D, F)) {
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
