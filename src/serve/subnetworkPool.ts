/**
 * Loaded sub-networks of all served models, each gathered and loaded once, within the memory that they may take together, in the form that answers each
 * request sooner.
 */
import type { InstructionModel } from "../answer/instructionModel.ts";
import type { CacheOptions } from "../bundle/cacheEntries.ts";
import type { StoredModel } from "../bundle/estimate.ts";
import { residentShare, subnetworkBytes } from "../bundle/formBytes.ts";
import { type FormCost, type FormRequest, type FormState, totalMs } from "../bundle/formCost.ts";
import type { FormMeter } from "../bundle/formMeter.ts";
import { DEFAULT_FORM, FORMS, type Form, type WantedForm } from "../bundle/formOptions.ts";
import { chooseForm, formsOnDisk, hasMaskModel, type MaskForm, onlyForm, openMaskModel } from "../bundle/maskModel.ts";
import { DEFAULT_KV_TYPE } from "../bundle/memory.ts";
import { residentAdapter } from "../bundle/residentModel.ts";
import type { Engine, EngineOptions } from "../engine/engine.ts";
import { overlap } from "../mask/overlap.ts";
import { apart } from "./apart.ts";
import { FormMoves } from "./formMoves.ts";
import type { WrittenForm } from "./formWorker.ts";
import type { NamedMask } from "./masks.ts";
import { type Lease, type Loaded, Pool, type PoolItem } from "./pool.ts";
import { ResidentModels } from "./residentModels.ts";
import type { AnswerStage, LoadedSubnetwork, MaskInfo, ServedModel } from "./service.ts";

export interface SubnetworkPoolOptions extends Pick<EngineOptions, "threads" | "kvType" | "gpu"> {
  /** Bytes of all of them. */
  budget: number;
  /** Calls that one takes at a time. */
  slots: number;
  /** Default: {@link DEFAULT_FORM} */
  form?: WantedForm | undefined;
  cache?: Omit<CacheOptions, "signal"> | undefined;
}

/** What sub-networks are cut from. */
interface Origin {
  info: Pick<ServedModel, "id" | "contextLength">;
  model: Pick<InstructionModel, "bundle" | "engines">;
  stored: StoredModel;
  /** Where masks may be run in either form. */
  meter: FormMeter | undefined;
}

/** What is asked of a sub-network. */
interface Asked {
  promptTokens: number;
  maxTokens: number;
}

/** A slot of a sub-network. */
export interface SubnetworkLease extends Lease<Engine> {
  form: MaskForm;
  /** Tells what an answer took that was computed alone. */
  learn(ms: Pick<FormCost, "prefill" | "decode">, request: FormRequest): void;
}

export class SubnetworkPool implements AsyncDisposable {
  readonly #options: SubnetworkPoolOptions;
  readonly #writeForm: (written: WrittenForm, signal: AbortSignal) => Promise<void>;
  readonly #wanted: WantedForm;
  readonly #pool: Pool<Engine>;
  readonly #residents = new ResidentModels();
  readonly #moves = new FormMoves();
  /** Masks of what the pool has, or had lately, by its keys. */
  readonly #masks = new Map<string, NamedMask>();

  /** @param writeForm writes a form's files in the background */
  constructor(
    options: SubnetworkPoolOptions,
    writeForm = (written: WrittenForm, signal: AbortSignal) => apart<void>("formWorker", written, { signal }),
  ) {
    this.#options = options;
    this.#writeForm = writeForm;
    this.#wanted = options.form ?? DEFAULT_FORM;
    this.#pool = new Pool({ budget: options.budget, slots: options.slots });
  }

