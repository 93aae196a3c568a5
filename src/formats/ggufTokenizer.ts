/**
 * A `tokenizer.json` in llama.cpp's terms, and back.
 *
 * llama.cpp knows a tokenizer's kind by name alone and cuts text by code of its own, so only kinds are taken that it cuts alike. It still differs
 * from the reference where
 * - qwen2: text is not in composed form (NFC), which llama.cpp leaves as it is;
 * - tekken: letters beyond ASCII, or combining marks, stand where small letters follow capital ones: llama.cpp's classes are rougher;
 * - SentencePiece: user's text spells a special or a byte token (`<s>`, `<0x41>`) whose parts are tokens; or two tokens have one score;
 * - SentencePiece with Metaspace: the text begins with a space (llama.cpp puts another before it), or text follows special tokens.
 */
import { FileError } from "../errors.ts";
import { readJson } from "../json.ts";
import type { ModelConfig } from "../model/config.ts";
import {
  type ByteLevelName,
  byteLevelKinds,
  byteLevelParts,
  checkBoundary,
  isControl,
  readTokenizerFile,
  type TokenizerFile,
  tokenizerKind,
  unusedToken,
  visibleSpace,
} from "../text/tokenizerFile.ts";
import type { GgufMetadata } from "./gguf.ts";
import { array, bool, string, uint32 } from "./ggufValues.ts";

/** llama.cpp's kinds of tokens. */
export const tokenType = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;
const mergesKey = "tokenizer.ggml.merges";
/** Score of tokens that no merge makes: below all that one does. */
const neverScore = -1e9;
/** Tokens that llama.cpp takes for an answer's end by their names, whatever else the metadata says. */
const turnEnds = ["<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>"];
/** Other names of the kinds that we read. */
const aliases: Record<string, ByteLevelName> = {
  llama3: "llama-bpe",
  "llama-v3": "llama-bpe",
  dbrx: "smaug-bpe",
  "deepseek-r1-qwen": "qwen2",
};
/** Kinds that read BOS first unless their metadata says otherwise. */
const addsBos: readonly ByteLevelName[] = ["llama-bpe", "tekken"];
/** Longest SentencePiece token and all together, in characters; all ways to split each are looked at. Gemma's 262,144 have 2 million. */
const maxTokenLength = 256;
const maxTokenLengths = 1 << 23;
/** Most ways in all to put tokens together from two others. Gemma's have 0.5 million. */
const maxMerges = 1 << 21;

/**
 * Metadata for an engine that is given token ids. llama.cpp wants merges to be there and reads them only to cut text; node-llama-cpp makes texts of all
 * of them at each load, and they are half of what it makes.
 */
export function withoutMerges(metadata: GgufMetadata): GgufMetadata {
  return metadata.has(mergesKey) ? new Map([...metadata, [mergesKey, array("string", [])]]) : metadata;
}

/**
 * The tokenizer of a `tokenizer.json` as GGUF metadata.
 *
 * @param source its path, or its parsed content with the path of where it came from, for messages
 * @param config.vocabSize V of the model; ids that the tokenizer does not have become unused tokens
 * @param options.bosId absent: sequences begin without
 * @param options.eosIds tokens that end an answer, *the* EOS first
 * @param options.notes takes a line where more tokens end an answer than it can say
 * @param options.addBos whether llama.cpp puts BOS before what it reads; without, it takes token ids as they are
 * @throws {FileError} if it is of a kind that llama.cpp cuts otherwise or not at all, or larger than the model's vocabulary
 */
