/**
 * The loss of a training step from its definition, in float64: reads what the graph reads.
 *
 * Shapes: B rows · T tokens of a row · Tp of a predictor input · L layers · F FFN channels · K kept channels · V vocabulary
 */
import type { Model } from "../../src/formats/huggingface.ts";
import type { TensorData } from "../../src/graph/session.ts";
import type { ModelConfig } from "../../src/model/config.ts";
import { parameterShapes } from "../../src/model/config.ts";
import type { SoftTopKConfig, StepConfig, StepShape } from "../../src/net/step.ts";
import { forward } from "./decoder.ts";
import * as plain from "./ops.ts";
import { oneHot, scoreInstruction } from "./predictor.ts";

type Values = Readonly<Record<string, TensorData>>;

/** m [L][F] */
type LayerMasks = Float64Array[];

const CONTRAST_TEMPERATURE = 0.1;

/**
 * Sum over labels, in nats.
 *
 * @param values parameters by graph input, and what else the graph is fed with
 * @param around where gradients are taken: the choice from a codebook is that of these values, and changes with the softmax of its logits
 */
export function stepLoss(config: StepConfig, { B, T, chunks }: StepShape, values: Values, around = values): number {
  const { llm, distil = 0 } = config;
  const masks = masksOf(config, values, around);
  const [ids, labels] = [values.ids as Int32Array, values.labels as Int32Array];
  const [model, teacher] = [modelOf(llm, values, "llm."), distil ? modelOf(llm, values, "teacher.") : undefined];
  let loss = 0;
  for (let row = 0; row < B; row++) {
    const ofRow = (all: Int32Array) => all.subarray(row * T, (row + 1) * T);
    // labels of a chunk run under the mask of the chunk before it, those of the first under its own
    const maskOf = (token: number) => {
      if (!masks) return Array.from({ length: llm.numLayers }, () => new Float64Array(llm.ffnWidth).fill(1));
      if (config.masks.kind === "learned-static") return masks[0]!;
      if (chunks === 1) return masks[row]!;
      return masks[row * (chunks - 1) + Math.max(0, Math.floor(token / (T / chunks)) - 1)]!;
    };
    const logits = logitsOf(model, ofRow(ids), maskOf);
    loss += (1 - distil) * plain.crossEntropy(logits, ofRow(labels)).data[0]!;
    if (teacher) loss += distil * plain.klDivergence(logits, logitsOf(teacher, ofRow(ids)), ofRow(labels)).data[0]!;
  }
  if (masks && config.masks.kind === "predictor" && config.masks.contrast) {
    const numLabels = labels.filter((label) => label >= 0).length;
    loss += config.masks.contrast * numLabels * contrastOf(masks, config.masks.softTopK.tFfn);
  }
  return loss;
}

function logitsOf(model: Model, ids: Int32Array, mask?: (token: number) => LayerMasks): plain.Array64 {
  const { logits } = forward(model, ids, mask);
  return { shape: [ids.length, model.config.vocabSize], data: Float64Array.from(logits.flatMap((row) => [...row])) };
}

function modelOf(config: ModelConfig, values: Values, prefix: string): Model {
  const weights = [...parameterShapes(config)].map(
    ([name, shape]) => [name, { shape, data: values[prefix + name] as Float32Array }] as const,
  );
  return { config, weights: new Map(weights) };
}

/** One for each row of the mask, or for all; none for a dense model. */
function masksOf({ llm, masks: config }: StepConfig, values: Values, around: Values): LayerMasks[] | undefined {
  const { numLayers: L, ffnWidth: F } = llm;
  const fromScores = (scores: Float64Array, { tFfn, epsilon }: SoftTopKConfig): LayerMasks => {
    const { data } = plain.softTopK({ shape: [L, F], data: scores }, tFfn, epsilon);
    return Array.from({ length: L }, (_, layer) => data.subarray(layer * F, (layer + 1) * F));
  };
  switch (config.kind) {
    case "none":
      return undefined;
    case "given": {
      const [indices, lambda] = [values.maskIndices as Int32Array, values.maskLambda as Float32Array];
      const K = config.tFfn;
      return Array.from({ length: indices.length / K / L }, (_, row) =>
        Array.from({ length: L }, (_, layer) => {
          const m = new Float64Array(F);
          const at = (row * L + layer) * K;
          for (let i = at; i < at + K; i++) m[indices[i]!] = lambda[i]!;
          return m;
        }),
      );
    }
    case "learned-static": {
      const { block, softTopK } = config;
      const own = Float64Array.from(values["static.scores"] as Float32Array);
      const { data } = plain.standardize({ shape: [L, F / block], data: own }, 1e-6);
      return [
        fromScores(
          Float64Array.from({ length: L * F }, (_, i) => data[Math.floor(i / block)]!),
          softTopK,
        ),
      ];
    }
    case "predictor": {
      const { predictor, softTopK } = config;
      const lastRows = values.predictorLastRows as Int32Array;
      const Tp = (values.predictorIds as Int32Array).length / lastRows.length;
      const scoresOf = (row: number, at: Values, choose?: (logits: Float64Array) => Float64Array) => {
        const ids = (values.predictorIds as Int32Array).subarray(row * Tp, lastRows[row]! + 1);
        const head = Object.entries(at).flatMap(([name, data]) =>
          name.startsWith("head.") ? [[name.slice("head.".length), data as Float32Array]] : [],
        );
        const backbone = modelOf(predictor.backbone, at, "backbone.");
        const { block, pooling } = predictor;
        return scoreInstruction(backbone, Object.fromEntries(head), L, ids, block, choose, pooling).scores;
      };
      return Array.from(lastRows, (_, row) => {
        const shares = (logits: Float64Array) => plain.softmax({ shape: [1, logits.length], data: logits }).data;
        let there: Float64Array | undefined; // logits
        if (around !== values)
          scoresOf(row, around, (logits) => {
            there = logits;
            return logits;
          });
        const choose = (logits: Float64Array) => {
          const from = there ?? logits;
          const [moved, still] = [shares(logits), shares(from)];
          return oneHot(from).map((chosen, entry) => chosen + moved[entry]! - still[entry]!);
        };
        return fromScores(scoresOf(row, values, choose), softTopK);
      });
    }
    default:
      return config satisfies never;
  }
}

/** Mean over all masks of −ln of the twin's share, where each other mask counts by e^(overlap/temperature); the twin of i is i + rows/2. */
function contrastOf(masks: readonly LayerMasks[], K: number): number {
  const [rows, L] = [masks.length, masks[0]!.length];
  const similarity = (a: number, b: number) => {
    const products = masks[a]!.flatMap((own, layer) => [...own].map((m, i) => m * masks[b]![layer]![i]!));
    return products.reduce((sum, product) => sum + product, 0) / (L * K * CONTRAST_TEMPERATURE);
  };
  const losses = masks.map((_, row) => {
    const others = [...masks.keys()].filter((other) => other !== row);
    const total = others.reduce((sum, other) => sum + Math.exp(similarity(row, other)), 0);
    return Math.log(total) - similarity(row, (row + rows / 2) % rows);
  });
  return losses.reduce((sum, loss) => sum + loss, 0) / rows;
}
