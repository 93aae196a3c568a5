import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { Tokenizer as NativeTokenizer } from "tokenizers";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FileError, InputError, OptionError } from "../errors.ts";
import { readLlama2cTokenizer } from "../formats/llama2c.ts";
import { byteTokens, createTokenizer, loadTokenizer, type Tokenizer } from "./tokenizer.ts";
import { trainTokenizer } from "./trainTokenizer.ts";

/** A corpus with the traps: digits beside words and spaces, indentation, umlauts, repeated words. */
const CORPUS = [
  "the wolf and the wolves, the mouse and the mice: 12 of them in 1842, 7 more in 1843\n".repeat(20),
  "def f(x):\n    if x > 10:\n        return x  # 2 spaces\n\treturn 0\n\n\n".repeat(20),
  "Übergröße, naïve café, straße; Zürich liegt schön. 北京 東京 £5 « quoted »\n".repeat(20),
];
const VOCAB = 400;

const folder = mkdtempSync(join(tmpdir(), "ifprune-test-"));
const path = join(folder, "tokenizer.json");
let tokenizer: Tokenizer;
beforeAll(async () => {
  await trainTokenizer({ texts: CORPUS, vocabSize: VOCAB, out: path });
  tokenizer = loadTokenizer(path);
});
afterAll(() => rmSync(folder, { recursive: true }));

/** As UTF-8 can carry it: lone surrogates become U+FFFD. */
const wellFormed = (text: string): string => Buffer.from(text).toString();

/** Any Unicode text, rich in what splits words: digits of many scripts, white space of all kinds, letters of the corpus. */
const anyText = fc
  .array(
    fc.oneof(
      fc.string({ unit: "binary" }),
      fc.constantFrom(" ", "  ", "\n", "\t", "\u00a0", "\u0085", "\ufeff", "\u2003", "1", "42", "²", "½", "٣", "Ⅷ"),
      fc.constantFrom("the", " wolf", "'s", "'re", "ü", "é", "🙂", "👩‍👩‍👧", "北京", " £", "«", "__proto__", "<|bos|>"),
    ),
  )
  .map((parts) => parts.join(""));

describe("training", () => {
  test("gives exactly V dense ids: special tokens first, then every byte", () => {
    const { added_tokens, model } = JSON.parse(readFileSync(path, "utf8"));
    const byId = Object.entries(model.vocab as Record<string, number>).sort((a, b) => a[1] - b[1]);
    expect(byId.map(([, id]) => id)).toEqual([...Array(VOCAB).keys()]);
    expect(byId.slice(0, 3).map(([token]) => token)).toEqual(["<|bos|>", "<|eos|>", "<|pad|>"]);
    expect(byId.slice(3, 259).map(([token]) => token)).toEqual(byteTokens(true));
    expect(added_tokens.slice(0, 3).map((token: { id: number }) => token.id)).toEqual([0, 1, 2]);
    expect([tokenizer.vocabSize, tokenizer.bosId, tokenizer.eosId]).toEqual([VOCAB, 0, 1]);
  });

  test("the same texts give the same file", async () => {
    const again = join(folder, "again.json");
    await trainTokenizer({ texts: CORPUS, vocabSize: VOCAB, out: again });
    expect(readFileSync(again, "utf8")).toBe(readFileSync(path, "utf8"));
  });

  test("too little text for V is filled with unused tokens", async () => {
    const out = join(folder, "tiny.json");
    await trainTokenizer({ texts: ["abab"], vocabSize: 300, out });
    const tiny = loadTokenizer(out);
    expect(tiny.vocabSize).toBe(300);
    expect(tiny.decode([...tiny.encode("any text 1"), 299])).toBe("any text 1");
  });

  test("digits never merge, learned words do", () => {
    expect(tokenizer.encode("1842")).toHaveLength(4);
    expect(tokenizer.encode(" wolf")).toHaveLength(1);
  });

  test.each([258, 30_001, 1.5, Number.NaN])("refuses a vocabulary of %d", async (vocabSize) => {
    await expect(trainTokenizer({ texts: CORPUS, vocabSize, out: path })).rejects.toThrow(OptionError);
  });

  test("refuses an empty corpus", async () => {
    await expect(trainTokenizer({ texts: ["", ""], vocabSize: 300, out: path })).rejects.toThrow(/some text/);
  });
});

