/**
 * The inference service on this machine: bundles, a queue, a pool of loaded sub-networks, and masks that are remembered.
 *
 * A request waits for its turn in the queue, gets its mask (made, remembered, or saved before), then a slot of that mask's sub-network, which may first be
 * gathered and loaded, and others freed for it. Requests that share a sub-network are computed in one batch.
 *
 * Shapes: F FFN channels of a layer · K kept ones (t_ffn)
 */

import { existsSync } from "node:fs";
import { basename, resolve } from "node:path";
import { setImmediate } from "node:timers/promises";
import { DEFAULT_ENGINES } from "../answer/defaultEngines.ts";
import { InstructionModel, type ModelOptions } from "../answer/instructionModel.ts";
import {
  defaultSource,
  isMasked,
  type MaskSource,
  maskQuality,
  modelTFfn,
  openFlaggedSource,
} from "../answer/maskSource.ts";
import { measureQuality } from "../answer/measure.ts";
import type { ReadPrompt } from "../answer/prompts.ts";
import type { ScoreCacheOptions } from "../answer/scoreCache.ts";
import type { SourceName } from "../answer/sourceNames.ts";
import type { Budget } from "../bundle/budget.ts";
import { hasBudget } from "../bundle/budget.ts";
import type { Bundle } from "../bundle/bundle.ts";
import type { CacheOptions } from "../bundle/cacheEntries.ts";
import { defaultContextLength, estimate, readStoredModel, type StoredModel } from "../bundle/estimate.ts";
import { residentShare, subnetworkBytes } from "../bundle/formBytes.ts";
import { FormMeter } from "../bundle/formMeter.ts";
import { DEFAULT_FORM, type WantedForm } from "../bundle/formOptions.ts";
import { autoFlaw, type MaskForm } from "../bundle/maskModel.ts";
import { availableBytes, byteSize, DEFAULT_KV_TYPE } from "../bundle/memory.ts";
import { isPulled, packageName } from "../bundle/pulledModels.ts";
import type { Pulled, PullOptions } from "../bundle/pullModel.ts";
import { checkResident } from "../bundle/residentModel.ts";
import type { EngineOptions, FeatureEngine } from "../engine/engine.ts";
import { MAX_TOKENS } from "../engine/engineOptions.ts";
import { completeSampling } from "../engine/sampling.ts";
import { BusyError, FileError, IfpruneError, InputError, MemoryError, OptionError } from "../errors.ts";
import { isHubId } from "../hub/hubSnapshot.ts";
import { addQuality, IMPORT_RECIPE, readManifest } from "../manifest.ts";
import type { Mask } from "../mask/mask.ts";
import { countParameters } from "../model/config.ts";
import { type Complete, checkNumber, type Given, readNumbers } from "../options.ts";
import { type ChatMessage, ChatTemplate } from "../text/chatTemplate.ts";
import { composePrompt, type TaskExample } from "../text/prompt.ts";
import { answerEvents, type EngineTurn, type Times } from "./answerEvents.ts";
import { AnswerText } from "./answerText.ts";
import { apart } from "./apart.ts";
import { EventBuffer } from "./eventBuffer.ts";
import { type NamedMask, TaskStore } from "./masks.ts";
import { PromptReader } from "./promptReader.ts";
import { Queue } from "./queue.ts";
import { ServedMasks } from "./servedMasks.ts";
import type {
  AddOptions,
  AnswerStage,
  GenerationEvent,
  GenerationRequest,
  InferenceService,
  MaskInfo,
  MaskMaking,
  MaskRequest,
  PromptToken,
  ServedModel,
} from "./service.ts";
import { SERVICE_OPTIONS } from "./serviceOptions.ts";
import { SubnetworkPool } from "./subnetworkPool.ts";
import { promptTokens, tokenTexts, withText } from "./tokens.ts";

