/** Loaded sub-networks of all served models, each gathered and loaded once, within the memory that they may take together. */
import type { InstructionModel } from "../answer/instructionModel.ts";
import type { CacheOptions } from "../bundle/cacheEntries.ts";
import type { StoredModel } from "../bundle/estimate.ts";
import type { Form } from "../bundle/formOptions.ts";
import { formOf, openMaskModel } from "../bundle/maskModel.ts";
import { DEFAULT_KV_TYPE } from "../bundle/memory.ts";
import type { Engine, EngineOptions } from "../engine/engine.ts";
import { overlap } from "../mask/overlap.ts";
import type { NamedMask } from "./masks.ts";
import { type Lease, Pool, type PoolItem } from "./pool.ts";
import { ResidentModels } from "./residentModels.ts";
import type { AnswerStage, ServedModel } from "./service.ts";
import { residentShare, subnetworkBytes } from "./subnetworkBytes.ts";

export interface SubnetworkPoolOptions extends Pick<EngineOptions, "threads" | "kvType" | "gpu"> {
  /** Bytes of all of them. */
  budget: number;
  /** Calls that one takes at a time. */
  slots: number;
  /** Default: gathered. */
  form?: Form | undefined;
  cache?: Omit<CacheOptions, "signal"> | undefined;
}

/** What sub-networks are cut from. */
interface Origin {
  info: ServedModel;
  model: InstructionModel;
  stored: StoredModel;
}

export class SubnetworkPool implements AsyncDisposable {
  readonly #options: SubnetworkPoolOptions;
  readonly #pool: Pool<Engine>;
  readonly #residents = new ResidentModels();
  /** Masks of what the pool has, or had lately, by its keys. */
  readonly #masks = new Map<string, NamedMask>();

  constructor(options: SubnetworkPoolOptions) {
    this.#options = options;
    this.#pool = new Pool({ budget: options.budget, slots: options.slots });
  }

  /** A slot of a mask's sub-network, which is loaded if need be, and others freed for it. @throws as {@link Pool.acquire} */
  acquire(
    { info, model, stored }: Origin,
    named: NamedMask,
    signal: AbortSignal,
    report?: (stage: AnswerStage) => void,
  ): Promise<Lease<Engine>> {
    const { slots, kvType = DEFAULT_KV_TYPE, threads, gpu, form: wanted, cache } = this.#options;
    const { contextLength } = info;
    const key = keyOf(info.id, named.id);
    const { bundle, engines } = model;
    const isResident = formOf(bundle, named.mask, wanted).form === "resident";
    const size = { tFfn: named.mask.tFfn, contextLength, slots, kvType };
    const { own, shared } = isResident ? residentShare(bundle, size) : subnetworkBytes(stored, size);
    const item: PoolItem<Engine> = {
      key,
      bytes: own,
      shared: { key: isResident ? keyOf(info.id, `resident ${size.tFfn}`) : info.id, bytes: shared },
      load: async (abandoned, reportLoad) => {
        const start = performance.now();
        const inCache = { ...cache, signal: abandoned };
        const { path, adapter, cached } = await openMaskModel(bundle, named.mask, wanted, inCache);
        const gathered = performance.now();
        reportLoad("load");
        const how = { contextLength, sequences: slots, threads, kvType, gpu, signal: abandoned };
        const value = isResident
          ? await this.#residents.engine(engines, path, { ...how, adapter })
          : await engines.open(path, how);
        const ms = { gather: gathered - start, load: performance.now() - gathered };
        this.#remember(key, named);
        return { value, from: cached ? "disk" : "cold", ms };
      },
    };
    return this.#pool.acquire(item, signal, report);
  }

  isLoaded(modelId: string, maskId: string): boolean {
    return this.#loadedKeys().includes(keyOf(modelId, maskId));
  }

  /** The loaded mask of a model that keeps most of a mask's channels, at least this share in every layer; the mask itself where that is loaded, or none does. */
  nearest(modelId: string, named: NamedMask, share: number): NamedMask {
    if (this.isLoaded(modelId, named.id)) return named;
    const near = this.#loadedKeys()
      .filter((key) => ofKey(key).model === modelId)
      .map((key) => this.#masks.get(key)!)
      .filter(({ mask }) => mask.tFfn === named.mask.tFfn)
      .map((other) => ({ other, share: Math.min(...overlap(named.mask, other.mask)) }))
      .filter((one) => one.share >= share)
      .sort((a, b) => b.share - a.share);
    return near[0]?.other ?? named;
  }

  state(): {
    subnetworks: { model: string; maskId: string; bytes: number; users: number }[];
    memoryBytes: number;
    memoryLimit: number;
  } {
    const subnetworks = this.#pool.items().map(({ key, bytes, users }) => ({ ...ofKey(key), bytes, users }));
    return { subnetworks, memoryBytes: this.#pool.bytes, memoryLimit: this.#options.budget };
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#pool[Symbol.asyncDispose]();
  }

  #loadedKeys(): string[] {
    return this.#pool.items().flatMap(({ key, isLoaded }) => (isLoaded ? [key] : []));
  }

  #remember(key: string, named: NamedMask): void {
    const kept = new Set(this.#pool.items().map((item) => item.key));
    for (const old of this.#masks.keys()) if (!kept.has(old)) this.#masks.delete(old);
    this.#masks.set(key, named);
  }
}

const keyOf = (modelId: string, maskId: string) => JSON.stringify([modelId, maskId]);

function ofKey(key: string): { model: string; maskId: string } {
  const [model, maskId] = JSON.parse(key) as [string, string];
  return { model, maskId };
}
