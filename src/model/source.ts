/** Where a model's parameters are read from, one by one: a Hugging Face folder or a GGUF file. */
import type { ModelConfig, Weight } from "./config.ts";

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
