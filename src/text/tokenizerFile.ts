/**
 * What is in a `tokenizer.json`: its parts, which kinds of BPE tokenizer there are, and by what we know them. Kinds are told apart by
 * structure, since a kind has one meaning in llama.cpp too (`formats/ggufTokenizer.ts`).
 */
import { z } from "zod";
import { FileError } from "../errors.ts";
import { atOnce, type Steps } from "../steps.ts";

/** SentencePiece's visible space. */
export const visibleSpace = "\u2581";

/** A normalizer, pre-tokenizer or decoder. */
export interface Component {
  type: string;
  [option: string]: unknown;
}
const component: z.ZodType<Component> = z.looseObject({ type: z.string() });
const addedToken = z.object({
  id: z.int().min(0),
  content: z.string().min(1),
  special: z.boolean(),
  normalized: z.boolean().default(false),
  lstrip: z.boolean().default(false),
  rstrip: z.boolean().default(false),
  single_word: z.literal(false).default(false), // another cut than ours
});
const none = z.literal(["", 0]).nullish();
const schema = z.object({
  added_tokens: z.array(addedToken).default([]),
  normalizer: component.nullish(),
  pre_tokenizer: component.nullish(),
  decoder: component.nullish(),
  model: z.object({
    type: z.literal("BPE"),
    dropout: none,
    continuing_subword_prefix: none,
    end_of_word_suffix: none,
    unk_token: z.string().nullish(),
    byte_fallback: z.boolean().nullish(),
    ignore_merges: z.boolean().nullish(),
    vocab: z.custom<Record<string, number>>(
      (value) => typeof value === "object" && value !== null,
      "wanted token -> id",
    ),
    // Hundreds of thousands of them: the reader checks each, the schema would copy them.
    merges: z.custom<unknown[]>(Array.isArray, "wanted an array"),
  }),
});

type Parsed = z.infer<typeof schema>;
export type AddedToken = Parsed["added_tokens"][number];
/** A checked file: ids are 0..V-1, each once, some of them `[unusedN]`; merges are pairs that make tokens. */
export type TokenizerFile = Omit<Parsed, "model"> & {
  model: Omit<Parsed["model"], "vocab" | "merges"> & {
    /** Token -> id, without those that are added alone. */
    vocab: ReadonlyMap<string, number>;
    merges: [string, string][];
  };
  /** Token strings in the order of their ids. */
  tokens: string[];
  /** Ids below the last that stand for nothing: the model has rows for them, the file no tokens. */
  unused: ReadonlySet<number>;
};

/** What an id that stands for nothing is called. */
export const unusedToken = (id: number): string => `[unused${id}]`;

/**
 * @param json parsed content of a `tokenizer.json`
 * @param where its origin, for messages
 * @param vocabSize V of its model, if known: added tokens that the model has no embedding for are left out, as Gemma 3's for images in a model of texts, and ids
 *   that no token has stand for nothing
 * @throws {FileError} if it is no BPE tokenizer, or one whose ids or merges do not fit together
 */
export function readTokenizerFile(json: unknown, where: string, vocabSize?: number): TokenizerFile {
  return atOnce(readingTokenizerFile(json, where, vocabSize));
}

/** {@link readTokenizerFile} in steps. */
export function* readingTokenizerFile(
  json: unknown,
  where: string,
  vocabSize = Number.POSITIVE_INFINITY,
): Steps<TokenizerFile> {
  const parsed = schema.safeParse(json);
  if (!parsed.success) {
    const { path, message } = parsed.error.issues[0]!;
    throw new FileError(where, `wanted a BPE tokenizer.json, got a wrong "${path.join(".")}": ${message}.`);
  }
  const { model } = parsed.data;
  const added_tokens = parsed.data.added_tokens.filter(({ id }) => id < vocabSize);
  const vocab = new Map<string, number>();
  for (const token of Object.keys(model.vocab)) vocab.set(token, model.vocab[token]!); // twice as fast as by its entries
  yield;
  const ids = new Map(vocab);
  for (const { content, id } of added_tokens) {
    if ((ids.get(content) ?? id) !== id) throw new FileError(where, `wanted one id for token "${content}", got two.`);
    ids.set(content, id);
  }
  const end = Number.isFinite(vocabSize) ? Math.max(ids.size, Math.min(vocabSize, 2 * ids.size)) : ids.size;
  const tokens: string[] = [];
  const used = new Map<number, string>();
  for (const [token, id] of ids) {
    if (!Number.isInteger(id) || id < 0 || id >= end || used.has(id)) {
      throw new FileError(
        where,
        `wanted ids 0..${end - 1}, each once, got ${JSON.stringify(id)} for token "${token}".`,
      );
    }
    used.set(id, token);
  }
  const unused = new Set<number>();
  for (let id = 0; tokens.length - unused.size < used.size; id++) {
    if (!used.has(id)) unused.add(id);
    tokens.push(used.get(id) ?? unusedToken(id));
  }
  yield;
  const merges = model.merges.map((merge): [string, string] => {
    const pair = typeof merge === "string" ? merge.split(" ") : merge;
    if (!isPair(pair) || !ids.has(pair.join(""))) {
      throw new FileError(where, `wanted merges that make tokens of the vocabulary, got ${JSON.stringify(merge)}.`);
    }
    return pair;
  });
  return { ...parsed.data, added_tokens, model: { ...model, vocab, merges }, tokens, unused };
}

