/**
 * What an HTTP server, a terminal and a page need of models: prompts in, text under a mask out, several at a time. Knows no HTTP.
 *
 * Shapes: D model width, of the predictor's own model where it has one · L layers · K kept channels of a layer (t_ffn) · F all of them (d_ffn)
 */

import type { MaskQuality } from "../answer/maskSource.ts";
import type { Prompt } from "../answer/prompts.ts";
import type { SourceName } from "../answer/sourceNames.ts";
import type { Budget } from "../bundle/budget.ts";
import type { Form } from "../bundle/formOptions.ts";
import type { MaskForm } from "../bundle/maskModel.ts";
import type { Sampling } from "../engine/sampling.ts";
import type { Quality } from "../manifest.ts";
import type { Mask } from "../mask/mask.ts";
import type { TaskExample } from "../text/prompt.ts";

export type { Budget, Prompt, Sampling };

/** Which part of the model answers. */
export type MaskRequest =
  /**
   * The part that this prompt's instruction (its first user message) asks for, of the size that is asked for. Without a size, of a model
   * without trained masks, every channel.
   */
  | ({ kind: "auto" } & Budget)
  /** A saved mask of a kind of task. */
  | { kind: "task"; name: string }
  /** Every channel. */
  | { kind: "dense" }
  /** A mask that was made before, by its id. */
  | { kind: "id"; id: string };

/** What an answer is made of. */
export interface GenerationRequest {
  prompt: Prompt;
  mask: MaskRequest;
  maxTokens: number;
  /** Texts that end the answer and are not part of it. */
  stop: readonly string[];
  sampling: Sampling;
  /**
   * Alternatives that are reported per token. Absent: no probabilities at all. Not together with `schema`. At a temperature above 0 the same seed gives
   * another answer with than without.
   */
  logprobs?: number | undefined;
  /** Whether the prompt's own tokens are given back with their log-probabilities. Only with `logprobs`. */
  echo?: boolean | undefined;
  /** JSON schema that the answer must follow, in what node-llama-cpp knows of JSON Schema. The answer ends with the JSON. */
  schema?: object | undefined;
  /** Whether it is told what the answer waits for. */
  withStages?: boolean | undefined;
  signal: AbortSignal;
}

/** What an answer waits for before its first token, in this order. `queue` is a wait for memory; `gather` and `load` are left out where the sub-network is loaded. */
export type AnswerStage = "predict" | "queue" | "gather" | "load" | "prefill";

/** A token of an answer, with its probability and those of others in its place. */
export interface TokenLogprob {
  id: number;
  /** What it adds to a text; of BOS and EOS their names. Bytes that are no whole character are U+FFFD. */
  text: string;
  /** Natural logarithm of the model's own probability, before temperature, penalties and the rest of sampling. */
  logprob: number;
  top: readonly { id: number; text: string; logprob: number }[];
}

/** A token of a prompt, with its probability after those before it. The first has none; it is BOS if one was added. */
export interface PromptToken extends Omit<TokenLogprob, "logprob"> {
  logprob: number | null;
}

/** The mask of an answer, and how it is run. */
export interface MaskInfo extends MaskForm {
  /** Stable within a model: hash of the kept channels and λ, 32 hexadecimal digits, or "dense". */
  id: string;
  /** What made it: predictor, griffin, …; "task", "dense". */
  source: string;
  /** K */
  tFfn: number;
  /** F */
  dFfn: number;
  /** Where its model was: in memory, on disk, or nowhere yet. */
  from: "loaded" | "disk" | "cold";
  /** What masks of this source and size were measured to cost the model. */
  quality?: MaskQuality;
}

/** An answer under way: a start, its text, an end. */
export type GenerationEvent =
  /** Before the start, where asked for. */
  | { type: "stage"; stage: AnswerStage }
  | {
      type: "start";
      mask: MaskInfo;
      promptTokens: number;
      /** How thoughts begin, where the prompt has variables of the chat template: they may change it. "none": there are none. */
      thoughts?: NonNullable<ServedModel["thoughts"]> | "none";
      /** The prompt's own tokens, where asked for. */
      echo?: readonly PromptToken[];
    }
  /** A piece of the answer, whole characters; `logprobs` of the tokens that it ends, where asked for. May be empty where it has them. */
  | { type: "text"; text: string; logprobs?: readonly TokenLogprob[] }
  | {
      type: "end";
      /** "stop" at the end of the model's answer, of its JSON, or before a stop text; "length" at `maxTokens` or a full context. */
      finishReason: "stop" | "length";
      /** All that were generated, those of a stop text too; not the one that ends the answer. */
      completionTokens: number;
      /** The token that ended the answer, which adds no text, where log-probabilities were asked for. */
      endToken?: TokenLogprob;
      /** Milliseconds of each stage. */
      ms: { queue: number; predict: number; gather: number; load: number; prefill: number; decode: number };
    };

