/**
 * The FFN weights of a mask's channels, and their moments, as an ordinary model of the activated width: what a step under one mask trains. Gathered before the
 * step and put back after it, in TypeScript, so that the graph and the optimiser of such a step never see the channels that are dropped.
 *
 * The optimiser therefore leaves dropped channels as they are: no decay, and moments as of the last step that kept them (AdamW as it is for sparse
 * gradients).
 *
 * Shapes: L layers · D width · F channels · K kept ones
 */
import type { Mask } from "../mask/mask.ts";
import type { ModelConfig, Weight, Weights } from "../model/config.ts";
import { PREFIX } from "../net/step.ts";

const MATRIX = /^model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj\.weight$/;

/** A matrix of some layer's FFN: its whole, and what of it is kept. */
interface Matrix {
  layer: number;
  /** Whether channels are rows (gate, up), else columns (down). */
  isByRow: boolean;
  all: Float32Array;
  kept: Float32Array;
}

/** Matrices of all kept channels, of one width K. */
export class KeptWeights {
  /** All parameters of the LLM by their names: of the FFN the kept channels, which {@link take} fills. */
  readonly weights: Weights;
  readonly #matrices: Matrix[] = [];

  /**
   * @param weights the LLM's, or moments of them: those that are not of the FFN are shared, not copied
   * @param buffer where kept channels of a matrix lie, by its name: of at least K·D numbers, shared by all widths
   */
  constructor(
    { width: D }: Pick<ModelConfig, "width">,
    K: number,
    weights: Weights,
    buffer: (name: string) => Float32Array,
  ) {
    this.weights = new Map(weights);
    for (const [name, { data }] of weights) {
      const [, layer, matrix] = MATRIX.exec(name.replace(PREFIX.llm, "")) ?? [];
      if (layer === undefined) continue;
      const isByRow = matrix !== "down";
      const kept = buffer(name).subarray(0, K * D);
      const shape = isByRow ? [K, D] : [D, K];
      this.weights.set(name, { shape, data: kept } satisfies Weight);
      this.#matrices.push({ layer: Number(layer), isByRow, all: data, kept });
    }
  }

  /** Gathers what the mask keeps. */
  take({ layers, dFfn }: Mask): void {
    for (const { layer, isByRow, all, kept } of this.#matrices) {
      const channels = layers[layer]!;
      if (isByRow) copyRows(all, kept, channels, all.length / dFfn);
      else copyColumns(all, kept, channels, dFfn);
    }
  }

  /** Puts back what {@link take} gathered, as it is now. */
  put({ layers, dFfn }: Mask): void {
    for (const { layer, isByRow, all, kept } of this.#matrices) {
      const channels = layers[layer]!;
      if (isByRow) spreadRows(kept, all, channels, all.length / dFfn);
      else spreadColumns(kept, all, channels, dFfn);
    }
  }
}

/** Adds the gradients of a mask's channels, and of all other parameters, to those of the whole model. @param part by the names in `total` */
export function addKept(
  total: Readonly<Record<string, Float32Array>>,
  part: Readonly<Record<string, Float32Array>>,
  { layers, dFfn }: Mask,
): void {
  for (const [name, sum] of Object.entries(total)) {
    const more = part[name]!;
    const [, layer, matrix] = MATRIX.exec(name.replace(PREFIX.llm, "")) ?? [];
    if (layer === undefined) for (let i = 0; i < sum.length; i++) sum[i]! += more[i]!;
    else if (matrix === "down") addColumns(more, sum, layers[Number(layer)]!, dFfn);
    else addRows(more, sum, layers[Number(layer)]!, sum.length / dFfn);
  }
}

function addRows(kept: Float32Array, all: Float32Array, channels: Int32Array, D: number): void {
  for (const [i, channel] of channels.entries())
    for (let from = i * D, to = channel * D, end = from + D; from < end; from++, to++) all[to]! += kept[from]!;
}

function addColumns(kept: Float32Array, all: Float32Array, channels: Int32Array, F: number): void {
  const K = channels.length;
  for (let from = 0, to = 0; to < all.length; from += K, to += F)
    for (let i = 0; i < K; i++) all[to + channels[i]!]! += kept[from + i]!;
}

/** Calls `each` for runs of neighbouring channels: from place `at` among the kept ones, `count` channels from `channel` on. */
function forRuns(channels: Int32Array, each: (at: number, channel: number, count: number) => void): void {
  for (let at = 0; at < channels.length; ) {
    let end = at + 1;
    while (end < channels.length && channels[end]! === channels[end - 1]! + 1) end++;
    each(at, channels[at]!, end - at);
    at = end;
  }
}

function copyRows(all: Float32Array, kept: Float32Array, channels: Int32Array, D: number): void {
  forRuns(channels, (at, channel, count) => kept.set(all.subarray(channel * D, (channel + count) * D), at * D));
}

function spreadRows(kept: Float32Array, all: Float32Array, channels: Int32Array, D: number): void {
  forRuns(channels, (at, channel, count) => all.set(kept.subarray(at * D, (at + count) * D), channel * D));
}

function copyColumns(all: Float32Array, kept: Float32Array, channels: Int32Array, F: number): void {
  const K = channels.length;
  for (let from = 0, to = 0; from < all.length; from += F, to += K)
    for (let i = 0; i < K; i++) kept[to + i] = all[from + channels[i]!]!;
}

function spreadColumns(kept: Float32Array, all: Float32Array, channels: Int32Array, F: number): void {
  const K = channels.length;
  for (let from = 0, to = 0; to < all.length; from += K, to += F)
    for (let i = 0; i < K; i++) all[to + channels[i]!] = kept[from + i]!;
}