describe("encoding", () => {
  test("decode undoes encode on any text (seed 1)", () => {
    fc.assert(
      fc.property(anyText, (text) => {
        expect(tokenizer.decode(tokenizer.encode(text))).toBe(wellFormed(text));
      }),
      { seed: 1, numRuns: 500 },
    );
  });

  test("ids equal those of the native tokenizer on any text without special tokens (seed 2)", async () => {
    const texts = fc.sample(
      anyText.map((text) => wellFormed(text).replaceAll("<|", "|")),
      { seed: 2, numRuns: 2000 },
    );
    const encodings = await NativeTokenizer.fromFile(path).encodeBatch(texts, { addSpecialTokens: false });
    for (const [i, text] of texts.entries()) {
      expect([...tokenizer.encode(text)], JSON.stringify(text)).toEqual(encodings[i]!.getIds());
    }
  });

  test("user text is never read as a special token", () => {
    const ids = tokenizer.encode("<|bos|> <|eos|>");
    expect([...ids].every((id) => id >= 3)).toBe(true);
    expect(tokenizer.decode(ids)).toBe("<|bos|> <|eos|>");
  });

  test("special tokens are silent when decoded; ids outside the vocabulary are refused", () => {
    expect(tokenizer.decode([0, ...tokenizer.encode("wolf"), 1])).toBe("wolf");
    for (const id of [-1, VOCAB, 1.5]) expect(() => tokenizer.decode([id])).toThrow(InputError);
  });

  test("a stream shows a character once its last byte is there", () => {
    const stream = tokenizer.stream();
    const bytes = [...new TextEncoder().encode("🙂")].map((byte) => byte + 3); // id of a byte: 3 + byte
    expect(bytes.map((id) => stream.push(id))).toEqual(["", "", "", "🙂"]);
    expect(stream.push(3 + 0xf0) + stream.end()).toBe("\ufffd");
  });

  test("a long word without spaces does not take quadratic time", () => {
    expect(tokenizer.decode(tokenizer.encode("ab".repeat(100_000)))).toHaveLength(200_000); // n² would take long beyond any limit
  });
});

/** The shape of llama2.c's tokenizer: no words, "▁" for spaces and before the text, bytes as `<0x..>`. */
const sentencePiece = () => {
  const tokens = ["<unk>", "<s>", "</s>", ...byteTokens(false), "▁", "a", "b", "▁a", "▁ab"];
  return {
    added_tokens: [0, 1, 2].map((id) => ({ id, content: tokens[id], special: true })),
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "Prepend", prepend: "▁" },
        { type: "Replace", pattern: { String: " " }, content: "▁" },
      ],
    },
    pre_tokenizer: null,
    post_processor: null,
    decoder: {
      type: "Sequence",
      decoders: [{ type: "ByteFallback" }, { type: "Fuse" }, { type: "Strip", content: " ", start: 1, stop: 0 }],
    },
    model: {
      type: "BPE",
      unk_token: "<unk>",
      byte_fallback: true,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])) as Record<string, number>,
      merges: [
        ["▁", "a"],
        ["▁a", "b"],
      ] as [string, string][],
    },
  };
};

describe("byte fallback", () => {
  test("stories260K's tokenizer gives the ids and the text of its reference", () => {
    const fixtures = join(import.meta.dirname, "../../test/fixtures/stories260K");
    const reference = JSON.parse(readFileSync(join(fixtures, "reference.json"), "utf8"));
    const stories = createTokenizer(readLlama2cTokenizer(join(fixtures, "tok512.bin"), 512), "tok512.bin");
    expect(stories.decode(reference.greedy_ids)).toBe(reference.greedy_text);
    for (const { text, ids_with_bos } of reference.encode)
      expect([stories.bosId, ...stories.encode(text)]).toEqual(ids_with_bos);
  });

  test("encodes the leading space, falls back to bytes and drops the leading space again", () => {
    const llama = createTokenizer(sentencePiece(), "test");
    expect([llama.bosId, llama.eosId]).toEqual([1, 2]);
    expect([...llama.encode("ab é")]).toEqual([263, 259, 3 + 0xc3, 3 + 0xa9]);
    for (const text of ["ab é", " ab", "a  b\n🙂", "<s>"]) expect(llama.decode(llama.encode(text))).toBe(text);
  });
});

/** The same tokenizer with its spaces put in place by a pre-tokenizer, as newer files do it. */
const metaspaced = (prepend_scheme: string) => ({
  ...sentencePiece(),
  normalizer: null,
  pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme, split: false },
});

