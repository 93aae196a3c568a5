/** RoPE scaling at the sizes of published models, worked out by hand; `decoder.test.ts` holds the whole to a reference. */
import fc from "fast-check";
import { expect, test } from "vitest";
import type { ModelConfig, RopeScaling } from "./config.ts";
import { ropeFactors, ropeFrequencies } from "./rope.ts";

function config(changes: Partial<ModelConfig>): ModelConfig {
  return {
    family: "llama",
    width: 128,
    numLayers: 6,
    numHeads: 1,
    numKvHeads: 1,
    headWidth: 128,
    ffnWidth: 32,
    vocabSize: 32,
    contextLength: 1 << 17,
    normEps: 1e-5,
    ropeTheta: 10_000,
    tieEmbeddings: true,
    ...changes,
  };
}
const plainOf = (changes: Partial<ModelConfig>) =>
  ropeFrequencies(config({ ...changes, ropeScaling: undefined }), 0).inverse;
const divisorsOf = (changes: Partial<ModelConfig>) =>
  Array.from(ropeFrequencies(config(changes), 0).inverse, (f, i) => plainOf(changes)[i]! / f);

test("unscaled: pair i turns by θ^(−2i/C) per token", () => {
  const { inverse, magnitude } = ropeFrequencies(config({ headWidth: 4, ropeTheta: 100 }), 0);
  expect([...inverse]).toEqual([1, 0.1]);
  expect(magnitude).toBe(1);
});

test("Llama 3.1 8B: pairs of a wavelength below 2048 tokens stay, those above 8192 are divided by 8", () => {
  // wavelength 2π·500000^(i/64): 2048 at i = 28.2, 8192 at i = 34.97
  const scaling = { kind: "llama3", factor: 8, lowFactor: 1, highFactor: 4, originalContextLength: 8192 } as const;
  const changes = { ropeTheta: 500_000, ropeScaling: scaling };
  const divisors = divisorsOf(changes);
  expect(divisors.slice(0, 29)).toEqual(new Array(29).fill(1));
  for (const divisor of divisors.slice(35)) expect(divisor).toBeCloseTo(8, 12);
  for (let i = 29; i < 35; i++) expect(divisors[i]!).toBeGreaterThan(divisors[i - 1]!);
  const factors = ropeFactors(config(changes))!;
  expect(factors).toHaveLength(64);
  for (const [i, factor] of factors.entries()) expect(factor).toBeCloseTo(divisors[i]!, 6);
});

test("Qwen2.5 with YaRN of factor 4: pairs up to 23 stay, those from 40 on are divided, attention grows by 1.14", () => {
  // pair of n rotations in 32768 tokens: 64·ln(32768/2πn)/ln 10⁶ = 23.6 for n = 32, 39.7 for n = 1
  const scaling = { kind: "yarn", factor: 4, originalContextLength: 32_768, betaFast: 32, betaSlow: 1 } as const;
  const changes = { ropeTheta: 1_000_000, ropeScaling: scaling };
  const divisors = divisorsOf(changes);
  expect(divisors.slice(0, 24)).toEqual(new Array(24).fill(1));
  for (const divisor of divisors.slice(40)) expect(divisor).toBeCloseTo(4, 12);
  // halfway between 23 and 40 half of the frequency stays as it is: i = 31.5 is between two pairs
  expect(1 / divisors[31]! + 1 / divisors[32]!).toBeCloseTo(2 * (1 / 2 + 1 / 8), 12);
  expect(ropeFrequencies(config(changes), 0).magnitude).toBeCloseTo(1.138629436, 9);
  expect(ropeFactors(config(changes))).toBeUndefined();
});

test("gemma3: local layers have a θ of their own, unscaled; every sixth layer the other, scaled", () => {
  const model = config({
    family: "gemma3",
    ropeTheta: 1_000_000,
    localRopeTheta: 10_000,
    slidingWindow: 512,
    ropeScaling: { kind: "linear", factor: 8 },
  });
  for (let layer = 0; layer < 5; layer++)
    expect(ropeFrequencies(model, layer).inverse).toEqual(plainOf({ ropeTheta: 10_000 }));
  const global = ropeFrequencies(model, 5).inverse;
  for (const [i, frequency] of plainOf({ ropeTheta: 1_000_000 }).entries())
    expect(global[i]! / (frequency / 8)).toBeCloseTo(1, 12);
});

const factor = fc.double({ min: 1, max: 64, noNaN: true });
const originalContextLength = fc.integer({ min: 1, max: 1 << 20 });
const beta = fc.double({ min: 0.1, max: 64, noNaN: true });
const anyScaling: fc.Arbitrary<RopeScaling> = fc.oneof(
  fc.record({ kind: fc.constant("linear" as const), factor }),
  fc
    .record({ kind: fc.constant("llama3" as const), factor, lowFactor: beta, highFactor: beta, originalContextLength })
    .filter(({ lowFactor, highFactor }) => lowFactor < highFactor),
  fc.record({ kind: fc.constant("yarn" as const), factor, originalContextLength, betaFast: beta, betaSlow: beta }),
);

test("divisors lie between 1 and the factor, and rise with the wavelength", () => {
  fc.assert(
    fc.property(
      anyScaling,
      fc.integer({ min: 1, max: 64 }),
      fc.integer({ min: 2, max: 1e6 }),
      (scaling, half, theta) => {
        const divisors = divisorsOf({ headWidth: 2 * half, ropeTheta: theta, ropeScaling: scaling });
        for (const [i, divisor] of divisors.entries()) {
          expect(divisor).toBeGreaterThan(1 - 1e-9);
          expect(divisor).toBeLessThan(scaling.factor * (1 + 1e-9));
          expect(divisor).toBeGreaterThan((divisors[i - 1] ?? 0) * (1 - 1e-9));
        }
      },
    ),
  );
});
