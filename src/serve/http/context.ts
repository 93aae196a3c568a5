/** What handlers share: the service, what is measured, and what the log says of a request. */
import type { Context } from "hono";
import type { SpecializeJobs } from "../../specialize/jobs.ts";
import type { InferenceService, MaskRequest } from "../service.ts";
import type { Metrics } from "./metrics.ts";

/** A line of the log. Prompts are in it only where asked for. */
export interface LogEntry {
  time: string;
  method: string;
  route: string;
  status: number;
  ms: number;
  model?: string;
  mask?: string;
  from?: string;
  promptTokens?: number;
  completionTokens?: number;
  prompt?: unknown;
  /** Code of the answer, and what went wrong in the server. */
  error?: string;
  detail?: string;
}

export interface Env {
  Variables: {
    service: InferenceService;
    metrics: Metrics;
    entry: LogEntry;
    /** Counts and logs the request, once; a stream calls it at its end. */
    finish: () => void;
    isStream: boolean;
    logPrompts: boolean;
    /** Of requests that name none. */
    mask: MaskRequest;
    /** Whether clients may have models added. */
    allowModels: boolean;
    /** Where clients may have models made. */
    jobs: SpecializeJobs | undefined;
    /** Whether all clients are on this machine. */
    isLocal: boolean;
  };
}
export type Handled = Context<Env>;