function isPair(value: unknown): value is [string, string] {
  return Array.isArray(value) && value.length === 2 && value.every((part) => typeof part === "string");
}

/** Tokens that some files do not mark as special, though nothing but a chat template may write them. DeepSeek's have bars of full width. */
const controlLook = /^<([|｜].*[|｜]|(start|end)_of_turn)>$/;

/** Whether a token is read from a chat template alone, never from a user's text, and is silent in an answer. */
export function isControl({ special, content }: Pick<AddedToken, "special" | "content">): boolean {
  return special || controlLook.test(content);
}

/** @throws {FileError} if one of `ids`, those that open and close a sequence, is no special token */
export function checkBoundary(
  { added_tokens }: TokenizerFile,
  ids: readonly (number | undefined)[],
  where: string,
): void {
  const special = new Set(added_tokens.filter(isControl).map(({ id }) => id));
  for (const id of ids) {
    if (id !== undefined && !special.has(id))
      throw new FileError(where, `wanted BOS and EOS to be special tokens, got id ${id}. Is it the model's own?`);
  }
}

/** How GPT-2 cuts text into words, which `ByteLevel` does where it is not told otherwise. */
const gpt2Words = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;

const llama3Words = String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;
const upper = String.raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`;
const lower = String.raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`;
const tekkenWords = String.raw`[^\r\n\p{L}\p{N}]?${upper}*${lower}+|[^\r\n\p{L}\p{N}]?${upper}+${lower}*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`;

/**
 * Byte-level kinds by llama.cpp's name: how text is cut into words, whether a word that is a token stays whole whatever the merges
 * say, and whether text is composed (NFC) before.
 */
export const byteLevelKinds = {
  smollm: { digits: true, words: gpt2Words, ignoreMerges: false, composes: false },
  "gpt-2": { digits: false, words: gpt2Words, ignoreMerges: false, composes: false },
  "llama-bpe": { digits: false, words: llama3Words, ignoreMerges: true, composes: false },
  "smaug-bpe": { digits: false, words: llama3Words, ignoreMerges: false, composes: false },
  qwen2: { digits: false, words: llama3Words.replace("{1,3}", ""), ignoreMerges: false, composes: true },
  tekken: { digits: false, words: tekkenWords, ignoreMerges: true, composes: false },
} as const;
export type ByteLevelName = keyof typeof byteLevelKinds;

/** When a space is put before the text: always, unless it has one already (at its beginning only, or after special tokens too), or never. */
export type SpacePrefix = "always" | "first-if-missing" | "if-missing" | "never";

export type TokenizerKind =
  | { type: "byte-level"; name: ByteLevelName | undefined }
  | { type: "sentencepiece"; spacePrefix: SpacePrefix };

const byteLevel = z.object({
  type: z.literal("ByteLevel"),
  add_prefix_space: z.literal(false),
  use_regex: z.boolean().default(true),
});
const digits = z.object({ type: z.literal("Digits"), individual_digits: z.literal(true) });
const split = z.object({
  type: z.literal("Split"),
  pattern: z.object({ Regex: z.string() }),
  behavior: z.enum(["Isolated", "Removed"]),
  invert: z.boolean().default(false),
});
const replacesSpaces = z.object({
  type: z.literal("Replace"),
  pattern: z.object({ String: z.literal(" ") }),
  content: z.literal(visibleSpace),
});
const prependsSpace = z.object({ type: z.literal("Prepend"), prepend: z.literal(visibleSpace) });
const metaspace = z.object({
  type: z.literal("Metaspace"),
  replacement: z.literal(visibleSpace),
  prepend_scheme: z.enum(["always", "first", "never"]),
  split: z.literal(false),
});
/** Gemma's, which comes after the spaces have become visible ones. */
const splitsNothing = z.object({ type: z.literal("Split"), pattern: z.object({ String: z.literal(" ") }) });

