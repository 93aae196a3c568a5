/** Where a model's parameters are read from, one by one: a Hugging Face folder, a GGUF file, memory. */
import type { ModelConfig, Weight, Weights } from "./config.ts";

/** An open model. Holds file descriptors until disposed. */
export interface ModelSource extends Disposable {
  readonly path: string;
  readonly config: ModelConfig;
  /**
   * A parameter by its name in `parameterShapes`, as float32 and in Hugging Face's conventions (RoPE halves, Gemma's norm gains w, not 1 + w).
   * Memory: 4 bytes per value and what the file holds of it.
   *
   * @param rows only rows `from .. to` of a matrix; memory then only for those
   * @throws {FileError} if the file is damaged
   */
  read(name: string, rows?: { from: number; to: number }): Weight;
}

/** @param path its origin, for messages */
export function inMemory(path: string, { config, weights }: { config: ModelConfig; weights: Weights }): ModelSource {
  return {
    path,
    config,
    read(name, rows) {
      const weight = weights.get(name);
      if (!weight) throw new Error(`internal: no parameter "${name}"`);
      if (!rows) return weight;
      const width = weight.shape[1]!;
      return { shape: [rows.to - rows.from, width], data: weight.data.subarray(rows.from * width, rows.to * width) };
    },
    [Symbol.dispose]: () => {},
  };
}
