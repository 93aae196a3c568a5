/**
 * The mask: which FFN channels of each layer are kept, and by how much they are scaled. The one type that the learning and
 * the using side share.
 */

export interface Mask {
  /** Kept channels per layer (t_ffn). */
  tFfn: number;
  /** Channels per layer of the full model (d_ffn). */
  dFfn: number;
  /** Per layer, `tFfn` kept channel indices, strictly ascending. */
  layers: readonly Int32Array[];
  /** Per layer, the soft weight λ in (0, 1] of each kept channel, in the order of `layers`. Absent: hard mask, λ = 1. */
  lambda?: readonly Float32Array[];
}
