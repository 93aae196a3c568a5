/**
 * A service without a model, for tests of the page: masks like a codebook's, and answers that follow from the prompt alone.
 *
 * Shapes: L layers · F channels of a layer (d_ffn) · K kept ones (t_ffn)
 */
import { createHash } from "node:crypto";
import { setTimeout as wait } from "node:timers/promises";
import { InputError } from "../../src/errors.ts";
import { randomScores } from "../../src/mask/baselines.ts";
import { type Mask, maskFromScores } from "../../src/mask/mask.ts";
import type {
  GenerationEvent,
  GenerationRequest,
  InferenceService,
  MaskInfo,
  MaskRequest,
  SavedTask,
  ServedModel,
} from "../../src/serve/service.ts";

const [L, F, K] = [4, 512, 64];

/** What the model says, by the prompt's first word (to "parting" the dense model says something else); "word" without end to "endless", whatever the limit; else the prompt again. */
const answers: Record<string, string> = {
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
  /** Thrown by the next request for text or to save a task. */
  failure: Error | undefined;
  /** Requests whose client went away. */
  aborted = 0;
  /** Milliseconds per token of a sub-network; the dense model takes three times as long. */
  tokenMs = 2;
  /** Requests for text so far. */
  asked: GenerationRequest[] = [];
  served: ServedModel[] = [
    {
      id: "default",
      created: 0,
      contextLength: 2048,
      numLayers: L,
      dFfn: F,
      tFfn: K,
      isTrained: true,
      trainedOn: ["questions"],
      hasChatTemplate: true,
      hasTools: false,
    },
    {
      id: "other",
      created: 0,
      contextLength: 2048,
      numLayers: L,
      dFfn: F,
      tFfn: K,
      isTrained: true,
      trainedOn: ["questions"],
      hasChatTemplate: true,
      hasTools: false,
    },
  ];
  readonly #masks = new Map<string, Mask>();
  #running = 0;

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
    const said = answers[question.split(" ")[0]!] ?? `You said: ${question}`;
    const text = question === "parting" && info.id === "dense" ? "One thing there, and more" : said;
    const tokenMs = info.id === "dense" ? this.tokenMs * 3 : this.tokenMs;
    const isEndless = question === "endless";
    const pieces = isEndless ? ["word "] : text.match(/\s*\S+\s*?/g)!.slice(0, maxTokens);
    yield { type: "start", mask: info, promptTokens: 8 };
    this.#running++;
    try {
      do {
        for (const piece of pieces) {
          await wait(tokenMs, undefined, { signal });
          yield { type: "text", text: piece };
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
      ms: {
        queue: 0,
        predict: 12,
        gather: 30,
        load: 45,
        prefill: 5,
        decode: Math.max(1, pieces.length * tokenMs),
      },
    };
  }

  async score(): Promise<never> {
    throw new InputError("the fake service scores nothing");
  }

  /** Half of the channels are everybody's, the rest belong to the instruction's first word; that of "blocks" is made of blocks of 16. */
  async mask(model: string, instruction: string): Promise<{ info: MaskInfo; mask: Mask }> {
    const info = this.#info(model, { kind: "auto" }, instruction);
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

  async saveTask(model: string, name: string, instruction: string): Promise<SavedTask> {
    this.#fail();
    const task = { name, instruction, maskId: this.#info(model, { kind: "auto" }, instruction).id };
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
    if (request.kind === "dense") return { id: "dense", source: "dense", tFfn: F, dFfn: F, from: "loaded" };
    if (request.kind === "task") {
      const task = this.saved.find(({ name }) => name === request.name);
      if (!task) throw new InputError("unknown task");
      return { id: task.maskId, source: "task", tFfn: K, dFfn: F, from: "loaded" };
    }
    if (request.kind === "id") throw new InputError("unknown mask");
    const entry = instruction.split(" ")[0]!;
    const id = createHash("sha256").update(`${model}/${entry}`).digest("hex").slice(0, 16);
    const from = this.#masks.has(id) ? "loaded" : "cold";
    const shape = { numLayers: L, dFfn: F };
    const scores = randomScores(shape, 1, entry);
    for (const [i, score] of randomScores(shape, 1, "everybody").entries()) if (score > -K / 2) scores[i] = 1;
    if (entry === "blocks") for (const i of scores.keys()) scores[i] = scores[i - (i % 16)]!;
    this.#masks.set(id, maskFromScores(scores, { dFfn: F, tFfn: K }));
    return { id, source: "predictor", tFfn: K, dFfn: F, from };
  }
}
