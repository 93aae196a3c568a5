/**
 * A sub-network as a model of its own, in float32: what an export holds, before its types round it.
 *
 * Shapes: D model width · F full FFN width · K kept FFN width (t_ffn)
 */
import type { Bundle } from "../bundle/bundle.ts";
import { checkMask, type Mask } from "../mask/mask.ts";
import type { ModelConfig, Weight } from "../model/config.ts";
import type { ModelSource } from "../model/source.ts";

/** The kept channels of an open bundle, λ folded into `up` in float32; all else is the bundle's. */
export class Subnetwork implements ModelSource {
  readonly config: ModelConfig;

  /**
   * @param bundle stays the caller's, who keeps it open
   * @throws {OptionError | ShapeError} if the mask is malformed, or made for another model
   */
  constructor(
    readonly bundle: Bundle,
    readonly mask: Mask,
  ) {
    checkMask(mask, "sub-network", bundle);
    this.config = { ...bundle.config, ffnWidth: mask.tFfn };
  }

  get path(): string {
    return this.bundle.path;
  }

  read(name: string, rows?: { from: number; to: number }): Weight {
    const [, number, matrix] = /^model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj\.weight$/.exec(name) ?? [];
    if (number === undefined) return this.bundle.read(name, rows);
    const layer = Number(number);
    const kept = this.mask.layers[layer]!;
    if (matrix === "down") return pickColumns(this.bundle.read(name, rows), kept);
    const { from, to } = rows ?? { from: 0, to: kept.length };
    const picked = kept.subarray(from, to);
    const start = picked[0] ?? 0;
    const span = this.bundle.read(name, { from: start, to: (picked.at(-1) ?? -1) + 1 });
    const factors = matrix === "up" ? this.mask.lambda?.[layer]?.subarray(from, to) : undefined;
    return pickRows(span, picked, start, factors);
  }

  /** Nothing: the bundle is its owner's. */
  [Symbol.dispose](): void {}
}

/** Rows `picked` of a matrix that begins with row `start`, each times its factor. */
function pickRows({ shape, data }: Weight, picked: Int32Array, start: number, factors?: Float32Array): Weight {
  const D = shape[1]!;
  const result = new Float32Array(picked.length * D);
  for (const [i, channel] of picked.entries()) {
    result.set(data.subarray((channel - start) * D, (channel - start + 1) * D), i * D);
    if (factors) for (let at = i * D; at < (i + 1) * D; at++) result[at]! *= factors[i]!;
  }
  return { shape: [picked.length, D], data: result };
}

function pickColumns({ shape, data }: Weight, picked: Int32Array): Weight {
  const [rows, F] = shape as [number, number];
  const K = picked.length;
  const result = new Float32Array(rows * K);
  for (let row = 0; row < rows; row++) for (let i = 0; i < K; i++) result[row * K + i] = data[row * F + picked[i]!]!;
  return { shape: [rows, K], data: result };
}
