/**
 * JSON shapes between the server and its page, under `/ifprune`. Types only, so that the page can import them.
 * Errors have the shape of `/v1` everywhere: `{ error: { message, type, param, code } }`. Where the server has an API key, every route wants
 * `Authorization: Bearer KEY` and answers 401 without it; the page's own files and `/health` do not.
 *
 * | route | body | answer |
 * |---|---|---|
 * | GET /ifprune/models | | `PageModel[]` |
 * | POST /ifprune/models | `AddBody` | server-sent `AddEvent`s, the model last; 403 without `--allow-models` |
 * | GET /ifprune/specialize | | `SpecializeJob[]`; 403 without `--allow-specialize`, as all of these |
 * | POST /ifprune/specialize | `SpecializeBody` | `SpecializeJob`, which runs up to its estimate; 429 while another runs |
 * | POST /ifprune/specialize/:name/go-on | | `SpecializeJob`, that runs: what it asked is answered, or it was stopped |
 * | POST /ifprune/specialize/:name/stop | | `SpecializeJob`, that can be gone on with |
 * | POST /ifprune/specialize/:name/serve | | `PageModel`, of a job that is done |
 * | DELETE /ifprune/specialize/:name | | 204, no body; not of a model that is served |
 * | GET /ifprune/state | | `PageState` |
 * | POST /ifprune/mask | `MaskBody` | `PageMask` |
 * | GET /ifprune/masks/:model/:id | | `StoredMask` |
 * | GET /ifprune/masks/:model/:id/file | | mask file, that `ifprune run --mask` reads |
 * | GET /ifprune/tasks/:model | | `SavedTask[]` |
 * | GET /ifprune/tasks/:model/:name | | `SavedTask` |
 * | PUT /ifprune/tasks/:model/:name | `TaskBody` | `SavedTask` |
 * | DELETE /ifprune/tasks/:model/:name | | 204, no body |
 *
 * Shapes: L layers · K kept channels of a layer (t_ffn) · F all of them (d_ffn)
 */
import type { SpecializeJob } from "../../specialize/jobState.ts";
import type {
  AddStage,
  AnswerStage,
  GenerationEvent,
  MaskInfo,
  SavedTask,
  ServedModel,
  ServiceState,
} from "../service.ts";

export type { AddStage, AnswerStage, MaskInfo, SavedTask, SpecializeJob };

/** A model, without its folder where others than this machine may ask. */
export type PageModel = Omit<ServedModel, "location"> & Partial<Pick<ServedModel, "location">>;

export interface PageState extends ServiceState {
  /** Ids of those that are served. */
  models: readonly string[];
  /** Whether `POST /ifprune/models` is. */
  allowsModels: boolean;
  /** Whether models are made. */
  allowsSpecialize: boolean;
}

/** A model to serve: its folder on the server's machine, its name, or its id on the Hugging Face Hub. */
export interface AddBody {
  name: string;
}

/** How it comes along, in bytes or steps; or the model, once it is served. A client that goes away stops it. */
export type AddEvent = { stage: AddStage; done: number; total: number } | { model: PageModel };

/** Share of the FFN to keep, or channels per layer; as the model does unless told. */
interface BudgetFields {
  keep?: number | "auto";
  max_loss?: number;
  t_ffn?: number;
}

export interface MaskBody extends BudgetFields {
  model: string;
  instruction: string;
}

export interface TaskBody extends BudgetFields {
  instruction: string;
  /** Solved cases that the instruction shows. */
  examples?: { input: string; output: string }[];
}

/** Of `prompts` (JSON Lines, or one a line) and `examples` (JSON Lines, with answers) at most one; without, or with `draft` beside prompts, the model drafts some. */
export interface SpecializeBody {
  /** Of the new model. */
  name: string;
  /** The whole one. */
  model: string;
  task?: string;
  prompts?: string;
  examples?: string;
  /** How many. */
  draft?: number;
  keep?: number | "auto";
  max_loss?: number;
  tokens?: number;
  max_tokens?: number;
  /** Of the prompts. */
  licence?: string;
}

/** What a mask keeps. */
interface Channels {
  /** [L], each the base64 of ⌈F/8⌉ bytes: channel c is kept where bit `c & 7` (the lowest is 0) of byte `c >> 3` is set. */
  layers: string[];
  /** [L], each the base64 of K bytes, ⌈255 λ⌉ of the kept channels in ascending order. Absent: λ = 1. */
  lambda?: string[];
}

export interface PageMask extends Channels {
  info: MaskInfo;
}

/** A mask that was made before, of which only the id was asked. */
export interface StoredMask extends Channels {
  info: Pick<MaskInfo, "id" | "tFfn" | "dFfn">;
}

export interface ErrorBody {
  error: { message: string; type: string; param: string | null; code: string | null };
  /** Of `context_length_exceeded`: the prompt's tokens (at least so many, where not all were counted), and the most of prompt and answer together. */
  ifprune?: { tokens: number; is_counted: boolean; context_length: number };
}

/**
 * The field `ifprune` of chunks before an answer's first text, where `stream_options.include_stages` asks for it: what the answer waits for (a chunk
 * without choices), then the mask that it runs under, in the chunk that opens it.
 */
export type StageExtension = { index: number; stage: AnswerStage } | { mask: CompletionExtension["mask"] };

/** The field `ifprune` of every completion; of a streamed one, in the chunk that carries `finish_reason`, of each choice. */
export interface CompletionExtension {
  mask: {
    id: string;
    source: string;
    /** K */
    t_ffn: number;
    /** F */
    d_ffn: number;
    /** K / F */
    kept_share: number;
    form: MaskInfo["form"];
    form_reason: MaskInfo["formReason"];
    /** Milliseconds that were expected of each form, where they were compared. */
    form_ms?: MaskInfo["formMs"];
    from: MaskInfo["from"];
    /** Measured on import, where it was: nats that a token of the model's own answers loses, and share of them that stay the likeliest. */
    loss?: number;
    agreement?: number;
  };
  /** Milliseconds of each stage. */
  ms: Extract<GenerationEvent, { type: "end" }>["ms"];
}
