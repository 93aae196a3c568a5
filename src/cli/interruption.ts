/** Ctrl-C and SIGTERM, as commands take them: the first stops the work, the second ends the process at once. */
import { EngineError } from "../errors.ts";

let interrupted: DOMException | undefined;

/** Exit codes that shells know. */
const CODES = { SIGINT: 130, SIGTERM: 143 } as const;
let code: number = CODES.SIGINT;

/**
 * Aborts at the first Ctrl-C or SIGTERM; the second ends the process at once.
 *
 * @param words what to say then
 */
export function interruption(words = "stopped"): AbortSignal {
  const controller = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      code = CODES[signal];
      if (controller.signal.aborted) process.exit(code);
      interrupted = stopped(words);
      controller.abort(interrupted);
    });
  }
  return controller.signal;
}

/** What a command that was interrupted ends with, so that no script takes what is there for the whole. */
export function stopped(words: string): DOMException {
  return new DOMException(words, "AbortError");
}

/** What an error is to whoever called the command, and the exit code. A terminal interrupts the processes too that try llama.cpp's binaries, of which none runs then. */
export function outcome(error: Error): { error: Error; code: number } {
  if (error.name === "AbortError") return { error, code };
  return interrupted && error instanceof EngineError ? { error: interrupted, code } : { error, code: 1 };
}