export function tokenizerMetadata(
  source: string | { path: string; json: unknown },
  { vocabSize }: Pick<ModelConfig, "vocabSize">,
  options: {
    bosId?: number | undefined;
    eosIds: readonly number[];
    addBos: boolean;
    chatTemplate?: string | undefined;
    notes?: string[];
  },
): GgufMetadata {
  const { bosId, eosIds, addBos, chatTemplate, notes } = options;
  const { path, json } = typeof source === "string" ? { path: source, json: readJson(source) } : source;
  const file = readTokenizerFile(json, path, vocabSize);
  if (file.tokens.length > vocabSize) {
    const got = `${file.tokens.length} tokens`;
    throw new FileError(path, `wanted ids below the model's ${vocabSize}, got ${got}. Is it another model's?`);
  }
  const tokens = Array.from({ length: vocabSize }, (_, id) => file.tokens[id] ?? unusedToken(id));
  const isUsed = (id: number) => id < file.tokens.length && !file.unused.has(id);
  const types: number[] = tokens.map((_, id) => (isUsed(id) ? tokenType.normal : tokenType.unused));
  for (const token of file.added_tokens) types[token.id] = isControl(token) ? tokenType.control : tokenType.userDefined;
  checkBoundary(file, [bosId, ...eosIds], path);

  const metadata: GgufMetadata = new Map();
  const kind = tokenizerKind(file);
  if (kind?.type === "byte-level" && kind.name) {
    metadata.set("tokenizer.ggml.model", string("gpt2"));
    metadata.set("tokenizer.ggml.pre", string(kind.name));
    const merges = file.model.merges.map((pair) => pair.join(" "));
    metadata.set(mergesKey, array("string", merges));
  } else if (kind?.type === "sentencepiece") {
    const scores = scoresOf(file, path);
    for (const { id, content } of file.added_tokens) {
      // llama.cpp shows user-defined tokens as they are, visible spaces too; as normal ones they are merged from spaces and shown as such.
      if (types[id] === tokenType.userDefined && content.includes(visibleSpace)) types[id] = tokenType.normal;
    }
    for (const [id, token] of tokens.entries()) if (/^<0x[0-9A-F]{2}>$/.test(token)) types[id] = tokenType.byte;
    const unknown = file.tokens.indexOf(file.model.unk_token ?? "");
    if (unknown >= 0) types[unknown] = tokenType.unknown;
    metadata.set("tokenizer.ggml.model", string("llama"));
    metadata.set(
      "tokenizer.ggml.scores",
      array(
        "float32",
        tokens.map((token) => scores.get(token) ?? neverScore),
      ),
    );
    metadata.set("tokenizer.ggml.unknown_token_id", uint32(Math.max(unknown, 0)));
    metadata.set("tokenizer.ggml.add_space_prefix", bool(kind.spacePrefix !== "never"));
  } else {
    const { normalizer, pre_tokenizer } = file;
    const got = JSON.stringify({ normalizer, pre_tokenizer }).slice(0, 300);
    const known = `SentencePiece's, or byte-level BPE as ${Object.keys(byteLevelKinds).join(", ")}`;
    throw new FileError(path, `wanted a tokenizer that llama.cpp cuts alike (${known}), got ${got}.`);
  }
  metadata.set("tokenizer.ggml.tokens", array("string", tokens));
  metadata.set("tokenizer.ggml.token_type", array("int32", types));
  if (bosId !== undefined) metadata.set("tokenizer.ggml.bos_token_id", uint32(bosId));
  const [eosId, ...others] = eosIds;
  if (eosId !== undefined) metadata.set("tokenizer.ggml.eos_token_id", uint32(eosId));
  const endOfTurn = others.find((id) => turnEnds.includes(tokens[id]!) && tokens[id] !== "<|eom_id|>") ?? others[0];
  if (endOfTurn !== undefined) metadata.set("tokenizer.ggml.eot_token_id", uint32(endOfTurn));
  const [endOfMessage, ...left] = others.filter((id) => id !== endOfTurn && !turnEnds.includes(tokens[id]!)); // the others are known by name
  if (endOfMessage !== undefined) metadata.set("tokenizer.ggml.eom_token_id", uint32(endOfMessage));
  if (left.length > 0)
    notes?.push(`Of the tokens that end an answer these are left out: ${left.map((id) => tokens[id]).join(" ")}.`);
  metadata.set("tokenizer.ggml.add_bos_token", bool(addBos && bosId !== undefined));
  metadata.set("tokenizer.ggml.add_eos_token", bool(false));
  if (chatTemplate !== undefined) metadata.set("tokenizer.chat_template", string(chatTemplate));
  return metadata;
}

/**
 * Scores by which llama.cpp, which merges any two neighbours that make a token, merges as the file's list of pairs does. There are such only if that list has
 * every way to put a token together, as lists made from SentencePiece models have.
 */
function scoresOf({ model: { merges, vocab } }: TokenizerFile, path: string): Map<string, number> {
  const scores = new Map<string, number>();
  const pairs = new Set<string>();
  for (const [left, right] of merges) {
    pairs.add(`${left} ${right}`);
    if (!scores.has(left + right)) scores.set(left + right, -scores.size);
  }
  checkLengths(scores.keys(), path);
  const isReachable = (text: string) => scores.has(text) || (/^.$/su.test(text) && vocab.has(text));
  for (const token of scores.keys()) {
    for (const [left, right] of splits(token, isReachable)) {
      if (!pairs.has(`${left} ${right}`)) {
        throw new FileError(
          path,
          `wanted merges as SentencePiece's, which llama.cpp cuts alike, got none of "${left}" and "${right}" though "${token}" is a token.`,
        );
      }
    }
  }
  return scores;
}