/** A model that is served. */
export interface ServedModel {
  id: string;
  /** Of its manifest, which holds the hashes of its files: SHA-256, 64 hexadecimal digits. */
  hash: string;
  /** As GGUF names it: llama, qwen3, … */
  family: string;
  /** Unix seconds. */
  created: number;
  contextLength: number;
  numLayers: number;
  dFfn: number;
  /** Channels that masks keep unless told; F where prompts get no masks unless told. */
  tFfn: number;
  /** Whether its masks were trained. */
  isTrained: boolean;
  /** What makes masks, unless told. */
  source: SourceName;
  /** What masks without training were measured to cost it. */
  quality?: Quality | undefined;
  /** Channels that `keep: "auto"` keeps, where that was measured. */
  autoTFfn?: number | undefined;
  /** Names of the data that it was trained on, where it is no import. */
  trainedOn: readonly string[];
  /** Whether it has a chat template, which system messages want. */
  hasChatTemplate: boolean;
  /** Whether that knows tools. */
  hasTools: boolean;
  /** Whether answers begin with thoughts, and whether the prompt has opened them, see `ChatTemplate.thoughts`. */
  thoughts?: "opened" | "open" | undefined;
  /** Whether its template's variable `enable_thinking` says if it thinks. */
  hasThinkingSwitch?: boolean | undefined;
  numParameters: number;
  /** Of its files. */
  fileBytes: number;
  /** What it takes once it is loaded, by estimate: with all channels, and with those that masks keep unless told. */
  memoryBytes: { dense: number; subnetwork: number };
  /** Why its masks are gathered whatever is asked, where masks of blocks could be run within one model, as "wanted X, got Y". */
  formFlaw?: string | undefined;
  /** What stands for it on this machine's command line: its name where it has one, else its folder. */
  location: string;
  /** While its files are compared with their hashes, which answers wait for: bytes of them, and of all. */
  verifying?: { done: number; total: number } | undefined;
  /** What is wrong with its files, where something is: it answers no more. */
  fault?: string | undefined;
}

/** How {@link InferenceService.addModel} comes along: bytes of what is downloaded and imported, steps of what is measured. */
export type AddStage = "download" | "import" | "measure";
/** How {@link InferenceService.addModel} is followed and stopped. */
export interface AddOptions {
  signal?: AbortSignal | undefined;
  /** At each step. */
  onProgress?: ((stage: AddStage, done: number, total: number) => void) | undefined;
}

/** Names that clients give to tasks: a line of text, and none that is a path. */
export const taskName = /^(?!\.{1,2}$)(?!\s)[^\p{Cc}\p{Cs}\p{Zl}\p{Zp}/\\]{1,64}(?<!\s)$/u;
export const taskNameWords = 'up to 64 characters on one line, without "/" and "\\"';

/** A task that was saved. */
export interface SavedTask {
  name: string;
  /** The instruction that made its mask. */
  instruction: string;
  /** Solved cases that the instruction showed. */
  examples?: readonly TaskExample[];
  maskId: string;
}

/** A sub-network in memory. */
export interface LoadedSubnetwork {
  model: string;
  maskId: string;
  form: Form;
  /** Of its own. */
  bytes: number;
  /** Requests that use it. */
  users: number;
}

/** What a service is doing. */
export interface ServiceState {
  /** Requests that run, and that wait. */
  running: number;
  queued: number;
  subnetworks: readonly LoadedSubnetwork[];
  memoryBytes: number;
  memoryLimit: number;
}

/** What the mask of an instruction depends on, beside it. */
export interface MaskMaking extends Budget {
  /** What the model is told before it, which masks of its activations depend on. */
  system?: string | undefined;
}

/**
 * Every method that names a model throws {InputError} `unknown model` for one that is not served, and for an unknown task or mask.
 * A full queue throws {BusyError}, and so does what comes after `drain`. A prompt longer than the model reads throws {ContextLengthError}, options out
 * of range {OptionError}, a model that does not fit into the memory limit {MemoryError}, files that have gone {FileError}.
 */
export interface InferenceService extends AsyncDisposable {
  /** Those that are served. */
  models(): readonly ServedModel[];
  /**
   * Serves one more: of a folder, or of a name as the command line takes them. An id of the Hugging Face Hub that is not on this machine yet is brought
   * first, and measured where a bundle is made of it; what came stays when that is aborted.
   * @throws {OptionError} if a model of that name is served @throws {FileError} if it is no bundle @throws {HubError} if the Hub does not give it
   */
  addModel(name: string, options?: AddOptions): Promise<ServedModel>;
  /**
   * Starts with the first call of `next`, at once or after waiting in the queue. It runs at the model's pace, not the reader's: events that are not
   * yet read are kept. Throws the signal's reason when that aborts, within a token; leaving the generator ends it too.
   */
  generate(model: string, request: GenerationRequest): AsyncGenerator<GenerationEvent, void, void>;
  /** A prompt's own tokens (`echo` of the completions API, where nothing is generated). */
  score(
    model: string,
    request: Pick<GenerationRequest, "prompt" | "mask" | "signal"> & { top: number },
  ): Promise<PromptToken[]>;
  /**
   * What masks are chosen from, of each text, or of token ids as they are: the feature [D, or 2·D] that the predictor reads; of a model without one, the
   * mean of its embedding's rows. With the number of tokens of all.
   */
  features(
    model: string,
    inputs: readonly (string | Int32Array)[],
    signal: AbortSignal,
  ): Promise<{ features: Float32Array[]; numTokens: number }>;
  /** Text of token ids; special tokens are silent. */
  decode(model: string, ids: Int32Array): string;
  /** The mask of an instruction, made or remembered. */
  mask(
    model: string,
    instruction: string,
    options?: MaskMaking & { signal?: AbortSignal },
  ): Promise<{ info: MaskInfo; mask: Mask }>;
  /** A mask by its id, as long as it is remembered: the latest ones, and those of tasks. */
  maskById(model: string, id: string): Mask;
  /** Tasks that were saved. */
  tasks(model: string): readonly SavedTask[];
  /** Keeps under a name the mask of an instruction, which may show solved cases. */
  saveTask(
    model: string,
    name: string,
    instruction: string,
    options?: MaskMaking & { examples?: readonly TaskExample[] | undefined },
  ): Promise<SavedTask>;
  /** Forgets a saved task. */
  deleteTask(model: string, name: string): void;
  /** What runs, waits and is loaded. */
  state(): ServiceState;
  /** Lets running requests end, refuses new ones. */
  drain(): Promise<void>;
}
