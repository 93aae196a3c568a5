/** A bundle's predictor, which an engine runs. */
import type { Bundle } from "../bundle/bundle.ts";
import { readHead, scoreFeature } from "../bundle/head.ts";
import type { EngineProvider } from "../engine/engine.ts";
import { FileError } from "../errors.ts";
import { GgufFile } from "../formats/gguf.ts";
import { modelNumber } from "../formats/ggufModel.ts";
import type { OpenPredictor, PredictorOptions } from "./promptedModel.ts";

/** @throws {FileError} if the bundle has none, or it is damaged */
export async function openBundlePredictor(
  engines: EngineProvider,
  bundle: Bundle,
  options: PredictorOptions,
): Promise<OpenPredictor> {
  const { predictor } = bundle;
  if (!predictor) throw new FileError(bundle.path, "wanted a bundle with a predictor, got one without.");
  const head = readHead(predictor.head, bundle);
  const contextLength = contextLengthOf(predictor.backbone);
  const engine = await engines.openFeature(predictor.backbone, { ...options, contextLength });
  return {
    scores: async (ids) => scoreFeature(head, await engine.feature(ids)),
    [Symbol.asyncDispose]: () => engine[Symbol.asyncDispose](),
  };
}

function contextLengthOf(path: string): number {
  using file = new GgufFile(path);
  return modelNumber(file, "context_length");
}
