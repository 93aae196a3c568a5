/**
 * Loss and gradients of whole training steps against their definition in float64 (`test/reference/step.ts`): every kind of mask and
 * head, at one to three layers. That each operation's gradient is right does not say that a model's is: how operations are put together
 * depends on the shape, and what is one tensor at one layer is two at two.
 *
 * Each parameter tensor is moved along a random direction by some 1e-5, which changes no choice of channels. What float32 rounding leaves is
 * 4e-5 of the gradient's norm at worst; 1e-3 is allowed.
 */
import { describe, expect, test } from "vitest";
import { stepLoss } from "../../test/reference/step.ts";
import { difference, evaluate, integers, normal, slopeError } from "../../test/support/graphs.ts";
import type { TensorData } from "../graph/session.ts";
import type { ModelConfig, Weights } from "../model/config.ts";
import type { PredictorConfig } from "../model/predictorConfig.ts";
import { Random } from "../random.ts";
import { IGNORED } from "./labels.ts";
import { parameterArrays, randomDecoder, randomHead, randomStatic } from "./parameters.ts";
import { type StepConfig, type StepShape, trainingGraph } from "./step.ts";

const [B, T, Tp, V, F, K] = [2, 8, 6, 23, 12, 8];

function decoderOf(numLayers: number): ModelConfig {
  const constants = { normEps: 1e-5, ropeTheta: 10_000, contextLength: T, tieEmbeddings: true, vocabSize: V };
  return { family: "llama", width: 8, numLayers, numHeads: 2, numKvHeads: 1, headWidth: 4, ffnWidth: F, ...constants };
}

/** Random weights that a mask and a token matter to: FFNs and embeddings larger than those that training begins with. */
function weightsOf(config: ModelConfig, seed: string): Weights {
  const factor = (name: string) => (name.includes("embed_tokens") ? 15 : name.includes("mlp") ? 2 : 1);
  const weights = [...randomDecoder(config, new Random(seed))];
  return new Map(
    weights.map(([name, { shape, data }]) => [name, { shape, data: data.map((value) => factor(name) * value) }]),
  );
}

function parametersOf({ llm, masks, distil }: StepConfig): Record<string, Float32Array> {
  const random = new Random("parameters without near ties of scores");
  return parameterArrays({
    llm: weightsOf(llm, "llm"),
    ...(masks.kind === "learned-static" && { static: randomStatic(llm, masks.block, random) }),
    ...(masks.kind === "predictor" && {
      predictor: {
        backbone: weightsOf(masks.predictor.backbone, "backbone"),
        head: randomHead(masks.predictor, random),
      },
    }),
    ...(distil && { teacher: weightsOf(llm, "teacher") }),
  });
}

/** All that a graph may read beside parameters. */
function feedsOf({ llm: { numLayers: L }, masks }: StepConfig, chunks: number): Record<string, TensorData> {
  const rows = masks.kind === "predictor" && masks.contrast ? 2 * B : B * Math.max(1, chunks - 1); // of the predictor
  return {
    ids: integers("ids", B * T, V),
    labels: integers("labels", B * T, V).map((label, i) => ([2, 3, 5, 7].includes(i % T) ? label : IGNORED)),
    predictorIds: integers("predictor ids", rows * Tp, V),
    predictorLastRows: Int32Array.from({ length: rows }, (_, row) => row * Tp + 2 + (row % 4)),
    maskIndices: Int32Array.from({ length: B * L * K }, (_, i) => (Math.floor(i / K) + (i % K)) % F),
    maskLambda: normal("lambda", B * L * K).map((x) => 0.5 + Math.abs(x) / 4),
  };
}

const softTopK = { tFfn: K, epsilon: 0.5 };

describe.each([1, 2, 3])("of an LLM of %i layers", (L) => {
  const llm = decoderOf(L);
  const none = { kind: "none" } as const;
  const given = { kind: "given", tFfn: K } as const;
  const learned = (block: number) => ({ kind: "learned-static", softTopK, block }) as const;
  const predictor = (backboneLayers: number, changes: Partial<PredictorConfig> = {}, contrast?: number) => {
    const shape = { backbone: decoderOf(backboneLayers), rank: 5, numLayers: L, ffnWidth: F, block: 1 };
    const own: PredictorConfig = { ...shape, pooling: "last", head: "linear", importance: false, ...changes };
    return { kind: "predictor", predictor: own, softTopK, contrast } as const;
  };
  const codebook = { head: "codebook" } as const;
  const parts = { block: 4, importance: true };
  type Case = [name: string, config: Omit<StepConfig, "llm">, chunks?: number];
  const kinds: Case[] = [
    ["dense", { masks: none }],
    ["given masks", { masks: given, ffn: "plain" }],
    ["a learned static mask", { masks: learned(1), ffn: "plain" }],
    ["a predictor of one layer, linear", { masks: predictor(1) }],
    ["a predictor of two layers, codebook", { masks: predictor(2, codebook) }],
    ["a predictor, with contrast and a teacher", { masks: predictor(2, {}, 0.5), distil: 0.3 }],
    ["a predictor that reads the mean and the last token", { masks: predictor(1, { pooling: "both" }) }],
    ["four chunks of blocks", { masks: predictor(1, { block: 4 }) }, 4],
  ];
  const combinations: Case[] = [
    ["dense, with a teacher", { masks: none, distil: 0.4 }],
    ["given masks, compact", { masks: given, ffn: "compact" }],
    ["a learned static mask of blocks, compact", { masks: learned(4), ffn: "compact" }],
    ["a predictor of one layer, codebook", { masks: predictor(1, codebook) }],
    ["a predictor of two layers, linear", { masks: predictor(2) }],
    ["a linear head with blocks and importance", { masks: predictor(1, parts) }],
    ["a codebook with blocks and importance", { masks: predictor(1, { ...codebook, ...parts }) }],
    ["a predictor, compact", { masks: predictor(1), ffn: "compact" }],
    ["a linear head, with contrast", { masks: predictor(1, {}, 0.5) }],
    ["a codebook, with contrast, compact", { masks: predictor(1, codebook, 0.5), ffn: "compact" }],
    ["two chunks", { masks: predictor(1) }, 2],
    ["four chunks, codebook, compact", { masks: predictor(1, codebook), ffn: "compact" }, 4],
  ];
  test.each(L < 3 ? [...kinds, ...combinations] : kinds)("%s", async (_, changes, chunks = 1) => {
    const config = { llm, ...changes };
    const parameters = parametersOf(config);
    const shape: StepShape = { B, T, Tp, chunks };
    const values = { ...parameters, ...feedsOf(config, chunks) };
    const isTrained = (name: string) => !name.includes("feature.") && !name.startsWith("teacher.");
    const graph = trainingGraph(config, shape, new Set(Object.keys(parameters).filter(isTrained)));
    const read = new Set(graph.inputs.map(({ name }) => name));
    const outputs = await evaluate(
      graph,
      Object.fromEntries(Object.entries(values).filter(([name]) => read.has(name))),
    );
    expect(difference(outputs.loss!, [stepLoss(config, shape, values)])).toBeLessThan(1e-5);
    for (const [output, gradient] of Object.entries(outputs)) {
      if (!output.startsWith("d:")) continue;
      const name = output.slice(2);
      expect(Math.hypot(...gradient), name).toBeGreaterThan(1e-3);
      const at = (data: Float32Array) => stepLoss(config, shape, { ...values, [name]: data }, values);
      const error = slopeError(at, parameters[name]!, gradient, { seed: name, h: 1e-5 });
      expect(error, name).toBeLessThan(1e-3);
    }
  });
});
