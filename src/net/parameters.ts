/** Parameters of everything that is trained together, by graph input name (prefix + name): made at random, or sorted into parts. */
import { size } from "../graph/graph.ts";
import { type ModelConfig, parameterShapes, type Weight, type Weights } from "../model/config.ts";
import { familyOf } from "../model/families.ts";
import { featureWidth, headShapes, type PredictorConfig } from "../model/predictorConfig.ts";
import type { Random } from "../random.ts";
import { PREFIX } from "./step.ts";

/** Statistics of the predictor's feature: fed to graphs, updated from their results, never trained by gradient. */
export const FEATURE_MEAN = `${PREFIX.head}feature.mean`;
export const FEATURE_STD = `${PREFIX.head}feature.std`;

const EMBEDDING_STD = 0.02;

/**
 * Random parameters of a decoder: norms of gain 1, biases 0, embeddings N(0, 0.02²), matrices N(0, 1/in), those that write to the
 * residual stream scaled down by sqrt(2L).
 */
export function randomDecoder(config: ModelConfig, random: Random): Weights {
  const weights: Weights = new Map();
  for (const [name, shape] of parameterShapes(config)) {
    const data = new Float32Array(size(shape));
    if (name.endsWith("norm.weight")) data.fill(1 - familyOf(config).gainOffset);
    else if (!name.endsWith(".bias")) {
      const writesResidual = name.endsWith("o_proj.weight") || name.endsWith("down_proj.weight");
      const isTable = name === "model.embed_tokens.weight" || name === "lm_head.weight";
      const std = isTable ? EMBEDDING_STD : (shape[1]! * (writesResidual ? 2 * config.numLayers : 1)) ** -0.5;
      for (let i = 0; i < data.length; i++) data[i] = std * random.normal();
    }
    weights.set(name, { shape, data });
  }
  return weights;
}

/**
 * Random parameters of the predictor's head, N(0, 1/in): with a centred feature of unit scale the scores spread over channels
 * from the first step. The importance term starts at 0, the feature's statistics at those of a feature that is already standard.
 */
export function randomHead(config: PredictorConfig, random: Random): Weights {
  const weights: Weights = new Map();
  for (const [name, shape] of headShapes(config)) {
    const data = new Float32Array(size(shape));
    if (name !== "importance") for (let i = 0; i < data.length; i++) data[i] = shape[1]! ** -0.5 * random.normal();
    weights.set(name, { shape, data });
  }
  const shape = [featureWidth(config)];
  weights.set("feature.mean", { shape, data: new Float32Array(shape[0]!) });
  weights.set("feature.std", { shape, data: new Float32Array(shape[0]!).fill(1) });
  return weights;
}

/** Random scores N(0, 1) of the static mask [L, F/block]. */
export function randomStatic({ numLayers, ffnWidth }: ModelConfig, block: number, random: Random): Weights {
  const shape = [numLayers, ffnWidth / block];
  return new Map([["scores", { shape, data: Float32Array.from({ length: size(shape) }, () => random.normal()) }]]);
}

/** Everything that is trained together, and a teacher; each part with its own parameter names. */
export interface Parts {
  llm: Weights;
  /** A backbone without layers is the embedding of `llm`, the same array. */
  predictor?: { backbone: Weights; head: Weights };
  /** Scores of a learned static mask. */
  static?: Weights;
  teacher?: Weights;
}

export type PartName = keyof typeof PREFIX;

/** The parts that there are, one by one. */
export function namedParts({ llm, predictor, static: scores, teacher }: Parts): [PartName, Weights][] {
  const all = { llm, ...predictor, static: scores, teacher };
  return Object.entries(all).flatMap(([part, weights]) => (weights ? [[part as PartName, weights]] : []));
}

/** All parts as one table of graph inputs. Arrays are shared, not copied. */
export function joinParts(parts: Parts): Map<string, Weight> {
  return new Map(
    namedParts(parts).flatMap(([part, weights]) =>
      [...weights].map(([name, weight]) => [PREFIX[part] + name, weight] as const),
    ),
  );
}

/** The arrays of all parts, as graphs are fed with them. */
export function parameterArrays(parts: Parts): Record<string, Float32Array> {
  return Object.fromEntries([...joinParts(parts)].map(([name, { data }]) => [name, data]));
}
