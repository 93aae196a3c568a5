import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { getLlama, LlamaLogLevel } from "node-llama-cpp";
import { Tokenizer as NativeTokenizer } from "tokenizers";
import { afterAll, describe, expect, test } from "vitest";
import { FileError } from "../errors.ts";
import { byteTokens, createTokenizer, type Tokenizer } from "../text/tokenizer.ts";
import { type ByteLevelName, byteLevelKinds, byteLevelParts, visibleSpace } from "../text/tokenizerFile.ts";
import { type GgufMetadata, writeGguf } from "./gguf.ts";
import { sentencePieceJson, tokenizerFromGguf, tokenizerMetadata, tokenType } from "./ggufTokenizer.ts";
import { array, float32, string, uint32 } from "./ggufValues.ts";

const folder = mkdtempSync(join(tmpdir(), "ifprune-test-"));
afterAll(() => rmSync(folder, { recursive: true }));
let files = 0;
/** A new path. */
const pathOf = (name: string) => join(folder, `${files++}-${name}`);

/** Text to learn merges from, with what the kinds cut differently. */
const corpus = [
  "The wolf and the wolves don't know what they've seen; we'll see. IT'S 12 of 1842, 7 more in 2025!\n",
  "def f(x):\n    if x >= 10:\n\t\treturn x / 3.14159  # comment\n\n\nprint(f(12345678))\r\n",
  "Übergröße, naïve café, straße; Zürich liegt schön. 北京 東京 日本語 £5 « quoted » привет мир\n",
  "camelCase HTTPServer XMLHttpRequest snake_case kebab-case 🙂 👩‍👩‍👧 e\u0301 é\n",
].map((line) => line.repeat(20));

/** Pairs that BPE learns from the corpus cut by `parts`. */
function learnMerges(parts: object[]): [string, string][] {
  const empty = { type: "BPE", unk_token: null, vocab: {}, merges: [] };
  const json = { version: "1.0", added_tokens: [], normalizer: null, model: empty };
  const rest = { pre_tokenizer: { type: "Sequence", pretokenizers: parts }, post_processor: null, decoder: null };
  const native = NativeTokenizer.fromString(JSON.stringify({ ...json, ...rest }));
  const file = pathOf("corpus.txt");
  writeFileSync(file, corpus.join(""));
  native.train([file]);
  const trained = pathOf("trained.json");
  native.save(trained);
  return JSON.parse(readFileSync(trained, "utf8")).model.merges.slice(0, 500);
}

const special = (content: string, id: number, isSpecial = true) => {
  return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: isSpecial };
};

/** A small tokenizer of a byte-level kind: BOS 0, EOS 1, end of turn 2, a user-defined token last. */
function byteLevelTokenizer(name: ByteLevelName) {
  const kind = byteLevelKinds[name];
  const specials = ["<|begin|>", "<|endoftext|>", "<|im_end|>"];
  const merges = learnMerges(byteLevelParts(name));
  const tokens = [...new Set([...specials, ...byteTokens(true), ...merges.map((pair) => pair.join(""))])];
  return {
    version: "1.0",
    added_tokens: [...specials.map((content, id) => special(content, id)), special("<think>", tokens.length, false)],
    normalizer: kind.composes ? { type: "NFC" } : null,
    pre_tokenizer: { type: "Sequence", pretokenizers: byteLevelParts(name) },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: kind.ignoreMerges,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges,
    },
  };
}

/** A small tokenizer of SentencePiece's kind, Llama 2's (with a space before the text) or Gemma's: unknown 0, BOS 1, EOS 2. */
function sentencePieceTokenizer(hasSpacePrefix: boolean) {
  const learnt = learnMerges([{ type: "Metaspace", replacement: visibleSpace, prepend_scheme: "always", split: true }]);
  const words = learnt.map((pair) => pair.join(""));
  const spaces = [2, 3, 4, 8].map((n) => visibleSpace.repeat(n));
  const characters = new Set(corpus.join("").replaceAll(" ", visibleSpace));
  const pieces = [...new Set([...spaces, "\n\n", ...words.filter((word) => !/[\n\r]/.test(word)), ...characters])];
  const token = (type: keyof typeof tokenType) => (text: string) => ({ text, score: 0, type: tokenType[type] });
  const tokens = [
    ...["<unk>"].map(token("unknown")),
    ...["<s>", "</s>", "<end_of_turn>"].map(token("control")),
    ...byteTokens(false).map(token("byte")),
    ...pieces.map((text, i) => ({ text, score: -i, type: tokenType.normal })),
    ...["<mask>"].map(token("userDefined")),
  ];
  const json = sentencePieceJson(tokens, hasSpacePrefix, undefined, "test") as ReturnType<typeof byteLevelTokenizer>;
  // Gemma's files list runs of spaces and newlines as added tokens too.
  const runs = hasSpacePrefix ? [] : [visibleSpace.repeat(2), visibleSpace.repeat(4), "\n\n"];
  for (const run of runs) json.added_tokens.unshift(special(run, json.model.vocab[run]!, false));
  return json;
}

