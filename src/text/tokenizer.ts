/**
 * Tokenizers in Hugging Face's `tokenizer.json`: byte-level BPE (ours, GPT-2, Llama 3, Qwen) and SentencePiece's BPE with byte fallback
 * (Llama 2, Mistral, Gemma, llama2.c). Reading and encoding need no native code; training is in `trainTokenizer.ts`, what a file may hold
 * in `tokenizerFile.ts`. Chat templates and prompts are elsewhere.
 */

import { Tokenizer as BpeTokenizer } from "@huggingface/tokenizers";
import { FileError, InputError } from "../errors.ts";
import { readJson } from "../json.ts";
import { atOnce, type Steps } from "../steps.ts";
import { asPattern } from "../words.ts";
import {
  type AddedToken,
  checkBoundary,
  componentsOf,
  exactPreTokenizer,
  isControl,
  readingTokenizerFile,
  type TokenizerFile,
  tokenizerKind,
  visibleSpace,
} from "./tokenizerFile.ts";

/** Text to ids and back. */
export interface Tokenizer {
  /** V: ids are 0..V-1 */
  readonly vocabSize: number;
  /** Undefined: sequences begin without. */
  readonly bosId: number | undefined;
  readonly eosId: number;
  /** Text of `bosId` and `eosId`, as chat templates write them. */
  readonly bosToken: string | undefined;
  readonly eosToken: string;
  /** Tokens that text never holds, only what a template or an engine writes. */
  readonly specialIds: ReadonlySet<number>;
  /** Their names, longest first: what is read from trusted parts. */
  readonly specialTokens: readonly string[];
  /** Ids of `text` alone: no BOS or EOS, and text that looks like a special token is plain text. */
  encode(text: string): Int32Array;
  /** Ids of parts joined to one text, in which special tokens are read in trusted parts alone: those of a template, never a user's. */
  encodeParts(parts: readonly TextPart[]): Int32Array;
  /** Text of `ids`; special tokens are silent, broken UTF-8 becomes U+FFFD. Throws {InputError} on an id outside 0..V-1. */
  decode(ids: Iterable<number>): string;
  /** A decoder for ids that arrive one at a time: the pieces it returns join to `decode` of all ids. */
  stream(): StreamDecoder;
}

/** A part of a text, and how far it is trusted. */
export interface TextPart {
  text: string;
  /** Whether special tokens are read from it. */
  isTrusted: boolean;
}

/** Text of ids that arrive one at a time. */
export interface StreamDecoder {
  /** Text completed by `id`; empty while a character is still incomplete. */
  push(id: number): string;
  /** What was left incomplete. */
  end(): string;
}

/** Ids that open and close a sequence; without `bosId`, nothing opens it. The first of `eosIds` is *the* EOS. */
export interface Boundary {
  bosId?: number | undefined;
  eosIds: readonly number[];
  /** V of the model, where it has more rows than there are tokens; the others stand for nothing. */
  vocabSize?: number | undefined;
}

/** The special tokens that open and close a sequence, by the names that our own tokenizers and llama2.c's give them. */
const BOUNDARY_TOKENS = [
  ["<|bos|>", "<|eos|>"],
  ["<s>", "</s>"],
] as const;

/**
 * How text falls into words before merges, for `Sequence[Digits(individual), ByteLevel(use_regex)]` (llama.cpp: "smollm"):
 * every number character stands alone, the rest is split as GPT-2 does. White space that touches a number ends its segment,
 * hence the look-ahead. `\p{White_Space}` and not `\s`: the two differ in U+0085 and U+FEFF, and the reference has the former.
 */
const WORDS =
  /\p{N}|'(?:[stmd]|re|ve|ll)| ?\p{L}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?![^\p{White_Space}\p{N}])|\p{White_Space}+/gu;

/** Words up to this many characters are remembered with their ids, … */
const MAX_REMEMBERED_LENGTH = 32;
/** … this many of them. */
const MAX_REMEMBERED = 1 << 16;

/**
 * @param path a `tokenizer.json`
 * @param boundary without it, BOS and EOS are found by the names that our own tokenizers give them
 * @throws {FileError} when the file cannot be read or is not a BPE tokenizer that covers every text
 */
export function loadTokenizer(path: string, boundary?: Boundary): Tokenizer {
  return atOnce(loadingTokenizer(path, boundary));
}

