/** Loaded resident models: each stays as long as an engine of it does, so that masks that keep as many blocks share one. */
import type { Engine, EngineModel, EngineOptions } from "../engine/engine.ts";

interface Shared {
  model: Promise<EngineModel>;
  users: number;
}

export class ResidentModels {
  readonly #open = new Map<string, Shared>();

  /**
   * An engine of a model. Disposing the last one frees the model.
   *
   * @param load called unless the model is loaded or loading
   */
  async engine(
    key: string,
    load: () => Promise<EngineModel>,
    { adapter, signal }: Pick<EngineOptions, "adapter" | "signal">,
  ): Promise<Engine> {
    const shared = this.#open.get(key) ?? { model: load(), users: 0 };
    this.#open.set(key, shared);
    shared.users++;
    let isHeld = true; // disposing twice is allowed
    const leave = async () => {
      if (!isHeld) return;
      isHeld = false;
      if (--shared.users > 0) return;
      this.#open.delete(key);
      await (await shared.model)[Symbol.asyncDispose]();
    };
    try {
      const model = await shared.model;
      signal?.throwIfAborted();
      const engine = await model.engine({ adapter, signal });
      return withDispose(engine, async () => {
        await engine[Symbol.asyncDispose]();
        await leave();
      });
    } catch (error) {
      await leave().catch(() => {}); // of a model that did not load nothing is to free
      throw error;
    }
  }
}

function withDispose(engine: Engine, dispose: () => Promise<void>): Engine {
  return {
    adapt: (adapter) => engine.adapt(adapter),
    generate: (...args) => engine.generate(...args),
    generateScored: (...args) => engine.generateScored(...args),
    score: (...args) => engine.score(...args),
    logits: (...args) => engine.logits(...args),
    [Symbol.asyncDispose]: dispose,
  };
}
