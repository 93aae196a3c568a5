import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { ggufParts, writeParts } from "../../test/support/gguf.ts";
import { randomModel, temporaryFolder, writeCheckpoint } from "../../test/support/models.ts";
import { FileError } from "../errors.ts";
import type { GgufValue } from "./gguf.ts";
import { tokenizerMetadata } from "./ggufTokenizer.ts";
import { array, uint32 } from "./ggufValues.ts";
import { importModel } from "./importModel.ts";

// That imported models compute the same is tested in test/import.test.ts.

const model = randomModel({ family: "llama" }, 1);

/** A folder with a tokenizer whose specials are 0, 1 and 2. */
async function modelFolder(): Promise<string> {
  const folder = join(await writeCheckpoint(temporaryFolder(), model), "llm");
  writeFileSync(join(folder, "generation_config.json"), '{"bos_token_id": 1, "eos_token_id": 2}');
  return folder;
}

async function refused(source: string, message: RegExp): Promise<void> {
  const out = join(temporaryFolder(), "out");
  await expect(importModel(source, out)).rejects.toThrow(FileError);
  await expect(importModel(source, out)).rejects.toThrow(message);
  expect(readdirSync(dirname(out))).toEqual([]);
}

describe("a GGUF file is refused, and nothing is left, with", () => {
  test.each<[string, Record<string, GgufValue>, RegExp]>([
    ["an EOS beyond the tokens", { "tokenizer.ggml.eos_token_id": uint32(1e9) }, /special tokens, got id 1000000000/],
    ["an EOS that is a word", { "tokenizer.ggml.eos_token_id": uint32(5) }, /special tokens, got id 5/],
    ["merges of one word", { "tokenizer.ggml.merges": array("string", ["ab"]) }, /wanted merges/],
  ])("%s", async (_, changes, message) => {
    const tokenizer = join(await modelFolder(), "tokenizer.json");
    const metadata = tokenizerMetadata(tokenizer, model.config, { bosId: 1, eosIds: [2], addBos: true });
    const parts = ggufParts(model);
    for (const [key, value] of [...metadata, ...Object.entries(changes)]) parts.metadata.set(key, value);
    await refused(await writeParts(temporaryFolder(), parts), message);
  });
});

test("a post-processor that names what every object has is none", async () => {
  const folder = await modelFolder();
  const path = join(folder, "tokenizer.json");
  const single = [{ SpecialToken: { id: "constructor" } }];
  const json = { ...JSON.parse(readFileSync(path, "utf8")), post_processor: { single, special_tokens: {} } };
  writeFileSync(path, JSON.stringify(json));
  await importModel(folder, join(temporaryFolder(), "out"));
});
