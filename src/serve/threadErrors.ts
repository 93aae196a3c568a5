/** Errors of ours as plain data, and back: their classes do not get from thread to thread. */
import {
  ContextLengthError,
  FileError,
  HubError,
  type IfpruneError,
  InputError,
  MemoryError,
  OptionError,
} from "../errors.ts";

export interface PlainError
  extends Partial<Pick<ContextLengthError, "tokens" | "contextLength" | "isCounted">>,
    Partial<Pick<FileError, "path">>,
    Partial<Pick<HubError, "isTransient">> {
  code: string;
  message: string;
  /** The system's word, where that is the cause. */
  causeCode?: string | undefined;
}

export function toPlain(error: IfpruneError): PlainError {
  const { cause, ...fields } = error;
  return { ...fields, code: error.code, message: error.message, causeCode: (cause as NodeJS.ErrnoException)?.code };
}

export function fromPlain(plain: PlainError): Error {
  const { code, message, causeCode } = plain;
  const cause = causeCode === undefined ? {} : { cause: { code: causeCode } };
  switch (code) {
    case "bad_file":
      return new FileError(plain.path!, message.slice(`${plain.path}: `.length), cause);
    case "context_length":
      return new ContextLengthError(plain.tokens!, plain.contextLength!, plain.isCounted);
    case "hub":
      return new HubError(message, { ...cause, isTransient: plain.isTransient! });
    case "bad_input":
      return new InputError(message, cause);
    case "bad_option":
      return new OptionError(message, cause);
    case "out_of_memory":
      return new MemoryError(message, cause);
    default:
      return new Error(`internal: a thread said: ${message}`);
  }
}