export interface GgufTokenizer {
  /** Content of a `tokenizer.json`. */
  tokenizerJson: object;
  bosId?: number;
  /** Tokens that end an answer, *the* EOS first. */
  eosIds: number[];
  /** Whether sequences begin with BOS. */
  addBos: boolean;
  chatTemplate?: string;
}

/**
 * The tokenizer in a GGUF file's metadata: SentencePiece's ("llama"), or byte-level BPE of the kinds that `tokenizerMetadata` writes.
 *
 * @param path the file, for messages
 * @throws {FileError} if it is of another kind, or what it says does not fit together
 */
export function tokenizerFromGguf(metadata: GgufMetadata, path: string): GgufTokenizer {
  const { value, list } = reader(metadata, path);
  const texts = list("tokens", "string");
  const types = list("token_type", "number", texts.length);
  if (new Set(texts).size !== texts.length) throw new FileError(path, "wanted distinct tokens, got one twice.");
  const tokens = texts.map((text, id) => ({ text, type: types[id]! }));

  const bosId = value("bos_token_id", "number");
  const bosFirst = (isDefault: boolean) => {
    const isFirst = bosId !== undefined && (value("add_bos_token", "boolean") ?? isDefault);
    if (isFirst && texts[bosId] === undefined) throw new FileError(path, `wanted BOS to be a token, got id ${bosId}.`);
    return isFirst ? bosId : undefined;
  };
  const model = value("model", "string");
  let tokenizerJson: object;
  let firstId: number | undefined;
  if (model === "llama") {
    const scores = list("scores", "number", texts.length);
    const scored = tokens.map((token, id) => ({ ...token, score: scores[id]! }));
    firstId = bosFirst(true);
    tokenizerJson = sentencePieceJson(scored, value("add_space_prefix", "boolean") ?? true, firstId, path);
  } else if (model === "gpt2") {
    const pre = value("pre", "string") ?? "";
    const name = Object.hasOwn(byteLevelKinds, pre)
      ? (pre as ByteLevelName)
      : Object.hasOwn(aliases, pre)
        ? aliases[pre]
        : undefined;
    if (!name) {
      const known = [...Object.keys(byteLevelKinds), ...Object.keys(aliases)].join(", ");
      throw new FileError(path, `wanted pre-tokenizer ${known}, got "${pre}".`);
    }
    firstId = bosFirst(addsBos.includes(name));
    tokenizerJson = byteLevelJson(name, tokens, list("merges", "string"), firstId);
  } else {
    throw new FileError(path, `wanted tokenizer "llama" or "gpt2", got "${model}".`);
  }
  const named = tokens.flatMap(({ text, type }, id) =>
    type === tokenType.control && turnEnds.includes(text) ? [id] : [],
  );
  const ends = ["eos_token_id", "eot_token_id", "eom_token_id"].map((key) => value(key, "number"));
  const eosIds = [...new Set([...ends.filter((id) => id !== undefined), ...named])];
  const chatTemplate = metadata.get("tokenizer.chat_template")?.value;
  return {
    tokenizerJson,
    ...(bosId !== undefined && { bosId }),
    eosIds,
    addBos: firstId !== undefined,
    ...(typeof chatTemplate === "string" && { chatTemplate }),
  };
}

/** Typed access to the metadata `tokenizer.ggml.…`. */
function reader(metadata: GgufMetadata, path: string) {
  type Types = { string: string; number: number; boolean: boolean };
  const fail = (key: string, wanted: string): never => {
    throw new FileError(path, `metadata "tokenizer.ggml.${key}": wanted ${wanted}, got something else or nothing.`);
  };
  return {
    value<T extends keyof Types>(key: string, type: T): Types[T] | undefined {
      const value = metadata.get(`tokenizer.ggml.${key}`)?.value;
      return value === undefined || typeof value === type ? (value as Types[T] | undefined) : fail(key, `a ${type}`);
    },
    list<T extends keyof Types>(key: string, type: T, length?: number): readonly Types[T][] {
      const entry = metadata.get(`tokenizer.ggml.${key}`);
      if (entry?.type !== "array" || (length ?? entry.value.length) !== entry.value.length)
        return fail(key, `an array of ${length ?? "any number of"} ${type}s`);
      if (entry.value.some((value) => typeof value !== type)) return fail(key, `an array of ${type}s`);
      return entry.value as readonly Types[T][];
    },
  };
}

