/** Engines of sub-networks, one at a time, for jobs that ask many prompts. */
import type { CacheOptions } from "../bundle/cacheEntries.ts";
import { openSubnetwork } from "../bundle/subnetworkCache.ts";
import type { Engine, EngineOptions } from "../engine/engine.ts";
import type { Mask } from "../mask/mask.ts";
import type { InstructionModel } from "./instructionModel.ts";

type OneEngineOptions = Omit<EngineOptions, "contextLength" | "sequences"> & { cache?: CacheOptions | undefined };

/** Engines of sub-networks, one open at a time: it stays as long as the same mask is wanted. */
export class OneEngine implements AsyncDisposable {
  readonly #model: InstructionModel;
  readonly #cache: CacheOptions | undefined;
  readonly #options: EngineOptions;
  #open: { key: string; engine: Engine } | undefined;

  constructor(model: InstructionModel, contextLength: number, sequences: number, options: OneEngineOptions) {
    const { threads, kvType, gpu, force, signal, cache } = options;
    this.#model = model;
    this.#cache = cache;
    this.#options = { contextLength, sequences, threads, kvType, gpu, force, signal };
  }

  async of(key: string, mask: Mask): Promise<Engine> {
    if (this.#open?.key === key) return this.#open.engine;
    await this[Symbol.asyncDispose]();
    const { path } = await openSubnetwork(this.#model.bundle, mask, { ...this.#cache, signal: this.#options.signal });
    const engine = await this.#model.engines.open(path, this.#options);
    this.#open = { key, engine };
    return engine;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#open?.engine[Symbol.asyncDispose]();
    this.#open = undefined;
  }
}
