/**
 * What an HTTP server, a terminal and a page need of models: prompts in, text under a mask out, several at a time. Knows no HTTP.
 *
 * Shapes: L layers · K kept channels of a layer (t_ffn) · F all of them (d_ffn)
 */
import type { Mask } from "../mask/mask.ts";
import type { ChatMessage } from "../text/chatTemplate.ts";

/** Which part of the model answers. */
export type MaskRequest =
  /** The part that this prompt's instruction (its first user message) asks for. */
  | { kind: "auto" }
  /** A saved mask of a kind of task. */
  | { kind: "task"; name: string }
  /** Every channel. */
  | { kind: "dense" }
  /** A mask that was made before, by its id. */
  | { kind: "id"; id: string };

export interface Sampling {
  /** 0 is greedy. */
  temperature: number;
  topP: number;
  /** 0 is no limit. */
  topK: number;
  minP: number;
  seed: number;
  frequencyPenalty: number;
  presencePenalty: number;
  /** 1 is none. */
  repeatPenalty: number;
  /** Added to logits, by token id. */
  logitBias: ReadonlyMap<number, number>;
}

export type Prompt =
  | { kind: "chat"; messages: readonly ChatMessage[]; tools?: readonly object[] }
  /** Continued as it is, without a chat template. */
  | { kind: "text"; text: string }
  | { kind: "ids"; ids: Int32Array };

export interface GenerationRequest {
  prompt: Prompt;
  mask: MaskRequest;
  maxTokens: number;
  /** Texts that end the answer and are not part of it. */
  stop: readonly string[];
  sampling: Sampling;
  /** Alternatives that are reported per token. Absent: no probabilities at all. */
  logprobs?: number | undefined;
  /** JSON schema that the answer must follow. */
  schema?: object | undefined;
  signal: AbortSignal;
}

export interface TokenLogprob {
  id: number;
  text: string;
  /** Natural logarithm. */
  logprob: number;
  top: readonly { id: number; text: string; logprob: number }[];
}

export interface MaskInfo {
  /** Stable within a model: hash of the kept channels and λ, or "dense". */
  id: string;
  /** What made it: predictor, griffin, …; "task", "dense". */
  source: string;
  /** K */
  tFfn: number;
  /** F */
  dFfn: number;
  /** Where its sub-network was: in memory, on disk, or nowhere yet. */
  from: "loaded" | "disk" | "cold";
}

export type GenerationEvent =
  | { type: "start"; mask: MaskInfo; promptTokens: number }
  /** A piece of the answer; `logprobs` of the tokens that it ends, where asked for. */
  | { type: "text"; text: string; logprobs?: readonly TokenLogprob[] }
  | {
      type: "end";
      finishReason: "stop" | "length";
      completionTokens: number;
      /** Milliseconds of each stage. */
      ms: { queue: number; predict: number; gather: number; load: number; prefill: number; decode: number };
    };

export interface ServedModel {
  id: string;
  /** Unix seconds. */
  created: number;
  contextLength: number;
  numLayers: number;
  dFfn: number;
  /** Channels that masks keep. */
  tFfn: number;
  /** Whether it has a chat template that knows tools. */
  hasTools: boolean;
}

export interface SavedTask {
  name: string;
  /** The instruction that made its mask. */
  instruction: string;
  maskId: string;
}

export interface ServiceState {
  /** Requests that run, and that wait. */
  running: number;
  queued: number;
  /** Loaded sub-networks with their memory in bytes and the requests that use them. */
  subnetworks: readonly { model: string; maskId: string; bytes: number; users: number }[];
  memoryBytes: number;
  memoryLimit: number;
}

/**
 * Every method that names a model throws {InputError} `unknown model` for one that is not served, and for an unknown task or mask.
 * A full queue throws {BusyError}.
 */
export interface InferenceService extends AsyncDisposable {
  models(): readonly ServedModel[];
  /** Starts at once or waits in the queue; ends early when `signal` aborts, within a token. */
  generate(model: string, request: GenerationRequest): AsyncGenerator<GenerationEvent, void, void>;
  /** Log-probabilities of a prompt's own tokens, the first of which has none (`echo` of the completions API). */
  score(
    model: string,
    request: Pick<GenerationRequest, "prompt" | "mask" | "signal"> & { top: number },
  ): Promise<{ id: number; text: string; logprob: number | null; top: TokenLogprob["top"] }[]>;
  /** The mask of an instruction, made or remembered, without an answer. */
  mask(model: string, instruction: string, signal?: AbortSignal): Promise<{ info: MaskInfo; mask: Mask }>;
  /** A mask by its id. */
  maskById(model: string, id: string): Mask;
  tasks(model: string): readonly SavedTask[];
  saveTask(model: string, name: string, instruction: string): Promise<SavedTask>;
  deleteTask(model: string, name: string): void;
  state(): ServiceState;
  /** Lets running requests end, refuses new ones. */
  drain(): Promise<void>;
}
