import { describe, expect, test } from "vitest";
import { scoreInstruction } from "../../test/reference/predictor.ts";
import { difference, evaluate, integers, normal, slopeError } from "../../test/support/graphs.ts";
import { goldenModel } from "../../test/support/models.ts";
import { scoreFeature } from "../bundle/head.ts";
import type { Model } from "../formats/huggingface.ts";
import { gradients } from "../graph/autodiff.ts";
import { Graph, size } from "../graph/graph.ts";
import { ops } from "../graph/ops.ts";
import { maskFromScores } from "../mask/mask.ts";
import { standardizeScores } from "../mask/standardize.ts";
import { firstLayers, firstLayersConfig } from "../model/backbone.ts";
import { featureWidth, headShapes, type PredictorConfig } from "../model/predictorConfig.ts";
import { backboneInputs, headInputs, masksPerLayer, predictScores } from "./predictor.ts";

const backbone = goldenModel("qwen3");
const { width: D, vocabSize: V } = backbone.config;
/** No layer of it. */
const bag = firstLayersConfig(backbone.config, 0);
const [L, F, rank] = [3, 20, 5];
const configOf = (changes: Partial<PredictorConfig> = {}): PredictorConfig => {
  const base = { backbone: backbone.config, head: "linear", rank, numLayers: L, ffnWidth: F, block: 1 } as const;
  return { ...base, pooling: "last", importance: false, ...changes };
};
const modelOf = ({ backbone: config }: PredictorConfig): Model =>
  config === bag ? { config, weights: firstLayers(config, backbone.weights) } : backbone;

/** Values of the head by name, and statistics of a feature that is far from standard. */
function headOf(config: PredictorConfig): Record<string, Float32Array> {
  const values = [...headShapes(config)].map(([name, shape]) => [name, normal(name, size(shape))] as const);
  const Dp = featureWidth(config);
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
  const parameters = backboneInputs(graph, config, "backbone.");
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
  return evaluate(scoreGraph(config, T), {
    ...parametersOf(modelOf(config), "backbone."),
    ...head,
    ...padded(T, filler),
  });
}

/** The same in float64. */
function plainScores(model: Model, head: Record<string, Float32Array>, { block, pooling }: PredictorConfig) {
  const results = instructions.map((ids) => scoreInstruction(model, head, L, ids, block, undefined, pooling));
  return {
    feature: results.flatMap(({ feature }) => [...feature]),
    scores: results.flatMap(({ scores }) => [...scores]),
  };
}

describe.each<Partial<PredictorConfig>>([
  { head: "linear" },
  { head: "linear", importance: true },
  { head: "linear", block: 4, importance: true },
  { head: "codebook" },
  { head: "codebook", block: 5 },
  { pooling: "mean" },
  { pooling: "both" },
  { pooling: "last", backbone: bag },
  { pooling: "mean", backbone: bag },
  { pooling: "both", backbone: bag, head: "codebook" },
])("scores of %j", (changes) => {
  const config = configOf(changes);
  const model = modelOf(config);
  const Dp = featureWidth(config);
  const head = headOf(config);

  test("equal the definition in float64, and those of the head without a graph", async () => {
    const { feature, scores } = await run(config, 12, 0);
    const wanted = plainScores(model, head, config);
    expect(difference(feature!, wanted.feature)).toBeLessThan(1e-5);
    expect(difference(scores!, wanted.scores)).toBeLessThan(1e-5);
    for (let row = 0; row < 3; row++) {
      const own = scoreFeature(
        {
          featureMean: head["feature.mean"]!,
          featureStd: head["feature.std"]!,
          ...config,
          inner: head[[...headShapes(config).keys()][0]!]!,
          outer: head[[...headShapes(config).keys()][1]!]!,
          importance: head.importance,
        },
        feature!.subarray(row * Dp, (row + 1) * Dp),
      );
      expect(difference(scores!.subarray(row * L * F, (row + 1) * L * F), own)).toBeLessThan(1e-5);
    }
  });

  test("their gradient reaches every parameter and equals the slope of the definition", async () => {
    const outputs = await run(config, 9, 0);
    const total = (model: Model, values: Record<string, Float32Array>) =>
      plainScores(model, values, config).scores.reduce((sum, score, i) => sum + weights[i]! * score, 0);
    const check = (name: string, data: Float32Array, at: (moved: Float32Array) => number) => {
      const gradient = outputs[`d:${name}`]!;
      expect(Math.hypot(...gradient), name).toBeGreaterThan(1e-3);
      expect(slopeError(at, data, gradient, { seed: name, h: 1e-4 }), name).toBeLessThan(1e-3);
    };
    for (const [name, { shape, data }] of config.head === "codebook" ? [] : model.weights) {
      if (name === "lm_head.weight") continue; // a predictor makes no tokens
      const at = (moved: Float32Array) =>
        total({ ...model, weights: new Map([...model.weights, [name, { shape, data: moved }]]) }, head);
      check(`backbone.${name}`, data, at);
    }
    for (const name of headShapes(config).keys()) {
      if (name === "router.weight") continue; // flat but for jumps; its gradient is another function's, see below
      check(`head.${name}`, head[name]!, (moved) => total(model, { ...head, [name]: moved }));
    }
  });
});

