/** A small training state that is a pure function of the step, with every part that a checkpoint has. */
import { type ModelConfig, parameterShapes, type Weights } from "../../src/model/config.ts";
import { headShapes, type PredictorConfig } from "../../src/model/predictorConfig.ts";
import { Random } from "../../src/random.ts";
import type { Checkpoint } from "../../src/train/checkpoint.ts";
import type { TrainRow } from "../../src/train/runLog.ts";

const llm: ModelConfig = {
  family: "llama",
  width: 8,
  numLayers: 2,
  numHeads: 2,
  numKvHeads: 1,
  headWidth: 4,
  ffnWidth: 12,
  vocabSize: 16,
  contextLength: 32,
  normEps: 1e-5,
  ropeTheta: 10_000,
  tieEmbeddings: true,
};
const backbone: ModelConfig = { ...llm, width: 4, numLayers: 1, ffnWidth: 8 };

/** Any bits that are not NaN, so that rounding anywhere would show. */
function randomWeights(shapes: Iterable<readonly [string, readonly number[]]>, random: Random): Weights {
  const weights: Weights = new Map();
  for (const [name, shape] of shapes) {
    const size = shape.reduce((product, n) => product * n, 1);
    const data = Float32Array.from({ length: size }, () => random.normal() * 2 ** (random.int(200) - 100));
    weights.set(name, { shape, data });
  }
  return weights;
}

export function checkpointAt(step: number): Checkpoint {
  const random = new Random(`checkpoint ${step}`);
  const llmWeights = randomWeights(parameterShapes(llm), random);
  const headConfig: PredictorConfig = {
    backbone,
    rank: 4,
    numLayers: llm.numLayers,
    ffnWidth: llm.ffnWidth,
    pooling: "last",
    importance: false,
    head: "linear",
    block: 1,
  };
  return {
    step,
    stage: step % 2,
    metricsBytes: 0,
    recipe: { name: "kill", seed: 1 },
    values: { losses: [random.normal(), random.normal()], data: [...random.state] },
    card: {
      tFfn: 4,
      epsilon: 0.3,
      lambda: "soft",
      predictorInput: "prompt",
      predictorPooling: "last",
      promptTemplate: "{prompt}\n",
      bosId: 0,
      eosId: 1,
      provenance: { recipe: "kill", seed: 1, data: [], created: "2000-01-01T00:00:00Z" },
    },
    tokenizer: Buffer.from('{"model":{}}'),
    llm: { config: llm, weights: llmWeights },
    predictor: {
      backbone: { config: backbone, weights: randomWeights(parameterShapes(backbone), random) },
      head: randomWeights(headShapes(headConfig), random),
    },
    tensors: {
      optimizer: randomWeights(
        [...parameterShapes(llm)].map(([name, shape]) => [`m.${name}`, shape] as const),
        random,
      ),
    },
  };
}

export function rowAt(step: number): TrainRow {
  const loss = new Random(`row ${step}`).normal();
  return {
    kind: "train",
    step,
    stage: "kill",
    loss,
    tokens: 1,
    labels: 1,
    positions: 1,
    gradientNorm: 1,
    learningRate: {},
    ms: 0,
  };
}