/** Limits of {@link openLocalService}, how it runs models, and what masks keep unless requests say so. Numbers are those of `serviceOptions.ts`. */
export interface LocalServiceOptions
  extends ModelOptions,
    Pick<EngineOptions, "kvType" | "gpu">,
    Given<typeof SERVICE_OPTIONS>,
    Budget {
  /** What makes masks. Default: the predictor where a model has one, else griffin. */
  source?: SourceName | undefined;
  /** What the sources `glass` and `text` take activations from. */
  text?: string | undefined;
  /**
   * How masks are run; those that are soft or not of whole blocks are gathered nevertheless. Default: in the form that is expected to answer each request
   * sooner.
   */
  form?: WantedForm | undefined;
  /** Of sub-networks on disk. */
  cache?: Omit<CacheOptions, "signal"> | undefined;
  scoreCache?: ScoreCacheOptions | undefined;
  /** Folder of saved tasks. Default: `$XDG_DATA_HOME/ifprune/tasks`. */
  tasksRoot?: string | undefined;
  /** Told of a model whose files turn out not to be what its manifest says. It answers no more. */
  onFault?: ((model: string, error: FileError) => void) | undefined;
}

type CompleteOptions = Omit<LocalServiceOptions, keyof typeof SERVICE_OPTIONS> &
  Complete<typeof SERVICE_OPTIONS> & { memoryBytes: number };

/** An open bundle and what belongs to it. */
interface Served {
  info: ServedModel;
  model: InstructionModel;
  source: MaskSource;
  stored: StoredModel;
  masks: ServedMasks;
  reader: PromptReader;
  /** Where masks may be run in either form. */
  meter: FormMeter | undefined;
  /** Loaded once it is asked for. */
  feature?: Promise<FeatureEngine> | undefined;
  fault?: FileError;
}

/**
 * Opens bundles for service.
 *
 * @param models each a folder, and the name that it gets
 * @throws {OptionError} if an option is out of range, or two models have one name
 * @throws {FileError} if a folder is not a whole bundle, or a saved task is damaged
 */
export async function openLocalService(
  models: readonly { id: string; path: string }[],
  options: LocalServiceOptions = {},
): Promise<LocalService> {
  const read = readNumbers("serve", SERVICE_OPTIONS, options);
  const memoryBytes = read.memoryBytes ?? Math.floor(0.6 * availableBytes());
  const complete = { ...options, ...read, memoryBytes };
  const { engines = DEFAULT_ENGINES } = options;
  await engines.start(options.gpu);
  const served = new Map<string, Served>();
  try {
    for (const { id, path } of models) {
      if (served.has(id)) throw new OptionError(`serve: wanted a name for each model, got "${id}" twice.`);
      served.set(id, await openServed(id, path, { ...complete, engines }));
    }
    return new LocalService(served, complete);
  } catch (error) {
    for (const one of served.values()) await closeServed(one);
    throw error;
  }
}

async function openServed(id: string, path: string, options: CompleteOptions): Promise<Served> {
  const model = await InstructionModel.openInTurns(path, options);
  try {
    const { bundle, format } = model;
    const template = format.template instanceof ChatTemplate ? format.template : undefined;
    if (options.form === "resident") checkResident(bundle);
    const { quality, provenance } = bundle.manifest;
    const { contextLength = defaultContextLength(bundle), threads, gpu, scoreCache, tasksRoot, slots } = options;
    const { kvType = DEFAULT_KV_TYPE } = options;
    const { source: name, text } = options;
    const sourceName = name ?? defaultSource(model);
    const isMeasured = quality?.rows.some((row) => row.source === sourceName);
    const isDense = !isMasked(model, { ...budgetIn(options), source: name, text });
    const tFfn = isDense ? bundle.ffnWidth : modelTFfn(model, budgetIn(options), name);
    const tasks = new TaskStore(bundle, tasksRoot);
    await setImmediate();
    const stored = readStoredModel(path);
    estimate(stored, { tFfn: isDense ? undefined : tFfn, contextLength }); // that they suit the model
    const size = { tFfn, contextLength, slots, kvType };
    const share = options.form === "resident" ? residentShare(bundle, size) : subnetworkBytes(stored, size);
    checkBudget(id, share, options.memoryBytes);
    const memoryOf = (kept: number) => {
      const { own, shared } = subnetworkBytes(stored, { ...size, tFfn: kept });
      return own + shared;
    };
    const info: ServedModel = {
      id,
      hash: model.hash,
      family: bundle.config.family,
      created: Math.floor(Date.parse(provenance.created) / 1000),
      contextLength,
      numLayers: bundle.numLayers,
      dFfn: bundle.ffnWidth,
      tFfn,
      isTrained: model.hasPredictor,
      source: sourceName,
      quality,
      autoTFfn: isMeasured ? modelTFfn(model, { keep: "auto" }, name) : undefined,
      trainedOn: provenance.recipe === IMPORT_RECIPE ? [] : provenance.data.map(({ name }) => name),
      hasChatTemplate: template !== undefined,
      hasTools: template?.hasTools ?? false,
      thoughts: template?.thoughts(format.tokenizer),
      hasThinkingSwitch: template?.hasThinkingSwitch,
      numParameters: countParameters(bundle.config),
      fileBytes: Object.values(bundle.manifest.files).reduce((sum, { bytes }) => sum + bytes, 0),
      memoryBytes: { dense: memoryOf(bundle.ffnWidth), subnetwork: memoryOf(tFfn) },
      formFlaw: formFlaw(bundle, size, options),
      location: locationOf(path),
    };
    const isEither = (options.form ?? DEFAULT_FORM) === "auto" && !autoFlaw(bundle);
    const meter = isEither ? new FormMeter(bundle, options.cache) : undefined;
    const reader = new PromptReader(model); // whose thread starts with its first long prompt
    // Last, as it may load a model: nothing fails after it that would have to close it.
    const source = await openFlaggedSource(model, { source: name, text }, { threads, gpu, cache: scoreCache });
    return { info, model, source, stored, masks: new ServedMasks(bundle, source, tasks), meter, reader };
  } catch (error) {
    model[Symbol.dispose]();
    throw error;
  }
}

