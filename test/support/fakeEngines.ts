/** Engines without a model, for tests of what lies around them. Every answer is the tokens that were given, one in each turn of the event loop. */
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Engine, EngineModel, EngineOptions, EngineProvider, FeatureEngine } from "../../src/engine/engine.ts";

export class FakeEngines implements EngineProvider {
  /** Paths of the files that are open. */
  readonly openPaths: string[] = [];
  readonly #tokens: Iterable<number>;

  constructor(tokens: Iterable<number> = []) {
    this.#tokens = tokens;
  }

  async load() {}

  async start() {}

  async describe() {
    return { name: "fake", processor: "", gpu: false as const };
  }

  async open(path: string, { contextLength }: EngineOptions): Promise<Engine> {
    const tokens = this.#tokens;
    const refuse = () => Promise.reject(new Error("a fake engine generates plain answers alone"));
    return {
      async *generate(ids, { maxTokens, signal }) {
        let room = Math.min(maxTokens, contextLength - ids.length);
        for (const token of tokens) {
          await nextTurn();
          signal?.throwIfAborted();
          yield token;
          if (--room === 0) return;
        }
      },
      // biome-ignore lint/correctness/useYield: it refuses
      async *generateScored() {
        await refuse();
      },
      score: refuse,
      logits: refuse,
      adapt: async () => {},
      ...this.#keep(path),
    };
  }

  async openModel(path: string, options: EngineOptions): Promise<EngineModel> {
    return { engine: () => this.open(path, options), ...this.#keep(path) };
  }

  async openFeature(path: string): Promise<FeatureEngine> {
    return {
      feature: () => Promise.reject(new Error("a fake engine has no features")),
      ...this.#keep(path),
    };
  }

  #keep(path: string): AsyncDisposable {
    this.openPaths.push(path);
    let isOpen = true; // closing twice is allowed
    return {
      [Symbol.asyncDispose]: async () => {
        if (isOpen) this.openPaths.splice(this.openPaths.indexOf(path), 1);
        isOpen = false;
      },
    };
  }
}