/** {@link loadTokenizer} in steps: a large vocabulary takes some hundred milliseconds. */
export function* loadingTokenizer(path: string, boundary?: Boundary): Steps<Tokenizer> {
  const json = readJson(path);
  yield;
  return yield* creatingTokenizer(json, path, boundary);
}

/**
 * @param json parsed content of a `tokenizer.json`
 * @param where its origin, for messages
 * @throws {FileError} as `loadTokenizer`
 */
export function createTokenizer(json: unknown, where: string, boundary?: Boundary): Tokenizer {
  return atOnce(creatingTokenizer(json, where, boundary));
}

function* creatingTokenizer(json: unknown, where: string, boundary?: Boundary): Steps<Tokenizer> {
  const file = yield* readingTokenizerFile(json, where, boundary?.vocabSize);
  yield;
  const { tokens } = file;
  const special = new Map(file.added_tokens.filter(isControl).map((token) => [token.content, token]));
  const { bosId, eosIds, vocabSize = tokens.length } = boundary ?? boundaryByName(special, where);
  if (tokens.length > vocabSize) {
    throw new FileError(
      where,
      `wanted ids below the model's ${vocabSize}, got ${tokens.length - 1}. Is it another model's?`,
    );
  }
  checkBoundary(file, [bosId, ...eosIds], where);
  const eosId = eosIds[0];
  if (eosId === undefined) throw new FileError(where, "wanted an EOS token, got none.");
  const specialTokens = [...special.keys()].sort((a, b) => b.length - a.length);
  const specialIds = new Set([...special.values()].map(({ id }) => id));
  const bytesOfToken = bytesById(file, specialIds, where);
  const bytesOf = (id: number) => (id >= tokens.length && id < vocabSize ? new Uint8Array() : bytesOfToken(id));
  const stripsSpace = stripsLeadingSpace(file);
  const stream = (): StreamDecoder => new Utf8Stream(bytesOf, stripsSpace);
  yield;
  const encodePlain = yield* encoder(file, where);
  return {
    vocabSize,
    bosId,
    eosId,
    bosToken: bosId === undefined ? undefined : tokens[bosId],
    eosToken: tokens[eosId]!,
    specialIds,
    specialTokens,
    encode: (text) => Int32Array.from(encodePlain(text, true)),
    encodeParts: partsEncoder(special, specialTokens, encodePlain),
    decode(ids) {
      const decoder = stream();
      let text = "";
      for (const id of ids) text += decoder.push(id);
      return text + decoder.end();
    },
    stream,
  };
}

type SpecialTokens = ReadonlyMap<string, AddedToken>;

function boundaryByName(special: SpecialTokens, where: string): Boundary {
  const names = BOUNDARY_TOKENS.find(([bos, eos]) => special.has(bos) && special.has(eos));
  if (!names) {
    const wanted = BOUNDARY_TOKENS.map((pair) => pair.join(" and ")).join(", or ");
    throw new FileError(
      where,
      `wanted the special tokens ${wanted}, got [${[...special.keys()].slice(0, 8).join(", ")}].`,
    );
  }
  return { bosId: special.get(names[0])!.id, eosIds: [special.get(names[1])!.id] };
}

/** What a token stands for in UTF-8, by its id; nothing for special tokens. */
function bytesById(file: TokenizerFile, special: ReadonlySet<number>, where: string): (id: number) => Uint8Array {
  const isByteLevel = !file.model.byte_fallback;
  if (isByteLevel && !componentsOf(file.decoder, "decoders").some(({ type }) => type === "ByteLevel")) {
    throw new FileError(where, "wanted byte-level BPE or BPE with byte fallback, got neither.");
  }
  const { tokens } = file;
  const byteOf = new Map(byteTokens(isByteLevel).map((token, byte) => [token, byte]));
  const added = new Set(file.added_tokens.map(({ id }) => id));
  const utf8 = new TextEncoder();
  return (id) => {
    const token = tokens[id];
    if (token === undefined) {
      throw new InputError(
        `decode: wanted token ids 0..${tokens.length - 1}, got ${id}. Is the tokenizer the model's own?`,
      );
    }
    if (special.has(id) || file.unused.has(id)) return new Uint8Array();
    if (isByteLevel) {
      if (added.has(id)) return utf8.encode(token);
      return Uint8Array.from(token, (character) => byteOf.get(character) ?? 0x3f /* "?" */);
    }
    const byte = byteOf.get(token);
    return byte === undefined ? utf8.encode(token.replaceAll(visibleSpace, " ")) : Uint8Array.of(byte);
  };
}

