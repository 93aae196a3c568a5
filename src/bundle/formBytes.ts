/** Memory that loaded sub-networks take, by estimate. */

import type { Bundle } from "./bundle.ts";
import { estimate, type StoredModel } from "./estimate.ts";
import { computeBytes, type KvType, kvCacheBytes, repackedBytes } from "./memory.ts";
import { residentBytes, residentComputeWidth } from "./residentModel.ts";

/**
 * What a sub-network of K channels takes, in bytes: of its own, and together with others of its bundle, which is nothing, as engines read their files:
 * what those share is shared on disk.
 *
 * @param contextLength of each slot
 * @param slots answers at a time, each with a cache of its own
 */
export function subnetworkBytes(
  stored: StoredModel,
  { tFfn: K, contextLength, slots, kvType }: { tFfn: number; contextLength: number; slots: number; kvType: KvType },
): { own: number; shared: number } {
  const { dense, subnetwork } = estimate(stored, { tFfn: K, contextLength, kvType });
  const { shared: base, ffn, kvCache, repacked } = K === stored.config.ffnWidth ? dense : subnetwork;
  const compute = computeBytes({ ...stored.config, ffnWidth: K }, slots * contextLength, kvType);
  return { own: Math.ceil(base + ffn + slots * kvCache + compute + repacked), shared: 0 };
}

/** The same of a mask in the resident form: of its own it has caches and buffers; the weights are shared by all that keep as many channels. */
export function residentShare(
  bundle: Bundle,
  { tFfn: K, contextLength, slots, kvType }: { tFfn: number; contextLength: number; slots: number; kvType: KvType },
): { own: number; shared: number } {
  const { config } = bundle;
  const compute = computeBytes({ ...config, ffnWidth: residentComputeWidth(bundle, K) }, slots * contextLength, kvType);
  const weights = residentBytes(bundle);
  const isQ8 = bundle.layouts.some(({ gate }) => gate === "Q8_0");
  return {
    own: Math.ceil(slots * kvCacheBytes(config, contextLength, kvType) + compute),
    shared: weights + (isQ8 ? repackedBytes(weights) : 0),
  };
}
