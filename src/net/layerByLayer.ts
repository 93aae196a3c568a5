/**
 * A dense model run layer by layer: one layer's weights in float32 at a time, with the hidden states of all tokens kept between layers. For models larger
 * than memory, and for what needs all tokens of one layer together.
 *
 * Shapes: B rows of a batch · T tokens · D model width · F FFN channels
 */
import { InputError } from "../errors.ts";
import { Graph, type Tensor } from "../graph/graph.ts";
import type { Ffn } from "../graph/ops.ts";
import { SessionCache, type SessionOptions, type TensorData } from "../graph/session.ts";
import { type ModelConfig, parameterShapes } from "../model/config.ts";
import { isLocalLayer } from "../model/families.ts";
import type { ModelSource } from "../model/source.ts";
import { decoderLayer, scaleEmbedding } from "./decoder.ts";

/** Rows of token ids that are read together, shorter ones padded on the right; at most B of them. Padding is zeros, not the embedding of a token. */
export interface LayerBatch {
  rows: readonly Int32Array[];
  B: number;
  T: number;
}

/** What is taken from each layer as it runs. */
export interface LayerObserver {
  /** Adds inputs and outputs of its own to the graph of a layer. */
  observe(graph: Graph, shape: { B: number; T: number }, input: Tensor, ffn: Ffn): void;
  /** What its inputs are fed with. */
  feeds(layer: number, batch: number): Record<string, TensorData>;
  /** Takes its outputs, which are good until the next batch. */
  take(layer: number, outputs: Record<string, TensorData>): void;
  /** A layer is through: its `down` [D, F]. */
  finish?: ((layer: number, down: Float32Array) => void) | undefined;
}

export interface LayerOptions extends SessionOptions {
  /** Stops between two batches of a layer. */
  signal?: AbortSignal | undefined;
  /** Batches run through a layer, and all of them. */
  onProgress?: ((done: number, total: number) => void) | undefined;
}

/**
 * Memory: 4·D bytes a position of all batches, beside what one layer takes on one batch.
 *
 * @throws {InputError} if an id is not of the model's vocabulary
 * @throws {FileError} if the model is damaged
 */
export async function layerByLayer(
  model: ModelSource,
  batches: readonly LayerBatch[],
  observer: LayerObserver,
  { signal, onProgress, ...sessionOptions }: LayerOptions = {},
): Promise<void> {
  const { config } = model;
  const { numLayers: L } = config;
  const names = layerParameters(config);
  const hidden = batches.map((batch) => embed(model, batch)); // [B·T, D] each
  const spares = new Map<string, Float32Array>(); // by shape, what the next layer's states are written to
  for (const [i, batch] of batches.entries()) spares.set(shapeOf(batch), new Float32Array(hidden[i]!.length));
  const sessions = new SessionCache(sessionOptions);
  try {
    for (let layer = 0; layer < L; layer++) {
      signal?.throwIfAborted();
      const weights = Object.fromEntries(names.map((name) => [name, model.read(`model.layers.${layer}.${name}`).data]));
      for (const [i, batch] of batches.entries()) {
        signal?.throwIfAborted();
        const key = `${layerKind(config, layer)} ${shapeOf(batch)}`;
        const session = await sessions.get(key, () => layerGraph(config, layer, batch, observer));
        const x = hidden[i]!;
        const y = spares.get(shapeOf(batch))!;
        observer.take(layer, await session.run({ ...weights, ...observer.feeds(layer, i), x }, { y }));
        hidden[i] = y;
        spares.set(shapeOf(batch), x);
        onProgress?.(layer * batches.length + i + 1, L * batches.length);
      }
      observer.finish?.(layer, weights["mlp.down_proj.weight"]!);
    }
  } finally {
    await sessions.release();
  }
}

const shapeOf = ({ B, T }: LayerBatch) => `B=${B} T=${T}`;

/** Names of a layer's parameters, without `model.layers.N.`; the same for all layers. */
function layerParameters(config: ModelConfig): string[] {
  const prefix = "model.layers.0.";
  return [...parameterShapes(config).keys()].flatMap((name) =>
    name.startsWith(prefix) ? [name.slice(prefix.length)] : [],
  );
}

/** Layers of a kind are the same graph. */
function layerKind(config: ModelConfig, layer: number): string {
  return `${layer === 0 ? "first" : "later"} ${isLocalLayer(config, layer) ? "local" : "global"}`;
}

/**
 * Inputs: a layer's parameters, `x` [B·T, D] (in the first layer rows of the embedding), the observer's.
 * Outputs: `y` [B·T, D], the observer's.
 */
function layerGraph(config: ModelConfig, layer: number, { B, T }: LayerBatch, { observe }: LayerObserver): Graph {
  const graph = new Graph(`layer ${layerKind(config, layer)} B=${B} T=${T}`);
  const shapes = parameterShapes(config);
  const inputs = new Map(
    layerParameters(config).map((name) => [name, graph.input(name, shapes.get(`model.layers.0.${name}`)!)]),
  );
  const x = graph.input("x", [B * T, config.width]);
  const first = layer === 0 ? scaleEmbedding(config, x) : x;
  const p = (name: string) => inputs.get(name)!;
  const y = decoderLayer(config, layer, p, first, { B, T }, undefined, (input, ffn) =>
    observe(graph, { B, T }, input, ffn),
  );
  graph.output("y", y);
  return graph;
}

/** Rows of the embedding for a batch, [B·T, D], zeros where there is no token. */
function embed(model: ModelSource, { rows, B, T }: LayerBatch): Float32Array {
  const { width: D, vocabSize: V } = model.config;
  const embedded = new Float32Array(B * T * D);
  for (const [row, ids] of rows.entries()) {
    for (const [t, id] of ids.entries()) {
      if (id < 0 || id >= V)
        throw new InputError(`activations: wanted token ids below ${V}, got ${id}. Is the tokenizer the model's?`);
      embedded.set(model.read("model.embed_tokens.weight", { from: id, to: id + 1 }).data, (row * T + t) * D);
    }
  }
  return embedded;
}
