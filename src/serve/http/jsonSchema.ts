/**
 * JSON schemas that clients send. One that an answer must follow becomes a grammar, which knows a part of JSON Schema; the rest is refused rather than
 * left out. Every answer of the grammar is valid by the schema, not the other way round: objects have all their properties, in order, and others
 * only where none is named.
 */
import { invalid } from "./apiErrors.ts";
import { limits } from "./limits.ts";

/** Say nothing about what is valid. */
const annotations = new Set([
  "title",
  "description",
  "default",
  "examples",
  "$schema",
  "$id",
  "$comment",
  "$defs",
  "definitions",
  "deprecated",
  "discriminator",
  "readOnly",
  "writeOnly",
]);

const keywords: Record<string, readonly string[]> = {
  object: ["properties", "required", "additionalProperties", "propertyNames", "minProperties", "maxProperties"],
  array: ["items", "prefixItems", "minItems", "maxItems"],
  string: ["minLength", "maxLength", "format"],
  number: ["minimum", "maximum"],
  integer: ["minimum", "maximum"],
  boolean: [],
  null: [],
};
const formats = ["date", "time", "date-time"];

type Schema = Record<string, unknown>;

/** Any JSON, in the words of grammars. */
const anything: Schema = {
  oneOf: [
    ...["string", "number", "boolean", "null", "array"].map((type) => ({ type })),
    { type: "object", properties: {}, additionalProperties: true },
  ],
};

/**
 * A schema in the words that grammars know, references written out.
 *
 * @param value as a client sent it
 * @param param where, for errors
 * @throws {ApiError} if it is too large, too deep, refers to itself or to others, or uses a word that grammars do not know
 */
export function grammarSchema(value: unknown, param: string): object {
  checkSize(value, param);
  const schema = new Converter(value).convert(value, param);
  if (JSON.stringify(schema).length > limits.schemaLength)
    throw invalid(param, `wanted names and values of at most ${limits.schemaLength} characters together.`);
  return schema;
}

/** @throws {ApiError} unless a schema is an object of bounded size */
export function checkSize(value: unknown, param: string): void {
  let nodes = 0;
  const visit = (node: unknown, depth: number): void => {
    if (typeof node !== "object" || node === null) return;
    if (++nodes > limits.schemaNodes) throw tooManyParts(param);
    if (depth > limits.schemaDepth) throw invalid(param, `wanted a schema of at most ${limits.schemaDepth} levels.`);
    for (const child of Object.values(node)) visit(child, depth + 1);
  };
  if (!isObject(value)) throw invalid(param, "wanted a JSON schema that is an object.", "invalid_type");
  visit(value, 0);
}

const tooManyParts = (param: string) => invalid(param, `wanted a schema of at most ${limits.schemaNodes} parts.`);

class Converter {
  readonly #root: unknown;
  /** References that are being written out: one of them again would have no end. */
  readonly #open = new Set<string>();
  /** Written out, a few references to each other can be any number of parts. */
  #parts = 0;
  #values = 0;

  constructor(root: unknown) {
    this.#root = root;
  }

