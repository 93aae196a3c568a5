import { describe, expect, test } from "vitest";
import { forward } from "../../test/reference/decoder.ts";
import { difference, evaluate, integers } from "../../test/support/graphs.ts";
import { goldenModel, randomModel } from "../../test/support/models.ts";
import { ShapeError } from "../errors.ts";
import type { Model } from "../formats/huggingface.ts";
import { Graph } from "../graph/graph.ts";
import { randomMask } from "../mask/baselines.ts";
import { type Mask, toDenseMask } from "../mask/mask.ts";
import { decoder, logits, parameterInputs } from "../net/decoder.ts";
import { masksPerLayer } from "../net/predictor.ts";
import { Random } from "../random.ts";
import { permuteChannels } from "./permute.ts";

/** Logits [T·V] of the graph, under a mask if given. */
async function logitsOf({ config, weights }: Model, ids: Int32Array, mask?: Mask): Promise<Float32Array> {
  const { numLayers: L, ffnWidth: F } = config;
  const graph = new Graph("logits");
  const parameters = parameterInputs(graph, config);
  const masks = mask && masksPerLayer(graph.input("masks", [L, F]), L);
  const hidden = decoder(config, parameters, graph.input("ids", [1, ids.length], "int32"), masks);
  graph.output("logits", logits(config, parameters, hidden));
  const arrays = Object.fromEntries([...weights].map(([name, { data }]) => [name, data]));
  return (await evaluate(graph, { ...arrays, ids, ...(mask && { masks: toDenseMask(mask) }) })).logits!;
}

const orderOf = ({ config }: Model, seed: string) => {
  const random = new Random(seed);
  return Array.from({ length: config.numLayers }, () => random.permutation(config.ffnWidth));
};

const models = {
  llama: goldenModel("llama"),
  qwen2: goldenModel("qwen2"),
  gemma2: randomModel({ family: "gemma2" }, 1),
};

describe.each(Object.entries(models))("%s in another order of its channels", (family, model) => {
  const { config, weights } = model;
  const order = orderOf(model, family);
  const permuted = { ...model, weights: permuteChannels(weights, order) };
  const ids = integers(family, 9, config.vocabSize);

  test("is the same model: logits to 1e-5 in float32, to 1e-12 in float64", async () => {
    expect(difference(await logitsOf(permuted, ids), await logitsOf(model, ids))).toBeLessThan(1e-5);
    const flat = (of: Model) => forward(of, ids).logits.flatMap((row) => [...row]);
    expect(difference(flat(permuted), flat(model))).toBeLessThan(1e-12);
    expect(permuted.weights.get("model.layers.0.mlp.up_proj.weight")).not.toEqual(
      weights.get("model.layers.0.mlp.up_proj.weight"),
    );
  });

  test("under a mask of places is the model under the mask of the channels that stand there", async () => {
    const [L, F] = [config.numLayers, config.ffnWidth];
    const mask = randomMask({ numLayers: L, dFfn: F, tFfn: F / 2, block: 2 }, 1, family);
    const original: Mask = {
      ...mask,
      layers: mask.layers.map((places, layer) => places.map((place) => order[layer]![place]!).sort()),
    };
    const wanted = await logitsOf(model, ids, original);
    expect(difference(await logitsOf(permuted, ids, mask), wanted)).toBeLessThan(1e-5);
    expect(difference(await logitsOf(model, ids, mask), wanted)).toBeGreaterThan(1e-2); // the mapping matters
  });

  test("is as it was in the order of before", () => {
    const inverse = order.map((channels) => {
      const places = new Int32Array(channels.length);
      for (const [place, channel] of channels.entries()) places[channel] = place;
      return places;
    });
    expect(permuteChannels(permuted.weights, inverse)).toEqual(weights);
  });
});

test("an order that is not the model's is refused", () => {
  const model = goldenModel("llama");
  const order = orderOf(model, "wrong");
  const twice = order.with(1, order[1]!.with(0, order[1]![1]!));
  const short = order.with(0, order[0]!.slice(1));
  for (const wrong of [order.slice(1), twice, short, [...order, order[0]!]])
    expect(() => permuteChannels(model.weights, wrong)).toThrow(ShapeError);
});
