/** A model as prompts and mask sources see it: a bundle that is served, or a checkpoint that is evaluated. What computes it is open. */
import type { EngineOptions } from "../engine/engine.ts";
import type { BundleManifest, VerifyFilesOptions } from "../manifest.ts";
import type { ModelSource } from "../model/source.ts";
import type { PromptFormat } from "../text/prompt.ts";

/** A model that is prompted, with what its masks are made of. */
export interface PromptedModel {
  /** Its parameters. */
  readonly weights: ModelSource;
  /** Identity: the hash of its manifest, which holds the hashes of all files. */
  readonly hash: string;
  readonly manifest: Pick<BundleManifest, "tFfn" | "epsilon" | "lambda" | "predictorInput" | "quality"> & {
    /** Of a bundle that was grouped: what masks without training keep or drop together. */
    readonly block?: number | undefined;
  };
  readonly format: PromptFormat;
  readonly hasPredictor: boolean;
  /** Channels that masks keep or drop together by default; 1 where that is each alone. */
  readonly block: number;
  /** Waits until its files are known to be what its manifest says. @throws {FileError} if one is not */
  verify(options?: VerifyFilesOptions): Promise<void>;
  /** Loads the predictor. @throws {FileError} if it is damaged */
  openPredictor(options: PredictorOptions): Promise<OpenPredictor>;
}

/** How a predictor is run. */
export type PredictorOptions = Omit<EngineOptions, "contextLength">;

/** A loaded predictor. */
export interface OpenPredictor extends AsyncDisposable {
  /**
   * Masking scores z [L·F] of an instruction, given as token ids, BOS first.
   *
   * @throws {InputError} if it is longer than the predictor reads
   */
  scores(ids: Int32Array): Promise<Float32Array>;
}