test("a codebook's router gets the gradient of a softmax in place of the choice", async () => {
  const config = configOf({ head: "codebook" });
  const head = headOf(config);
  const outputs = await run(config, 9, 0);
  // The scores are functions of z = codebook · p; around the choice p = one-hot, a change of p moves them by ∂scores/∂z · codebook.
  const lossOf = (row: number, p: Float64Array) => {
    const z = Float64Array.from({ length: L * F }, (_, i) =>
      p.reduce((sum, share, entry) => sum + share * head["codebook.weight"]![i * rank + entry]!, 0),
    );
    const scores = standardizeScores(z, F);
    return scores.reduce((sum, score, i) => sum + weights[row * L * F + i]! * score, 0);
  };
  const Dp = featureWidth(config);
  const wanted = new Float64Array(rank * Dp);
  for (let row = 0; row < 3; row++) {
    const feature = outputs.feature!.subarray(row * Dp, (row + 1) * Dp);
    const centred = Float64Array.from(feature, (x, i) => (x - head["feature.mean"]![i]!) / head["feature.std"]![i]!);
    const logits = Float64Array.from({ length: rank }, (_, entry) =>
      centred.reduce((sum, x, i) => sum + x * head["router.weight"]![entry * Dp + i]!, 0),
    );
    const best = Math.max(...logits);
    const exponentials = logits.map((logit) => Math.exp(logit - best));
    const norm = exponentials.reduce((sum, value) => sum + value, 0);
    const p = exponentials.map((value) => value / norm);
    const chosen = logits.map((logit) => Number(logit === best));
    const h = 1e-3;
    const slope = p.map((_, entry) => {
      const at = (delta: number) =>
        lossOf(
          row,
          chosen.map((share, other) => share + (other === entry ? delta : 0)),
        );
      return (at(h) - at(-h)) / (2 * h);
    });
    const mean = slope.reduce((sum, value, entry) => sum + value * p[entry]!, 0);
    for (let entry = 0; entry < rank; entry++) {
      for (let i = 0; i < Dp; i++) wanted[entry * Dp + i]! += p[entry]! * (slope[entry]! - mean) * centred[i]!;
    }
  }
  expect(Math.hypot(...wanted)).toBeGreaterThan(1e-2);
  expect(difference(outputs["d:head.router.weight"]!, wanted)).toBeLessThan(1e-3); // scores in float32 by central differences
});

test("with blocks, SoftTopK keeps whole blocks", async () => {
  const config = configOf({ block: 4 });
  const { scores } = await run(config, 9, 0);
  for (let row = 0; row < 3; row++) {
    const { layers, lambda } = maskFromScores(scores!.subarray(row * L * F, (row + 1) * L * F), {
      dFfn: F,
      tFfn: 8,
      epsilon: 0.3,
    });
    for (const [layer, kept] of layers.entries()) {
      expect(kept.filter((channel, i) => channel !== 4 * Math.floor(kept[i - (i % 4)]! / 4) + (i % 4))).toEqual(
        Int32Array.of(),
      );
      for (const [i, value] of lambda![layer]!.entries()) expect(value).toBe(lambda![layer]![i - (i % 4)]);
    }
  }
});

test("scores of each layer have mean 0 and variance 1, whatever the head's scale", async () => {
  const { scores } = await run(configOf(), 9, 0);
  for (let row = 0; row < 3 * L; row++) {
    const own = scores!.subarray(row * F, (row + 1) * F);
    const mean = own.reduce((sum, z) => sum + z, 0) / F;
    expect(Math.abs(mean)).toBeLessThan(1e-6);
    expect(own.reduce((sum, z) => sum + (z - mean) ** 2, 0) / F).toBeCloseTo(1, 5);
  }
});

test.each(["last", "both"] as const)(
  "neither what pads an instruction nor how far changes its feature: %s",
  async (pooling) => {
    const config = configOf({ pooling });
    const shortest = await run(config, 9, 0);
    expect((await run(config, 9, 33)).feature).toEqual(shortest.feature);
    expect(difference((await run(config, 20, 7)).feature!, shortest.feature!)).toBeLessThan(1e-6);
  },
);

test("the mean over one token is that token's", async () => {
  const config = configOf({ pooling: "both" });
  const head = Object.fromEntries(Object.entries(headOf(config)).map(([name, data]) => [`head.${name}`, data]));
  const feeds = { ids: new Int32Array(3 * 4).fill(5), lastRows: Int32Array.of(0, 4, 8) };
  const { feature } = await evaluate(scoreGraph(config, 4), {
    ...parametersOf(backbone, "backbone."),
    ...head,
    ...feeds,
  });
  expect(feature!.slice(0, D)).toEqual(feature!.slice(D, 2 * D));
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
