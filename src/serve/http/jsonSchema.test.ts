/** Schemas as libraries write them become what grammars know, or are refused by name. */
import { describe, expect, test } from "vitest";
import { ApiError } from "./apiErrors.ts";
import { grammarSchema } from "./jsonSchema.ts";

const convert = (schema: object) => grammarSchema(schema, "schema");
const anyJson = { oneOf: expect.arrayContaining([{ type: "string" }, { type: "null" }, { type: "array" }]) };

describe("schemas of libraries", () => {
  test("Pydantic: references, defaults, tagged unions, fields of any type", () => {
    const Cat = {
      properties: { kind: { const: "cat", title: "Kind", type: "string" } },
      required: ["kind"],
      title: "Cat",
      type: "object",
    };
    expect(
      convert({
        $defs: { Cat, Colour: { enum: ["red", "blue"], title: "Colour", type: "string" } },
        properties: {
          pet: {
            discriminator: { mapping: { cat: "#/$defs/Cat" }, propertyName: "kind" },
            oneOf: [{ $ref: "#/$defs/Cat" }],
          },
          colour: { $ref: "#/$defs/Colour", default: "red", description: "Of it." },
          twice: { allOf: [{ $ref: "#/$defs/Colour" }], title: "Twice" },
          extra: { title: "Extra" },
        },
        required: ["pet"],
        title: "Owner",
        type: "object",
      }),
    ).toEqual({
      type: "object",
      properties: {
        pet: { oneOf: [{ type: "object", properties: { kind: { enum: ["cat"] } } }] },
        colour: { enum: ["red", "blue"] },
        twice: { enum: ["red", "blue"] },
        extra: anyJson,
      },
    });
  });

  test("Zod 4: integers with the bounds of a double, records", () => {
    expect(
      convert({
        $schema: "https://json-schema.org/draft/2020-12/schema",
        type: "object",
        properties: {
          n: { type: "integer", minimum: Number.MIN_SAFE_INTEGER, maximum: Number.MAX_SAFE_INTEGER },
          map: { type: "object", propertyNames: { type: "string" }, additionalProperties: { type: "number" } },
        },
        required: ["n", "map"],
        additionalProperties: false,
      }),
    ).toEqual({
      type: "object",
      properties: {
        n: { type: "integer" },
        map: { type: "object", properties: {}, additionalProperties: { type: "number" } },
      },
    });
  });

  test("MCP servers: no type, an empty list of what is required, names that need escaping", () => {
    expect(convert({ properties: { a: { items: { type: "string" } }, b: true }, required: [] })).toEqual({
      type: "object",
      properties: { a: { type: "array", items: { type: "string" } }, b: anyJson },
    });
    expect(convert({ definitions: { "a/b %": { type: "null" } }, $ref: "#/definitions/a~1b%20%25" })).toEqual({
      type: "null",
    });
  });
});

const words = (count: number) => Array.from({ length: count }, (_, i) => `word ${i}`);

/** 2^20 parts, if each reference is written out. */
const doubling = {
  $defs: Object.fromEntries(
    Array.from({ length: 20 }, (_, i) => [
      `d${i}`,
      i === 0
        ? { type: "null" }
        : { type: "array", prefixItems: [{ $ref: `#/$defs/d${i - 1}` }, { $ref: `#/$defs/d${i - 1}` }] },
    ]),
  ),
  $ref: "#/$defs/d19",
};

test.each<[what: string, schema: object, message: RegExp]>([
  ["that is its own part", { type: "object", properties: { a: { $ref: "#" } } }, /leads back to itself/],
  [
    "of two that refer to each other",
    { $defs: { A: { $ref: "#/$defs/B" }, B: { $ref: "#/$defs/A" } }, $ref: "#/$defs/A" },
    /leads back/,
  ],
  ["with a reference to elsewhere", { $ref: "https://example.org/a.json" }, /reference into the schema itself/],
  ["with a reference to nothing", { $ref: "#/$defs/__proto__" }, /leads nowhere/],
  ["that doubles", doubling, /at most 500 parts/],
  ["with enums of thousands", { prefixItems: [{ enum: words(600) }, { enum: words(600) }] }, /at most 1000 values/],
  ["with a smallest number", { type: "number", minimum: 0 }, /minimum or maximum/],
  ["with a multiple", { type: "integer", multipleOf: 2 }, /"multipleOf" is not supported/],
  ["with a pattern of names", { type: "object", propertyNames: { pattern: "^a" } }, /names of other properties/],
  ["of all of two", { allOf: [{ type: "string" }, { type: "null" }] }, /"allOf" is not supported|wanted a "type"/],
  ["with a format", { type: "string", format: "email" }, /wanted one of date/],
])("a schema %s is refused where an answer must follow it", (_, schema, message) => {
  expect(() => convert(schema)).toThrow(ApiError);
  expect(() => convert(schema)).toThrow(message);
});

test.each<[what: string, schema: object, words: RegExp]>([
  ["a type said a million times", { type: Array(1e6).fill("string") }, /wanted a "type"/],
  ["a reference of megabytes", { $ref: `#${"/".repeat(4e6)}` }, /wanted a reference/],
  ["a value of megabytes", { enum: ["x".repeat(4e6)] }, /at most 120000 characters/],
  ["names of megabytes", { properties: { ["x".repeat(4e6)]: { type: "null" } } }, /at most 120000 characters/],
])("%s is refused", (_, schema, words) => {
  expect(() => convert(schema)).toThrow(words);
});
