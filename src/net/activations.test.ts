import { describe, expect, test } from "vitest";
import { forward } from "../../test/reference/decoder.ts";
import { griffinScores as griffinReference } from "../../test/reference/griffin.ts";
import { difference, integers, quiet } from "../../test/support/graphs.ts";
import { goldenModel, randomModel } from "../../test/support/models.ts";
import { InputError } from "../errors.ts";
import type { Model } from "../formats/huggingface.ts";
import { MODEL_FAMILIES } from "../model/families.ts";
import type { ModelSource } from "../model/source.ts";
import { contributionScores, griffinScores } from "./activations.ts";

/** A model in memory as a source that keeps account of what is read from it. */
function sourceOf({ config, weights }: Model): ModelSource & { reads: string[] } {
  const reads: string[] = [];
  return {
    path: "memory",
    config,
    reads,
    read(name, rows) {
      reads.push(name);
      const { shape, data } = weights.get(name)!;
      if (!rows) return { shape, data };
      const [from, to] = [rows.from * shape[1]!, rows.to * shape[1]!];
      return { shape: [rows.to - rows.from, shape[1]!], data: data.slice(from, to) };
    },
    [Symbol.dispose]() {},
  };
}

/** Windows of unequal length; a BOS that is read and not counted opens the second. */
function someWindows(vocabSize: number) {
  return [
    { ids: integers("first", 13, vocabSize), skipped: 0 },
    { ids: integers("second", 7, vocabSize), skipped: 1 },
  ];
}

/** Activations of counted tokens in float64, [L][tokens][F]. */
function activationsOf(model: Model, windows: ReturnType<typeof someWindows>): Float64Array[][] {
  const parts = windows.map(({ ids, skipped }) =>
    forward(model, ids).activations.map((tokens) => tokens.slice(skipped)),
  );
  return parts[0]!.map((_, layer) => parts.flatMap((part) => part[layer]!));
}

describe.each(MODEL_FAMILIES)("%s", (family) => {
  const model = randomModel({ family }, 3);
  const { ffnWidth: F, width: D, vocabSize } = model.config;
  const windows = someWindows(vocabSize);

  test("griffin equals its definition on float64 activations", async () => {
    const wanted = activationsOf(model, windows).flatMap((tokens) => [...griffinReference(tokens, F)]);
    expect(difference(await griffinScores(sourceOf(model), windows, quiet), wanted)).toBeLessThan(1e-5);
  });

  test("contributions equal their definition on float64 activations", async () => {
    const wanted = activationsOf(model, windows).flatMap((tokens, layer) => {
      const down = model.weights.get(`model.layers.${layer}.mlp.down_proj.weight`)!.data; // [D, F]
      return Array.from({ length: F }, (_, channel) => {
        const mean = tokens.reduce((sum, token) => sum + Math.abs(token[channel]!), 0) / tokens.length;
        return mean * Math.hypot(...Array.from({ length: D }, (_, row) => down[row * F + channel]!));
      });
    });
    expect(difference(await contributionScores(sourceOf(model), windows, quiet), wanted)).toBeLessThan(1e-5);
  });
});

test("each layer is read once, one after the other, and of the embedding the rows of tokens", async () => {
  const source = sourceOf(goldenModel("llama"));
  const windows = someWindows(source.config.vocabSize);
  const progress: number[] = [];
  await griffinScores(source, windows, { ...quiet, onProgress: (done, total) => progress.push(done / total) });
  const tokens = windows.reduce((sum, { ids }) => sum + ids.length, 0);
  expect(source.reads.slice(0, tokens)).toEqual(new Array(tokens).fill("model.embed_tokens.weight"));
  const layers = source.reads.slice(tokens);
  expect(new Set(layers).size).toBe(layers.length);
  const order = layers.map((name) => Number(name.split(".")[2]));
  expect(order).toEqual(order.toSorted());
  expect(progress).toEqual([0.25, 0.5, 0.75, 1]);
});

test("an id beyond the vocabulary is refused, and an aborted call stops", async () => {
  const source = sourceOf(goldenModel("llama"));
  const stranger = [{ ids: Int32Array.of(1, source.config.vocabSize), skipped: 0 }];
  await expect(griffinScores(source, stranger, quiet)).rejects.toThrow(InputError);
  const controller = new AbortController();
  const aborting = { ...quiet, signal: controller.signal, onProgress: () => controller.abort() };
  await expect(griffinScores(source, someWindows(source.config.vocabSize), aborting)).rejects.toThrow(/abort/i);
  expect(source.reads.filter((name) => name.includes("layers.1."))).toEqual([]);
});
