/**
 * The decoder against golden values: three families, computed in float64 by an independent implementation with automatic
 * differentiation. Tolerances are for float32.
 */
import { beforeAll, describe, expect, test } from "vitest";
import { forward as plainForward } from "../../test/reference/decoder.ts";
import { difference, evaluate, integers, normal, quiet, slopeError } from "../../test/support/graphs.ts";
import { families, type Golden, goldenModel, goldenValues } from "../../test/support/models.ts";
import type { Model } from "../formats/huggingface.ts";
import { gradients } from "../graph/autodiff.ts";
import { Graph, type Tensor } from "../graph/graph.ts";
import { ops } from "../graph/ops.ts";
import { compile } from "../graph/session.ts";
import { adamW, type Trained } from "../train/optimizer.ts";
import { decoder, logits, parameterInputs } from "./decoder.ts";

/** What the parity fixtures hold beside `Golden`. */
interface GoldenTraining extends Golden {
  labels: number[][];
  denseLogits: number[][][];
  /** Mean over labelled positions. */
  loss: number;
  maskGrad: number[][][];
  grads: Record<string, unknown>;
  adamw: { lr: number; betas: [number, number]; eps: number; weightDecay: number; losses: number[] };
}

const flat = (nested: unknown): number[] => (nested as number[]).flat(Number.POSITIVE_INFINITY) as number[];
/** [B][L][F] → per layer [B, F]. */
const layerOf = (masks: number[][][], layer: number) => Float32Array.from(masks.flatMap((row) => row[layer]!));
const feedsOf = ({ weights }: Model) => Object.fromEntries([...weights].map(([name, { data }]) => [name, data]));

/**
 * Inputs: parameters, `ids` [B, T], `labels` [B·T], `mask0`, … [M, F] if M > 0. Outputs: `logits`, `loss` (a sum), and `d:NAME` of
 * every parameter and mask.
 */
function lossGraph({ config }: Model, B: number, T: number, M: number): Graph {
  const graph = new Graph("loss");
  const parameters = parameterInputs(graph, config);
  const ids = graph.input("ids", [B, T], "int32");
  const labels = graph.input("labels", [B * T], "int32");
  const mask = (_: unknown, layer: number) => graph.input(`mask${layer}`, [M, config.ffnWidth]);
  const masks = M > 0 ? Array.from({ length: config.numLayers }, mask) : undefined;
  const y = logits(config, parameters, decoder(config, parameters, ids, masks));
  const loss = ops.crossEntropy(y, labels);
  graph.output("logits", y);
  graph.output("loss", loss);
  const wrt: Tensor[] = [...parameters.values(), ...(masks ?? [])];
  for (const [i, gradient] of gradients(loss, wrt).entries()) graph.output(`d:${wrt[i]!.name}`, gradient);
  return graph;
}

describe.each(families)("%s equals the golden values", (family) => {
  let model: Model;
  let golden: GoldenTraining;
  let ids: Int32Array;
  let labels: Int32Array;
  let numLabels: number;
  let masks: Record<string, Float32Array>;
  let [B, T] = [0, 0];
  beforeAll(() => {
    model = goldenModel(family);
    golden = goldenValues(family) as GoldenTraining;
    [B, T] = [golden.ids.length, golden.ids[0]!.length];
    ids = Int32Array.from(flat(golden.ids));
    labels = Int32Array.from(flat(golden.labels));
    numLabels = labels.filter((label) => label >= 0).length;
    masks = Object.fromEntries([0, 1].map((layer) => [`mask${layer}`, layerOf(golden.mask, layer)]));
  });

  test("logits to 1e-5; loss, and every gradient with those of the masks, to 1e-6", async () => {
    const outputs = await evaluate(lossGraph(model, B, T, B), { ...feedsOf(model), ...masks, ids, labels });
    const mean = (sums: Float32Array) => Array.from(sums, (value) => value / numLabels);
    expect(difference(outputs.logits!, flat(golden.logits))).toBeLessThan(1e-5);
    expect(difference(mean(outputs.loss!), [golden.loss])).toBeLessThan(1e-6);
    expect(Object.keys(golden.grads)).toHaveLength(model.weights.size);
    for (const [name, wanted] of Object.entries(golden.grads)) {
      expect(difference(mean(outputs[`d:${name}`]!), flat(wanted)), name).toBeLessThan(1e-6);
    }
    for (const layer of [0, 1]) {
      expect(difference(mean(outputs[`d:mask${layer}`]!), layerOf(golden.maskGrad, layer))).toBeLessThan(1e-6);
    }
  });

  test("ten losses under AdamW to 5e-6: decay on every parameter, no clipping", async () => {
    const session = await compile(lossGraph(model, B, T, B), quiet);
    const { lr, betas, eps, weightDecay, losses } = golden.adamw;
    const trained = new Map<string, Trained>();
    for (const [name, { shape, data }] of model.weights) {
      const [m, v] = [new Float32Array(data.length), new Float32Array(data.length)];
      trained.set(name, { shape, data: data.slice(), m, v, group: "all", decays: true });
    }
    const parameters = Object.fromEntries([...trained].map(([name, { data }]) => [name, data]));
    const clipNorm = Number.POSITIVE_INFINITY;
    const options = { beta1: betas[0], beta2: betas[1], epsilon: eps, weightDecay, clipNorm };
    const optimizer = await adamW(trained, options, quiet);
    const seen: number[] = [];
    for (let step = 1; step <= losses.length; step++) {
      const outputs = (await session.run({ ...parameters, ...masks, ids, labels })) as Record<string, Float32Array>;
      seen.push(outputs.loss![0]! / numLabels);
      const sums = Object.fromEntries([...trained.keys()].map((name) => [name, outputs[`d:${name}`]!]));
      await optimizer.update(sums, 1 / numLabels, step, { all: lr });
    }
    await Promise.all([session.release(), optimizer.release()]);
    expect(difference(seen, losses)).toBeLessThan(5e-6);
  });

  test("a mask of ones is the dense model", async () => {
    const ones = new Float32Array(model.config.ffnWidth).fill(1);
    const feeds = { ...feedsOf(model), ids, labels };
    const dense = await evaluate(lossGraph(model, B, T, 0), feeds);
    const masked = await evaluate(lossGraph(model, B, T, 1), { ...feeds, mask0: ones, mask1: ones });
    expect(difference(dense.logits!, flat(golden.denseLogits))).toBeLessThan(1e-5);
    expect(difference(masked.logits!, dense.logits!)).toBeLessThan(1e-6);
  });

  test("tokens to the right, padding among them, change nothing to their left", async () => {
    const graph = lossGraph(model, B, T, B);
    const feeds = { ...feedsOf(model), ...masks, labels };
    const cut = 7;
    const changed = ids.map((id, i) => (i % T < cut ? id : (id + 1) % model.config.vocabSize));
    const [before, after] = [
      await evaluate(graph, { ...feeds, ids }),
      await evaluate(graph, { ...feeds, ids: changed }),
    ];
    const V = model.config.vocabSize;
    const side = (y: Float32Array, keep: (t: number) => boolean) => y.filter((_, i) => keep(Math.floor(i / V) % T));
    expect(side(after.logits!, (t) => t < cut)).toEqual(side(before.logits!, (t) => t < cut));
    expect(
      difference(
        side(after.logits!, (t) => t >= cut),
        side(before.logits!, (t) => t >= cut),
      ),
    ).toBeGreaterThan(0.1);
  });
});

