/**
 * Where masks come from, behind one interface: something that scores the FFN channels of a bundle's model for a prompt. The mask of any budget
 * follows from the scores. (A mask from a file needs no source.)
 *
 * Shapes: L layers · F FFN channels
 */
import { createHash } from "node:crypto";
import type { Bundle } from "../bundle/bundle.ts";
import { defaultTFfn } from "../bundle/estimate.ts";
import type { EngineOptions, EngineProvider } from "../engine/engine.ts";
import { OptionError } from "../errors.ts";
import { randomScores, weightNorms } from "../mask/baselines.ts";
import { type Mask, maskFromScores } from "../mask/mask.ts";
import type { Window } from "../net/activations.ts";
import type { Tokenizer } from "../text/tokenizer.ts";
import { openPredictor } from "./predictorSource.ts";
import { cachedScores, type ScoreCacheOptions } from "./scoreCache.ts";
import { promptWindows, textWindows } from "./windows.ts";

export const SOURCE_NAMES = ["predictor", "griffin", "static", "weights", "random"] as const;
export type SourceName = (typeof SOURCE_NAMES)[number];

/**
 * - `predictor`: learned, from the instruction
 * - `griffin`: the channels that are most active when the dense model reads the prompt
 * - `static`: the channels that contribute most when it reads a text, for all prompts; `maxTokens` of it count (default: 4096)
 * - `weights`: the channels of largest weights
 * - `random`: the same for the same seed (default: 0)
 */
export type SourceChoice =
  | { source: "predictor" | "griffin" | "weights" }
  | { source: "static"; text: string; maxTokens?: number | undefined }
  | { source: "random"; seed?: number | undefined };

export interface SourceOptions extends Omit<EngineOptions, "contextLength"> {
  /** Of the scores of griffin, static and weights. */
  cache?: ScoreCacheOptions | undefined;
}

/** What a mask is made for: the user's text, and the ids of it that the LLM reads. */
export interface Prompt {
  text: string;
  ids: Int32Array;
}

export interface ScoreOptions {
  signal?: AbortSignal | undefined;
  /** Of griffin and static: parts done, and all. */
  onProgress?: ((done: number, total: number) => void) | undefined;
}

export interface MaskSource extends AsyncDisposable {
  readonly name: SourceName;
  /** ε of SoftTopK, where kept channels are scaled by λ. Undefined: masks are hard. */
  readonly epsilon?: number | undefined;
  /**
   * Masking scores z [L·F] of a prompt, and whether they came from the cache.
   *
   * @throws {InputError} if the prompt is empty, longer than the source reads, or not of the model's vocabulary
   * @throws {FileError} if the bundle is damaged
   */
  scores(prompt: Prompt, options?: ScoreOptions): Promise<{ scores: Float32Array; cached: boolean }>;
}

/** A mask and where it comes from. */
export interface ChosenMask {
  mask: Mask;
  source: SourceName;
  /** Whether its scores were in the cache. */
  cached: boolean;
}

/** Changes with every change of what scores mean, so that old ones are not found. */
const scoresVersion = 1;

/**
 * @param engines open the predictor; other sources need none
 * @throws {FileError} if the bundle has no predictor where one is wanted, or it is damaged
 * @throws {InputError} if the text of `static` is empty
 */
export async function openMaskSource(
  engines: EngineProvider,
  bundle: Bundle,
  tokenizer: Tokenizer,
  choice: SourceChoice,
  options: SourceOptions = {},
): Promise<MaskSource> {
  const { cache = {}, ...engine } = options;
  const { numLayers, ffnWidth } = bundle;
  const name = choice.source;
  const none = async () => {};
  const cached = (windows: readonly Window[], make: () => Promise<Float32Array>) =>
    cachedScores(bundle, scoresKey(name, windows), cache, make);
  const run = { threads: engine.threads, spinning: false };

  switch (choice.source) {
    case "predictor":
      return openPredictor(engines, bundle, tokenizer, engine);
    case "griffin":
      return {
        name,
        scores({ ids }, how) {
          const windows = promptWindows(bundle, ids);
          return cached(windows, async () => {
            const { griffinScores } = await import("../net/activations.ts"); // ONNX Runtime, which other sources do not need
            return griffinScores(bundle, windows, { ...run, ...how });
          });
        },
        [Symbol.asyncDispose]: none,
      };
    case "static": {
      const windows = textWindows(bundle, tokenizer, choice.text, choice.maxTokens);
      return {
        name,
        scores: (_, how) =>
          cached(windows, async () => {
            const { contributionScores } = await import("../net/activations.ts");
            return contributionScores(bundle, windows, { ...run, ...how });
          }),
        [Symbol.asyncDispose]: none,
      };
    }
    case "weights":
      return {
        name,
        scores: () => cached([], async () => weightNorms((parameter) => bundle.read(parameter), bundle.config)),
        [Symbol.asyncDispose]: none,
      };
    case "random": {
      const scores = randomScores({ numLayers, dFfn: ffnWidth }, choice.seed ?? 0, name);
      return { name, scores: async () => ({ scores, cached: false }), [Symbol.asyncDispose]: none };
    }
    default:
      return choice satisfies never;
  }
}

/**
 * The mask of a prompt, of `tFfn` channels per layer.
 *
 * @throws {OptionError} if `tFfn` is out of range
 * @throws as {@link MaskSource.scores}
 */
export async function chooseMask(
  source: MaskSource,
  prompt: Prompt,
  { tFfn, ffnWidth, ...options }: ScoreOptions & { tFfn: number; ffnWidth: number },
): Promise<ChosenMask> {
  if (!Number.isInteger(tFfn) || tFfn < 1 || tFfn > ffnWidth)
    throw new OptionError(`mask: wanted t_ffn in 1..${ffnWidth} (d_ffn), got ${tFfn}.`);
  const { scores, cached } = await source.scores(prompt, options);
  const mask = maskFromScores(scores, { dFfn: ffnWidth, tFfn, epsilon: source.epsilon });
  return { mask, source: source.name, cached };
}

/** Channels per layer that a bundle's masks keep unless told: as its predictor was trained, else about half of them. */
export function bundleTFfn({ manifest, ffnWidth }: Bundle): number {
  return manifest.tFfn ?? defaultTFfn(ffnWidth);
}

/** A name for scores by all that they depend on beside the bundle. */
function scoresKey(name: SourceName, windows: readonly Window[]): string {
  const hash = createHash("sha256").update(JSON.stringify([scoresVersion, name]));
  for (const { ids, skipped } of windows) {
    hash.update(JSON.stringify([ids.length, skipped]));
    hash.update(new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength));
  }
  return hash.digest("hex").slice(0, 32);
}
