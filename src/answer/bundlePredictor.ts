/** A bundle's predictor: an engine runs its backbone, or it reads the model's embedding. */
import type { Bundle } from "../bundle/bundle.ts";
import { embeddingFeature } from "../bundle/embeddingFeature.ts";
import { readHead, scoreFeature } from "../bundle/head.ts";
import type { EngineOptions, EngineProvider, FeatureEngine } from "../engine/engine.ts";
import { ContextLengthError, FileError } from "../errors.ts";
import { GgufFile } from "../formats/gguf.ts";
import { modelNumber } from "../formats/ggufModel.ts";
import { featureWidth, type Pooling } from "../model/predictorConfig.ts";
import type { OpenPredictor, PredictorOptions } from "./promptedModel.ts";

/** @throws {FileError} if the bundle has none, or it is damaged */
export async function openBundlePredictor(
  engines: EngineProvider,
  bundle: Bundle,
  options: PredictorOptions,
): Promise<OpenPredictor> {
  const { predictor, manifest, numLayers, ffnWidth } = bundle;
  if (!predictor) throw new FileError(bundle.path, "wanted a bundle with a predictor, got one without.");
  const { predictorPooling: pooling } = manifest;
  const read = readerOf(bundle);
  const head = readHead(predictor.head, {
    featureWidth: featureWidth({ backbone: read, pooling }),
    numLayers,
    ffnWidth,
  });
  const engine = await openReader(engines, bundle, read, options);
  return {
    scores: async (ids) => {
      if (ids.length >= read.contextLength) throw new ContextLengthError(ids.length, read.contextLength);
      return scoreFeature(head, await engine.feature(ids));
    },
    [Symbol.asyncDispose]: () => engine[Symbol.asyncDispose](),
  };
}

/**
 * What turns token ids into the feature that masks are chosen from: the predictor's; without one, the mean of the model's embedding rows.
 *
 * @throws {FileError} if the bundle is damaged
 */
export function openBundleFeature(
  engines: EngineProvider,
  bundle: Bundle,
  options: PredictorOptions,
): Promise<FeatureEngine> {
  return openReader(engines, bundle, readerOf(bundle), options);
}

/** What reads the instruction: the predictor's backbone, or the model's embedding. */
interface Reader {
  backbone?: string;
  width: number;
  contextLength: number;
}

function readerOf(bundle: Bundle): Reader {
  const backbone = bundle.predictor?.backbone;
  return backbone === undefined ? bundle : { backbone, ...headerOf(backbone) };
}

async function openReader(
  engines: EngineProvider,
  bundle: Bundle,
  { backbone, contextLength }: Reader,
  options: PredictorOptions,
): Promise<FeatureEngine> {
  const pooling = bundle.predictor ? bundle.manifest.predictorPooling : "mean";
  if (backbone !== undefined) {
    const { signal, ...engine } = options;
    const open = (length: number, signal?: AbortSignal) =>
      openFeature(engines, backbone, pooling, { ...engine, signal, contextLength: length });
    return await asLongAsNeeded(open, contextLength, signal);
  }
  const feature = embeddingFeature(bundle, pooling);
  return { feature: async (ids) => feature(ids), [Symbol.asyncDispose]: async () => {} };
}

/** Tokens of a reader's first context: beside each of them llama.cpp keeps a row of logits, which with a large vocabulary is a megabyte. */
const FIRST_CONTEXT = 512;

/** An engine whose context grows with the texts that it reads. @param open an engine for so many tokens @param most of them @param signal of opening it, not of what it does later */
async function asLongAsNeeded(
  open: (contextLength: number, signal?: AbortSignal) => Promise<FeatureEngine>,
  most: number,
  signal: AbortSignal | undefined,
): Promise<FeatureEngine> {
  let contextLength = Math.min(FIRST_CONTEXT, most);
  let engine = await open(contextLength, signal);
  let reading: Promise<unknown> = Promise.resolve();
  const read = async (ids: Int32Array): Promise<Float32Array> => {
    if (ids.length >= most) throw new ContextLengthError(ids.length, most);
    if (ids.length >= contextLength && contextLength < most) {
      const longer = Math.min(most, 2 ** Math.ceil(Math.log2(ids.length + 1)));
      const short = engine;
      engine = await open(longer);
      contextLength = longer;
      await short[Symbol.asyncDispose]();
    }
    return await engine.feature(ids);
  };
  return {
    feature(ids) {
      const feature = reading.then(() => read(ids));
      reading = feature.catch(() => {});
      return feature;
    },
    async [Symbol.asyncDispose]() {
      await reading;
      await engine[Symbol.asyncDispose]();
    },
  };
}

function headerOf(path: string): { width: number; contextLength: number } {
  using file = new GgufFile(path);
  return { width: modelNumber(file, "embedding_length"), contextLength: modelNumber(file, "context_length") };
}

async function openFeature(
  engines: EngineProvider,
  path: string,
  pooling: Pooling,
  options: EngineOptions,
): Promise<FeatureEngine> {
  if (pooling === "last") return await engines.openFeature(path, options);
  const mean = meanOfOthers(await engines.openFeature(path, { ...options, pooling: "mean" }));
  if (pooling === "mean") return mean;
  try {
    return inOne(mean, await engines.openFeature(path, options)); // an engine pools in one way: the text is read twice
  } catch (error) {
    await mean[Symbol.asyncDispose]();
    throw error;
  }
}

/** The mean over all tokens but the first, unless it is the only one, from the mean over all: what it adds depends on itself alone. */
function meanOfOthers(engine: FeatureEngine): FeatureEngine {
  let known: { id: number; feature: Float32Array } | undefined; // of the last first token: BOS, where the model has one
  return {
    async feature(ids) {
      const mean = await engine.feature(ids);
      if (ids.length === 1) return mean;
      const id = ids[0]!;
      const first = known?.id === id ? known.feature : await engine.feature(ids.subarray(0, 1));
      known = { id, feature: first };
      return mean.map((value, i) => (ids.length * value - first[i]!) / (ids.length - 1));
    },
    [Symbol.asyncDispose]: () => engine[Symbol.asyncDispose](),
  };
}

/** Two features, one behind the other. */
function inOne(a: FeatureEngine, b: FeatureEngine): FeatureEngine {
  return {
    feature: async (ids) => Float32Array.of(...(await a.feature(ids)), ...(await b.feature(ids))),
    [Symbol.asyncDispose]: async () => {
      await Promise.all([a, b].map((engine) => engine[Symbol.asyncDispose]()));
    },
  };
}