/** Of a model whose masks are of blocks, where no request could be answered in the resident form. */
function formFlaw(
  bundle: Bundle,
  size: Parameters<typeof residentShare>[1],
  { form = DEFAULT_FORM, memoryBytes }: CompleteOptions,
): string | undefined {
  if (form !== "auto" || bundle.block === 1) return undefined;
  const flaw = autoFlaw(bundle);
  if (flaw !== undefined) return flaw;
  const { own, shared } = residentShare(bundle, size);
  if (own + shared <= memoryBytes) return undefined;
  return `wanted ${byteSize(own + shared)} of memory, got a limit of ${byteSize(memoryBytes)}`;
}

function locationOf(path: string): string {
  if (!existsSync(path)) return path;
  return packageName(path) ?? resolve(path);
}

const budgetIn = ({ keep, maxLoss, tFfn }: Budget): Budget => ({ keep, maxLoss, tFfn });

/** A limit that no sub-network fits into would refuse every request. */
function checkBudget(id: string, { own, shared }: ReturnType<typeof subnetworkBytes>, limit: number): void {
  if (own + shared > limit)
    throw new MemoryError(
      `serve: wanted ${byteSize(own + shared)} for a sub-network of "${id}", got a limit of ${byteSize(limit)}. Raise it, or use a smaller context or fewer slots.`,
    );
}

async function closeServed({ source, model, reader, feature }: Served): Promise<void> {
  await reader[Symbol.asyncDispose]();
  await (await feature)?.[Symbol.asyncDispose]();
  await source[Symbol.asyncDispose]();
  model[Symbol.dispose]();
}

/** See {@link InferenceService}. Made by {@link openLocalService}. */
export class LocalService implements InferenceService {
  readonly #served: Map<string, Served>;
  readonly #options: CompleteOptions;
  readonly #queue: Queue;
  readonly #pool: SubnetworkPool;
  /** Of what runs, each. (One signal for all would be followed by those of every request, for ever.) */
  readonly #stops = new Set<AbortController>();
  readonly #verifying = new AbortController();
  #closed: Promise<void> | undefined;

  constructor(served: Map<string, Served>, options: CompleteOptions) {
    const { maxRunning, maxQueued, memoryBytes } = options;
    this.#served = served;
    this.#options = options;
    this.#queue = new Queue({ maxRunning, maxQueued });
    this.#pool = new SubnetworkPool({ ...options, budget: memoryBytes });
    for (const one of served.values()) void this.#verify(one);
  }

