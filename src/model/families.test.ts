/**
 * What each family computes is held to golden values or to the reference, on the graph (src/net/decoder.test.ts) and in llama.cpp (test/llamaCpp.test.ts), and
 * what its files say by reading them back (src/formats): all of these walk the table.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { familyOf, isLocalLayer, MODEL_FAMILIES } from "./families.ts";

test("a model_type, and an architecture of Hugging Face, is one family's alone", () => {
  const all = MODEL_FAMILIES.map((family) => familyOf({ family }).huggingFace);
  const types = all.flatMap(({ modelTypes, multimodalType = [] }) => [Object.keys(modelTypes), multimodalType].flat());
  expect(types).toEqual([...new Set(types)]);
  expect(new Set(all.map(({ architecture }) => architecture)).size).toBe(MODEL_FAMILIES.length);
});

test("the last layer of each group sees the whole context", () => {
  const pattern = (family: (typeof MODEL_FAMILIES)[number]) =>
    Array.from({ length: 7 }, (_, layer) => (isLocalLayer({ family }, layer) ? "-" : "G")).join("");
  expect(MODEL_FAMILIES.map(pattern)).toEqual(["GGGGGGG", "GGGGGGG", "GGGGGGG", "-G-G-G-", "-----G-"]);
});

test("no other file asks which family a model is of", () => {
  const source = fileURLToPath(new URL("..", import.meta.url));
  const question = new RegExp(`\\bfamily\\s*[!=]==\\s*"(${MODEL_FAMILIES.join("|")})"`);
  const asking = readdirSync(source, { recursive: true, encoding: "utf8" })
    .filter((file) => file.endsWith(".ts") && !file.endsWith(".test.ts"))
    .filter((file) => question.test(readFileSync(join(source, file), "utf8")));
  expect(asking).toEqual([]);
});
