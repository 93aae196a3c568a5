/** Memory that loaded sub-networks take, by estimate. */
import { estimate, type StoredModel } from "../bundle/estimate.ts";
import { computeBytes, type KvType, repackedBytes } from "../bundle/memory.ts";
import { tensorBytes } from "../formats/gguf.ts";

/**
 * What a sub-network of K channels takes, in bytes: of its own, and together with others of its bundle. llama.cpp copies weights of some types when it loads them,
 * so those are shared on disk only.
 *
 * @param contextLength of each slot
 * @param slots answers at a time, each with a cache of its own
 */
export function subnetworkBytes(
  stored: StoredModel,
  { tFfn: K, contextLength, slots, kvType }: { tFfn: number; contextLength: number; slots: number; kvType: KvType },
): { own: number; shared: number } {
  const { dense, subnetwork } = estimate(stored, { tFfn: K, contextLength, kvType });
  const { ffn, kvCache, repacked } = K === stored.config.ffnWidth ? dense : subnetwork;
  const compute = computeBytes({ ...stored.config, ffnWidth: K }, slots * contextLength, kvType);
  const copiesQ8 = repackedBytes(1) > 0;
  let [copied, shared] = [0, 0];
  for (const tensor of stored.shared) {
    const bytes = tensorBytes(tensor) ?? 0;
    if (["F32", "F16", "BF16"].includes(tensor.type) || (tensor.type === "Q8_0" && !copiesQ8)) shared += bytes;
    else copied += bytes;
  }
  return { own: Math.ceil(ffn + copied + slots * kvCache + compute + repacked), shared };
}
