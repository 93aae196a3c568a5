/** An inference service without a model: it says what a test wants it to, word by word, and keeps count of what runs. */
import { setTimeout as wait } from "node:timers/promises";
import { BusyError, FileError, HubError, InputError } from "../../src/errors.ts";
import { maskFromScores } from "../../src/mask/mask.ts";
import type {
  AddOptions,
  AnswerStage,
  GenerationEvent,
  GenerationRequest,
  InferenceService,
  PromptToken,
  SavedTask,
  ServedModel,
} from "../../src/serve/service.ts";

const model = {
  ...{ hash: "0123456789abcdef".repeat(4), family: "llama" },
  ...{ created: 1_700_000_000, contextLength: 512, numLayers: 2, dFfn: 20, tFfn: 6, isTrained: true, trainedOn: [] },
  ...{ numParameters: 1000, fileBytes: 2000, memoryBytes: { dense: 3000, subnetwork: 2500 }, hasChatTemplate: false },
  source: "predictor" as const,
};
export const MASK_ID = "abc123";

export class FakeService implements InferenceService {
  readonly requests: (GenerationRequest & { model: string })[] = [];
  /** What masks were asked for. */
  readonly masked: object[] = [];
  running = 0;
  isDraining = false;
  /** What is thrown instead of an answer, or after some words of it. */
  failure: { error: Error; afterWords: number } | undefined;
  /** Whether answers that are whole end with a token. */
  hasEnd = false;
  /** How answers of a reasoning model begin. */
  thoughts: ServedModel["thoughts"];
  hasThinkingSwitch = false;
  /** Of scored texts. */
  bos: string | undefined;
  /** What answers wait for, where asked for. */
  stages: readonly AnswerStage[] = ["predict", "gather", "load", "prefill"];
  /** Milliseconds per word. */
  delay = 0;
  readonly #tasks = new Map<string, SavedTask>();

  constructor(public answer: (request: GenerationRequest) => string = () => "one two three") {}