describe("masks per chunk", () => {
  test("row r masks the r-th chunk of the flattened batch", async () => {
    // Layer 1 is masked; layer 0 is not, so that a token's keys and values do not depend on the masks of other chunks.
    const model = goldenModel("qwen2");
    const { ffnWidth: F, vocabSize: V } = model.config;
    const [B, T, chunks] = [2, 8, 4];
    const ids = integers("ids", B * T, V);
    const labels = new Int32Array(B * T).fill(-100);
    const mask = normal("masks", B * chunks * F).map(Math.abs);
    const ones = new Float32Array(B * chunks * F).fill(1);
    const feeds = { ...feedsOf(model), ids, labels, mask0: ones, mask1: mask };
    const { logits: y } = await evaluate(lossGraph(model, B, T, B * chunks), feeds);
    for (let row = 0; row < B * chunks; row++) {
      const [b, firstToken] = [Math.floor(row / chunks), (row % chunks) * (T / chunks)];
      const own = [ones.subarray(0, F), mask.subarray(row * F, (row + 1) * F)];
      const plain = plainForward(model, ids.subarray(b * T, (b + 1) * T), own).logits;
      for (let t = firstToken; t < firstToken + T / chunks; t++) {
        expect(difference(y!.subarray((b * T + t) * V, (b * T + t + 1) * V), plain[t]!)).toBeLessThan(1e-5);
      }
    }
  });
});

describe("a tied output matrix", () => {
  const golden = goldenModel("llama");
  const model: Model = {
    config: { ...golden.config, tieEmbeddings: true },
    weights: new Map([...golden.weights].filter(([name]) => name !== "lm_head.weight")),
  };
  const name = "model.embed_tokens.weight";
  const T = 9;
  const ids = integers("ids", T, model.config.vocabSize);
  const labels = integers("labels", T, model.config.vocabSize);
  const plainLoss = (embedding: Float32Array) => {
    const shape = model.weights.get(name)!.shape;
    const moved: Model = { ...model, weights: new Map([...model.weights, [name, { shape, data: embedding }]]) };
    const nll = plainForward(moved, ids).logits.map((row, t) =>
      Math.log(row.reduce((sum, value) => sum + Math.exp(value - row[labels[t]!]!), 0)),
    );
    return nll.reduce((a, b) => a + b, 0);
  };

  test("reads the embedding, whose gradient has both parts", async () => {
    const { loss, [`d:${name}`]: gradient } = await evaluate(lossGraph(model, 1, T, 0), {
      ...feedsOf(model),
      ids,
      labels,
    });
    const embedding = model.weights.get(name)!.data;
    expect(difference(loss!, [plainLoss(embedding)])).toBeLessThan(1e-6);
    expect(slopeError(plainLoss, embedding, gradient!, { seed: "direction", h: 1e-4 })).toBeLessThan(1e-3);
  });
});

test.each([
  { what: "of another model's width", shape: [2, 49] },
  { what: "with rows that do not divide the tokens", shape: [5, 48] },
])("a mask $what is refused", ({ shape }) => {
  const { config } = goldenModel("llama");
  const graph = new Graph("refused");
  const ids = graph.input("ids", [2, 8], "int32");
  const masks = [0, 1].map((layer) => graph.input(`mask${layer}`, shape));
  const wanted = `gatedFfn: wanted mask [M, 48] with M dividing 16 tokens, got [${shape.join(", ")}].`;
  expect(() => decoder(config, parameterInputs(graph, config), ids, masks)).toThrow(
    expect.objectContaining({ name: "ShapeError", message: wanted }),
  );
});
