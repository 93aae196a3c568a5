/** Reading JSON Lines, plain or gzipped, a row at a time. */
import { createReadStream } from "node:fs";
import { createGunzip } from "node:zlib";
import type { z } from "zod";
import { FileError, InputError } from "../errors.ts";
import { unreadable } from "../refusals.ts";
import { oneLine } from "../words.ts";

/** A longer line is refused, so that a hostile file cannot fill the memory. */
const MAX_LINE_LENGTH = 1 << 24;

/**
 * The rows of a `.jsonl` or `.jsonl.gz` file, checked against `schema`, with their line numbers from 1. Empty lines are
 * skipped.
 * @throws {FileError} that names the file, the line and what was wanted
 */
export async function* readJsonLines<T>(path: string, schema: z.ZodType<T>): AsyncGenerator<{ line: number; row: T }> {
  let line = 0;
  for await (const text of readLines(path)) {
    line++;
    if (text.trim() === "") continue;
    let json: unknown;
    try {
      json = JSON.parse(text);
    } catch (error) {
      throw new FileError(
        path,
        `line ${line}: wanted JSON, got ${excerpt(text)}: ${oneLine((error as Error).message)}.`,
        {
          cause: error,
        },
      );
    }
    const parsed = schema.safeParse(json);
    if (!parsed.success) {
      const { path: field, message } = parsed.error.issues[0]!;
      throw new FileError(
        path,
        `line ${line}: ${field.length > 0 ? `"${field.join(".")}": ` : ""}${message}. Got ${excerpt(text)}.`,
      );
    }
    yield { line, row: parsed.data };
  }
}

/**
 * What is made of a row of a file.
 *
 * @throws {FileError} that names file and line, where `make` refuses the row with an {@link InputError}
 */
export function madeOfRow<T>(path: string, line: number, make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (error instanceof InputError) throw new FileError(path, `line ${line}: ${error.message}`, { cause: error });
    throw error;
  }
}

async function* readLines(path: string): AsyncGenerator<string> {
  const file = createReadStream(path);
  const bytes = path.endsWith(".gz") ? file.on("error", (error) => bytes.destroy(error)).pipe(createGunzip()) : file;
  let rest = "";
  let lines = 0;
  try {
    const utf8 = new TextDecoder("utf-8", { fatal: true });
    for await (const chunk of bytes) {
      const parts = utf8.decode(chunk as Buffer, { stream: true }).split("\n");
      parts[0] = rest + parts[0];
      rest = parts.pop()!;
      if (rest.length > MAX_LINE_LENGTH) {
        throw new Error(`line ${lines + parts.length + 1} is longer than ${MAX_LINE_LENGTH} characters`);
      }
      lines += parts.length;
      yield* parts;
    }
    rest += utf8.decode();
  } catch (error) {
    const { syscall } = error as NodeJS.ErrnoException;
    if (syscall) throw unreadable(path, error);
    const wanted = path.endsWith(".gz") ? "gzipped JSON lines in UTF-8" : "JSON lines in UTF-8";
    throw new FileError(path, `wanted ${wanted}, got: ${oneLine((error as Error).message)}.`, { cause: error });
  } finally {
    file.destroy();
  }
  if (rest !== "") yield rest;
}

function excerpt(text: string): string {
  return text.length > 60 ? `${JSON.stringify(text.slice(0, 60))}…` : JSON.stringify(text);
}
