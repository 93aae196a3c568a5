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
  "deprecated",
]);

const keywords: Record<string, readonly string[]> = {
  object: ["properties", "required", "additionalProperties", "minProperties", "maxProperties"],
  array: ["items", "prefixItems", "minItems", "maxItems"],
  string: ["minLength", "maxLength", "format"],
  number: [],
  integer: [],
  boolean: [],
  null: [],
};
const formats = ["date", "time", "date-time"];

type Schema = Record<string, unknown>;

/**
 * A schema in the words that grammars know.
 *
 * @param value as a client sent it
 * @param param where, for errors
 * @throws {ApiError} if it is too large, too deep, refers to itself or others, or uses a word that grammars do not know
 */
export function grammarSchema(value: unknown, param: string): object {
  checkSize(value, param);
  return convert(value, param);
}

/** @throws {ApiError} unless a schema that is only shown to the model is an object of bounded size, without references */
export function checkSize(value: unknown, param: string): void {
  let nodes = 0;
  const visit = (node: unknown, depth: number): void => {
    if (typeof node !== "object" || node === null) return;
    if (++nodes > limits.schemaNodes) throw invalid(param, `wanted a schema of at most ${limits.schemaNodes} parts.`);
    if (depth > limits.schemaDepth) throw invalid(param, `wanted a schema of at most ${limits.schemaDepth} levels.`);
    for (const [key, child] of Object.entries(node)) {
      if (/^\$(ref|dynamicRef|recursiveRef)$/.test(key) && typeof child === "string")
        throw invalid(param, "wanted a schema without references. Write out what $ref refers to.");
      visit(child, depth + 1);
    }
  };
  if (!isObject(value)) throw invalid(param, "wanted a JSON schema that is an object.", "invalid_type");
  visit(value, 0);
}

function convert(value: unknown, param: string): Schema {
  if (!isObject(value)) throw invalid(param, "wanted a schema, an object.");
  const schema = Object.fromEntries(Object.entries(value).filter(([key]) => !annotations.has(key)));
  const only = (...known: string[]) => {
    const other = Object.keys(schema).find((key) => !known.includes(key));
    if (other !== undefined) throw invalid(param, `the keyword "${other.slice(0, 100)}" is not supported here.`);
  };
  const { type, oneOf, anyOf } = schema;
  const alternatives = oneOf ?? anyOf;
  if (alternatives !== undefined) {
    only(oneOf === undefined ? "anyOf" : "oneOf");
    if (!Array.isArray(alternatives) || alternatives.length === 0)
      throw invalid(param, "wanted a list of at least one alternative.");
    return { oneOf: alternatives.map((one, i) => convert(one, `${param}.${oneOf ? "oneOf" : "anyOf"}.${i}`)) };
  }
  if ("const" in schema || "enum" in schema) {
    only("const", "enum", "type");
    const values = "const" in schema ? [schema.const] : schema.enum;
    if (!Array.isArray(values) || values.length === 0 || values.some((one) => typeof one === "object" && one !== null))
      throw invalid(param, "wanted strings, numbers, booleans or null as the values.");
    if (type !== undefined && !values.every((one) => [type].flat().some((name) => isOf(one, name))))
      throw invalid(param, "wanted values of the given type.");
    return { enum: values };
  }
  const types = [type].flat();
  if (types.length === 0 || types.some((name) => typeof name !== "string" || !Object.hasOwn(keywords, name)))
    throw invalid(param, `wanted a "type": ${Object.keys(keywords).join(", ")}, or a list of them.`);
  only("type", ...types.flatMap((name) => keywords[name as string]!));
  const each = types.map((name) => {
    const rest = Object.entries(schema).filter(([key]) => keywords[name as string]!.includes(key));
    return ofType(name as string, Object.fromEntries(rest), param);
  });
  return each.length === 1 ? each[0]! : { oneOf: each };
}

function ofType(type: string, schema: Schema, param: string): Schema {
  switch (type) {
    case "object": {
      const { properties = {}, required = [], additionalProperties, ...counts } = schema;
      if (!isObject(properties)) throw invalid(`${param}.properties`, "wanted an object.");
      if (!Array.isArray(required) || required.some((name) => typeof name !== "string"))
        throw invalid(`${param}.required`, "wanted a list of names.");
      const missing = required.find((name) => !Object.hasOwn(properties, name));
      if (missing !== undefined) throw invalid(`${param}.required`, "wanted only names of properties.");
      const names = Object.entries(properties).map(([key, child]) => [
        key,
        convert(child, `${param}.properties.${key}`),
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
          : { additionalProperties: others === true || convert(others, `${param}.additionalProperties`), ...counts }),
      };
    }
    case "array": {
      const { items, prefixItems, ...counts } = schema;
      if (prefixItems !== undefined && !Array.isArray(prefixItems))
        throw invalid(`${param}.prefixItems`, "wanted a list of schemas.");
      if (items === undefined && !prefixItems) throw invalid(param, "wanted items of an array.");
      bounds(counts, "minItems", "maxItems", param, prefixItems?.length ?? 0);
      return {
        type,
        ...(items !== undefined && { items: convert(items, `${param}.items`) }),
        ...(prefixItems && { prefixItems: prefixItems.map((one, i) => convert(one, `${param}.prefixItems.${i}`)) }),
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
    default:
      return { type };
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

function isOf(value: unknown, type: unknown): boolean {
  if (type === "null") return value === null;
  if (type === "integer") return Number.isInteger(value);
  return typeof value === type;
}

function isObject(value: unknown): value is Schema {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
