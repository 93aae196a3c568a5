/**
 * Typed errors for everything that a user's input can cause. Message form: `operation: wanted X, got Y. What to do.`
 * A broken invariant of our own throws a plain `Error("internal: …")` instead.
 */

/** Base of all expected errors: `code` is stable and machine-readable, `message` is for people. */
export abstract class IfpruneError extends Error {
  constructor(
    readonly code: string,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** Tensors that do not fit together. */
export class ShapeError extends IfpruneError {
  override readonly name = "ShapeError";
  constructor(
    readonly operation: string,
    readonly wanted: string,
    readonly got: readonly (number | string)[],
    hint = "",
  ) {
    super("shape_mismatch", `${operation}: wanted ${wanted}, got [${got.join(", ")}].${hint && ` ${hint}`}`);
  }
}

/** An option, recipe field or argument of the wrong type or outside its range. */
export class OptionError extends IfpruneError {
  override readonly name = "OptionError";
  constructor(message: string, options?: ErrorOptions) {
    super("bad_option", message, options);
  }
}

/** A file that is missing, truncated, corrupt, hostile, or of a version or kind that we do not read. */
export class FileError extends IfpruneError {
  override readonly name = "FileError";
  constructor(
    readonly path: string,
    message: string,
    options?: ErrorOptions,
  ) {
    super("bad_file", `${path}: ${message}`, options);
  }
}

/** Text that cannot be run as given: empty, longer than the context, or of another tokenizer. */
export class InputError extends IfpruneError {
  override readonly name: string = "InputError";
  constructor(message: string, { code = "bad_input", ...options }: ErrorOptions & { code?: string } = {}) {
    super(code, message, options);
  }
}

/** More tokens than the model, or its predictor, reads. */
export class ContextLengthError extends InputError {
  override readonly name = "ContextLengthError";
  constructor(
    /** Of the prompt. */
    readonly tokens: number,
    /** Most of a prompt and its answer together. */
    readonly contextLength: number,
    /** Whether the whole prompt was counted: of one far too long it is a part. */
    readonly isCounted = true,
  ) {
    super(
      `prompt: wanted fewer than ${contextLength} tokens, the context length, got ${isCounted ? "" : "at least "}${tokens}. Shorten it.`,
      { code: "context_length" },
    );
  }
}

/** Training that must not go on: a NaN or diverging loss. The last good checkpoint is kept. */
export class DivergenceError extends IfpruneError {
  override readonly name = "DivergenceError";
  constructor(message: string) {
    super("diverged", message);
  }
}

/** A model that does not fit into memory, found before anything of it is loaded. */
export class MemoryError extends IfpruneError {
  override readonly name = "MemoryError";
  constructor(message: string, options?: ErrorOptions) {
    super("out_of_memory", message, options);
  }
}

/** What the Hugging Face Hub refuses or lacks, or that it does not answer. */
export class HubError extends IfpruneError {
  override readonly name = "HubError";
  /** Whether the same may work a little later. */
  readonly isTransient: boolean;
  constructor(message: string, { isTransient = false, ...options }: ErrorOptions & { isTransient?: boolean } = {}) {
    super("hub", message, options);
    this.isTransient = isTransient;
  }
}

/** A package that only some uses need, and that is not installed. */
export class DependencyError extends IfpruneError {
  override readonly name = "DependencyError";
  constructor(
    /** The package. */
    readonly dependency: string,
    version: string,
    use: string,
    options?: ErrorOptions,
  ) {
    super(
      "missing_dependency",
      `${use}: wanted the package ${dependency}, got none. Run: npm install --ignore-scripts ${dependency}@${version}`,
      options,
    );
  }
}

/** An engine that does not start on this machine. */
export class EngineError extends IfpruneError {
  override readonly name = "EngineError";
  constructor(cause: unknown) {
    super(
      "engine",
      `llama.cpp: wanted a binary that runs on ${process.platform} ${process.arch}, got: ${(cause as Error).message || (cause as Error).name}. Install again with its optional packages; \`ifprune doctor\` says more.`,
      { cause },
    );
  }
}

/** More requests than are taken at a time. */
export class BusyError extends IfpruneError {
  override readonly name = "BusyError";
  constructor(
    message: string,
    /** Seconds after which it may be worth trying again. */
    readonly retryAfter: number,
    /** Whether no more are taken at all, as the server ends. */
    readonly isEnding = false,
  ) {
    super("busy", message);
  }
}
