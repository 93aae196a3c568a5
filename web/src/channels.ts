/**
 * Masks as the page has them: a bit per channel and layer.
 *
 * Shapes: L layers · K kept channels of a layer (t_ffn) · F all of them (d_ffn)
 */

/** [L], each ⌈F/8⌉ bytes: channel c is kept where bit `c & 7` of byte `c >> 3` is set. */
export type Bits = readonly Uint8Array[];

/** [L] rows of [F] numbers, one per channel. */
export type PerChannel = readonly Float32Array[];

export const decodeLayers = (layers: readonly string[]): Bits =>
  layers.map((layer) => Uint8Array.from(atob(layer), (character) => character.charCodeAt(0)));

export const isKept = (bits: Uint8Array, channel: number): boolean =>
  ((bits[channel >> 3]! >> (channel & 7)) & 1) === 1;

/** Kept channels of one layer, ascending. */
export function keptChannels(bits: Uint8Array): number[] {
  const kept: number[] = [];
  for (let c = 0; c < bits.length * 8; c++) if (isKept(bits, c)) kept.push(c);
  return kept;
}

/**
 * How many neighbouring channels a mask keeps or leaves together: the largest power of two of which that is so in every layer. 1 where channels are
 * free, and where all are kept.
 */
export function blockOf(layers: Bits, F: number): number {
  const isWhole = (block: number) =>
    layers.every((bits) => {
      for (let c = 0; c < F; c++) if (isKept(bits, c) !== isKept(bits, c - (c % block))) return false;
      return true;
    });
  let block = 1;
  while (F % (2 * block) === 0 && isWhole(2 * block)) block *= 2;
  return isWhole(F) ? 1 : block;
}

/** Kept blocks of one layer, ascending. */
export const keptBlocks = (bits: Uint8Array, block: number): number[] =>
  keptChannels(bits)
    .filter((c) => c % block === 0)
    .map((c) => c / block);

/** Channels of a bin, where at most `most` bins of a layer have room: whole blocks of the mask, doubled until they fit. */
export function binSize(F: number, block: number, most: number): number {
  let size = block;
  while (size < F && Math.ceil(F / size) > most) size *= 2;
  return size;
}

/** Channels of one bin; the last may be shorter. */
export interface Bin {
  from: number;
  /** Not of it. */
  end: number;
  kept: number;
  /** Mean share of other masks that keep those that are kept here; `NaN` where none is, or there is nothing to compare with. */
  common: number;
}

/** One layer in bins. */
export function binsOf(bits: Uint8Array, F: number, size: number, common?: Float32Array): Bin[] {
  return Array.from({ length: Math.ceil(F / size) }, (_, i) => {
    const [from, end] = [i * size, Math.min(F, (i + 1) * size)];
    let [kept, sum] = [0, 0];
    for (let c = from; c < end; c++) {
      if (!isKept(bits, c)) continue;
      kept++;
      sum += common?.[c] ?? Number.NaN;
    }
    return { from, end, kept, common: sum / kept };
  });
}

/** Share of `a`'s kept channels that `b` keeps too, per layer. [L] Chance is K/F. The same as `overlap` of `src/mask/overlap.ts`. */
export const overlapPerLayer = (a: Bits, b: Bits): number[] =>
  a.map((bits, layer) => {
    const kept = keptChannels(bits);
    return kept.filter((c) => isKept(b[layer]!, c)).length / kept.length;
  });

export const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

/** Share of `masks` that keep each channel; all 0 where there are none. */
export function shareKeeping(masks: readonly Bits[], L: number, F: number): PerChannel {
  const shares = Array.from({ length: L }, () => new Float32Array(F));
  for (const mask of masks) {
    for (const [layer, row] of shares.entries())
      for (const c of keptChannels(mask[layer]!)) row[c]! += 1 / masks.length;
  }
  return shares;
}

/** A mask belongs to a model's shape: a stored one may be of a model that had the same name. */
export const fits = (mask: Bits, L: number, F: number): boolean =>
  mask.length === L && mask.every((bits) => bits.length === Math.ceil(F / 8));
