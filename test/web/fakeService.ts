/**
 * A service without a model, for tests of the page: masks like a codebook's, and answers that follow from the prompt alone.
 *
 * Shapes: L layers · F channels of a layer (d_ffn) · K kept ones (t_ffn)
 */
import { createHash } from "node:crypto";
import { setTimeout as wait } from "node:timers/promises";
import { FileError, InputError } from "../../src/errors.ts";
import { randomScores } from "../../src/mask/baselines.ts";
import { type Mask, maskFromScores } from "../../src/mask/mask.ts";
import type {
  AddOptions,
  AnswerStage,
  Budget,
  GenerationEvent,
  GenerationRequest,
  InferenceService,
  MaskInfo,
  MaskRequest,
  SavedTask,
  ServedModel,
} from "../../src/serve/service.ts";

/** Of a fake model; `block`: channels that are kept or dropped together. */
export interface FakeShape {
  numLayers: number;
  dFfn: number;
  tFfn: number;
  block?: number;
}
const small: FakeShape = { numLayers: 4, dFfn: 512, tFfn: 64 };

/** What a model says unless told, by the prompt's first word (to "parting" the dense model says something else); "word" without end to "endless", whatever the limit; nothing to "nothing"; else the prompt again, or an error in its middle, "broken". */
const usualAnswers: Record<string, string> = {
  markdown:
    "# A heading\n\nSome **bold** text, `code`, and a [link](https://example.org).\n\n- one\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n",
  parting: "One thing here",
  hostile: [
    "<script>window.wasHacked = true</script>",
    '<img src="x" onerror="window.wasHacked = true">',
    "[click](javascript:window.wasHacked=true)",
    "![picture](https://example.org/track.png)",
    '<a href="data:text/html,x" style="position:fixed">a</a><svg onload="window.wasHacked = true"></svg>',
    "```html\n</code><script>window.wasHacked = true</script>\n```",
  ].join("\n\n"),
};

export class FakeService implements InferenceService {
  readonly saved: SavedTask[] = [];
  readonly answers = { ...usualAnswers };
  /** Thrown by the next request for text or to save a task. */
  failure: Error | undefined;
  /** Requests whose client went away. */
  aborted = 0;
  /** Pieces of text that were sent. */
  sent = 0;
  /** Models that were to be added when the client went away. */
  stopped = 0;
  /** Milliseconds per token of a sub-network; the dense model takes three times as long. */
  tokenMs = 2;
  /** Milliseconds to load a sub-network; the dense model takes 45. */
  loadMs = 45;
  /** Where answers wait until {@link go} is called, where stages are asked for. */
  holdAt: AnswerStage | undefined;
  go = () => {};
  /** Requests for text so far. */
  asked: GenerationRequest[] = [];
  served: ServedModel[];
  readonly #shape: FakeShape;
  readonly #masks = new Map<string, Mask>();
  readonly #loaded = new Set<string>();
  #running = 0;

  constructor(shape = small) {
    const { numLayers, dFfn, tFfn } = shape;
    const common = {
      ...{
        created: 0,
        contextLength: 2048,
        numLayers,
        dFfn,
        tFfn,
        isTrained: true,
        source: "predictor" as const,
        hasTools: false,
      },
      ...{ trainedOn: ["questions"], hasChatTemplate: true, hash: "0".repeat(64), family: "llama" },
      ...{ numParameters: 134_515_008, fileBytes: 98e6, memoryBytes: { dense: 310e6, subnetwork: 240e6 } },
    };
    this.#shape = shape;
    this.served = [
      { id: "default", location: "default", ...common },
      { id: "other", location: "/models/other", ...common },
    ];
  }

