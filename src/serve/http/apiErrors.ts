/** Errors as OpenAI's clients expect them, and the one table from our own errors to them. */
import { basename } from "node:path";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import type { z } from "zod";
import { BusyError, ContextLengthError, FileError, IfpruneError } from "../../errors.ts";
import { isNoPlace } from "../../refusals.ts";
import type { ErrorBody } from "./pageApi.ts";

type ErrorType =
  | "invalid_request_error"
  | "authentication_error"
  | "permission_error"
  | "rate_limit_error"
  | "server_error";

/** A request that gets an error for an answer. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  constructor(
    readonly status: ContentfulStatusCode,
    readonly code: string,
    message: string,
    readonly details: { type?: ErrorType; param?: string; headers?: Record<string, string>; cause?: unknown } = {},
  ) {
    super(message, { cause: details.cause });
  }

  get type(): ErrorType {
    return this.details.type ?? (this.status >= 500 ? "server_error" : "invalid_request_error");
  }

  get body(): ErrorBody {
    const { cause, param = null } = this.details;
    const told = { error: { message: this.message, type: this.type, param, code: this.code } };
    if (!(cause instanceof ContextLengthError)) return told;
    const { tokens, contextLength, isCounted } = cause;
    return { ...told, ifprune: { tokens, is_counted: isCounted, context_length: contextLength } };
  }
}

/** Errors of ours by their code; any other is an internal one. */
const table: Record<string, { status: ContentfulStatusCode; code: string; type?: ErrorType }> = {
  bad_input: { status: 400, code: "invalid_value" },
  bad_option: { status: 400, code: "invalid_value" },
  context_length: { status: 400, code: "context_length_exceeded" },
  shape_mismatch: { status: 400, code: "mask_mismatch" },
  busy: { status: 429, code: "server_busy", type: "rate_limit_error" },
  out_of_memory: { status: 503, code: "insufficient_memory" },
  hub: { status: 502, code: "hub_failed" },
  bad_file: { status: 503, code: "model_unavailable" },
  engine: { status: 503, code: "model_unavailable" },
};

const ENDING: (typeof table)[string] = { status: 503, code: "server_ending" };

export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  const row = error instanceof IfpruneError ? table[error.code] : undefined;
  if (!row) return new ApiError(500, "internal_error", "The server failed. Its log says more.", { cause: error });
  if (error instanceof FileError && isNoPlace(error.cause))
    return new ApiError(507, "insufficient_storage", "The server's disk is full, or cannot be written.", {
      cause: error,
    });
  const isEnding = error instanceof BusyError && error.isEnding; // others may answer: no word of limits
  const { status, code, type } = isEnding ? ENDING : row;
  const headers = error instanceof BusyError ? { "retry-after": String(Math.ceil(error.retryAfter)) } : undefined;
  // A client is not told where files are.
  const message =
    error instanceof FileError
      ? `The model's file ${basename(error.path)} cannot be read or is damaged.`
      : (error as IfpruneError).message;
  return new ApiError(status, code, message, { type, headers, cause: error });
}

export function invalid(param: string, message: string, code = "invalid_value"): ApiError {
  return new ApiError(400, code, `${short(param)}: ${message}`, { param: short(param) });
}

const MAX_MESSAGE_LENGTH = 400;

/** @param body what was checked */
export function fromZod({ issues }: z.ZodError, body: unknown): ApiError {
  const issue = deepest(issues[0]!);
  const param = issue.path.join(".");
  if (issue.code === "unrecognized_keys") {
    const key = short([...issue.path, issue.keys[0]].join("."));
    const hint = key === "ifprune" ? " The fields mask, keep and t_ffn stand in the body itself." : "";
    return new ApiError(400, "unknown_parameter", `Unknown parameter: ${key}.${hint}`, { param: key });
  }
  const value = issue.path.reduce<unknown>((at, key) => (at as Record<PropertyKey, unknown> | undefined)?.[key], body);
  const code =
    value === undefined
      ? "missing_required_parameter"
      : issue.code === "invalid_type"
        ? "invalid_type"
        : "invalid_value";
  return new ApiError(400, code, short(`${param || "body"}: ${issue.message}`), { param: short(param) });
}

/** Of the alternatives of a union, the complaint of the one that went furthest, if it is one. */
function deepest(issue: z.core.$ZodIssue): z.core.$ZodIssue {
  if (issue.code !== "invalid_union") return issue;
  const found = issue.errors
    .flatMap((issues) => issues.slice(0, 1))
    .map((inner) => deepest({ ...inner, path: [...issue.path, ...inner.path] }));
  const [best, second] = found.toSorted((a, b) => b.path.length - a.path.length);
  return best && best.path.length > (second ?? issue).path.length ? best : issue;
}

function short(text: string): string {
  return text.length > MAX_MESSAGE_LENGTH ? `${text.slice(0, MAX_MESSAGE_LENGTH)}…` : text;
}
