import { describe, expect, test } from "vitest";
import { scoreInstruction } from "../../test/reference/predictor.ts";
import { difference, evaluate, integers, normal, slopeError } from "../../test/support/graphs.ts";
import { goldenModel } from "../../test/support/models.ts";
import type { Model } from "../formats/huggingface.ts";
import { gradients } from "../graph/autodiff.ts";
import { Graph, size } from "../graph/graph.ts";
import { ops } from "../graph/ops.ts";
import { parameterInputs } from "../model/decoder.ts";
import { scoreFeature } from "./head.ts";
import { headInputs, headShapes, masksPerLayer, type PredictorConfig, predictScores } from "./predictor.ts";

const backbone = goldenModel("qwen3");
const { width: Dp, vocabSize: V } = backbone.config;
const [L, F, rank] = [3, 20, 5];
const configOf = (importance: boolean): PredictorConfig => {
  return { backbone: backbone.config, rank, numLayers: L, ffnWidth: F, importance };
};

/** Values of the head by name, and statistics of a feature that is far from standard. */
function headOf(config: PredictorConfig): Record<string, Float32Array> {
  const values = [...headShapes(config)].map(([name, shape]) => [name, normal(name, size(shape))] as const);
  const featureMean = normal("mean", Dp, { mean: 0.5 });
  const featureStd = normal("std", Dp).map((x) => 0.5 + Math.abs(x));
  return { ...Object.fromEntries(values), "feature.mean": featureMean, "feature.std": featureStd };
}
const parametersOf = ({ weights }: Model, prefix: string) =>
  Object.fromEntries([...weights].map(([name, { data }]) => [prefix + name, data]));

/** Three instructions of 5, 9 and 7 tokens in rows of T, padded with `filler`. */
const lengths = [5, 9, 7];
const instructions = lengths.map((length, i) => integers(`instruction ${i}`, length, V));
function padded(T: number, filler: number): { ids: Int32Array; lastRows: Int32Array } {
  const ids = new Int32Array(3 * T).fill(filler);
  for (const [row, tokens] of instructions.entries()) ids.set(tokens, row * T);
  return { ids, lastRows: Int32Array.from(lengths, (length, row) => row * T + length - 1) };
}

/** Outputs `feature`, `scores`, and `d:NAME`: gradients of Σ w·scores. */
function scoreGraph(config: PredictorConfig, T: number): Graph {
  const graph = new Graph("scores");
  const parameters = parameterInputs(graph, config.backbone, "backbone.");
  const tensors = { backbone: parameters, ...headInputs(graph, config, "head.") };
  const [ids, lastRows] = [graph.input("ids", [3, T], "int32"), graph.input("lastRows", [3], "int32")];
  const { feature, scores } = predictScores(config, tensors, ids, lastRows);
  graph.output("feature", feature);
  graph.output("scores", scores);
  const wrt = [...parameters.values(), ...tensors.head.values()];
  const loss = ops.sum(ops.mul(scores, graph.constant(weights, scores.shape)), [0, 1]);
  for (const [i, gradient] of gradients(loss, wrt).entries()) graph.output(`d:${wrt[i]!.name}`, gradient);
  return graph;
}
const weights = normal("weights", 3 * L * F);

function run(config: PredictorConfig, T: number, filler: number): Promise<Record<string, Float32Array>> {
  const head = Object.fromEntries(Object.entries(headOf(config)).map(([name, data]) => [`head.${name}`, data]));
  return evaluate(scoreGraph(config, T), { ...parametersOf(backbone, "backbone."), ...head, ...padded(T, filler) });
}

/** The same in float64. */
function plainScores(model: Model, head: Record<string, Float32Array>) {
  const results = instructions.map((ids) => scoreInstruction(model, head, L, ids));
  return {
    feature: results.flatMap(({ feature }) => [...feature]),
    scores: results.flatMap(({ scores }) => [...scores]),
  };
}

describe.each([{ importance: false }, { importance: true }])("scores, importance $importance", ({ importance }) => {
  const config = configOf(importance);
  const head = headOf(config);

  test("equal the definition in float64, and those of the head without a graph", async () => {
    const { feature, scores } = await run(config, 12, 0);
    const wanted = plainScores(backbone, head);
    expect(difference(feature!, wanted.feature)).toBeLessThan(1e-5);
    expect(difference(scores!, wanted.scores)).toBeLessThan(1e-5);
    for (let row = 0; row < 3; row++) {
      const own = scoreFeature(
        {
          featureMean: head["feature.mean"]!,
          featureStd: head["feature.std"]!,
          w1: head["w1.weight"]!,
          w2: head["w2.weight"]!,
          importance: head.importance,
          numLayers: L,
        },
        feature!.subarray(row * Dp, (row + 1) * Dp),
      );
      expect(difference(scores!.subarray(row * L * F, (row + 1) * L * F), own)).toBeLessThan(1e-5);
    }
  });

  test("their gradient reaches every parameter and equals the slope of the definition", async () => {
    const outputs = await run(config, 9, 0);
    const total = (model: Model, values: Record<string, Float32Array>) =>
      plainScores(model, values).scores.reduce((sum, score, i) => sum + weights[i]! * score, 0);
    const check = (name: string, data: Float32Array, at: (moved: Float32Array) => number) => {
      const gradient = outputs[`d:${name}`]!;
      expect(Math.hypot(...gradient), name).toBeGreaterThan(1e-3);
      expect(slopeError(at, data, gradient, { seed: name, h: 1e-4 }), name).toBeLessThan(1e-3);
    };
    for (const [name, { shape, data }] of backbone.weights) {
      if (name === "lm_head.weight") continue; // a predictor makes no tokens
      const at = (moved: Float32Array) =>
        total({ ...backbone, weights: new Map([...backbone.weights, [name, { shape, data: moved }]]) }, head);
      check(`backbone.${name}`, data, at);
    }
    for (const name of headShapes(config).keys()) {
      check(`head.${name}`, head[name]!, (moved) => total(backbone, { ...head, [name]: moved }));
    }
  });
});

test("scores of each layer have mean 0 and variance 1, whatever the head's scale", async () => {
  const { scores } = await run(configOf(false), 9, 0);
  for (let row = 0; row < 3 * L; row++) {
    const own = scores!.subarray(row * F, (row + 1) * F);
    const mean = own.reduce((sum, z) => sum + z, 0) / F;
    expect(Math.abs(mean)).toBeLessThan(1e-6);
    expect(own.reduce((sum, z) => sum + (z - mean) ** 2, 0) / F).toBeCloseTo(1, 5);
  }
});

test("neither what pads an instruction nor how far changes its feature", async () => {
  const config = configOf(false);
  const shortest = await run(config, 9, 0);
  expect((await run(config, 9, 33)).feature).toEqual(shortest.feature);
  expect(difference((await run(config, 20, 7)).feature!, shortest.feature!)).toBeLessThan(1e-6);
});

test("masks [B·L, F] come apart into [B, F] per layer", async () => {
  const graph = new Graph("masks");
  const perLayer = masksPerLayer(graph.input("masks", [2 * L, F]), L);
  for (const [layer, mask] of perLayer.entries()) graph.output(`${layer}`, mask);
  const masks = normal("masks", 2 * L * F);
  const outputs = await evaluate(graph, { masks });
  const of = (row: number, layer: number) => [...masks.subarray((row * L + layer) * F, (row * L + layer + 1) * F)];
  for (let layer = 0; layer < L; layer++) expect([...outputs[layer]!]).toEqual([...of(0, layer), ...of(1, layer)]);
});