  convert(value: unknown, param: string): Schema {
    if (++this.#parts > limits.schemaNodes) throw tooManyParts(param);
    if (value === true) return anything;
    if (!isObject(value)) throw invalid(param, "wanted a schema, an object.");
    const schema = Object.fromEntries(Object.entries(value).filter(([key]) => !annotations.has(key)));
    const only = (...known: string[]) => {
      const other = Object.keys(schema).find((key) => !known.includes(key));
      if (other !== undefined) throw invalid(param, `the keyword "${other.slice(0, 100)}" is not supported here.`);
    };
    const { $ref, allOf, oneOf, anyOf } = schema;
    if ($ref !== undefined) {
      only("$ref");
      return this.#referred($ref, param);
    }
    if (Array.isArray(allOf) && allOf.length === 1) {
      only("allOf");
      return this.convert(allOf[0], `${param}.allOf.0`);
    }
    const type = schema.type ?? impliedType(schema);
    const alternatives = oneOf ?? anyOf;
    if (alternatives !== undefined) {
      only(oneOf === undefined ? "anyOf" : "oneOf");
      if (!Array.isArray(alternatives) || alternatives.length === 0)
        throw invalid(param, "wanted a list of at least one alternative.");
      return { oneOf: alternatives.map((one, i) => this.convert(one, `${param}.${oneOf ? "oneOf" : "anyOf"}.${i}`)) };
    }
    if ("const" in schema || "enum" in schema) {
      only("const", "enum", "type");
      const values = "const" in schema ? [schema.const] : schema.enum;
      if (
        !Array.isArray(values) ||
        values.length === 0 ||
        values.some((one) => typeof one === "object" && one !== null)
      )
        throw invalid(param, "wanted strings, numbers, booleans or null as the values.");
      this.#values += values.length;
      if (this.#values > limits.schemaValues)
        throw invalid(param, `wanted at most ${limits.schemaValues} values in all enums together.`);
      if (type !== undefined && !values.every((one) => [type].flat().some((name) => isOf(one, name))))
        throw invalid(param, "wanted values of the given type.");
      return { enum: values };
    }
    if (Object.keys(schema).length === 0) return anything;
    const types = [type].flat();
    const isWrongMany = types.length === 0 || types.length > Object.keys(keywords).length;
    if (isWrongMany || types.some((name) => typeof name !== "string" || !Object.hasOwn(keywords, name)))
      throw invalid(param, `wanted a "type": ${Object.keys(keywords).join(", ")}, or a list of them.`);
    only("type", ...types.flatMap((name) => keywords[name as string]!));
    const each = types.map((name) => {
      const rest = Object.entries(schema).filter(([key]) => keywords[name as string]!.includes(key));
      return this.#ofType(name as string, Object.fromEntries(rest), param);
    });
    return each.length === 1 ? each[0]! : { oneOf: each };
  }

  #referred($ref: unknown, param: string): Schema {
    if (typeof $ref !== "string" || $ref.length > limits.schemaPointer || !/^#(\/|$)/.test($ref))
      throw invalid(param, 'wanted a reference into the schema itself, as "#/$defs/Name".');
    if (this.#open.has($ref))
      throw invalid(
        param,
        `the reference "${$ref.slice(0, 100)}" leads back to itself: an answer cannot be held to that.`,
      );
    let found: unknown = this.#root;
    for (const key of $ref.split("/").slice(1)) {
      const name = unescaped(key);
      found =
        typeof found === "object" && found !== null && Object.hasOwn(found, name) ? (found as Schema)[name] : undefined;
    }
    if (found === undefined) throw invalid(param, `the reference "${$ref.slice(0, 100)}" leads nowhere.`);
    this.#open.add($ref);
    const converted = this.convert(found, param);
    this.#open.delete($ref);
    return converted;
  }

  #ofType(type: string, schema: Schema, param: string): Schema {
    switch (type) {
      case "object": {
        const { properties = {}, required = [], additionalProperties, propertyNames, ...counts } = schema;
        if (propertyNames !== undefined && JSON.stringify(propertyNames) !== '{"type":"string"}')
          throw invalid(`${param}.propertyNames`, "the names of other properties cannot be held to a schema.");
        if (!isObject(properties)) throw invalid(`${param}.properties`, "wanted an object.");
        if (!Array.isArray(required) || required.some((name) => typeof name !== "string"))
          throw invalid(`${param}.required`, "wanted a list of names.");
        const missing = required.find((name) => !Object.hasOwn(properties, name));
        if (missing !== undefined) throw invalid(`${param}.required`, "wanted only names of properties.");
        const names = Object.entries(properties).map(([key, child]) => [
          key,
          this.convert(child, `${param}.properties.${key}`),
        ]);
        // Among named properties the grammar could write a name twice; none but the named ones is valid too.
        const others = names.length > 0 ? false : (additionalProperties ?? false);
        if (others === false && Number(counts.minProperties ?? 0) > names.length)
          throw invalid(`${param}.minProperties`, "wanted no more than are named.");
        bounds(counts, "minProperties", "maxProperties", param, names.length);
        return {
          type,
          properties: Object.fromEntries(names),
          ...(others === false
            ? {}
            : {
                additionalProperties: others === true || this.convert(others, `${param}.additionalProperties`),
                ...counts,
              }),
        };
      }
      case "array": {
        const { items, prefixItems, ...counts } = schema;
        if (prefixItems !== undefined && !Array.isArray(prefixItems))
          throw invalid(`${param}.prefixItems`, "wanted a list of schemas.");
        bounds(counts, "minItems", "maxItems", param, prefixItems?.length ?? 0);
        return {
          type,
          ...(items !== undefined && { items: this.convert(items, `${param}.items`) }),
          ...(prefixItems && {
            prefixItems: prefixItems.map((one, i) => this.convert(one, `${param}.prefixItems.${i}`)),
          }),
          ...counts,
        };
      }
      case "string": {
        const { format, ...counts } = schema;
        bounds(counts, "minLength", "maxLength", param, 0);
        if (format === undefined) return { type, ...counts };
        if (!formats.includes(format as string) || Object.keys(counts).length > 0)
          throw invalid(`${param}.format`, `wanted one of ${formats.join(", ")}, without minLength and maxLength.`);
        return { type, format };
      }
      case "number":
      case "integer": {
        const { minimum = -MOST_INTEGER, maximum = MOST_INTEGER } = schema;
        if (!(Number(minimum) <= -MOST_INTEGER && Number(maximum) >= MOST_INTEGER))
          throw invalid(param, "an answer cannot be held to a minimum or maximum. Leave it out, and check the number.");
        return { type };
      }
      default:
        return { type };
    }
  }
}

/** @param least how many the schema names itself */
function bounds(counts: Schema, min: string, max: string, param: string, least: number): void {
  for (const key of [min, max]) {
    const count = counts[key];
    if (
      count !== undefined &&
      !(Number.isInteger(count) && Number(count) >= 0 && Number(count) <= limits.schemaRepeats)
    )
      throw invalid(`${param}.${key}`, `wanted an integer in 0..${limits.schemaRepeats}.`);
  }
  if (counts[max] !== undefined && Number(counts[max]) < Math.max(least, Number(counts[min] ?? 0)))
    throw invalid(`${param}.${max}`, "wanted no less than what must be there.");
}

/** Bounds of integers that say nothing: those that a double has without gaps. */
const MOST_INTEGER = Number.MAX_SAFE_INTEGER;

/** What a schema without a type is of, by its words. */
function impliedType(schema: Schema): string | undefined {
  return Object.keys(keywords).find((type) => keywords[type]!.some((word) => Object.hasOwn(schema, word)));
}

/** A part of a JSON pointer in a URL's fragment. */
function unescaped(part: string): string {
  try {
    return decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~");
  } catch {
    return part;
  }
}

function isOf(value: unknown, type: unknown): boolean {
  if (type === "null") return value === null;
  if (type === "integer") return Number.isInteger(value);
  return typeof value === type;
}

function isObject(value: unknown): value is Schema {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
