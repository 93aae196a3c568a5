import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { getLlama, LlamaLogLevel } from "node-llama-cpp";
import { describe, expect, test } from "vitest";
import { goldenModel, stories, storiesReference, temporaryFolder } from "../../test/support/models.ts";
import { FileError } from "../errors.ts";
import { type ModelConfig, parameterShapes } from "../model/config.ts";
import { loadTokenizer } from "../text/tokenizer.ts";
import { trainTokenizer } from "../text/trainTokenizer.ts";
import { writeGguf } from "./gguf.ts";
import { encodeParameter, ggufName, modelMetadata, storedType } from "./ggufModel.ts";
import { tokenizerMetadata } from "./ggufTokenizer.ts";
import { readLlama2cTokenizer } from "./llama2c.ts";

const { config } = goldenModel("llama");

/** llama.cpp's tokenizer, made from the metadata of a `tokenizer.json`. */
async function llamaTokenizer(
  path: string,
  vocabSize: number,
  bosId: number,
  eosId: number,
): Promise<(text: string) => number[]> {
  const small: ModelConfig = { ...config, vocabSize, numLayers: 1, tieEmbeddings: true };
  const parameters = [...parameterShapes(small)];
  const file = join(temporaryFolder(), "model.gguf");
  await writeGguf(
    file,
    new Map([...modelMetadata(small), ...tokenizerMetadata(path, small, { bosId, eosIds: [eosId], addBos: true })]),
    parameters.map(([name, shape]) => ({ name: ggufName(small, name), type: storedType(shape, "F32"), shape })),
    parameters.map(([name, shape]) => {
      const data = new Float32Array(shape.reduce((product, n) => product * n, 1));
      return encodeParameter(small, name, { shape, data }, "F32");
    }),
  );
  const llama = await getLlama({ build: "never", skipDownload: true, gpu: false, logLevel: LlamaLogLevel.error });
  const model = await llama.loadModel({ modelPath: file, vocabOnly: true });
  return (text) => model.tokenize(text, false);
}

const texts = [
  "Once upon a time, there was a little girl named Lily.",
  "Write the plural form of the given word. Input: wolf",
  "sum: 1234 + 98 = 1332, or 3.14159",
  "Zürich, naïve café — “quotes” … ß",
  "emoji 🙂👩‍👩‍👧 and 日本語",
  "tabs\tand\nnew\n\nlines  and   runs of    spaces ",
  "don't we'll I'VE 'tis",
  "a",
];

test("byte-level BPE: llama.cpp cuts texts into the ids of tokenizer.json", async () => {
  const path = join(temporaryFolder(), "tokenizer.json");
  await trainTokenizer({ texts: [...texts, ...texts], vocabSize: 400, out: path });
  const tokenizer = loadTokenizer(path);
  const tokenize = await llamaTokenizer(path, 400, tokenizer.bosId!, tokenizer.eosId);
  for (const text of texts) expect(tokenize(text)).toEqual([...tokenizer.encode(text)]);
});

test("llama2.c's: llama.cpp cuts texts into the ids of tokenizer.json", async () => {
  const path = join(temporaryFolder(), "tokenizer.json");
  writeFileSync(path, JSON.stringify(readLlama2cTokenizer(join(stories, "tok512.bin"), 512)));
  const tokenizer = loadTokenizer(path);
  const tokenize = await llamaTokenizer(path, 512, 1, 2);
  for (const text of [...texts, ...storiesReference().encode.map(({ text }) => text)]) {
    expect(tokenize(text)).toEqual([...tokenizer.encode(text)]);
  }
});

describe("refuses a tokenizer", () => {
  const small = { ...config, vocabSize: 512 };
  const ids = { bosId: 1, eosIds: [2], addBos: true };
  /** The imported tokenizer with one place of its JSON changed. */
  const written = (from: string, to: string) => {
    const path = join(temporaryFolder(), "tokenizer.json");
    const json = JSON.stringify(readLlama2cTokenizer(join(stories, "tok512.bin"), 512));
    expect(json).toContain(from);
    writeFileSync(path, json.replace(from, to));
    return path;
  };

  test.each([
    ["with another pre-tokenizer", '"pre_tokenizer":null', '"pre_tokenizer":{"type":"Whitespace"}'],
    ["with another normalizer", '"type":"Prepend"', '"type":"NFC"'],
    ["that is no BPE", '"BPE"', '"WordPiece"'],
    ["with ids beyond the vocabulary", '"\u2581t":259', '"\u2581t":512'],
    ["with ids that are no numbers", '"\u2581t":259', '"\u2581t":"x"'],
    ["whose BOS is no special token", '"added_tokens":', '"no_tokens":'],
  ])("%s", (_, from, to) => expect(() => tokenizerMetadata(written(from, to), small, ids)).toThrow(FileError));
});

test("Q8_0 falls back to F16 for rows of part blocks, and vectors stay F32", () => {
  expect([storedType([4, 64], "Q8_0"), storedType([64, 172], "Q8_0"), storedType([64], "Q8_0")]).toEqual([
    "Q8_0",
    "F16",
    "F32",
  ]);
});
