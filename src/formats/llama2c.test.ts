import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { forward } from "../../test/reference/decoder.ts";
import { stories, storiesCheckpoint, storiesReference, temporaryFolder } from "../../test/support/models.ts";
import { FileError } from "../errors.ts";
import { readManifest, verifyFiles } from "../manifest.ts";
import { loadTokenizer } from "../text/tokenizer.ts";
import { readModelFolder } from "./huggingface.ts";
import { readLlama2c, readLlama2cTokenizer } from "./llama2c.ts";

const modelPath = join(stories, "stories260K.bin");
const tokenizerPath = join(stories, "tok512.bin");
const modelBytes = readFileSync(modelPath);

/** A copy of a file, changed. */
function changed(bytes: Buffer, change: (bytes: Buffer) => Buffer | undefined): string {
  const path = join(temporaryFolder(), "x.bin");
  const copy = Buffer.from(bytes);
  writeFileSync(path, change(copy) ?? copy);
  return path;
}

test("stories260K computes the logits of the reference (given to 5 digits)", () => {
  const logits = forward(readLlama2c(modelPath), [1]).logits[0]!;
  for (const [id, value] of storiesReference().logits_after_bos_top10)
    expect(Math.abs(logits[id]! - value)).toBeLessThan(1e-5);
});

test("its tokenizer encodes and decodes as the reference does", async () => {
  const folder = await storiesCheckpoint(temporaryFolder());
  const tokenizer = loadTokenizer(join(folder, "llm/tokenizer.json"));
  for (const { text, ids_with_bos } of storiesReference().encode) {
    expect([tokenizer.bosId, ...tokenizer.encode(text)]).toEqual(ids_with_bos);
    expect(tokenizer.decode(ids_with_bos)).toBe(text);
  }
});

test("the import is a whole checkpoint folder", async () => {
  const folder = await storiesCheckpoint(temporaryFolder());
  const manifest = readManifest(folder, "ifprune-checkpoint");
  await verifyFiles(folder, manifest);
  expect(manifest).toMatchObject({ bosId: 1, eosId: 2, lambda: "hard", promptTemplate: "{prompt}" });
  expect(readModelFolder(join(folder, "llm")).weights.size).toBe(2 + 5 * 9);
});

describe("refuses with a typed error:", () => {
  test.each<[string, (bytes: Buffer) => Buffer | undefined]>([
    ["a truncated model", (bytes) => bytes.subarray(0, -4)],
    ["a shorter file than the header", (bytes) => bytes.subarray(0, 20)],
    ["bytes after the model", (bytes) => Buffer.concat([bytes, Buffer.alloc(4)])],
    ["no layers", (bytes) => void bytes.writeInt32LE(0, 8)],
    ["two thousand million layers", (bytes) => void bytes.writeInt32LE(2_000_000_000, 8)],
    ["heads that do not divide the width", (bytes) => void bytes.writeInt32LE(7, 12)],
    ["an untied head that is not there", (bytes) => void bytes.writeInt32LE(-512, 20)],
    ["a later version", (bytes) => void bytes.write("42ka")],
  ])("%s", (_, change) => expect(() => readLlama2c(changed(modelBytes, change))).toThrow(FileError));

  test.each<[string, (bytes: Buffer) => Buffer | undefined]>([
    ["a truncated tokenizer", (bytes) => bytes.subarray(0, -1)],
    ["tokens after the last", (bytes) => Buffer.concat([bytes, bytes.subarray(4, 20)])],
    ["a negative length", (bytes) => void bytes.writeInt32LE(-1, 8)],
    ["an absurd length", (bytes) => void bytes.writeInt32LE(2 ** 30, 8)],
    ["a token that is not UTF-8", (bytes) => void bytes.writeUInt8(0xff, 12)],
  ])("%s", (_, change) => {
    expect(() => readLlama2cTokenizer(changed(readFileSync(tokenizerPath), change), 512)).toThrow(FileError);
  });

  test("random damage is refused or changes values only (seed 5)", () => {
    const path = join(temporaryFolder(), "x.bin");
    const tokenizerBytes = readFileSync(tokenizerPath);
    const damage = fc.tuple(fc.nat({ max: tokenizerBytes.length - 1 }), fc.nat({ max: 255 }));
    fc.assert(
      fc.property(damage, fc.nat({ max: 27 }), ([at, byte], headerAt) => {
        const bytes = Buffer.from(tokenizerBytes);
        bytes[at] = byte;
        const header = Buffer.from(modelBytes.subarray(0, 28));
        header[headerAt] = byte;
        for (const [content, read] of [
          [bytes, () => readLlama2cTokenizer(path, 512)],
          [header, () => readLlama2c(path)],
        ] as const) {
          writeFileSync(path, content);
          try {
            read();
          } catch (error) {
            expect(error).toBeInstanceOf(FileError);
          }
        }
      }),
      { seed: 5, numRuns: 100 },
    );
  });

  test("a tokenizer of fewer tokens than bytes", () => {
    const path = changed(readFileSync(tokenizerPath), (bytes) => bytes.subarray(0, 17));
    expect(() => readLlama2cTokenizer(path, 1)).toThrow(FileError);
  });

  test("another model's tokenizer", () => expect(() => readLlama2cTokenizer(tokenizerPath, 500)).toThrow(FileError));
});
