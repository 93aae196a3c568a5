/** The learned source of masks: a bundle's predictor, which an engine runs. */

import type { Bundle } from "../bundle/bundle.ts";
import { readHead, scoreFeature } from "../bundle/head.ts";
import type { EngineOptions, EngineProvider } from "../engine/engine.ts";
import { FileError } from "../errors.ts";
import { GgufFile } from "../formats/gguf.ts";
import { modelNumber } from "../formats/ggufModel.ts";
import { instructionOf, predictorIds } from "../text/prompt.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import type { MaskSource } from "./maskSource.ts";

/**
 * Loads a bundle's predictor. It reads the prompt, or its instruction, as it was trained.
 *
 * @throws {FileError} if the bundle has none, or it is damaged
 */
export async function openPredictor(
  engines: EngineProvider,
  bundle: Bundle,
  tokenizer: Tokenizer,
  options: Omit<EngineOptions, "contextLength"> = {},
): Promise<MaskSource> {
  const { predictor, manifest } = bundle;
  if (!predictor || !manifest.epsilon) {
    throw new FileError(
      bundle.path,
      "wanted a bundle with a predictor, got one without. Choose another source of masks.",
    );
  }
  const head = readHead(predictor.head, bundle);
  const engine = await engines.openFeature(predictor.backbone, {
    ...options,
    contextLength: contextLengthOf(predictor.backbone),
  });
  return {
    name: "predictor",
    epsilon: manifest.lambda === "soft" ? manifest.epsilon : undefined,
    async scores({ text }) {
      const read = manifest.predictorInput === "instruction" ? instructionOf(text) : text;
      const feature = await engine.feature(predictorIds(tokenizer, read));
      return { scores: scoreFeature(head, feature), cached: false };
    },
    [Symbol.asyncDispose]: () => engine[Symbol.asyncDispose](),
  };
}

function contextLengthOf(path: string): number {
  using file = new GgufFile(path);
  return modelNumber(file, "context_length");
}
