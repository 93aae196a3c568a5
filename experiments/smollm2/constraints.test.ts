import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type Constraint, constrainedRow, keeps } from "./constraints.ts";
import { readLines } from "./sources.ts";

/** A constraint with answers that keep it and answers that do not. */
const cases: [Constraint, string[], string[]][] = [
  [{ type: "words", min: 2, max: 3 }, ["Well done!", "one - two three"], ["Hello", "one two three four"]],
  [{ type: "sentences", min: 2, max: 2 }, ["It is 3.5 km. Go!", '"Come in." He did.'], ["One.", "One. Two. Three?"]],
  [{ type: "paragraphs", max: 1 }, ["a\nb"], ["a\n\nb"]],
  [
    { type: "bullets", min: 2, max: 2 },
    ["Two:\n- a\n- b", "* a\n\n* b"],
    ["- a", "1. a\n2. b", "**a**\n**b**", "-a\n-b"],
  ],
  [{ type: "lines", min: 2 }, ["a\n\nb"], ["a b"]],
  [{ type: "case", is: "lower" }, ["all 3 lower, é."], ["No."]],
  [{ type: "case", is: "upper" }, ["STOP! 3 É"], ["STOp"]],
  [{ type: "contains", text: "station", times: 2 }, ["Station to station."], ["The stations and a station"]],
  [{ type: "excludes", text: "pet" }, ["A petal."], ["My Pet."]],
  [{ type: "excludes", text: "," }, ["a b"], ["a, b", "1,000"]],
  [{ type: "starts", text: "In short," }, [" In short, yes"], ["in short, yes", "Yes. In short,"]],
  [{ type: "ends", text: "That is all." }, ["Done. That is all.\n"], ["That is all. Bye"]],
  [
    { type: "json", keys: ["a"] },
    ['{"a": 1}', '```json\n{"a": [2]}\n```'],
    ["{a: 1}", '{"b": 1}', 'Here: {"a": 1}', '"a"', "null"],
  ],
  [{ type: "quoted" }, ['"Be kind."', "“Be kind.”"], ['"Be" kind', '"a" and "b"', "Be"]],
  [{ type: "choice", of: ["yes", "no"] }, ["Yes.", "no"], ["Yes, it is", "maybe"]],
  [{ type: "title" }, ["<<Stars>>\nThey shine."], ["<Stars>", "<<>>"]],
  [{ type: "placeholders", min: 2 }, ["Dear [name], on [date]"], ["Dear [name]", "[a](b) [c]"]],
];

describe("an answer is judged by what was asked", () => {
  test.each(cases)("%j", (constraint, right, wrong) => {
    for (const answer of right) expect(keeps(constraint, answer), answer).toBe(true);
    for (const answer of [...wrong, "", " \n"]) expect(keeps(constraint, answer), answer).toBe(false);
  });
});

test("the committed instructions: 60, none twice, every type of constraint", () => {
  const rows = readLines<unknown>(join(import.meta.dirname, "data/constraints.jsonl")).map((row) =>
    constrainedRow.parse(row),
  );
  expect(new Set(rows.map(({ instruction }) => instruction)).size).toBe(60);
  const types = rows.flatMap(({ constraints }) => constraints.map(({ type }) => type));
  expect(new Set(types)).toEqual(new Set(cases.map(([{ type }]) => type)));
});
