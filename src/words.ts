/** Words of our messages: what others found wrong, on one line; times; what is to be copied. */
import type { z } from "zod";

/** Flaws of one value that a message names. */
const mostFlaws = 3;

/** What a schema found, as a part of a message: `"format": Invalid input: expected "x"; "files": …`, without a full stop. */
export function zodWords({ issues }: z.ZodError): string {
  const words = issues.slice(0, mostFlaws).map(({ path, message }) => {
    return `${path.length > 0 ? `"${path.join(".")}": ` : ""}${message}`;
  });
  const more = issues.length - mostFlaws;
  return oneLine(`${words.join("; ")}${more > 0 ? `; and ${more} more` : ""}`);
}

/** Text of elsewhere in a message of ours: `JSON.parse` quotes what it could not read, with its newlines. */
export function oneLine(text: string): string {
  return text.replace(/[\s\p{Cc}]+/gu, " ").trim();
}

/** "1 h 5 min", "12 min", "40 s". */
export function duration(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** A word of a POSIX shell, in a command that is to be copied. */
export const shellWord = (text: string): string =>
  /^[\w@%+:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

/** A regular expression's source that matches this text. */
export const asPattern = (text: string): string => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
