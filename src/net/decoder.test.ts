/**
 * The decoder against golden values: three families, computed in float64 by an independent implementation with automatic
 * differentiation. Gemma and RoPE scaling have none: they are held to the reference in plain loops. Tolerances are for float32.
 */
import { beforeAll, describe, expect, test } from "vitest";
import { forward as plainForward } from "../../test/reference/decoder.ts";
import { difference, evaluate, integers, normal, quiet, slopeError } from "../../test/support/graphs.ts";
import { families, type Golden, goldenModel, goldenValues, randomModel } from "../../test/support/models.ts";
import type { Model } from "../formats/huggingface.ts";
import { gradients } from "../graph/autodiff.ts";
import { Graph, type Tensor } from "../graph/graph.ts";
import { ops } from "../graph/ops.ts";
import { compile } from "../graph/session.ts";
import { MODEL_FAMILIES } from "../model/families.ts";
import { adamW, type Trained } from "../train/optimizer.ts";
import { decoder, decoderLayer, logits, norm, parameterInputs, scaleEmbedding } from "./decoder.ts";

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
const flatRows = (rows: readonly Float64Array[]): number[] => rows.flatMap((row) => [...row]);
/** [B][L][F] → per layer [B, F]. */
const layerOf = (masks: number[][][], layer: number) => Float32Array.from(masks.flatMap((row) => row[layer]!));
const feedsOf = ({ weights }: Model) => Object.fromEntries([...weights].map(([name, { data }]) => [name, data]));

/** Sum over tokens of −ln softmax(logits)[label]. */
function crossEntropy(logits: readonly Float64Array[], labels: Int32Array): number {
  const nll = logits.map((row, t) => Math.log(row.reduce((sum, value) => sum + Math.exp(value - row[labels[t]!]!), 0)));
  return nll.reduce((a, b) => a + b, 0);
}

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

test("every family is held to golden values, or to the reference", () => {
  const referred = variants.map(({ model }) => model.config.family);
  expect(new Set([...families, ...referred])).toEqual(new Set(MODEL_FAMILIES));
});

/** Sequence lengths are above every window, and above the original context of scaled RoPE. */
const T = 11;
const small = { width: 32, numHeads: 4, numKvHeads: 2, headWidth: 8, ffnWidth: 48, vocabSize: 40 };
const originalContextLength = 8;
const variants: { name: string; model: Model }[] = [
  { name: "gemma2 with soft caps and a window", model: randomModel({ ...small, family: "gemma2" }, 1) },
  {
    name: "gemma2 with a factor of q·k, without caps",
    model: randomModel(
      { ...small, family: "gemma2", attentionScale: 0.6, attentionSoftCap: undefined, logitSoftCap: undefined },
      2,
    ),
  },
  {
    name: "gemma3 with linear scaling of its global layers",
    model: randomModel({ ...small, family: "gemma3", ropeTheta: 50, ropeScaling: { kind: "linear", factor: 4 } }, 3),
  },
  {
    name: "llama with linear scaling",
    model: randomModel({ ...small, family: "llama", ropeTheta: 50, ropeScaling: { kind: "linear", factor: 4 } }, 4),
  },
  {
    name: "llama with llama3 scaling",
    model: randomModel(
      {
        ...small,
        family: "llama",
        ropeTheta: 50,
        ropeScaling: { kind: "llama3", factor: 8, lowFactor: 0.5, highFactor: 1.2, originalContextLength },
      },
      5,
    ),
  },
  {
    name: "qwen2 with YaRN",
    model: randomModel(
      {
        ...small,
        family: "qwen2",
        ropeTheta: 50,
        ropeScaling: { kind: "yarn", factor: 4, originalContextLength, betaFast: 1, betaSlow: 0.2 },
      },
      6,
    ),
  },
];

describe.each(variants)("$name equals the reference", ({ name, model }) => {
  const { config, weights } = model;
  const ids = integers(`${name}/ids`, T, config.vocabSize);
  const labels = integers(`${name}/labels`, T, config.vocabSize);
  const masks = Array.from({ length: config.numLayers }, (_, layer) =>
    normal(`${name}/mask${layer}`, config.ffnWidth).map((z) => (z > 0 ? Math.min(1, z) : 0)),
  );
  const maskFeeds = Object.fromEntries(masks.map((mask, layer) => [`mask${layer}`, mask]));
  /** Of the reference, with a parameter or a mask in place of the model's. */
  const plainLogits = (name?: string, data?: Float32Array) => {
    const weight = name === undefined ? undefined : weights.get(name);
    const moved = weight ? { config, weights: new Map([...weights, [name!, { ...weight, data: data! }]]) } : model;
    return plainForward(
      moved,
      ids,
      masks.map((mask, layer) => (name === `mask${layer}` ? data! : mask)),
    ).logits;
  };

  test("in logits to 1e-5, and in the gradient of every parameter and mask", async () => {
    const outputs = await evaluate(lossGraph(model, 1, T, 1), { ...feedsOf(model), ...maskFeeds, ids, labels });
    expect(difference(outputs.logits!, flatRows(plainLogits()))).toBeLessThan(1e-5);
    const all = [...[...weights].map(([name, { data }]) => [name, data] as const), ...Object.entries(maskFeeds)];
    for (const [name, data] of all) {
      const error = slopeError((moved) => crossEntropy(plainLogits(name, moved), labels), data, outputs[`d:${name}`]!, {
        seed: name,
        h: 1e-4,
      });
      expect(error, name).toBeLessThan(1e-3);
    }
  });

  test("for each row of a batch", async () => {
    const rows = [ids, ids.map((id) => (id + 1) % config.vocabSize)];
    const feeds = { ...feedsOf(model), labels: new Int32Array(2 * T).fill(-1) };
    const both = Int32Array.from(rows.flatMap((row) => [...row]));
    const { logits: y } = await evaluate(lossGraph(model, 2, T, 0), { ...feeds, ids: both });
    expect(difference(y!, flatRows(rows.flatMap((row) => plainForward(model, row).logits)))).toBeLessThan(1e-5);
  });

  test("with a graph for each layer", async () => {
    const D = config.width;
    const table = weights.get("model.embed_tokens.weight")!.data;
    let x = Float32Array.from([...ids].flatMap((id) => [...table.subarray(id * D, (id + 1) * D)]));
    /** Replaces x by what a graph makes of it and of the parameters it asks for. */
    const run = async (build: (x: Tensor, p: (name: string) => Tensor) => Tensor, prefix = "") => {
      const graph = new Graph("part");
      const feeds: Record<string, Float32Array> = { x };
      const p = (name: string) => {
        const { shape, data } = weights.get(prefix + name)!;
        feeds[name] = data;
        return graph.input(name, shape);
      };
      graph.output("y", build(graph.input("x", [T, D]), p));
      x = Float32Array.from((await evaluate(graph, feeds)).y!);
    };
    await run((x) => scaleEmbedding(config, x));
    for (let layer = 0; layer < config.numLayers; layer++)
      await run((x, p) => decoderLayer(config, layer, p, x, { B: 1, T }), `model.layers.${layer}.`);
    await run((x, p) => norm(config, x, p("model.norm.weight")));
    expect(difference(x, flatRows(plainForward(model, ids).hidden))).toBeLessThan(1e-5);
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
    return crossEntropy(plainForward(moved, ids).logits, labels);
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
