import { expect, test } from "vitest";
import { forward } from "../../test/reference/decoder.ts";
import { difference, integers, quiet } from "../../test/support/graphs.ts";
import { goldenModel, randomModel } from "../../test/support/models.ts";
import type { Model } from "../formats/huggingface.ts";
import type { LabelledSequence } from "./evaluator.ts";
import { importanceScores } from "./importance.ts";

const evaluated = ({ config, weights }: Model) => ({
  llm: config,
  parameters: Object.fromEntries([...weights].map(([name, { data }]) => [`llm.${name}`, data])),
});

/** ℓ, with the activations of token `at` in a layer times `factors` [F]. */
function logLikelihood(
  model: Model,
  { ids, labels }: LabelledSequence,
  at: { token: number; layer: number },
  factors: Float64Array<ArrayBuffer>,
): number {
  const ones = Array.from({ length: model.config.numLayers }, () => new Float64Array(factors.length).fill(1));
  const changed = ones.with(at.layer, factors);
  const { logits } = forward(model, ids, (token) => (token === at.token ? changed : ones));
  return logits.reduce((sum, row, t) => {
    if (labels[t]! < 0) return sum;
    return sum - Math.log(row.reduce((total, y) => total + Math.exp(y - row[labels[t]!]!), 0));
  }, 0);
}

/** Σ over tokens of |a · ∂ℓ/∂a| of one channel, by central differences: a · ∂ℓ/∂a is the slope in a factor of a. Error O(h²). */
function plainImportance(model: Model, sequence: LabelledSequence, layer: number, channel: number): number {
  const h = 1e-4;
  let sum = 0;
  for (const token of sequence.ids.keys()) {
    const at = (factor: number) => {
      const factors = new Float64Array(model.config.ffnWidth).fill(1);
      return logLikelihood(model, sequence, { token, layer }, factors.with(channel, factor));
    };
    sum += Math.abs(at(1 + h) - at(1 - h)) / (2 * h);
  }
  return sum;
}

const models = {
  llama: goldenModel("llama"),
  qwen2: goldenModel("qwen2"),
  "gemma2, with gelu, norms after the FFN and soft caps": randomModel({ family: "gemma2" }, 1),
};

test.each(Object.entries(models))("is |activation × gradient|, summed: %s", async (_, model) => {
  const { vocabSize: V, numLayers: L, ffnWidth: F } = model.config;
  const ids = integers("importance", 7, V);
  const labels = integers("labels", 7, V).map((label, t) => (t < 3 || t === 4 ? -100 : label));
  const [scores] = await importanceScores(evaluated(model), [{ ids, labels }], quiet);
  expect(scores).toHaveLength(L * F);
  const scale = scores!.reduce((largest, score) => Math.max(largest, score), 0);
  for (let layer = 0; layer < L; layer++) {
    for (const channel of [0, 5, F - 1]) {
      const wanted = plainImportance(model, { ids, labels }, layer, channel);
      // float32 against float64, in units of the largest: 1e-5
      expect(Math.abs(scores![layer * F + channel]! - wanted) / scale).toBeLessThan(1e-5);
      expect(wanted / scale).toBeGreaterThan(1e-3); // not an agreement of zeros
    }
  }
});

test("of a sequence is its own: of other rows, their order, padding and tokens after the last label it knows nothing", async () => {
  const model = goldenModel("llama");
  const lengths = Array.from({ length: 40 }, (_, i) => 1 + ((i * 7) % 18)); // more than a batch, two padded lengths
  const sequences = lengths.map((length, i): LabelledSequence => {
    const ids = integers(`sequence ${i}`, length, model.config.vocabSize);
    return { ids, labels: ids.map((id, t) => (t % 3 === 1 ? -100 : id)) };
  });
  const together = await importanceScores(evaluated(model), sequences, quiet);
  const reversed = await importanceScores(evaluated(model), sequences.toReversed(), quiet);
  expect(reversed.toReversed()).toEqual(together);
  for (const i of [0, 4, 34]) {
    expect(await importanceScores(evaluated(model), [sequences[i]!], quiet)).toEqual([together[i]]);
    const { ids, labels } = sequences[i]!;
    const longer = { ids: Int32Array.of(...ids, 5, 6, 7), labels: Int32Array.of(...labels, -100, -100, -100) };
    const [scores] = await importanceScores(evaluated(model), [longer], quiet);
    expect(difference(scores!, together[i]!)).toBeLessThan(1e-5);
  }
});

test("without labels nothing matters, and of nothing there is nothing", async () => {
  const model = goldenModel("llama");
  const ids = Int32Array.of(1, 2, 3);
  const [scores] = await importanceScores(evaluated(model), [{ ids, labels: ids.map(() => -100) }], quiet);
  expect(scores!.every((score) => score === 0)).toBe(true);
  expect(await importanceScores(evaluated(model), [])).toEqual([]);
});

test("stops between two batches, and says how far it is", async () => {
  const model = goldenModel("llama");
  const sequences = [3, 20].map((length) => {
    const ids = integers("stopped", length, model.config.vocabSize);
    return { ids, labels: ids };
  });
  const controller = new AbortController();
  const seen: number[][] = [];
  const onProgress = (...at: number[]) => {
    seen.push(at);
    controller.abort();
  };
  const running = importanceScores(evaluated(model), sequences, { ...quiet, signal: controller.signal, onProgress });
  await expect(running).rejects.toThrow(/abort/);
  expect(seen).toEqual([[1, 2]]);
});