describe("imported files", () => {
  test.each(["always", "first", "never"])(
    "Metaspace, %s: ids equal those of the native tokenizer (seed 3)",
    (scheme) => {
      const json = metaspaced(scheme);
      const native = NativeTokenizer.fromString(JSON.stringify({ version: "1.0", ...json, added_tokens: [] }));
      const llama = createTokenizer(json, "test");
      const texts = fc.sample(fc.string({ unit: fc.constantFrom("a", "b", " ", "▁", "é", "\n") }), {
        seed: 3,
        numRuns: 300,
      });
      return native.encodeBatch(texts, { addSpecialTokens: false }).then((encodings) => {
        for (const [i, text] of texts.entries())
          expect([...llama.encode(text)], JSON.stringify(text)).toEqual(encodings[i]!.getIds());
      });
    },
  );

  test.each([
    ["Prepend", sentencePiece()],
    ["Metaspace, always", metaspaced("always")],
    ["Metaspace, first", metaspaced("first")],
    ["Metaspace, never", metaspaced("never")],
  ])(
    "%s: special tokens in trusted text have the effect that they have in the native tokenizer (seed 4)",
    (_, json) => {
      const native = NativeTokenizer.fromString(
        JSON.stringify({
          version: "1.0",
          ...json,
          added_tokens: json.added_tokens.map((token) => {
            return { single_word: false, lstrip: false, rstrip: false, normalized: false, ...token };
          }),
        }),
      );
      const llama = createTokenizer(json, "test");
      const unit = fc.constantFrom("a", "b", " ", "<s>", "</s>", "é");
      const texts = fc.sample(fc.array(unit), { seed: 4, numRuns: 300 }).map((parts) => parts.join(""));
      return native.encodeBatch(texts, { addSpecialTokens: false }).then((encodings) => {
        for (const [i, text] of texts.entries()) {
          const half = text.length >> 1; // where a text is cut into parts does not matter, unless within a special token
          const cuts = /<\/?s?$/.test(text.slice(0, half)) ? [text] : [text.slice(0, half), text.slice(half)];
          const ids = llama.encodeParts(cuts.map((part) => ({ text: part, isTrusted: true })));
          expect([...ids], JSON.stringify(text)).toEqual(encodings[i]!.getIds());
        }
      });
    },
  );

  test("special tokens are read from trusted parts alone, and none from two parts", () => {
    const parts = (...texts: [string, boolean][]) =>
      tokenizer.encodeParts(texts.map(([text, isTrusted]) => ({ text, isTrusted })));
    const specials = (ids: Int32Array) => [...ids].filter((id) => id < 3);
    expect(specials(parts(["<|bos|>", true], ["<|eos|>", false], ["<|pad|>", true]))).toEqual([0, 2]);
    expect(specials(parts(["<|b", true], ["os|>", true], ["<|eo", true], ["s|>", false]))).toEqual([]);
    expect(parts(["wo", true], ["lf", false])).toEqual(tokenizer.encode("wolf"));
  });

  test("BOS and EOS are those of the model where it names them; BOS may be absent", () => {
    const json = JSON.parse(readFileSync(path, "utf8"));
    const named = createTokenizer(json, "test", { bosId: 2, eosIds: [1, 0] });
    expect([named.bosId, named.eosId, named.bosToken, named.eosToken]).toEqual([2, 1, "<|pad|>", "<|eos|>"]);
    const without = createTokenizer(json, "test", { eosIds: [1] });
    expect([without.bosId, without.bosToken]).toEqual([undefined, undefined]);
    for (const eosIds of [[], [VOCAB], [-1], [200]])
      expect(() => createTokenizer(json, "test", { eosIds })).toThrow(FileError);
  });

  test.each(["<start_of_turn>", "<|im_end|>", "<｜Assistant｜>"])(
    "%s looks like a template's: it is not read from user text though the file does not call it special, and silent in an answer",
    (content) => {
      const json = sentencePiece();
      const id = Object.keys(json.model.vocab).length;
      const added_tokens = [...json.added_tokens, { id, content, special: false }];
      const gemma = createTokenizer({ ...json, added_tokens }, "test");
      expect(gemma.encode(content)).not.toContain(id);
      expect(gemma.encodeParts([{ text: content, isTrusted: true }])).toEqual(Int32Array.of(id));
      expect(gemma.decode([id])).toBe("");
    },
  );

  test("tokens that are to be cut out of text as single words alone are refused", () => {
    const json = sentencePiece();
    const added = { id: Object.keys(json.model.vocab).length, content: "[M]", special: false };
    const withWord = (single_word: boolean) => ({
      ...json,
      added_tokens: [...json.added_tokens, { ...added, single_word }],
    });
    expect(() => createTokenizer(withWord(false), "test")).not.toThrow();
    expect(() => createTokenizer(withWord(true), "test")).toThrow(FileError);
  });

  test("tokens that are added but not special are read from any text and shown as they are", () => {
    const json = JSON.parse(readFileSync(path, "utf8"));
    json.added_tokens.push({ id: VOCAB, content: "<think é>", special: false });
    const thinking = createTokenizer(json, "test");
    expect([...thinking.encode("<think é>")]).toEqual([VOCAB]);
    expect(thinking.decode([VOCAB])).toBe("<think é>");
  });

  test("a byte that a byte-level file lacks is refused where a text has it", () => {
    const json = JSON.parse(readFileSync(path, "utf8"));
    const control = byteTokens(true)[7]!;
    json.model.vocab["x unused"] = json.model.vocab[control];
    delete json.model.vocab[control];
    const lacking = createTokenizer(json, "test");
    expect(lacking.decode(lacking.encode("wolf"))).toBe("wolf");
    expect(() => lacking.encode("a\u0007b")).toThrow(InputError);
  });
});

