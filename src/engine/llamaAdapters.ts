/** LoRA adapters of a loaded model in llama.cpp: each is read once, and freed once no context has it. */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { LlamaContext, LlamaModel } from "node-llama-cpp";
import { writing } from "../files.ts";

/** What node-llama-cpp has and does not declare: it sets adapters where a context is made, and keeps them, by their paths, as long as the model. */
interface ContextInside {
  _setLoras(adapters: readonly { filePath: string }[]): Promise<void>;
}
interface ModelInside {
  _loraAdapters: Map<string, { dispose(): Promise<void> }>;
}

interface Loaded {
  path: string;
  users: number;
}

export class LlamaAdapters {
  readonly #model: LlamaModel;
  /** By the hash of their bytes. */
  readonly #loaded = new Map<string, Loaded>();
  readonly #of = new Map<LlamaContext, string>();

  constructor(model: LlamaModel) {
    this.#model = model;
  }

  /** Gives a context, in which nothing runs, an adapter in the place of the one that it has. */
  async set(context: LlamaContext, adapter: Uint8Array): Promise<void> {
    const hash = createHash("sha256").update(adapter).digest("hex");
    const before = this.#of.get(context);
    if (hash === before) return;
    const known = this.#loaded.get(hash);
    const folder = known ? undefined : writing(tmpdir(), () => mkdtempSync(join(tmpdir(), "ifprune-adapter-")));
    const loaded = known ?? { path: join(folder!, "adapter.gguf"), users: 0 };
    this.#loaded.set(hash, loaded);
    loaded.users++;
    try {
      if (folder !== undefined) writing(loaded.path, () => writeFileSync(loaded.path, adapter));
      await (context as unknown as ContextInside)._setLoras([{ filePath: loaded.path }]);
      this.#of.set(context, hash);
    } catch (error) {
      await this.#release(hash);
      throw error;
    } finally {
      if (folder !== undefined) rmSync(folder, { recursive: true, force: true });
    }
    if (before !== undefined) await this.#release(before);
  }

  /** A context has gone. */
  async leave(context: LlamaContext): Promise<void> {
    const hash = this.#of.get(context);
    this.#of.delete(context);
    if (hash !== undefined) await this.#release(hash);
  }

  async #release(hash: string): Promise<void> {
    const loaded = this.#loaded.get(hash)!;
    if (--loaded.users > 0) return;
    this.#loaded.delete(hash);
    const { _loraAdapters: inside } = this.#model as unknown as ModelInside;
    const adapter = inside.get(loaded.path);
    inside.delete(loaded.path);
    await adapter?.dispose();
  }
}