/** The least that llama.cpp wants to know of a model before it reads the tokenizer. */
const anyModel: GgufMetadata = new Map([
  ["general.architecture", string("llama")],
  ["llama.context_length", uint32(64)],
  ["llama.embedding_length", uint32(32)],
  ["llama.block_count", uint32(1)],
  ["llama.feed_forward_length", uint32(64)],
  ["llama.attention.head_count", uint32(1)],
  ["llama.attention.layer_norm_rms_epsilon", float32(1e-5)],
]);

/** llama.cpp's tokenizer from metadata alone. */
async function llamaTokenizer(metadata: GgufMetadata): Promise<(text: string) => number[]> {
  const file = pathOf("model.gguf");
  await writeGguf(file, new Map([...anyModel, ...metadata]), [], []);
  const llama = await getLlama({ build: "never", skipDownload: true, gpu: false, logLevel: LlamaLogLevel.disabled });
  const model = await llama.loadModel({ modelPath: file, vocabOnly: true });
  return (text) => model.tokenize(text, false);
}

const written = (json: object) => {
  const path = pathOf("tokenizer.json");
  writeFileSync(path, JSON.stringify(json));
  return path;
};

/** Parts of texts that the kinds cut differently, and any characters. */
const anyText = fc
  .array(
    fc.oneof(
      fc.string({ unit: "binary-ascii" }),
      fc.string({ unit: "grapheme" }),
      fc.constantFrom(" ", "  ", "   ", "\n", "\r\n", "\n\n", " \n", "\t", "\u00a0", "\u2003", "\u3000", ".", "/", "'"),
      fc.constantFrom("1", "42", "1234", "1234567", "²", "½", "٣", "Ⅷ", "don't", "I'LL", "we'Ve", "'tis", "O'Neill"),
      fc.constantFrom("the wolf", " wolves", "HTTPServer", "camelCase", "ÜBER", "naïve", "é", "🙂", "👩‍👩‍👧"),
      fc.constantFrom(
        "北京",
        "日本語",
        "привет",
        "مرحبا",
        "नमस्ते",
        "if x >= 10:\n        return",
        "<|im_end|>",
        "<think>",
      ),
    ),
  )
  .map((parts) => Buffer.from(parts.join("")).toString().normalize("NFC").replaceAll("\0", ""));

/** Whether llama.cpp's rougher classes of letters may cut a text otherwise than tekken does; see the file's head. */
const isRough = (text: string) => /[^\p{ASCII}]/u.test(text.replace(/[^\p{L}\p{M}]/gu, ""));

const kinds: [string, () => ReturnType<typeof byteLevelTokenizer>, (text: string) => boolean][] = [
  ...(Object.keys(byteLevelKinds) as ByteLevelName[]).map((name): (typeof kinds)[number] => [
    name,
    () => byteLevelTokenizer(name),
    (text) => name !== "tekken" || !isRough(text),
  ]),
  ["Llama 2", () => sentencePieceTokenizer(true), () => true],
  ["Gemma", () => sentencePieceTokenizer(false), () => true],
];