describe("bad files", () => {
  test("words cut by a regular expression that backtracks for ever", () => {
    const json = JSON.parse(readFileSync(path, "utf8"));
    const cut = (Regex: string) => ({ type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false });
    for (const regex of ["(a+)+$", "x".repeat(70_000)]) {
      json.pre_tokenizer = { type: "Sequence", pretokenizers: [cut(regex), json.pre_tokenizer.pretokenizers.at(-1)] };
      expect(() => createTokenizer(json, "test")).toThrow(FileError);
    }
  });

  test("bytes of bytes, which double with each step", () => {
    const json = JSON.parse(readFileSync(path, "utf8"));
    const bytes = { type: "ByteLevel", add_prefix_space: false, use_regex: false };
    json.pre_tokenizer = { type: "Sequence", pretokenizers: Array.from({ length: 45 }, () => bytes) };
    expect(() => createTokenizer(json, "test")).toThrow(FileError);
  });

  const broken: [string, (json: ReturnType<typeof sentencePiece>) => unknown][] = [
    ["not an object", () => 7],
    ["another model", (json) => ({ ...json, model: { ...json.model, type: "Unigram" } })],
    ["no vocabulary", (json) => ({ ...json, model: { ...json.model, vocab: null } })],
    ["an id twice", (json) => ({ ...json, model: { ...json.model, vocab: { ...json.model.vocab, a: 1 } } })],
    ["a huge id", (json) => ({ ...json, model: { ...json.model, vocab: { ...json.model.vocab, a: 2 ** 31 } } })],
    [
      "an id that is no number",
      (json) => ({ ...json, model: { ...json.model, vocab: { ...json.model.vocab, a: "1" } } }),
    ],
    ["a merge to nowhere", (json) => ({ ...json, model: { ...json.model, merges: [["b", "b"]] } })],
    ["a merge that is no text", (json) => ({ ...json, model: { ...json.model, merges: [[{ toString: 1 }, "a"]] } })],
    ["a merge of three", (json) => ({ ...json, model: { ...json.model, merges: [["▁", "a", "b"]] } })],
    ["a suffix of words", (json) => ({ ...json, model: { ...json.model, end_of_word_suffix: "</w>" } })],
    ["words cut at spaces", () => ({ ...metaspaced("first"), pre_tokenizer: { type: "Metaspace", replacement: "▁" } })],
    [
      "parts that are no objects",
      (json) => ({ ...json, decoder: { type: "Sequence", decoders: [null] }, normalizer: 3 }),
    ],
    ["an unknown normalizer", (json) => ({ ...json, normalizer: { type: "Magic" } })],
    [
      "a regular expression that is none",
      (json) => ({ ...json, pre_tokenizer: { type: "Split", pattern: { Regex: "(" } } }),
    ],
    ["no BOS and EOS", (json) => ({ ...json, added_tokens: [] })],
    ["neither bytes nor byte fallback", (json) => ({ ...json, model: { ...json.model, byte_fallback: false } })],
    [
      "a byte missing",
      (json) => {
        const { "<0x41>": id, ...vocab } = json.model.vocab;
        return { ...json, model: { ...json.model, vocab: { ...vocab, A: id } } };
      },
    ],
  ];
  test.each(broken)("%s is a FileError", (_, breakIt) => {
    expect(() => createTokenizer(breakIt(sentencePiece()), "x/tokenizer.json")).toThrow(FileError);
  });

  test("missing and malformed files are FileErrors that name the path", () => {
    const bad = join(folder, "bad.json");
    writeFileSync(bad, '{"model":');
    for (const file of [bad, join(folder, "none.json")]) expect(() => loadTokenizer(file)).toThrow(FileError);
    expect(() => loadTokenizer(bad)).toThrow(bad);
  });
});
