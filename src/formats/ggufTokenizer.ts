/**
 * A `tokenizer.json` in llama.cpp's terms.
 */
import { z } from "zod";
import { FileError } from "../errors.ts";
import type { ModelConfig } from "../model/config.ts";
import { readJson } from "./files.ts";
import type { GgufMetadata } from "./gguf.ts";
import { array, bool, string, uint32 } from "./ggufValues.ts";
import { space } from "./llama2c.ts";

/** llama.cpp's kinds of tokens. */
const tokenType = { normal: 1, unknown: 2, control: 3, unused: 5, byte: 6 } as const;

const tokenizerSchema = z.object({
  added_tokens: z
    .array(z.object({ id: z.number().int().nonnegative(), content: z.string(), special: z.boolean() }))
    .default([]),
  normalizer: z.unknown(),
  pre_tokenizer: z.unknown(),
  model: z.object({
    type: z.literal("BPE"),
    unk_token: z.string().nullish(),
    vocab: z.custom<Record<string, number>>(
      (value) => typeof value === "object" && value !== null,
      "wanted token -> id",
    ),
    merges: z.array(z.union([z.tuple([z.string(), z.string()]), z.string()])),
  }),
});

/** Byte-level BPE in which every digit is a token of its own: llama.cpp's "smollm" pre-tokenizer cuts alike. */
const byteLevelSchema = z.object({
  normalizer: z.null().optional(),
  pre_tokenizer: z.object({
    type: z.literal("Sequence"),
    pretokenizers: z.tuple([
      z.object({ type: z.literal("Digits"), individual_digits: z.literal(true) }),
      z.object({ type: z.literal("ByteLevel"), add_prefix_space: z.literal(false), use_regex: z.literal(true) }),
    ]),
  }),
});

/** SentencePiece-like BPE with a leading space and bytes for unknown characters, as the llama2.c importer makes it. */
const sentencePieceSchema = z.object({
  normalizer: z.object({
    type: z.literal("Sequence"),
    normalizers: z.tuple([
      z.object({ type: z.literal("Prepend"), prepend: z.literal(space) }),
      z.object({
        type: z.literal("Replace"),
        pattern: z.object({ String: z.literal(" ") }),
        content: z.literal(space),
      }),
    ]),
  }),
  pre_tokenizer: z.null().optional(),
  model: z.object({ byte_fallback: z.literal(true) }),
});

/**
 * The tokenizer of a `tokenizer.json` as GGUF metadata. Only kinds that llama.cpp cuts exactly alike are taken.
 *
 * @param options.addBos whether llama.cpp puts BOS before what it reads; without, it takes token ids as they are
 * @throws {FileError} if it is of another kind, or larger than the model's vocabulary
 */
export function tokenizerMetadata(
  path: string,
  config: ModelConfig,
  { bosId, eosId, addBos }: { bosId: number; eosId: number; addBos: boolean },
): GgufMetadata {
  const file = readJson(path);
  const parsed = tokenizerSchema.safeParse(file);
  if (!parsed.success) throw new FileError(path, `wanted a BPE tokenizer, got: ${z.prettifyError(parsed.error)}.`);
  const { model, added_tokens: added } = parsed.data;

  const tokens: string[] = Array.from({ length: config.vocabSize }, (_, id) => `[unused${id}]`);
  const types: number[] = tokens.map(() => tokenType.unused);
  const place = (text: string, id: number, type: number) => {
    if (!(Number.isInteger(id) && id >= 0 && id < config.vocabSize)) {
      throw new FileError(
        path,
        `wanted ids below the model's ${config.vocabSize}, got "${text}" = ${id}. Is it another model's?`,
      );
    }
    tokens[id] = text;
    types[id] = type;
  };
  for (const [text, id] of Object.entries(model.vocab)) place(text, id, tokenType.normal);
  for (const { id, content, special } of added) if (special) place(content, id, tokenType.control);
  for (const id of [bosId, eosId]) {
    if (types[id] !== tokenType.control)
      throw new FileError(path, `wanted BOS and EOS to be special tokens, got id ${id}.`);
  }

  const metadata: GgufMetadata = new Map([
    ["tokenizer.ggml.bos_token_id", uint32(bosId)],
    ["tokenizer.ggml.eos_token_id", uint32(eosId)],
    ["tokenizer.ggml.add_bos_token", bool(addBos)],
    ["tokenizer.ggml.add_eos_token", bool(false)],
  ]);
  const merges = model.merges.map((merge) => (typeof merge === "string" ? merge : merge.join(" ")));
  if (byteLevelSchema.safeParse(file).success) {
    metadata.set("tokenizer.ggml.model", string("gpt2"));
    metadata.set("tokenizer.ggml.pre", string("smollm"));
    metadata.set("tokenizer.ggml.merges", array("string", merges));
  } else if (sentencePieceSchema.safeParse(file).success) {
    const ranks = new Map<string, number>();
    for (const merge of merges) {
      const token = merge.replace(" ", "");
      if (!ranks.has(token)) ranks.set(token, ranks.size);
    }
    for (const [id, token] of tokens.entries()) if (/^<0x[0-9A-F]{2}>$/.test(token)) types[id] = tokenType.byte;
    if (model.unk_token) types[model.vocab[model.unk_token] ?? -1] = tokenType.unknown;
    metadata.set("tokenizer.ggml.model", string("llama"));
    metadata.set(
      "tokenizer.ggml.scores",
      array(
        "float32",
        tokens.map((token) => -(ranks.get(token) ?? 0)),
      ),
    );
    metadata.set("tokenizer.ggml.unknown_token_id", uint32(model.vocab[model.unk_token ?? ""] ?? 0));
    metadata.set("tokenizer.ggml.add_space_prefix", bool(true));
  } else {
    throw new FileError(
      path,
      "wanted byte-level BPE with single digits, or a llama2.c import, got another pre-tokenizer.",
    );
  }
  metadata.set("tokenizer.ggml.tokens", array("string", tokens));
  metadata.set("tokenizer.ggml.token_type", array("int32", types));
  return metadata;
}
