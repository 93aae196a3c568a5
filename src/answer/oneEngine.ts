/** Engines of masks, one at a time, for jobs that ask many prompts. */
import type { CacheOptions } from "../bundle/cacheEntries.ts";
import type { Form } from "../bundle/formOptions.ts";
import { openMaskModel } from "../bundle/maskModel.ts";
import { residentAdapter } from "../bundle/residentModel.ts";
import type { Engine, EngineOptions } from "../engine/engine.ts";
import type { Mask } from "../mask/mask.ts";
import type { InstructionModel } from "./instructionModel.ts";

interface OneEngineOptions extends Omit<EngineOptions, "contextLength" | "sequences" | "adapter"> {
  /** Default: gathered. */
  form?: Form | undefined;
  cache?: CacheOptions | undefined;
}

/** Engines of masks, steady ones unless told otherwise, one open at a time: it stays as long as the same mask is wanted, or in the resident form one that keeps as many channels. */
export class OneEngine implements AsyncDisposable {
  readonly #model: Pick<InstructionModel, "bundle" | "engines">;
  readonly #cache: CacheOptions | undefined;
  readonly #form: Form;
  readonly #options: EngineOptions;
  #open: { key: string; tFfn: number; engine: Engine } | undefined;

  constructor(
    model: Pick<InstructionModel, "bundle" | "engines">,
    contextLength: number,
    sequences: number,
    { form = "gathered", steady = true, threads, kvType, gpu, force, signal, cache }: OneEngineOptions,
  ) {
    this.#model = model;
    this.#form = form;
    this.#cache = { ...cache, ...(signal && { signal }) };
    this.#options = { contextLength, sequences, steady, threads, kvType, gpu, force, signal };
  }

  /** @throws {OptionError} if the mask does not have the form */
  async of(key: string, mask: Mask): Promise<Engine> {
    const { bundle, engines } = this.#model;
    const { tFfn } = mask;
    if (this.#open?.key === key) return this.#open.engine;
    if (this.#open?.tFfn === tFfn && this.#form === "resident") {
      await this.#open.engine.adapt(residentAdapter(bundle, mask));
      this.#open.key = key;
      return this.#open.engine;
    }
    await this[Symbol.asyncDispose]();
    const { path, adapter } = await openMaskModel(bundle, mask, this.#form, this.#cache);
    const engine = await engines.open(path, { ...this.#options, adapter });
    this.#open = { key, tFfn, engine };
    return engine;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#open?.engine[Symbol.asyncDispose]();
    this.#open = undefined;
  }
}