  /** Compares a model's files with their hashes, in the background: what is made of them waits for it. */
  async #verify(served: Served): Promise<void> {
    const { info, model } = served;
    const onProgress = (done: number, total: number) => {
      info.verifying = { done, total };
    };
    try {
      await model.verify({ signal: this.#verifying.signal, onProgress });
    } catch (error) {
      if (this.#verifying.signal.aborted) return;
      const { message } = error as Error;
      const fault = error instanceof FileError ? error : new FileError(model.bundle.path, message, { cause: error });
      served.fault = fault;
      info.fault = basename(fault.path) + fault.message.slice(fault.path.length); // clients are not told where files are
      this.#options.onFault?.(info.id, fault);
    } finally {
      info.verifying = undefined;
    }
  }

  models(): readonly ServedModel[] {
    return [...this.#served.values()].map(({ info }) => info);
  }

  addModel(name: string, { signal, onProgress }: AddOptions = {}): Promise<ServedModel> {
    const id = basename(resolve(name));
    return this.#stoppable(signal, async (either) => {
      this.#checkNew(id);
      if (isHubId(name) && !existsSync(name) && !isPulled(name)) {
        const { path, isImported } = await apart<Pulled, Parameters<NonNullable<PullOptions["onProgress"]>>>(
          "pullWorker",
          name,
          {
            signal: either,
            onProgress,
          },
        );
        if (isImported)
          await measure(path, this.#options, either, (done, total) => onProgress?.("measure", done, total));
      }
      const served = await openServed(id, name, this.#options);
      try {
        either.throwIfAborted();
        this.#checkNew(id); // another may have been faster
      } catch (error) {
        await closeServed(served);
        throw error;
      }
      this.#served.set(id, served);
      void this.#verify(served);
      return served.info;
    });
  }

  #checkNew(id: string): void {
    if (this.#served.has(id)) throw new OptionError(`serve: wanted a name for each model, got "${id}" twice.`);
  }

  async *generate(model: string, request: GenerationRequest): AsyncGenerator<GenerationEvent, void, void> {
    const stop = new AbortController();
    const events = new EventBuffer<GenerationEvent>();
    const running = this.#stoppable(
      request.signal,
      (signal) => this.#answer(model, { ...request, signal }, (event) => events.push(event)),
      stop,
    ).then(
      () => events.end(),
      (error) => events.fail(error),
    );
    try {
      yield* events.read();
    } finally {
      stop.abort();
      await running;
    }
  }

  /** Runs what ends with the signal, with the service, or with `stop`. */
  async #stoppable<T>(
    signal: AbortSignal | undefined,
    use: (signal: AbortSignal) => Promise<T>,
    stop = new AbortController(),
  ): Promise<T> {
    this.#stops.add(stop);
    try {
      return await use(signal ? AbortSignal.any([signal, stop.signal]) : stop.signal);
    } finally {
      this.#stops.delete(stop);
    }
  }

  async #answer(id: string, given: GenerationRequest, emit: (event: GenerationEvent) => void): Promise<void> {
    const served = this.#find(id);
    checkRequest(given);
    const { prompt, mask, stop, schema, signal, withStages } = given;
    const read = await this.#read(served, prompt, signal);
    const text = new AnswerText(read.decoder, stop, schema !== undefined);
    const maxTokens = Math.min(given.maxTokens, served.info.contextLength - read.ids.length);
    const request = { ...given, maxTokens, sampling: completeSampling(given.sampling) };
    const told = { tokenizer: served.model.tokenizer, thoughts: thoughtsOf(served.model, prompt) };
    const use = async (turn: EngineTurn) => {
      for await (const event of answerEvents(turn, read.ids, request, text, told)) emit(event);
    };
    const report = (stage: AnswerStage) => withStages && emit({ type: "stage", stage });
    await this.#withEngine(served, read, { mask, maxTokens }, signal, use, report);
  }