/** Whether the text of a sequence loses its first character where that is a space: the one that encoding puts there. */
function stripsLeadingSpace(file: TokenizerFile): boolean {
  return componentsOf(file.decoder, "decoders").some(
    ({ type, content, start, prepend_scheme }) =>
      (type === "Strip" && content === " " && start === 1) || (type === "Metaspace" && prepend_scheme !== "never"),
  );
}

/**
 * The 256 tokens of single bytes, in byte order: `<0x00>`… for byte fallback, else GPT-2's alphabet, in which printable
 * Latin-1 stands for itself and the other bytes are U+0100 onward.
 */
export function byteTokens(isByteLevel: boolean): string[] {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    if (!isByteLevel) return `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
    const isPrintable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte !== 0xad);
    return String.fromCharCode(isPrintable ? byte : next++);
  });
}

/** Ids of text without special tokens; `isFirst`: nothing comes before it. */
type PlainEncoder = (text: string, isFirst: boolean) => readonly number[];

/** Merges are the library's work; splitting ours into words is done here, so that a word is merged once and then looked up. */
function* encoder(file: TokenizerFile, where: string): Steps<PlainEncoder> {
  const kind = tokenizerKind(file);
  if (!kind) throw new FileError(where, `wanted a normalizer and pre-tokenizer that are known, got ${describe(file)}.`);
  const added = file.added_tokens.filter((token) => !isControl(token)); // special tokens are never read from text
  const open = (parts: { normalizer?: unknown; pre_tokenizer?: unknown }) =>
    openingBpe(
      file.model,
      {
        normalizer: file.normalizer ?? null,
        pre_tokenizer: null,
        decoder: null,
        ...parts,
        post_processor: null,
        added_tokens: added,
      },
      where,
    );
  const everyByte = checkBytes(file, where);
  if (kind.type === "byte-level") {
    const bytesAlone = { type: "ByteLevel", add_prefix_space: false, use_regex: false };
    if (kind.name === "smollm" && added.length === 0) {
      const merge = remembering(yield* open({ pre_tokenizer: bytesAlone }));
      return (text) => (everyByte(text).match(WORDS) ?? []).flatMap(merge);
    }
    const pretokenizers = exactPreTokenizer(file);
    if (!pretokenizers) throw new FileError(where, `wanted known pre-tokenizers, got ${describe(file)}.`);
    const bpe = yield* open({ pre_tokenizer: { type: "Sequence", pretokenizers } });
    return (text) => bpe(everyByte(text));
  }
  const replaceSpaces = { type: "Replace", pattern: { String: " " }, content: visibleSpace };
  switch (kind.spacePrefix) {
    case "always":
      return yield* open({});
    case "never":
      return yield* open({ normalizer: replaceSpaces });
    case "if-missing":
      return yield* open({ pre_tokenizer: file.pre_tokenizer });
    case "first-if-missing": {
      const bpe = yield* open({ normalizer: replaceSpaces });
      const begins = [" ", visibleSpace, ...added.map(({ content }) => content)];
      return (text, isFirst) =>
        bpe(isFirst && text !== "" && !begins.some((start) => text.startsWith(start)) ? ` ${text}` : text);
    }
    default:
      return kind.spacePrefix satisfies never;
  }
}

const describe = ({ normalizer, pre_tokenizer }: TokenizerFile): string =>
  JSON.stringify({ normalizer, pre_tokenizer }).slice(0, 300);

/** The library's merging. Of vocabulary and merges it would make maps, all at once, in a hundred milliseconds; it is given them. */
function* openingBpe(
  { vocab, merges, ...model }: TokenizerFile["model"],
  parts: { added_tokens: readonly AddedToken[]; [part: string]: unknown },
  where: string,
): Steps<(text: string) => number[]> {
  let bpe: BpeTokenizer;
  try {
    bpe = new BpeTokenizer({ ...parts, model: { ...model, vocab: {}, merges: [] } }, {});
  } catch (error) {
    throw new FileError(where, `wanted a tokenizer.json of known parts, got: ${(error as Error).message}.`, {
      cause: error,
    });
  }
  yield;
  const ids = new Map(vocab);
  for (const { content, id } of parts.added_tokens) ids.set(content, id);
  Object.assign(bpe.model!, { tokens_to_ids: ids, unk_token_id: ids.get(model.unk_token ?? "") });
  yield;
  Object.assign(bpe.model!, { bpe_ranks: new Map(merges.map((pair, rank) => [JSON.stringify(pair), rank])) });
  return (text) => bpe.encode(text, { add_special_tokens: false }).ids;
}

function remembering(merge: (word: string) => number[]): (word: string) => number[] {
  const remembered = new Map<string, number[]>();
  return (word) => {
    let ids = remembered.get(word);
    if (!ids) {
      ids = merge(word);
      if (remembered.size >= MAX_REMEMBERED) remembered.clear();
      if (word.length <= MAX_REMEMBERED_LENGTH) remembered.set(word, ids);
    }
    return ids;
  };
}

/**
 * Looks for the bytes that a vocabulary lacks. With byte fallback it must have all; a byte-level one may lack some that its training
 * text did not have, and then refuses the text that has them, since the library would leave them out.
 */
function checkBytes(file: TokenizerFile, where: string): (text: string) => string {
  const isByteLevel = !file.model.byte_fallback;
  const names = byteTokens(isByteLevel);
  const missing = new Set([...names.keys()].filter((byte) => !file.model.vocab.has(names[byte]!)));
  const printable = isByteLevel ? names.slice(0x21, 0x7f) : names;
  const wanting = printable.find((token) => !file.model.vocab.has(token));
  if (wanting !== undefined) throw new FileError(where, `wanted a token for each byte, got none for "${wanting}".`);
  if (missing.size === 0) return (text) => text;
  return (text) => {
    const byte = Buffer.from(text).find((value) => missing.has(value));
    if (byte === undefined) return text;
    throw new InputError(`encode: wanted bytes that the tokenizer has, got 0x${byte.toString(16)}. Leave it out.`);
  };
}

/** Special tokens are cut out of trusted parts; what stays between them is tokenized together, whatever part it is of. */
function partsEncoder(
  special: SpecialTokens,
  longestFirst: readonly string[],
  encodePlain: PlainEncoder,
): Tokenizer["encodeParts"] {
  const pattern = new RegExp(longestFirst.map(asPattern).join("|"), "gu");
  return (parts) => {
    const pieces: (number | readonly number[])[] = [];
    let [plain, stripsStart] = ["", false];
    const flush = (stripsEnd: boolean) => {
      if (stripsStart) plain = plain.trimStart();
      if (stripsEnd) plain = plain.trimEnd();
      pieces.push(encodePlain(plain, pieces.length === 0));
      plain = "";
    };
    for (const { text, isTrusted } of parts) {
      let from = 0;
      for (const { 0: content, index } of isTrusted && special.size > 0 ? text.matchAll(pattern) : []) {
        const { id, lstrip, rstrip } = special.get(content)!;
        plain += text.slice(from, index);
        from = index + content.length;
        if (plain !== "") flush(lstrip);
        pieces.push(id);
        stripsStart = rstrip;
      }
      plain += text.slice(from);
    }
    flush(false);
    return Int32Array.from(pieces.flat());
  };
}

class Utf8Stream implements StreamDecoder {
  readonly #utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
  readonly #bytesOf: (id: number) => Uint8Array;
  #dropsSpace: boolean;

  constructor(bytesOf: (id: number) => Uint8Array, dropsLeadingSpace: boolean) {
    this.#bytesOf = bytesOf;
    this.#dropsSpace = dropsLeadingSpace;
  }

  push(id: number): string {
    return this.#withoutLeadingSpace(this.#utf8.decode(this.#bytesOf(id), { stream: true }));
  }

  end(): string {
    return this.#withoutLeadingSpace(this.#utf8.decode());
  }

  #withoutLeadingSpace(text: string): string {
    if (!this.#dropsSpace || text === "") return text;
    this.#dropsSpace = false;
    return text.startsWith(" ") ? text.slice(1) : text;
  }
}
