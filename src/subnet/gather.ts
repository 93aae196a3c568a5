/**
 * Gathering a sub-network's FFN: the kept channels of a bundle, λ folded into `up`, in the layout of GGUF's ffn_gate, ffn_up and
 * ffn_down. Reads the kept channels and nothing else of the FFN.
 *
 * Shapes: D model width · F full FFN width · K kept FFN width (t_ffn) · L layers
 */
import { OptionError } from "../errors.ts";
import { type Bundle, channelBytes, channelsName, downScaleName } from "../formats/bundle.ts";
import type { GgufTensor } from "../formats/gguf.ts";
import type { WeightType } from "../formats/ggufModel.ts";
import { blockBytes, blockLength, fromHalf, toHalf } from "../formats/quantize.ts";
import { transpose } from "../formats/transpose.ts";
import { checkMask, type Mask } from "../mask/mask.ts";

/**
 * @throws {ShapeError} if the mask is not for this bundle's model
 * @throws {OptionError} if it is malformed, or its width does not suit the weight type
 */
export function checkBundleMask(bundle: Bundle, mask: Mask): void {
  checkMask(mask, "sub-network", bundle);
  if (bundle.manifest.weightType === "Q8_0" && mask.tFfn % blockLength !== 0) {
    throw new OptionError(
      `sub-network: Q8_0 wants t_ffn in multiples of ${blockLength}, got ${mask.tFfn}. Pack the bundle as F16.`,
    );
  }
}

/** FFN tensors of a sub-network of K channels, in the order of {@link gatherFfn}. */
export function ffnTensors(bundle: Bundle, K: number): GgufTensor[] {
  const { numLayers, width: D, manifest } = bundle;
  return Array.from({ length: numLayers }, (_, layer) =>
    Object.entries({ gate: [K, D], up: [K, D], down: [D, K] }).map(
      ([name, shape]): GgufTensor => ({ name: `blk.${layer}.ffn_${name}.weight`, type: manifest.weightType, shape }),
    ),
  ).flat();
}

/**
 * Bytes of the tensors of {@link ffnTensors}. Memory: about two layers of the sub-network.
 *
 * @param mask checked by {@link checkBundleMask}
 */
export function* gatherFfn(bundle: Bundle, mask: Mask): Generator<Uint8Array> {
  const type = bundle.manifest.weightType;
  const { row, column } = channelBytes(type, bundle.width);
  const record = 2 * row + column;
  for (const [layer, kept] of mask.layers.entries()) {
    const records = readChannels(bundle, layer, kept, record);
    yield cut(records, kept.length, record, 0, row);
    const up = cut(records, kept.length, record, row, row);
    if (mask.lambda) scaleRows(up, mask.lambda[layer]!, type);
    yield up;
    const columns = cut(records, kept.length, record, 2 * row, column);
    yield downRows(columns, kept.length, bundle, layer);
  }
}

/** Records of the kept channels, one read for each run of neighbours. */
function readChannels(bundle: Bundle, layer: number, kept: Int32Array, record: number): Uint8Array {
  const tensor = bundle.ffn.tensor(channelsName(layer));
  const records = new Uint8Array(kept.length * record);
  for (let from = 0; from < kept.length; ) {
    let to = from + 1;
    while (to < kept.length && kept[to] === kept[to - 1]! + 1) to++;
    bundle.ffn.readInto(records.subarray(from * record, to * record), tensor, kept[from]! * record);
    from = to;
  }
  return records;
}

/** Bytes `start .. start + length` of each of `count` records, one after the other. */
function cut(
  records: Uint8Array,
  count: number,
  record: number,
  start: number,
  length: number,
): Uint8Array<ArrayBuffer> {
  const result = new Uint8Array(count * length);
  for (let i = 0; i < count; i++) {
    const at = i * record + start;
    result.set(records.subarray(at, at + length), i * length);
  }
  return result;
}

/** Multiplies row i of `rows` by λ_i. */
function scaleRows(rows: Uint8Array<ArrayBuffer>, lambda: Float32Array, type: WeightType): void {
  const bytes = rows.length / lambda.length;
  for (const [i, factor] of lambda.entries()) scaleRow[type](rows.buffer, i * bytes, bytes, factor);
}

/** Multiplies a row's values, or its blocks' scales, and rounds them to their type. */
const scaleRow: Record<WeightType, (buffer: ArrayBuffer, start: number, bytes: number, factor: number) => void> = {
  F32(buffer, start, bytes, factor) {
    const values = new Float32Array(buffer, start, bytes / 4);
    for (let i = 0; i < values.length; i++) values[i]! *= factor;
  },
  F16(buffer, start, bytes, factor) {
    const halves = new Uint16Array(buffer, start, bytes / 2);
    for (let i = 0; i < halves.length; i++) halves[i] = toHalf(fromHalf(halves[i]!) * factor);
  },
  Q8_0(buffer, start, bytes, factor) {
    const blocks = new DataView(buffer, start, bytes);
    for (let at = 0; at < bytes; at += blockBytes) {
      blocks.setUint16(at, toHalf(fromHalf(blocks.getUint16(at, true)) * factor), true);
    }
  },
};

/** `down` [D, K] from its K columns of D values. */
function downRows(columns: Uint8Array, K: number, bundle: Bundle, layer: number): Uint8Array {
  const D = bundle.width;
  const type = bundle.manifest.weightType;
  switch (type) {
    case "F32":
      return new Uint8Array(transpose(new Float32Array(columns.buffer), new Float32Array(K * D), K).buffer);
    case "F16":
      return new Uint8Array(transpose(new Uint16Array(columns.buffer), new Uint16Array(K * D), K).buffer);
    case "Q8_0":
      return interleaveScales(transpose(columns, new Uint8Array(K * D), K), downScales(bundle, layer));
    default:
      return type satisfies never;
  }
}

/** Half-precision scale of each row of `down`, `[D]`. */
function downScales(bundle: Bundle, layer: number): Uint16Array {
  const tensor = bundle.ffn.tensor(downScaleName(layer));
  const scales = new Uint16Array(bundle.width);
  bundle.ffn.readInto(new Uint8Array(scales.buffer), tensor, 0);
  return scales;
}

/** Q8_0 blocks of rows of quants, all blocks of a row with the row's scale. */
function interleaveScales(quants: Uint8Array, scales: Uint16Array): Uint8Array {
  const blocks = quants.length / blockLength;
  const result = new Uint8Array(blocks * blockBytes);
  const view = new DataView(result.buffer);
  for (let block = 0; block < blocks; block++) {
    view.setUint16(block * blockBytes, scales[Math.floor((block * scales.length) / blocks)]!, true);
    result.set(quants.subarray(block * blockLength, (block + 1) * blockLength), block * blockBytes + 2);
  }
  return result;
}