interface GgufToken {
  text: string;
  type: number;
}

function byteLevelJson(
  name: ByteLevelName,
  tokens: readonly GgufToken[],
  merges: readonly string[],
  bosId: number | undefined,
): object {
  const kind = byteLevelKinds[name];
  const parts = byteLevelParts(name);
  return tokenizerJson(tokens, bosId, {
    normalizer: kind.composes ? { type: "NFC" } : null,
    pre_tokenizer: parts.length === 1 ? parts[0] : { type: "Sequence", pretokenizers: parts },
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      unk_token: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: kind.ignoreMerges,
      merges: merges.map((merge) => merge.split(" ")),
    },
  });
}

/**
 * A SentencePiece tokenizer as the content of a `tokenizer.json`: its merges are all ways to put a token together from two others, those of the highest score
 * first.
 *
 * @param hasSpacePrefix whether a space is put before the text
 * @param bosId what sequences begin with, if anything
 * @throws {FileError} on overlong tokens
 */
export function sentencePieceJson(
  tokens: readonly (GgufToken & { score: number })[],
  hasSpacePrefix: boolean,
  bosId: number | undefined,
  path: string,
): object {
  const normal = new Map(
    tokens.filter(({ type }) => type === tokenType.normal).map(({ text, score }) => [text, score]),
  );
  checkLengths(normal.keys(), path);
  const merges: [string, string][] = [];
  for (const [text] of [...normal].sort(([, a], [, b]) => b - a)) {
    merges.push(...splits(text, (part) => normal.has(part)));
    if (merges.length > maxMerges)
      throw new FileError(path, `wanted at most ${maxMerges} ways to put tokens together from others, got more.`);
  }
  const replacesSpaces = { type: "Replace", pattern: { String: " " }, content: visibleSpace };
  const stripsSpace = { type: "Strip", content: " ", start: 1, stop: 0 };
  return tokenizerJson(tokens, bosId, {
    normalizer: hasSpacePrefix
      ? { type: "Sequence", normalizers: [{ type: "Prepend", prepend: visibleSpace }, replacesSpaces] }
      : replacesSpaces,
    pre_tokenizer: null,
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: visibleSpace }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        ...(hasSpacePrefix ? [stripsSpace] : []),
      ],
    },
    model: {
      unk_token: tokens.find(({ type }) => type === tokenType.unknown)?.text ?? null,
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
      merges,
    },
  });
}

function tokenizerJson(
  tokens: readonly GgufToken[],
  bosId: number | undefined,
  { model, ...parts }: { model: object; normalizer: unknown; pre_tokenizer: unknown; decoder: unknown },
): object {
  const added = tokens.flatMap(({ text: content, type }, id) => {
    const special = type === tokenType.control || type === tokenType.unknown;
    if (!special && type !== tokenType.userDefined) return [];
    return [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special }];
  });
  const bos = bosId === undefined ? undefined : tokens[bosId]!.text;
  const first = (type_id: number) => ({ SpecialToken: { id: bos, type_id } });
  const sequence = (id: string, type_id: number) => ({ Sequence: { id, type_id } });
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: added,
    ...parts,
    post_processor:
      bos === undefined
        ? null
        : {
            type: "TemplateProcessing",
            single: [first(0), sequence("A", 0)],
            pair: [first(0), sequence("A", 0), first(1), sequence("B", 1)],
            special_tokens: { [bos]: { id: bos, ids: [bosId], tokens: [bos] } },
          },
    model: {
      type: "BPE",
      dropout: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      vocab: Object.fromEntries(tokens.map(({ text }, id) => [text, id])),
      ...model,
    },
  };
}

/** The ways to put a token together from two others, between characters. */
function splits(text: string, isToken: (part: string) => boolean): [string, string][] {
  const pairs: [string, string][] = [];
  for (let at = 1; at < text.length; at++) {
    if (text.charCodeAt(at) >> 10 === 0b110111) continue; // second half of a character
    const left = text.slice(0, at);
    if (!isToken(left)) continue;
    const right = text.slice(at);
    if (isToken(right)) pairs.push([left, right]);
  }
  return pairs;
}

function checkLengths(tokens: Iterable<string>, path: string): void {
  let total = 0;
  for (const { length } of tokens) {
    total += length;
    if (length > maxTokenLength)
      throw new FileError(path, `wanted tokens of at most ${maxTokenLength} characters, got one of ${length}.`);
  }
  if (total > maxTokenLengths)
    throw new FileError(path, `wanted tokens of at most ${maxTokenLengths} characters together, got ${total}.`);
}