  /** A slot of a mask's sub-network, which is loaded if need be, and others freed for it. @throws as {@link Pool.acquire} */
  async acquire(
    origin: Origin,
    named: NamedMask,
    asked: Asked,
    signal: AbortSignal,
    report?: (stage: AnswerStage) => void,
  ): Promise<SubnetworkLease> {
    const form = this.#choose(origin, named, asked);
    const move = form.formMs && this.#moveOf(origin, named, form.form, asked); // by what is there now
    const lease = await this.#pool.acquire(this.#item(origin, named, form.form), signal, report);
    move?.();
    const learn: SubnetworkLease["learn"] = (ms, request) => {
      if (this.#moves.isMoving) return;
      const { gather, load } = lease.ms;
      const opened = gather + load;
      const before = {
        cold: { gather, load },
        disk: { load: opened },
        loaded: { ...(opened > 0 && { open: opened }) },
      };
      const { prefill, decode } = ms;
      origin.meter?.learn(form.form, named.mask.tFfn, { ...before[lease.from], prefill, decode }, request);
    };
    return { ...lease, form, learn };
  }

  /** How a mask would be run, and where its model is. */
  look(origin: Origin, named: NamedMask, asked: Asked): { form: MaskForm; from: MaskInfo["from"] } {
    const form = this.#choose(origin, named, asked);
    const isLoaded = this.#isLoaded(keyOf(origin.info.id, named.id, form.form));
    const isOnDisk = () => hasMaskModel(origin.model.bundle, named.mask, form.form, this.#options.cache);
    return { form, from: isLoaded ? "loaded" : isOnDisk() ? "disk" : "cold" };
  }

  /** Writes the gathered form of a mask that will be asked for often, in the background, where masks are run in either form. */
  expect(origin: Origin, named: NamedMask): void {
    if (onlyForm(origin.model.bundle, named.mask, this.#wanted)) return;
    this.#moves.start(keyOf(origin.info.id, named.id, "gathered"), (stop) =>
      this.#write(origin, named, "gathered", stop),
    );
  }

  /** The loaded mask of a model that keeps most of a mask's channels, at least this share in every layer; the mask itself where that is loaded, or none does. */
  nearest(modelId: string, named: NamedMask, share: number): NamedMask {
    const loaded = this.#pool.items().filter(({ key, isLoaded }) => isLoaded && ofKey(key).model === modelId);
    if (loaded.some(({ key }) => ofKey(key).maskId === named.id)) return named;
    const near = loaded
      .map(({ key }) => this.#masks.get(key)!)
      .filter(({ mask }) => mask.tFfn === named.mask.tFfn)
      .map((other) => ({ other, share: Math.min(...overlap(named.mask, other.mask)) }))
      .filter((one) => one.share >= share)
      .sort((a, b) => b.share - a.share);
    return near[0]?.other ?? named;
  }

  state(): { subnetworks: LoadedSubnetwork[]; memoryBytes: number; memoryLimit: number } {
    const subnetworks = this.#pool.items().map(({ key, bytes, users }) => ({ ...ofKey(key), bytes, users }));
    return { subnetworks, memoryBytes: this.#pool.bytes, memoryLimit: this.#options.budget };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#moves[Symbol.asyncDispose]();
    await this.#pool[Symbol.asyncDispose]();
  }

  #choose({ info, model, meter }: Origin, { id, mask }: NamedMask, asked: Asked): MaskForm {
    return chooseForm(model.bundle, mask, this.#wanted, () => {
      const { own, shared } = residentShare(model.bundle, this.#size(info, mask.tFfn));
      const memory = { needed: own + shared, limit: this.#options.budget };
      return { meter: meter!, ...asked, states: this.#states(info, model, id, mask), memory };
    });
  }

  #states(info: Origin["info"], { bundle }: Origin["model"], maskId: string, mask: NamedMask["mask"]) {
    const states: Record<Form, FormState> = formsOnDisk(bundle, mask, this.#options.cache);
    for (const form of FORMS) {
      states[form].isOpen = this.#isLoaded(keyOf(info.id, maskId, form));
      states[form].isLoaded = states[form].isOpen;
    }
    const weights = residentKey(info.id, mask.tFfn);
    states.resident.isLoaded = this.#pool.items().some(({ shared, isLoaded }) => isLoaded && shared === weights);
    return states;
  }

  /**
   * What a request adds to the case for the form that it is not run in, which is made once what its lack has cost comes to what it costs: whoever rents until
   * then, and buys, never pays more than twice the least in hindsight.
   */
  #moveOf(origin: Origin, named: NamedMask, form: Form, asked: Asked): () => void {
    const { info, model } = origin;
    const { tFfn } = named.mask;
    const meter = origin.meter!;
    const other = form === "resident" ? "gathered" : "resident";
    const states = this.#states(info, model, named.id, named.mask);
    const ready = { isWritten: true, isLoaded: true, isOpen: other === "gathered" };
    const now = meter.costs(tFfn, states, asked);
    const then = meter.costs(tFfn, { ...states, [other]: ready }, asked);
    const price = totalMs(now[other]) - totalMs(then[other]);
    const lost = Math.max(0, totalMs(now[form]) - totalMs(then[other]));
    const key = other === "gathered" ? keyOf(info.id, named.id, other) : residentKey(info.id, tFfn);
    const move = async (stop: AbortSignal) => {
      await this.#write(origin, named, other, stop);
      const item = this.#item(origin, named, other);
      const isRoom = this.#pool.bytes + item.bytes + item.shared.bytes <= this.#options.budget;
      if (isRoom) (await this.#pool.acquire(item, stop)).release();
    };
    return () => this.#moves.lose(key, lost, price, move);
  }

  async #write({ model }: Origin, { mask }: NamedMask, form: Form, signal: AbortSignal): Promise<void> {
    const { cache } = this.#options;
    const written: WrittenForm = { path: model.bundle.path, mask, form, cache };
    if (!hasMaskModel(model.bundle, mask, form, cache)) await this.#writeForm(written, signal);
  }

  #item({ info, model, stored }: Origin, named: NamedMask, form: Form): PoolItem<Engine> {
    const { threads, kvType, gpu, slots, cache } = this.#options;
    const { bundle, engines } = model;
    const { mask } = named;
    const size = this.#size(info, mask.tFfn);
    const isResident = form === "resident";
    const { own, shared } = isResident ? residentShare(bundle, size) : subnetworkBytes(stored, size);
    const key = keyOf(info.id, named.id, form);
    const weights = isResident ? residentKey(info.id, mask.tFfn) : info.id;
    const how = { contextLength: info.contextLength, sequences: slots, threads, kvType, gpu };
    const item = { key, bytes: own, shared: { key: weights, bytes: shared } };
    if (isResident) {
      const adapter = () => residentAdapter(bundle, mask);
      return {
        ...item,
        load: async (abandoned, reportLoad) => {
          const start = performance.now();
          let [from, written]: [Loaded<Engine>["from"], number] = ["loaded", start];
          // Whoever asked first may give up while others wait: what they share is not stopped with its signal.
          const load = async () => {
            const { path, cached } = await openMaskModel(bundle, mask, form, cache);
            [from, written] = [cached ? "disk" : "cold", performance.now()];
            reportLoad("load");
            return engines.openModel(path, how);
          };
          const value = await this.#residents.engine(weights, load, { adapter: adapter(), signal: abandoned });
          this.#remember(key, named);
          return { value, from, ms: { gather: written - start, load: performance.now() - written } };
        },
        turn: async (unused) => {
          const start = performance.now();
          await unused.adapt(adapter());
          this.#remember(key, named);
          return { value: unused, from: "loaded", ms: { gather: 0, load: performance.now() - start } };
        },
      };
    }
    return {
      ...item,
      load: async (abandoned, reportLoad) => {
        const start = performance.now();
        const { path, cached } = await openMaskModel(bundle, mask, form, { ...cache, signal: abandoned });
        const gathered = performance.now();
        reportLoad("load");
        const value = await engines.open(path, { ...how, signal: abandoned });
        this.#remember(key, named);
        const ms = { gather: gathered - start, load: performance.now() - gathered };
        return { value, from: cached ? "disk" : "cold", ms };
      },
    };
  }

  #size({ contextLength }: Origin["info"], tFfn: number) {
    const { slots, kvType = DEFAULT_KV_TYPE } = this.#options;
    return { tFfn, contextLength, slots, kvType };
  }

  #isLoaded(key: string): boolean {
    return this.#pool.items().some((item) => item.key === key && item.isLoaded);
  }

  #remember(key: string, named: NamedMask): void {
    const kept = new Set(this.#pool.items().map((item) => item.key));
    for (const old of this.#masks.keys()) if (!kept.has(old)) this.#masks.delete(old);
    this.#masks.set(key, named);
  }
}

const keyOf = (modelId: string, maskId: string, form: Form) => JSON.stringify([modelId, maskId, form]);
/** Of a model's resident form: masks that keep as many channels share one. */
const residentKey = (modelId: string, tFfn: number) => JSON.stringify([modelId, "resident", tFfn]);

function ofKey(key: string): { model: string; maskId: string; form: Form } {
  const [model, maskId, form] = JSON.parse(key) as [string, string, Form];
  return { model, maskId, form };
}
