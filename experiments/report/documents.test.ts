import { expect, test } from "vitest";
import { FileError } from "../../src/errors.ts";
import { withTables } from "./documents.ts";

const tables = new Map([
  ["one", ["| a |", "|---|"]],
  ["two", ["| $& |"]],
]);

test("fills each marked place, again the same, and leaves the rest alone", () => {
  const text = "Before\n<!-- table: one -->\nold\n<!-- end -->\nbetween\n<!-- table: two -->\n<!-- end -->\nafter\n";
  const filled = withTables("d.md", text, tables);
  expect(filled).toBe(
    "Before\n<!-- table: one -->\n\n| a |\n|---|\n\n<!-- end -->\nbetween\n<!-- table: two -->\n\n| $& |\n\n<!-- end -->\nafter\n",
  );
  expect(withTables("d.md", filled, tables)).toBe(filled);
});

test("refuses a table that there is not, and a document that asks for none", () => {
  expect(() => withTables("d.md", "<!-- table: three -->\n<!-- end -->", tables)).toThrow(FileError);
  expect(() => withTables("d.md", "nothing", tables)).toThrow(/d\.md: wanted a mark/);
});
