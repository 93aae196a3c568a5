/**
 * Tokenizers in Hugging Face's `tokenizer.json`: byte-level BPE (ours) and BPE with byte fallback (llama2.c's). Reading and
 * encoding need no native code; training is in `trainTokenizer.ts`. Chat templates and prompts are elsewhere.
 */
import { readFileSync } from "node:fs";
import { Tokenizer as BpeTokenizer } from "@huggingface/tokenizers";
import { z } from "zod";
import { FileError, InputError } from "../errors.ts";

export interface Tokenizer {
  /** V: ids are 0..V-1 */
  readonly vocabSize: number;
  readonly bosId: number;
  readonly eosId: number;
  /** Ids of `text` alone: no BOS or EOS, and text that looks like a special token is plain text. */
  encode(text: string): Int32Array;
  /** Text of `ids`; special tokens are silent, broken UTF-8 becomes U+FFFD. Throws {InputError} on an id outside 0..V-1. */
  decode(ids: Iterable<number>): string;
  /** A decoder for ids that arrive one at a time: the pieces it returns join to `decode` of all ids. */
  stream(): StreamDecoder;
}

export interface StreamDecoder {
  /** Text completed by `id`; empty while a character is still incomplete. */
  push(id: number): string;
  /** What was left incomplete. */
  end(): string;
}

/** The special tokens that open and close a sequence, by the names that known tokenizers give them. */
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

const wordsPreTokenizer = z.object({
  type: z.literal("Sequence"),
  pretokenizers: z.tuple([
    z.object({ type: z.literal("Digits"), individual_digits: z.literal(true) }),
    z.object({
      type: z.literal("ByteLevel"),
      add_prefix_space: z.literal(false),
      use_regex: z.literal(true).optional(),
    }),
  ]),
});

const component = z.looseObject({ type: z.string() });
const tokenizerFile = z.looseObject({
  added_tokens: z
    .array(z.looseObject({ id: z.int().min(0), content: z.string().min(1), special: z.boolean() }))
    .default([]),
  normalizer: component.nullish(),
  pre_tokenizer: component.nullish(),
  decoder: z.looseObject({ type: z.string(), decoders: z.array(component).optional() }),
  model: z.looseObject({
    type: z.literal("BPE"),
    byte_fallback: z.boolean().default(false),
    vocab: z.custom<Record<string, number>>(
      (value) => typeof value === "object" && value !== null,
      "wanted token -> id",
    ),
    merges: z.array(z.union([z.tuple([z.string(), z.string()]), z.string()])),
  }),
});
type TokenizerFile = z.infer<typeof tokenizerFile>;

/** Words up to this many characters are remembered with their ids, … */
const MAX_REMEMBERED_LENGTH = 32;
/** … this many of them. */
const MAX_REMEMBERED = 1 << 16;

/**
 * @param path a `tokenizer.json`
 * @throws {FileError} when the file cannot be read or is not a BPE tokenizer that covers every text
 */
export function loadTokenizer(path: string): Tokenizer {
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    throw new FileError(path, `wanted a tokenizer.json, got: ${(error as Error).message}.`, { cause: error });
  }
  return createTokenizer(json, path);
}

/**
 * @param json parsed content of a `tokenizer.json`
 * @param where its origin, for messages
 * @throws {FileError} as `loadTokenizer`
 */
export function createTokenizer(json: unknown, where: string): Tokenizer {
  const parsed = tokenizerFile.safeParse(json);
  if (!parsed.success) {
    const { path, message } = parsed.error.issues[0]!;
    throw new FileError(where, `wanted a BPE tokenizer.json, got a wrong "${path.join(".")}": ${message}.`);
  }
  const file = parsed.data;
  const tokens = tokensById(file, where);
  const special = new Map(file.added_tokens.filter((token) => token.special).map(({ content, id }) => [content, id]));
  const boundary = BOUNDARY_TOKENS.find(([bos, eos]) => special.has(bos) && special.has(eos));
  if (!boundary) {
    const wanted = BOUNDARY_TOKENS.map((pair) => pair.join(" and ")).join(", or ");
    throw new FileError(
      where,
      `wanted the special tokens ${wanted}, got [${[...special.keys()].slice(0, 8).join(", ")}].`,
    );
  }
  const bytes = bytesById(file, tokens, new Set(special.values()), where);
  const dropsLeadingSpace = file.normalizer !== undefined && JSON.stringify(file.normalizer).includes('"Prepend"');
  const stream = (): StreamDecoder => new Utf8Stream(bytes, dropsLeadingSpace);
  return {
    vocabSize: tokens.length,
    bosId: special.get(boundary[0])!,
    eosId: special.get(boundary[1])!,
    encode: encoder(file, where),
    decode(ids) {
      const decoder = stream();
      let text = "";
      for (const id of ids) text += decoder.push(id);
      return text + decoder.end();
    },
    stream,
  };
}

