/** Texts and JSON in files that may be hostile: their size and nesting are limited before anything is made of them. */
import { closeSync, constants, fstatSync, openSync, readFileSync } from "node:fs";
import { FileError } from "./errors.ts";
import { unreadable } from "./refusals.ts";
import { oneLine } from "./words.ts";

/** Largest known: tokenizers of 35 MB. A sparse file of any size costs its author nothing. */
const maxTextBytes = 1 << 28;
/** Deeper JSON overflows the stack of what walks it: `JSON.parse` itself takes any depth. Our files and others' have up to 10. */
const maxDepth = 100;

/** Opens a file; also what is none, such as a pipe that nobody writes to, which would keep a plain `open` waiting. */
export function openToRead(path: string): number {
  return openSync(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0)); // Windows has neither pipes nor the flag
}

/**
 * @param most bytes
 * @throws {FileError} if it is missing, unreadable, no file, larger than any text we read or not UTF-8
 */
export function readText(path: string, most = maxTextBytes): string {
  let bytes: Buffer;
  try {
    const descriptor = openToRead(path);
    try {
      const stat = fstatSync(descriptor);
      if (!stat.isFile()) throw new FileError(path, "wanted a file, got something else, which may have no end.");
      if (stat.size > most) throw new FileError(path, `wanted a text of at most ${most} bytes, got ${stat.size}.`);
      bytes = readFileSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
  } catch (cause) {
    if (cause instanceof FileError) throw cause;
    throw unreadable(path, cause);
  }
  return decodeText(bytes, path);
}

/** @param path what the bytes are from, for errors @throws {FileError} if they are not UTF-8 */
export function decodeText(bytes: Uint8Array, path: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes); // a BOM stays, as bytes are compared
  } catch (cause) {
    throw new FileError(path, "wanted text in UTF-8, got other bytes. Is it a text file?", { cause });
  }
}

/** @param most bytes @throws {FileError} if the file is missing, larger, or not JSON */
export function readJson(path: string, most = maxTextBytes): unknown {
  const text = readText(path, most);
  try {
    checkDepth(text);
    return JSON.parse(text.replace(/^\uFEFF/, "")); // some editors begin with a BOM
  } catch (cause) {
    throw new FileError(path, `wanted JSON, got ${oneLine((cause as Error).message)}.`, { cause });
  }
}

/** @throws {Error} if a text opens more than `most` brackets within each other */
export function checkDepth(text: string, most = maxDepth): void {
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    const character = text.charCodeAt(i);
    if (character === 0x22 /* " */) i = endOfString(text, i);
    else if (character === 0x5b /* [ */ || character === 0x7b /* { */) depth++;
    else if (character === 0x5d /* ] */ || character === 0x7d /* } */) depth--;
    if (depth > most) throw new Error(`more than ${most} levels of it`);
  }
}

/** Where the string that opens at `start` closes; the text's end if nowhere. */
function endOfString(text: string, start: number): number {
  for (let i = start + 1; i < text.length; i++) {
    const character = text.charCodeAt(i);
    if (character === 0x5c /* \ */) i++;
    else if (character === 0x22) return i;
  }
  return text.length;
}

/**
 * The text of a key's value in an object, as it stands: numbers keep their digits, which a parse may not.
 *
 * @param json valid, of an object
 * @returns that of the last such key, as a parse takes it; undefined if there is none
 */
export function valueText(json: string, key: string): string | undefined {
  let found: string | undefined;
  let depth = 0;
  let name: string | undefined; // of the pair that is read, once its colon came
  let start = 0;
  for (let i = 0; i < json.length; i++) {
    const character = json[i]!;
    if (character === '"') i = endOfString(json, i);
    else if (character === "{" || character === "[") {
      if (++depth === 1) start = i + 1;
    } else if (depth === 1 && character === ":") {
      name = JSON.parse(json.slice(start, i));
      start = i + 1;
    } else if (character === "," || character === "}" || character === "]") {
      if (depth === 1 && character !== "]") {
        if (name === key) found = json.slice(start, i).trim();
        name = undefined;
        start = i + 1;
      }
      if (character !== ",") depth--;
    }
  }
  return found;
}

const STRING_OR_NUMBER = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/** Parses JSON; whole numbers of more digits than a double holds, and numbers beyond all doubles, become strings of what stands there. @throws {SyntaxError} */
export function parseExactly(json: string): unknown {
  const held = json.replace(STRING_OR_NUMBER, (text) => {
    if (text.startsWith('"')) return text;
    const value = Number(text);
    const isHeld =
      Number.isFinite(value) && (!/^-?\d+$/.test(text) || String(value) === text || BigInt(text) === BigInt(value));
    return isHeld ? text : `"${text}"`;
  });
  return JSON.parse(held);
}