describe.each(kinds)("%s", (name, make, isAlike) => {
  const json = make();
  const isByteLevel = Object.hasOwn(byteLevelKinds, name);
  const boundary = isByteLevel ? { bosId: 0, eosIds: [1, 2] } : { bosId: 1, eosIds: [2, 3] };
  const tokenizer: Tokenizer = createTokenizer(json, "test", boundary);
  const V = tokenizer.vocabSize + 5;
  const metadata = tokenizerMetadata(written(json), { vocabSize: V }, { ...boundary, addBos: true, chatTemplate: "x" });

  test("encodes as the reference does (seed 1)", () => {
    // The reference reads special tokens from any text.
    const native = NativeTokenizer.fromString(
      JSON.stringify({ ...json, added_tokens: json.added_tokens.filter((token) => !token.special) }),
    );
    const texts = fc.sample(anyText, { seed: 1, numRuns: 1000 });
    return native.encodeBatch(texts, { addSpecialTokens: false }).then((encodings) => {
      for (const [i, text] of texts.entries())
        expect([...tokenizer.encode(text)], JSON.stringify(text)).toEqual(encodings[i]!.getIds());
    });
  });

  test("llama.cpp encodes alike (seed 2)", async () => {
    const tokenize = await llamaTokenizer(metadata);
    for (const text of fc.sample(anyText, { seed: 2, numRuns: 1000 }).filter(isAlike))
      expect(tokenize(text), JSON.stringify(text)).toEqual([...tokenizer.encode(text)]);
  });

  test("of the tokens that end an answer three are written, and what is left out is said", () => {
    const ends = [1, 2, 3, 4].map((at) => ({
      id: tokenizer.vocabSize + at - 1,
      content: `<end ${at}>`,
      special: true,
    }));
    const more = { ...json, added_tokens: [...json.added_tokens, ...ends] };
    const notes: string[] = [];
    const eosIds = ends.map(({ id }) => id);
    const written3 = tokenizerMetadata(written(more), { vocabSize: V }, { eosIds, addBos: false, notes });
    expect(tokenizerFromGguf(written3, "test").eosIds.slice(0, 3)).toEqual(eosIds.slice(0, 3)); // and those known by name
    expect(notes).toEqual(["Of the tokens that end an answer these are left out: <end 4>."]);
  });

  test("decode undoes encode (seed 3)", () => {
    fc.assert(
      fc.property(anyText, (text) => {
        expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
      }),
      { seed: 3 },
    );
  });

  test("a token that the model has no embedding for is text", () => {
    const beyond = { id: V, content: "<image>", special: true };
    const added = { ...json, added_tokens: [...json.added_tokens, beyond] };
    const some = createTokenizer(added, "test", { ...boundary, vocabSize: V });
    expect(some.encodeParts([{ text: "<image>", isTrusted: true }])).toEqual(tokenizer.encode("<image>"));
    expect(tokenizerMetadata(written(added), { vocabSize: V }, { ...boundary, addBos: true })).toEqual(
      tokenizerMetadata(written(json), { vocabSize: V }, { ...boundary, addBos: true }),
    );
  });

  test("the way into GGUF and back gives the same ids, boundary and template (seed 4)", () => {
    const { tokenizerJson, ...rest } = tokenizerFromGguf(metadata, "test");
    expect(rest).toEqual({ ...boundary, addBos: true, chatTemplate: "x" });
    const again = createTokenizer(JSON.parse(JSON.stringify(tokenizerJson)), "test", boundary);
    expect(again.vocabSize).toBe(V);
    for (const text of fc.sample(anyText, { seed: 4, numRuns: 200 }))
      expect(again.encode(text), JSON.stringify(text)).toEqual(tokenizer.encode(text));
  });
});

describe("known differences to llama.cpp", () => {
  const boundary = { bosId: 0, eosIds: [1] };
  test.each([
    ["qwen2", "e\u0301"],
    ["tekken", "e\u0301"],
  ] as const)("%s: %j", async (name, text) => {
    const json = byteLevelTokenizer(name);
    const tokenizer = createTokenizer(json, "test", boundary);
    const { vocabSize } = tokenizer;
    const tokenize = await llamaTokenizer(
      tokenizerMetadata(written(json), { vocabSize }, { ...boundary, addBos: true }),
    );
    expect(tokenize(text)).not.toEqual([...tokenizer.encode(text)]);
  });
});

