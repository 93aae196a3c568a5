/**
 * Frequencies of rotary position embeddings: from θ, and as RoPE scaling changes them for contexts longer than those of the first training.
 *
 * Shapes: C head width
 */
import type { ModelConfig, RopeScaling } from "./config.ts";
import { familyOf, isLocalLayer } from "./families.ts";

export interface RopeFrequencies {
  /** Radians per token of each pair of channels [C/2]. */
  inverse: Float64Array;
  /** Factor of rotated q and k; not 1 in YaRN only. */
  magnitude: number;
}

/** How a layer rotates q and k. Local layers with a θ of their own have no scaling. */
export function ropeFrequencies(config: ModelConfig, layer: number): RopeFrequencies {
  const { headWidth: C, ropeScaling: scaling } = config;
  if (familyOf(config).hasLocalTheta && isLocalLayer(config, layer))
    return { inverse: plainFrequencies(config.localRopeTheta!, C), magnitude: 1 };
  const plain = plainFrequencies(config.ropeTheta, C);
  if (!scaling) return { inverse: plain, magnitude: 1 };
  const divisors = frequencyDivisors(scaling, config.ropeTheta, C);
  const magnitude = scaling.kind === "yarn" ? 0.1 * Math.log(scaling.factor) + 1 : 1;
  return { inverse: plain.map((frequency, i) => frequency / divisors[i]!), magnitude };
}

/** What llama3 scaling divides each frequency by [C/2], as GGUF's `rope_freqs.weight` holds it; nothing where GGUF says it in metadata. */
export function ropeFactors({ ropeScaling, ropeTheta, headWidth }: ModelConfig): Float32Array | undefined {
  if (ropeScaling?.kind !== "llama3") return undefined;
  return Float32Array.from(frequencyDivisors(ropeScaling, ropeTheta, headWidth));
}

/** θ^(−2i/C) for i = 0 .. C/2 − 1. */
function plainFrequencies(theta: number, C: number): Float64Array {
  return Float64Array.from({ length: C / 2 }, (_, i) => theta ** (-i / (C / 2)));
}

/** A share of each frequency is kept, the rest of it divided by the factor. */
function frequencyDivisors(scaling: RopeScaling, theta: number, C: number): Float64Array {
  const share = keptShare(scaling, theta, C);
  return plainFrequencies(theta, C).map(
    (frequency, i) => 1 / (share(frequency, i) + (1 - share(frequency, i)) / scaling.factor),
  );
}

/** 1 for frequencies that stay, 0 for those that are divided, and a ramp between. */
function keptShare(scaling: RopeScaling, theta: number, C: number): (frequency: number, i: number) => number {
  switch (scaling.kind) {
    case "linear":
      return () => 0;
    case "llama3": {
      const { lowFactor, highFactor, originalContextLength } = scaling;
      const rotations = (frequency: number) => (originalContextLength * frequency) / (2 * Math.PI); // within the original context
      return (frequency) => clamp((rotations(frequency) - lowFactor) / (highFactor - lowFactor));
    }
    case "yarn": {
      /** The i, a real number, whose pair turns so often within the original context. */
      const pairOf = (rotations: number) =>
        ((C / 2) * Math.log(scaling.originalContextLength / (2 * Math.PI * rotations))) / Math.log(theta);
      const low = Math.max(0, Math.floor(pairOf(scaling.betaFast)));
      const high = Math.min(C - 1, Math.ceil(pairOf(scaling.betaSlow)));
      return (_, i) => 1 - clamp((i - low) / Math.max(high - low, 1e-3)); // a step where the ramp has no length
    }
    default:
      return scaling satisfies never;
  }
}

function clamp(value: number): number {
  return Math.min(1, Math.max(0, value));
}