  readonly #models: ServedModel[] = [
    { ...model, id: "tiny", hasChatTemplate: true, hasTools: true, location: "owner/tiny" },
    { ...model, id: "plain/model", hasTools: false, location: "/folder/of/plain" },
  ];

  models(): ServedModel[] {
    const { thoughts, hasThinkingSwitch } = this;
    return this.#models.map((one) => (one.id === "tiny" ? { ...one, thoughts, hasThinkingSwitch } : one));
  }

  /** Two steps of a download, without end where the name says so. */
  async addModel(name: string, { signal, onProgress }: AddOptions = {}): Promise<ServedModel> {
    if (name === "missing") throw new FileError("/missing", "wanted a bundle folder, got nothing of that name.");
    if (name === "owner/missing") throw new HubError("owner/missing: the Hub has no such model.");
    for (const done of [10, 20]) onProgress?.("download", done, 20);
    if (name === "owner/endless") await wait(1e6, undefined, { signal });
    const added = { ...model, id: name, hasTools: false, location: name };
    this.#models.push(added);
    return added;
  }

  async *generate(id: string, request: GenerationRequest): AsyncGenerator<GenerationEvent, void, void> {
    this.requests.push({ ...request, model: id });
    if (this.isDraining) throw new BusyError("serve: no more requests are taken.", 1);
    this.running++;
    try {
      if (this.failure?.afterWords === 0) throw this.failure.error;
      const kind = request.mask.kind;
      const source = { auto: "predictor", task: "task", dense: "dense", id: "predictor" }[kind];
      const maskId = kind === "dense" ? "dense" : MASK_ID;
      const mask = {
        id: maskId,
        source,
        tFfn: 6,
        dFfn: 20,
        form: "gathered",
        formReason: "told",
        from: "cold",
      } as const;
      const echo = request.echo && this.#promptTokens(request.prompt, request.logprobs!);
      if (request.withStages) for (const stage of this.stages) yield { type: "stage", stage };
      const { variables } = request.prompt as { variables?: object };
      const thoughts = variables && { thoughts: "none" as const };
      yield { type: "start", mask, promptTokens: 7, ...thoughts, ...(echo && { echo }) };
      const words = this.answer(request).match(/\s*\S+|\s+$/g) ?? [];
      let said = 0;
      for (const text of words) {
        if (said >= request.maxTokens) break;
        if (this.delay) await wait(this.delay, undefined, { signal: request.signal }).catch(() => {});
        request.signal.throwIfAborted();
        if (this.failure && said >= this.failure.afterWords) throw this.failure.error;
        said++;
        const top = Array.from({ length: request.logprobs ?? 0 }, (_, i) => ({
          id: i,
          text: `t${i}`,
          logprob: -i - 1,
        }));
        const logprobs = request.logprobs === undefined ? undefined : [{ id: said, text, logprob: -0.5, top }];
        yield { type: "text", text, logprobs };
      }
      const ms = { queue: 0, predict: 1, gather: 2, load: 3, prefill: 4, decode: 5 };
      const isWhole = said === words.length && said < request.maxTokens;
      const endToken = { id: 2, text: "</s>", logprob: -0.75, top: [{ id: 2, text: "</s>", logprob: -0.75 }] };
      const hasEnd = this.hasEnd && isWhole && request.logprobs !== undefined;
      const finishReason = said < words.length ? "length" : "stop";
      yield { type: "end", finishReason, completionTokens: said, ...(hasEnd && { endToken }), ms };
    } finally {
      this.running--;
    }
  }

  async score(_: string, { prompt, top }: Parameters<InferenceService["score"]>[1]) {
    return this.#promptTokens(prompt, top);
  }

  #promptTokens(prompt: GenerationRequest["prompt"], top: number): PromptToken[] {
    const texts =
      prompt.kind === "ids"
        ? Array.from(prompt.ids, (id) => ` ${id}`)
        : prompt.kind === "text"
          ? [...(this.bos ? [this.bos] : []), ...(prompt.text.match(/\s*\S+/g) ?? []).flatMap(inTokens)]
          : [];
    const others = Array.from({ length: top }, (_, i) => ({ id: i, text: `t${i}`, logprob: -i - 1 }));
    return texts.map((text, i) => ({ id: i, text, logprob: i === 0 ? null : -0.25, top: i === 0 ? [] : others }));
  }

  /** Features of three numbers, the length of the input first. */
  async features(_: string, inputs: readonly (string | Int32Array)[]) {
    if (this.failure) throw this.failure.error;
    const features = inputs.map(({ length }) => Float32Array.of(length, 0.5, -1));
    return { features, numTokens: 2 * inputs.length };
  }

  decode(_: string, ids: Int32Array) {
    return Array.from(ids, (id) => ` ${id}`).join("");
  }

  async mask(_: string, instruction: string, options: Parameters<InferenceService["mask"]>[2] = {}) {
    this.masked.push({ instruction, ...options });
    const scores = Float64Array.from({ length: 40 }, (_, i) => Math.sin(i + instruction.length));
    const mask = maskFromScores(scores, { dFfn: 20, tFfn: 6, epsilon: 0.5 });
    return {
      info: {
        id: MASK_ID,
        source: "predictor",
        tFfn: 6,
        dFfn: 20,
        form: "gathered",
        formReason: "told",
        from: "disk",
      } as const,
      mask,
    };
  }

  maskById(_: string, id: string) {
    if (id !== MASK_ID) throw new InputError(`unknown mask ${id}`);
    return maskFromScores(
      Float64Array.from({ length: 40 }, (_, i) => i % 20),
      { dFfn: 20, tFfn: 6 },
    );
  }

  tasks(): SavedTask[] {
    return [...this.#tasks.values()];
  }

  async saveTask(
    _: string,
    name: string,
    instruction: string,
    { examples, ...making }: Parameters<InferenceService["saveTask"]>[3] = {},
  ): Promise<SavedTask> {
    this.masked.push({ instruction, ...making });
    const task = { name, instruction, ...(examples && { examples }), maskId: MASK_ID };
    this.#tasks.set(name, task);
    return task;
  }

  deleteTask(_: string, name: string): void {
    this.#tasks.delete(name);
  }

  state() {
    const subnetworks = [
      { model: "tiny", maskId: MASK_ID, form: "gathered" as const, bytes: 1000, users: this.running },
    ];
    return { running: this.running, queued: 0, subnetworks, memoryBytes: 1000, memoryLimit: 4000 };
  }

  async drain(): Promise<void> {
    this.isDraining = true;
    while (this.running > 0) await wait(5);
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

/** The feature of an input of that length as an embedding, which is of length 1. */
export function fakeEmbedding(inputLength: number): number[] {
  const feature = [inputLength, 0.5, -1];
  return feature.map((value) => Math.fround(value / Math.hypot(...feature)));
}

/** Of a word: what is not ASCII comes as its bytes, none of which is a text. */
function inTokens(word: string): string[] {
  const parts = word.match(/\p{ASCII}+|\P{ASCII}/gu)!;
  return parts.flatMap((part) => (/^\p{ASCII}/u.test(part) ? [part] : Array.from(Buffer.from(part), () => "\ufffd")));
}