/** Token strings in the order of their ids, which must be 0..V-1, each once. */
function tokensById({ model, added_tokens }: TokenizerFile, where: string): string[] {
  const ids = new Map(Object.entries(model.vocab));
  for (const { content, id } of added_tokens) {
    if ((ids.get(content) ?? id) !== id) throw new FileError(where, `wanted one id for token "${content}", got two.`);
    ids.set(content, id);
  }
  const tokens = new Array<string | undefined>(ids.size).fill(undefined);
  for (const [token, id] of ids) {
    if (!Number.isInteger(id) || id < 0 || id >= tokens.length || tokens[id] !== undefined) {
      throw new FileError(
        where,
        `wanted ids 0..${ids.size - 1}, each once, got ${JSON.stringify(id)} for token "${token}".`,
      );
    }
    tokens[id] = token;
  }
  for (const merge of model.merges) {
    const [left, right] = typeof merge === "string" ? merge.split(" ") : merge;
    if (!ids.has(`${left}${right}`)) {
      throw new FileError(where, `wanted merges that make tokens of the vocabulary, got "${left}" + "${right}".`);
    }
  }
  return tokens as string[];
}

/** What each token stands for in UTF-8; nothing for special tokens. */
function bytesById(file: TokenizerFile, tokens: string[], special: ReadonlySet<number>, where: string): Uint8Array[] {
  const isByteLevel = [file.decoder, ...(file.decoder.decoders ?? [])].some(({ type }) => type === "ByteLevel");
  if (!isByteLevel && !file.model.byte_fallback) {
    throw new FileError(where, "wanted byte-level BPE or BPE with byte fallback, got neither.");
  }
  const missing = byteTokens(isByteLevel).find((token) => !Object.hasOwn(file.model.vocab, token));
  if (missing !== undefined)
    throw new FileError(where, `wanted a token for each of the 256 bytes, got none for "${missing}".`);
  const byteOf = new Map(byteTokens(isByteLevel).map((token, byte) => [token, byte]));
  const utf8 = new TextEncoder();
  return tokens.map((token, id) => {
    if (special.has(id)) return new Uint8Array();
    if (isByteLevel) return Uint8Array.from(token, (character) => byteOf.get(character) ?? 0x3f /* "?" */);
    const byte = byteOf.get(token);
    return byte === undefined ? utf8.encode(token.replaceAll("▁", " ")) : Uint8Array.of(byte);
  });
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

/** Merges are the library's work; splitting ours into words is done here, so that a word is merged once and then looked up. */
function encoder(file: TokenizerFile, where: string): (text: string) => Int32Array {
  const splitsWords = wordsPreTokenizer.safeParse(file.pre_tokenizer).success && !file.normalizer;
  const bpe = openBpe(
    {
      ...file,
      normalizer: file.normalizer ?? null,
      pre_tokenizer: splitsWords
        ? { type: "ByteLevel", add_prefix_space: false, use_regex: false }
        : (file.pre_tokenizer ?? null),
      post_processor: null,
      added_tokens: file.added_tokens.filter((token) => !token.special), // special tokens are never read from text
    },
    where,
  );
  const merge = (text: string): number[] => bpe.encode(text, { add_special_tokens: false }).ids;
  if (!splitsWords) return (text) => Int32Array.from(merge(text));

  const remembered = new Map<string, number[]>();
  return (text) => {
    const ids: number[] = [];
    for (const word of text.match(WORDS) ?? []) {
      let wordIds = remembered.get(word);
      if (!wordIds) {
        wordIds = merge(word);
        if (remembered.size >= MAX_REMEMBERED) remembered.clear();
        if (word.length <= MAX_REMEMBERED_LENGTH) remembered.set(word, wordIds);
      }
      for (const id of wordIds) ids.push(id);
    }
    return Int32Array.from(ids);
  };
}

function openBpe(file: TokenizerFile, where: string): BpeTokenizer {
  try {
    return new BpeTokenizer(file, {});
  } catch (error) {
    throw new FileError(where, `wanted a tokenizer.json of known parts, got: ${(error as Error).message}.`, {
      cause: error,
    });
  }
}

class Utf8Stream implements StreamDecoder {
  readonly #utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
  readonly #bytes: readonly Uint8Array[];
  #dropsSpace: boolean;

  constructor(bytes: readonly Uint8Array[], dropsLeadingSpace: boolean) {
    this.#bytes = bytes;
    this.#dropsSpace = dropsLeadingSpace;
  }

  push(id: number): string {
    const bytes = this.#bytes[id];
    if (!bytes)
      throw new InputError(
        `decode: wanted token ids 0..${this.#bytes.length - 1}, got ${id}. Is the tokenizer the model's own?`,
      );
    return this.#withoutLeadingSpace(this.#utf8.decode(bytes, { stream: true }));
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
