import type { Bundle } from "../../src/bundle/bundle.ts";
import { fullMask, type Mask } from "../../src/mask/mask.ts";
import { randomMask } from "../support/makeModels.ts";

/** Two masks, and the one that keeps all. */
export function masksOf({ numLayers, ffnWidth }: Bundle): Mask[] {
  const random = [1, 2].map((seed) => randomMask(numLayers, ffnWidth, 16, "soft", seed));
  return [...random, fullMask(numLayers, ffnWidth)];
}
