/** Training a byte-level BPE tokenizer with Hugging Face's native `tokenizers` package. Node only. */
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { OptionError } from "../errors.ts";
import { makeFile, writeFully, writing } from "../files.ts";
import { loadPeer } from "../package.ts";
import { byteTokens } from "./tokenizer.ts";

/** Special tokens; the index is the id. */
const SPECIAL_TOKENS = ["<|bos|>", "<|eos|>", "<|pad|>"];

/** Tokens that the native trainer makes at most; it takes no options. */
const MAX_TRAINED = 30_000;

/**
 * Train byte-level BPE on `texts` and write a `tokenizer.json` of exactly `vocabSize` dense ids: special tokens, the 256
 * bytes, merged tokens in the order they were learned, and unused tokens where the texts were too few for more merges.
 * The same texts give the same file.
 *
 * @param options.vocabSize V, from 259 (special tokens and bytes) to 30,000
 * @param options.out path of the file, written whole or not at all
 * @throws {OptionError} when `vocabSize` is out of range or `texts` is empty
 */
export async function trainTokenizer(options: {
  texts: Iterable<string> | AsyncIterable<string>;
  vocabSize: number;
  out: string;
}): Promise<void> {
  const { texts, vocabSize, out } = options;
  const alphabet = byteTokens(true);
  const smallest = SPECIAL_TOKENS.length + alphabet.length;
  if (!Number.isInteger(vocabSize) || vocabSize < smallest || vocabSize > MAX_TRAINED) {
    throw new OptionError(
      `trainTokenizer: "vocabSize" must be an integer in ${smallest}..${MAX_TRAINED}, got ${vocabSize}.`,
    );
  }
  const tokens = [...SPECIAL_TOKENS, ...alphabet];
  const known = new Set(tokens);
  const merges: [string, string][] = [];
  for (const [left, right] of await learnMerges(texts)) {
    const token = left + right; // two merges may make the same token
    if (!known.has(token)) {
      if (tokens.length === vocabSize) break;
      known.add(token);
      tokens.push(token);
    }
    merges.push([left, right]);
  }
  const unused = Array.from({ length: vocabSize - tokens.length }, (_, i) => `<|unused${i}|>`);
  const specialIds = [...SPECIAL_TOKENS.keys(), ...unused.map((_, i) => tokens.length + i)];
  tokens.push(...unused);

  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  const json = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: specialIds.map((id) => ({
      id,
      content: tokens[id],
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: { type: "Sequence", pretokenizers: [{ type: "Digits", individual_digits: true }, byteLevel] },
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges,
    },
  };
  makeFile(out, (partial) => writeFileSync(partial, `${JSON.stringify(json)}\n`));
}

/** Merges in the order they were learned. The native trainer reads and writes files only, and prints three empty lines. */
async function learnMerges(texts: Iterable<string> | AsyncIterable<string>): Promise<[string, string][]> {
  const { BPE, byteLevelPreTokenizer, digitsPreTokenizer, sequencePreTokenizer, Tokenizer } = await loadPeer(
    "tokenizers",
    "trainTokenizer",
    () => import("tokenizers"),
  );
  const folder = writing(tmpdir(), () => mkdtempSync(join(tmpdir(), "ifprune-tokenizer-")));
  try {
    const [corpus, trained] = [join(folder, "corpus.txt"), join(folder, "trained.json")];
    const file = openSync(corpus, "w");
    let isEmpty = true;
    try {
      for await (const text of texts) {
        if (text === "") continue;
        isEmpty = false;
        writing(corpus, () => writeFully(file, Buffer.from(`${text}\n`)));
      }
    } finally {
      closeSync(file);
    }
    if (isEmpty) throw new OptionError("trainTokenizer: wanted some text to learn from, got none.");
    const tokenizer = new Tokenizer(BPE.empty());
    tokenizer.setPreTokenizer(sequencePreTokenizer([digitsPreTokenizer(true), byteLevelPreTokenizer(false, true)]));
    tokenizer.train([corpus]);
    tokenizer.save(trained);
    return JSON.parse(readFileSync(trained, "utf8")).model.merges;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