  async score(
    id: string,
    request: Pick<GenerationRequest, "prompt" | "mask" | "signal"> & { top: number },
  ): Promise<PromptToken[]> {
    const served = this.#find(id);
    const { prompt, mask, top } = request;
    const read = await this.#read(served, prompt, request.signal);
    const { tokenizer } = served.model;
    const textOf = tokenTexts(tokenizer);
    return this.#stoppable(request.signal, (signal) =>
      this.#withEngine(served, read, { mask, maxTokens: 0 }, signal, async ({ engine }) => {
        const scored = await engine.score(read.ids, { top, signal });
        const withTexts = scored.map((token) => withText(token, textOf));
        return promptTokens(read.ids[0]!, withTexts, tokenizer);
      }),
    );
  }

  async features(
    id: string,
    inputs: readonly (string | Int32Array)[],
    signal: AbortSignal,
  ): Promise<{ features: Float32Array[]; numTokens: number }> {
    const served = this.#find(id);
    const { model } = served;
    const { threads, gpu } = this.#options;
    return this.#stoppable(signal, async (either) => {
      using _ = await this.#queue.enter(either);
      served.feature ??= model.openFeature({ threads, gpu });
      const engine = await served.feature.catch((error) => {
        served.feature = undefined; // the next one may have more luck
        throw error;
      });
      await model.verify({ signal: either });
      const features: Float32Array[] = [];
      let numTokens = 0;
      for (const input of inputs) {
        await setImmediate(); // others want their turn between many texts
        either.throwIfAborted();
        const ids =
          typeof input === "string"
            ? await served.reader.readByPredictor(input, model.bundle.contextLength, either)
            : input;
        numTokens += ids.length;
        features.push(await engine.feature(ids));
      }
      return { features, numTokens };
    });
  }

  decode(id: string, ids: Int32Array): string {
    return this.#find(id).model.tokenizer.decode(ids);
  }

  async mask(
    id: string,
    instruction: string,
    { signal, system, ...budget }: MaskMaking & { signal?: AbortSignal } = {},
  ): Promise<{ info: MaskInfo; mask: Mask }> {
    const served = this.#find(id);
    const told: ChatMessage[] = system === undefined ? [] : [{ role: "system", content: system }];
    const messages = [...told, { role: "user" as const, content: instruction }];
    const read = await this.#read(served, { kind: "chat", messages }, signal);
    const named = await this.#stoppable(signal, async (either) => {
      using _ = await this.#queue.enter(either);
      return await this.#maskOf(served, read.instruction, budget, either);
    });
    const { form, from } = this.#pool.look(served, named, {
      promptTokens: read.ids.length,
      maxTokens: MAX_TOKENS.fallback,
    });
    return { info: this.#infoOf(served, named, form, from), mask: named.mask };
  }

  maskById(id: string, maskId: string): Mask {
    return this.#find(id).masks.byId(maskId).mask;
  }

  tasks(id: string) {
    return this.#find(id).masks.tasks.list();
  }

  async saveTask(
    id: string,
    name: string,
    instruction: string,
    { examples = [], ...making }: MaskMaking & { examples?: readonly TaskExample[] | undefined } = {},
  ) {
    const served = this.#find(id);
    const { tasks } = served.masks;
    tasks.checkName(name); // before anything is made
    const { info, mask } = await this.mask(id, composePrompt(instruction, undefined, examples), making);
    if (mask.tFfn === served.info.dFfn)
      throw new InputError(
        `task: wanted a mask to save, got all of "${id}". Say what share it is to keep, as keep = 0.75, or /keep 75% in a chat.`,
      );
    const saved = tasks.save({ name, instruction, ...(examples.length > 0 && { examples }), maskId: info.id }, mask);
    this.#pool.expect(served, tasks.get(name));
    return saved;
  }

  deleteTask(id: string, name: string): void {
    this.#find(id).masks.tasks.delete(name);
  }

  state() {
    const { running, queued } = this.#queue;
    return { running, queued, ...this.#pool.state() };
  }

  drain(): Promise<void> {
    return this.#queue.drain();
  }

  /** Ends what runs, and frees everything. */
  [Symbol.asyncDispose](): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    const closed = new BusyError("The service is closed.", 1, true);
    this.#verifying.abort();
    for (const { model } of this.#served.values()) model.bundle.stopVerifying(closed);
    const drained = this.#queue.drain();
    for (const stop of this.#stops) stop.abort(closed);
    await drained;
    await this.#pool[Symbol.asyncDispose]();
    for (const served of this.#served.values()) await closeServed(served);
  }

  #find(id: string): Served {
    const served = this.#served.get(id);
    if (!served) throw new InputError(`unknown model: "${id}". There is: ${[...this.#served.keys()].join(", ")}.`);
    if (served.fault) throw served.fault;
    return served;
  }

  #read({ reader, info }: Served, prompt: GenerationRequest["prompt"], signal?: AbortSignal): Promise<ReadPrompt> {
    return reader.read(prompt, info.contextLength, signal);
  }

  /** Waits for a turn, a mask and a slot, and holds them while `use` runs. */
  async #withEngine<T>(
    served: Served,
    { instruction, ids }: ReadPrompt,
    { mask: request, maxTokens }: Pick<GenerationRequest, "mask" | "maxTokens">,
    signal: AbortSignal,
    use: (turn: EngineTurn) => Promise<T>,
    report: (stage: AnswerStage) => void = () => {},
  ): Promise<T> {
    const ms: Times = { queue: 0, predict: 0, gather: 0, load: 0, prefill: 0, decode: 0 };
    const start = performance.now();
    using _ = await this.#queue.enter(signal);
    const entered = performance.now();
    let isAlone = this.#queue.running === 1;
    if (request.kind === "auto") report("predict");
    const named = await this.#chooseMask(served, request, instruction, signal);
    const chosen = performance.now();
    const asked = { promptTokens: ids.length, maxTokens };
    const lease = await this.#pool.acquire(served, named, asked, signal, report);
    try {
      report("prefill");
      const { gather, load } = lease.ms;
      const waited = Math.max(0, performance.now() - chosen - gather - load);
      Object.assign(ms, { queue: entered - start + waited, predict: chosen - entered, gather, load });
      const learn = (answerTokens: number) => {
        isAlone &&= this.#queue.running === 1;
        if (isAlone) lease.learn(ms, { promptTokens: ids.length, answerTokens });
      };
      const info = this.#infoOf(served, named, lease.form, lease.from);
      return await use({ engine: lease.value, mask: info, ms, learn });
    } finally {
      lease.release();
    }
  }

  #infoOf({ model }: Served, { id, source, mask }: NamedMask, form: MaskForm, from: MaskInfo["from"]): MaskInfo {
    const quality = maskQuality(model, source, mask.tFfn);
    return { id, source, tFfn: mask.tFfn, dFfn: mask.dFfn, ...form, from, ...(quality && { quality }) };
  }

  /** The mask of an instruction, of the size that is asked for. */
  async #maskOf(
    { info, masks, model, source }: Served,
    instruction: ReadPrompt["instruction"],
    request: Budget,
    signal: AbortSignal,
  ): Promise<NamedMask> {
    const kept = hasBudget(request) ? modelTFfn(model, budgetIn(request), source) : info.tFfn;
    return kept === info.dFfn ? masks.dense() : await masks.of(instruction, kept, signal);
  }

  async #chooseMask(
    served: Served,
    request: MaskRequest,
    instruction: ReadPrompt["instruction"],
    signal: AbortSignal,
  ): Promise<NamedMask> {
    const { info, masks } = served;
    switch (request.kind) {
      case "auto": {
        const named = await this.#maskOf(served, instruction, request, signal);
        const { reuseOverlap } = this.#options;
        return reuseOverlap === undefined ? named : this.#pool.nearest(info.id, named, reuseOverlap);
      }
      case "task":
        return masks.tasks.get(request.name);
      case "dense":
        return masks.dense();
      case "id":
        return masks.byId(request.id);
      default:
        return request satisfies never;
    }
  }
}