describe("into GGUF, refuses", () => {
  const options = { bosId: 1, eosIds: [2], addBos: true };
  const refused = (json: object, vocabSize = 2000) =>
    expect(() => tokenizerMetadata(written(json), { vocabSize }, options)).toThrow(FileError);

  test("merges that llama.cpp would do otherwise", () => {
    const json = sentencePieceTokenizer(true);
    const { merges } = json.model;
    const made = merges.map((pair) => pair.join(""));
    const twice = made.findIndex((token, i) => made.indexOf(token) !== i);
    refused({ ...json, model: { ...json.model, merges: merges.filter((_, i) => i !== twice) } });
  });

  test("unknown ways to cut words, a model of fewer tokens, and ends that are no special tokens", () => {
    const json = byteLevelTokenizer("qwen2");
    const [split, bytes] = json.pre_tokenizer.pretokenizers;
    const other = { ...split, pattern: { Regex: "\\p{L}+" } };
    refused({ ...json, pre_tokenizer: { type: "Sequence", pretokenizers: [other, bytes] } });
    refused({ ...json, pre_tokenizer: { type: "BertPreTokenizer" } });
    refused({ ...json, model: { ...json.model, ignore_merges: true } });
    refused(json, 100);
    refused({ ...json, added_tokens: json.added_tokens.slice(2) });
  });
});

describe("from GGUF, refuses", () => {
  const good = (): GgufMetadata => {
    const json = sentencePieceTokenizer(true);
    return tokenizerMetadata(written(json), { vocabSize: 1000 }, { bosId: 1, eosIds: [2], addBos: true });
  };
  const broken: [string, (metadata: GgufMetadata) => void][] = [
    ["no model", (metadata) => metadata.delete("tokenizer.ggml.model")],
    ["another model", (metadata) => metadata.set("tokenizer.ggml.model", { type: "string", value: "bert" })],
    ["byte-level BPE of no known kind", (metadata) => metadata.set("tokenizer.ggml.model", string("gpt2"))],
    [
      "a kind named as what every object has",
      (metadata) => {
        metadata.set("tokenizer.ggml.model", string("gpt2"));
        metadata.set("tokenizer.ggml.merges", array("string", []));
        metadata.set("tokenizer.ggml.pre", string("constructor"));
      },
    ],
    ["no tokens", (metadata) => metadata.delete("tokenizer.ggml.tokens")],
    ["tokens that are numbers", (metadata) => metadata.set("tokenizer.ggml.tokens", array("int32", [1, 2]))],
    ["a token twice", (metadata) => metadata.set("tokenizer.ggml.tokens", array("string", Array(1000).fill("a")))],
    ["fewer types than tokens", (metadata) => metadata.set("tokenizer.ggml.token_type", array("int32", [1]))],
    ["fewer scores than tokens", (metadata) => metadata.set("tokenizer.ggml.scores", array("float32", [1]))],
    ["BOS beyond the tokens", (metadata) => metadata.set("tokenizer.ggml.bos_token_id", uint32(1000))],
    ["BOS that is a text", (metadata) => metadata.set("tokenizer.ggml.bos_token_id", string("<s>"))],
    [
      "too many long tokens",
      (metadata) => {
        const tokens = Array.from({ length: 40_000 }, (_, id) => `${id}`.padEnd(250, "a"));
        metadata.set("tokenizer.ggml.tokens", array("string", tokens));
        metadata.set("tokenizer.ggml.token_type", array("int32", Array(40_000).fill(tokenType.normal)));
        metadata.set("tokenizer.ggml.scores", array("float32", Array(40_000).fill(0)));
      },
    ],
    [
      "millions of ways to put tokens together",
      (metadata) => {
        const tokens = Array.from({ length: 120 * 256 }, (_, id) =>
          String.fromCharCode(0x400 + (id >> 8)).repeat(1 + (id & 255)),
        );
        metadata.set("tokenizer.ggml.tokens", array("string", tokens));
        metadata.set("tokenizer.ggml.token_type", array("int32", Array(tokens.length).fill(tokenType.normal)));
        metadata.set("tokenizer.ggml.scores", array("float32", Array(tokens.length).fill(0)));
      },
    ],
    [
      "an overlong token",
      (metadata) => {
        const tokens = Array.from({ length: 1000 }, (_, id) => (id === 500 ? "a".repeat(100_000) : `t${id}`));
        metadata.set("tokenizer.ggml.tokens", array("string", tokens));
      },
    ],
  ];
  test.each(broken)("%s", (_, breakIt) => {
    const metadata = good();
    breakIt(metadata);
    expect(() => tokenizerFromGguf(metadata, "x.gguf")).toThrow(FileError);
  });
});
