/** What the campaign opens: sub-networks of the tiny model under masks that a number makes. */
import { Bundle } from "../../src/bundle/bundle.ts";
import { TINY_MODEL } from "../../src/bundle/pulledModels.ts";
import { openSubnetwork } from "../../src/bundle/subnetworkCache.ts";
import { type Mask, maskFromScores } from "../../src/mask/mask.ts";
import { Random } from "../../src/random.ts";

const tFfn = 64;

export const openBundle = () => new Bundle(TINY_MODEL);

export function numberedMask({ numLayers, ffnWidth }: Bundle, number: number): Mask {
  const random = new Random(`mask ${number}`);
  const scores = Float64Array.from({ length: numLayers * ffnWidth }, () => random.float());
  return maskFromScores(scores, { dFfn: ffnWidth, tFfn });
}

/** Path of the sub-network of a numbered mask, from the cache at `root` or else built into it. */
export async function openNumbered(bundle: Bundle, number: number, root: string): Promise<string> {
  const { path } = await openSubnetwork(bundle, numberedMask(bundle, number), { root });
  return path;
}