function checkRequest({ maxTokens, logprobs, schema, echo }: GenerationRequest): void {
  checkNumber("generate", "maxTokens", maxTokens, MAX_TOKENS);
  if (logprobs !== undefined && schema)
    throw new OptionError(
      "generate: log-probabilities are not known of an answer that follows a schema. Leave one out.",
    );
  if (echo && logprobs === undefined) throw new OptionError("generate: wanted logprobs beside echo. Give them.");
}

/** How thoughts begin after a prompt with variables; of others the model's are known. */
function thoughtsOf({ format }: InstructionModel, prompt: GenerationRequest["prompt"]) {
  if (prompt.kind !== "chat" || prompt.variables === undefined || !(format.template instanceof ChatTemplate))
    return undefined;
  return format.template.thoughts(format.tokenizer, prompt.variables) ?? ("none" as const);
}

/** Writes down what masks without training cost a new bundle, as `import` does; without that it is served as well. */
async function measure(
  path: string,
  { threads, ...options }: CompleteOptions,
  signal: AbortSignal,
  onProgress: (done: number, total: number) => void,
): Promise<void> {
  if (readManifest(path, "ifprune-bundle").quality) return;
  try {
    using model = new InstructionModel(path, options);
    const quality = await measureQuality(model, { threads, signal, onProgress });
    if (quality) addQuality(path, quality);
  } catch (error) {
    if (!(error instanceof IfpruneError)) throw error;
  }
}