/** @returns undefined for a combination of normalizer and pre-tokenizer that is none of ours */
export function tokenizerKind(file: TokenizerFile): TokenizerKind | undefined {
  const { normalizer, pre_tokenizer: preTokenizer, model } = file;
  if (model.byte_fallback) {
    const spacePrefix = spacePrefixOf(normalizer ?? undefined, preTokenizer ?? undefined);
    return spacePrefix && { type: "sentencepiece", spacePrefix };
  }
  const composes = normalizer?.type === "NFC";
  const parts = componentsOf(preTokenizer, "pretokenizers");
  if ((normalizer && !composes) || !byteLevel.safeParse(parts.at(-1)).success) return undefined;
  const name = (Object.keys(byteLevelKinds) as ByteLevelName[]).find((key) => {
    const kind = byteLevelKinds[key];
    const isKind =
      kind.ignoreMerges === (model.ignore_merges ?? false) && (kind.composes === composes || key === "qwen2");
    return isKind && JSON.stringify(exactParts(parts)) === JSON.stringify(exactParts(byteLevelParts(key)));
  });
  return { type: "byte-level", name };
}

function spacePrefixOf(normalizer: unknown, preTokenizer: unknown): SpacePrefix | undefined {
  const metaspaced = metaspace.safeParse(preTokenizer);
  if (metaspaced.success) {
    if (normalizer) return undefined;
    return ({ always: "if-missing", first: "first-if-missing", never: "never" } as const)[
      metaspaced.data.prepend_scheme
    ];
  }
  if (preTokenizer && !splitsNothing.safeParse(preTokenizer).success) return undefined;
  if (replacesSpaces.safeParse(normalizer).success) return "never";
  const sequence = z.object({ type: z.literal("Sequence"), normalizers: z.tuple([prependsSpace, replacesSpaces]) });
  return sequence.safeParse(normalizer).success ? "always" : undefined;
}

/** The parts of a sequence; of anything else, itself. */
export function componentsOf(part: Component | null | undefined, key: "pretokenizers" | "decoders"): Component[] {
  if (!part) return [];
  return z.array(component).safeParse(part[key]).data ?? [part];
}

/** The pre-tokenizer of a byte-level kind, as a `tokenizer.json` has it. */
export function byteLevelParts(name: ByteLevelName): Component[] {
  const kind = byteLevelKinds[name];
  const bytes = (useRegex: boolean) => ({
    type: "ByteLevel",
    add_prefix_space: false,
    trim_offsets: true,
    use_regex: useRegex,
  });
  if (kind.words === gpt2Words) {
    return [...(kind.digits ? [{ type: "Digits", individual_digits: true }] : []), bytes(true)];
  }
  return [isolate(kind.words), bytes(false)];
}

const isolate = (regex: string) => ({
  type: "Split",
  pattern: { Regex: regex },
  behavior: "Isolated",
  invert: false,
});

/**
 * Byte-level pre-tokenizers in the parts that the encoder cuts exactly as the reference does: its own classes for digits and white space are
 * JavaScript's, which differ. @returns undefined where there is one that is not known
 */
function exactParts(parts: readonly unknown[]): object[] | undefined {
  const exact = parts.flatMap((part, i): (object | undefined)[] => {
    if (digits.safeParse(part).success) return [isolate(String.raw`\p{N}`)];
    const bytes = byteLevel.safeParse(part);
    if (bytes.success) {
      if (i < parts.length - 1) return [undefined]; // each more would make bytes of bytes: twice as many
      const plain = { type: "ByteLevel", add_prefix_space: false, use_regex: false };
      return bytes.data.use_regex ? [isolate(gpt2Words), plain] : [plain];
    }
    const cut = split.safeParse(part);
    return [cut.success && isKnownSplit(cut.data.pattern.Regex) ? { ...cut.data } : undefined];
  });
  return exact.includes(undefined) ? undefined : (exact as object[]);
}
/** Others could take for ever on some text, or be no regular expression at all. */
function isKnownSplit(regex: string): boolean {
  return Object.values(byteLevelKinds).some(({ words }) => words === regex);
}

/** As `exactParts`, of a whole file. */
export function exactPreTokenizer(file: TokenizerFile): object[] | undefined {
  return exactParts(componentsOf(file.pre_tokenizer, "pretokenizers"));
}