  /** "owner/slow" takes until it is stopped; "nothing" is not there. */
  async addModel(name: string, { signal, onProgress }: AddOptions = {}): Promise<ServedModel> {
    if (name === "nothing") throw new FileError(name, "wanted a folder, or the name of a model, got neither.");
    for (const stage of ["download", "import", "measure"] as const) {
      for (let done = 0; done <= 98e6; done += 24.5e6) {
        onProgress?.(stage, done, 98e6);
        if (name !== "owner/slow" || done === 0) continue;
        await wait(300); // progress is told a few times a second
        onProgress?.(stage, done, 98e6);
        await wait(1e6, undefined, { signal }).finally(() => this.stopped++);
      }
    }
    const rows = [0.9, 0.75, 0.5].map((share) => ({
      source: "griffin",
      tFfn: Math.round(share * this.#shape.dFfn),
      loss: 0.9 * (1 - share) ** 1.5,
      agreement: 1 - 0.9 * (1 - share),
    }));
    const quality = { prompts: 6, tokens: 144, rows };
    const added = {
      ...this.served[0]!,
      id: name.split("/").at(-1)!,
      location: name,
      isTrained: false,
      source: "griffin" as const,
      quality,
    };
    this.served.push({ ...added, tFfn: this.#shape.dFfn });
    return this.served.at(-1)!;
  }

  models(): readonly ServedModel[] {
    return this.served;
  }

  async *generate(model: string, request: GenerationRequest): AsyncGenerator<GenerationEvent, void, void> {
    this.asked.push(request);
    this.#fail();
    const { prompt, mask, signal, maxTokens } = request;
    if (prompt.kind !== "chat") throw new InputError("wanted a chat");
    const question = prompt.messages.findLast(({ role }) => role === "user")!.content as string;
    const first = prompt.messages.find(({ role }) => role === "user")!.content as string;
    const info = this.#info(model, mask, first);
    const said = this.answers[question.split(" ")[0]!] ?? `You said: ${question}`;
    const text = question === "parting" && info.id === "dense" ? "One thing there, and more" : said;
    const tokenMs = info.id === "dense" ? this.tokenMs * 3 : this.tokenMs;
    const isEndless = question === "endless";
    const pieces = isEndless ? ["word "] : text.match(/\s*\S+\s*?/g)!.slice(0, maxTokens);
    const isLoaded = info.from === "loaded";
    const [gather, load] = [info.from === "cold" ? 30 : 0, isLoaded ? 0 : info.id === "dense" ? 45 : this.loadMs];
    const ms = { queue: 0, predict: 12, gather, load, prefill: 5 };
    for (const stage of request.withStages ? (["predict", "gather", "load", "prefill"] as const) : []) {
      yield { type: "stage", stage };
      if (stage === this.holdAt) await new Promise<void>((resolve) => Object.assign(this, { go: resolve }));
    }
    this.#running++;
    try {
      await wait(ms.predict + gather + load + ms.prefill, undefined, { signal });
      this.#loaded.add(info.id);
      yield { type: "start", mask: info, promptTokens: 8 };
      do {
        for (const piece of pieces) {
          await wait(tokenMs, undefined, { signal });
          if (question !== "nothing") yield { type: "text", text: piece };
          this.sent++;
          if (question === "broken") throw new Error("internal: secret");
        }
      } while (isEndless);
    } catch (error) {
      if (!signal.aborted) throw error;
      this.aborted++;
      return;
    } finally {
      this.#running--;
    }
    yield {
      type: "end",
      finishReason: pieces.length === maxTokens ? "length" : "stop",
      completionTokens: pieces.length,
      ms: { ...ms, decode: Math.max(1, pieces.length * tokenMs) },
    };
  }

  async score(): Promise<never> {
    throw new InputError("the fake service scores nothing");
  }

  decode(): never {
    throw new InputError("the fake service has no tokens");
  }

  async features(): Promise<never> {
    throw new InputError("the fake service has no features");
  }

  /** Half of the channels are everybody's, fewer in the first layers and more in the last; the rest belong to the instruction's first word; that of "blocks" is made of blocks of 16. */
  async mask(model: string, instruction: string, budget: Budget = {}): Promise<{ info: MaskInfo; mask: Mask }> {
    const info = this.#info(model, { kind: "auto", keep: budget.keep }, instruction);
    return { info, mask: this.maskById(model, info.id) };
  }

  maskById(_model: string, id: string): Mask {
    const mask = this.#masks.get(id);
    if (!mask) throw new InputError("unknown mask");
    return mask;
  }

  tasks(): readonly SavedTask[] {
    return this.saved;
  }

  async saveTask(
    model: string,
    name: string,
    instruction: string,
    { examples }: { examples?: SavedTask["examples"] | undefined } = {},
  ): Promise<SavedTask> {
    this.#fail();
    const task = {
      name,
      instruction,
      ...(examples && { examples }),
      maskId: this.#info(model, { kind: "auto" }, instruction).id,
    };
    this.deleteTask(model, name);
    this.saved.push(task);
    return task;
  }

  deleteTask(_model: string, name: string): void {
    this.saved.splice(0, this.saved.length, ...this.saved.filter((task) => task.name !== name));
  }

  state() {
    return { running: this.#running, queued: 0, subnetworks: [], memoryBytes: 0, memoryLimit: 1e9 };
  }

  async drain(): Promise<void> {}
  async [Symbol.asyncDispose](): Promise<void> {}

  #fail(): void {
    const { failure } = this;
    this.failure = undefined;
    if (failure) throw failure;
  }

  #info(model: string, request: MaskRequest, instruction: string): MaskInfo {
    const { numLayers, dFfn: F, block = 16 } = this.#shape;
    if (request.kind === "dense")
      return {
        id: "dense",
        source: "dense",
        tFfn: F,
        dFfn: F,
        form: "gathered",
        formReason: "dense",
        from: this.#from("dense"),
      };
    if (request.kind === "task") {
      const task = this.saved.find(({ name }) => name === request.name);
      if (!task) throw new InputError("unknown task");
      return this.#known(task.maskId, "task");
    }
    if (request.kind === "id") return this.#known(request.id, "predictor");
    const K = typeof request.keep === "number" ? Math.round(request.keep * F) : this.#shape.tFfn;
    const entry = instruction.split(" ")[0]!;
    const id = createHash("sha256").update(`${model}/${entry}/${K}`).digest("hex").slice(0, 16);
    const shape = { numLayers, dFfn: F };
    const scores = randomScores(shape, 1, entry);
    for (const [i, score] of randomScores(shape, 1, "everybody").entries()) {
      const share = 0.2 + (0.6 * Math.floor(i / F)) / (numLayers - 1);
      if (score > -K * share) scores[i] = 1;
    }
    const isOfBlocks = this.#shape.block !== undefined || entry === "blocks";
    if (isOfBlocks) for (const i of scores.keys()) scores[i] = scores[i - (i % block)]!;
    this.#masks.set(id, maskFromScores(scores, { dFfn: F, tFfn: K }));
    return { id, source: "predictor", tFfn: K, dFfn: F, form: "gathered", formReason: "told", from: this.#from(id) };
  }

  #known(id: string, source: string): MaskInfo {
    const { tFfn, dFfn } = this.maskById("", id);
    return { id, source, tFfn, dFfn, form: "gathered", formReason: "told", from: this.#from(id) };
  }

  #from(id: string): MaskInfo["from"] {
    return this.#loaded.has(id) ? "loaded" : id === "dense" ? "disk" : "cold";
  }
}
