import { describe, expect, test } from "vitest";
import { randomMask } from "../mask/baselines.ts";
import { toDenseMask } from "../mask/mask.ts";
import type { ModelConfig } from "../model/config.ts";
import { joinParts, parameterArrays, randomDecoder } from "../net/parameters.ts";
import { Random } from "../random.ts";
import { KeptWeights } from "./keptWeights.ts";

const llm: ModelConfig = {
  family: "llama",
  width: 16,
  numLayers: 3,
  numHeads: 2,
  numKvHeads: 1,
  headWidth: 8,
  ffnWidth: 24,
  vocabSize: 40,
  contextLength: 32,
  normEps: 1e-5,
  ropeTheta: 1e4,
  tieEmbeddings: true,
};

function kept(K: number, seed: number, block: number) {
  const weights = joinParts({ llm: randomDecoder(llm, new Random(seed)) });
  const buffers = new Map<string, Float32Array>();
  const part = new KeptWeights(llm, K, weights, (name) => {
    buffers.set(name, buffers.get(name) ?? new Float32Array(llm.ffnWidth * llm.width));
    return buffers.get(name)!;
  });
  const mask = randomMask({ numLayers: llm.numLayers, dFfn: llm.ffnWidth, tFfn: K, block }, seed, "domain");
  return { weights, part, mask };
}

describe("KeptWeights", () => {
  for (const [K, block] of [
    [8, 1],
    [8, 4],
    [24, 1],
  ] as const) {
    test(`channels of ${K}, blocks of ${block}: gathered where the mask says, and put back with what changed`, () => {
      const { weights, part, mask } = kept(K, 7, block);
      const before = new Map([...weights].map(([name, { data }]) => [name, data.slice()]));
      part.take(mask);
      const D = llm.width;
      for (const [layer, channels] of mask.layers.entries()) {
        const at = (matrix: string) => `llm.model.layers.${layer}.mlp.${matrix}_proj.weight`;
        for (const [i, channel] of channels.entries()) {
          for (const matrix of ["gate", "up"]) {
            const [all, own] = [weights.get(at(matrix))!.data, part.weights.get(at(matrix))!.data];
            expect(own.subarray(i * D, (i + 1) * D)).toEqual(all.subarray(channel * D, (channel + 1) * D));
          }
          const [all, own] = [weights.get(at("down"))!.data, part.weights.get(at("down"))!.data];
          for (let row = 0; row < D; row++) expect(own[row * K + i]).toBe(all[row * llm.ffnWidth + channel]);
        }
      }
      for (const [name, { data }] of part.weights)
        if (name.includes(".mlp.")) for (const i of data.keys()) data[i]! += 1;
      part.put(mask);
      const dense = toDenseMask(mask); // 1 where a channel is kept
      for (const [name, { data }] of weights) {
        const [, layer, matrix] = /layers\.(\d+)\.mlp\.(gate|up|down)/.exec(name) ?? [];
        const isKept = (i: number) =>
          layer !== undefined &&
          dense[Number(layer) * llm.ffnWidth + (matrix === "down" ? i % llm.ffnWidth : Math.floor(i / D))] === 1;
        const old = before.get(name)!;
        for (const i of data.keys()) expect(data[i]).toBe(isKept(i) ? Math.fround(old[i]! + 1) : old[i]);
      }
    });
  }

  test("all but the FFN is the model's own, not a copy", () => {
    const { weights, part } = kept(8, 1, 1);
    for (const [name, weight] of weights)
      if (!name.includes(".mlp.")) expect(part.weights.get(name)!.data).toBe(weight.data);
    expect(Object.keys(parameterArrays({ llm: randomDecoder(llm, new Random(1)) })).sort()).toEqual(
      [...part.weights.keys()].sort(),
    );
  });
});
