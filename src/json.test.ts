import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, expect, test } from "vitest";
import { FileError } from "./errors.ts";
import { ReadableFile } from "./files.ts";
import { parseExactly, readJson, readText, valueText } from "./json.ts";

const folder = mkdtempSync(join(tmpdir(), "ifprune-test-"));
afterAll(() => rmSync(folder, { recursive: true }));

function file(content: string): string {
  const path = join(folder, "x.json");
  writeFileSync(path, content);
  return path;
}

test("a BOM before JSON is none of it", () => {
  expect(readJson(file('\uFEFF{"a": 1}'))).toEqual({ a: 1 });
  expect(readText(file("\uFEFFa"))).toBe("\uFEFFa"); // bytes are compared
});

test("what JSON.parse reads is read, whatever its strings hold (seed 6)", () => {
  fc.assert(
    fc.property(fc.json(), (text) => {
      expect(readJson(file(text))).toEqual(JSON.parse(text));
    }),
    { seed: 6, numRuns: 200 },
  );
  const brackets = ['"', "\\", "[".repeat(200), '\\"{'];
  expect(readJson(file(JSON.stringify(brackets)))).toEqual(brackets);
});

test.each([
  ["nested deeper than a stack", `${"[".repeat(1e5)}${"]".repeat(1e5)}`],
  ["that ends in a string", '{"a'],
  ["that is empty", ""],
])("JSON %s is a FileError", (_, text) => expect(() => readJson(file(text))).toThrow(FileError));

test("a sparse file of any size is not read", () => {
  const path = file("{}");
  truncateSync(path, 1e10);
  expect(() => readJson(path)).toThrow(/wanted a text of at most/);
});

test("what a message quotes of the text stays one line", () => {
  let message = "";
  try {
    readJson(file('{\n  "a": 1,\n\n  oops\u0007\n}\n'));
  } catch (error) {
    message = (error as FileError).message;
  }
  expect(message).toMatch(/^[^\p{Cc}]*x\.json: wanted JSON, got [^\p{Cc}]+\.$/u);
});

test("bytes that are not UTF-8 are no text; a byte order mark stays", () => {
  const path = join(folder, "bytes.txt");
  writeFileSync(path, new Uint8Array([0x50, 0x4b, 0x03, 0x04, 0xff, 0xfe]));
  expect(() => readText(path)).toThrow(/bytes\.txt: wanted text in UTF-8, got other bytes/);
  writeFileSync(path, "\ufeffé");
  expect(readText(path)).toBe("\ufeffé");
});

test.each([
  ["a folder", folder],
  ["nothing", join(folder, "none.json")],
])("%s is a FileError", (_, path) => {
  expect(() => readJson(path)).toThrow(FileError);
});

test.skipIf(process.platform === "win32")("a pipe that nobody writes to, and what has no end, are no files", () => {
  const pipe = join(folder, "pipe");
  execFileSync("mkfifo", [pipe]);
  for (const path of [pipe, "/dev/zero"]) {
    expect(() => readJson(path)).toThrow(/wanted a file/);
    expect(() => new ReadableFile(path)).toThrow(/wanted a file/);
  }
});

test("a value's own text is what a parse reads there, wherever it stands (seed 7)", () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.constantFrom(0, 1), (object, indent) => {
      const json = JSON.stringify(object, null, indent);
      for (const [key, value] of Object.entries(object))
        expect(JSON.parse(valueText(json, key)!)).toEqual(JSON.parse(JSON.stringify(value)));
      expect(valueText(json, "no such key")).toBeUndefined();
    }),
    { seed: 7, numRuns: 300 },
  );
  expect(valueText('{"a": 1, "b": {"a": [2, {"a": 3}]}, "a" : 1e999 }', "a")).toBe("1e999");
  expect(valueText("{}", "a")).toBeUndefined();
});

test("numbers that a double does not hold stay what they are, as strings; all else is as JSON.parse has it (seed 8)", () => {
  fc.assert(
    fc.property(fc.json(), (text) => {
      expect(parseExactly(text)).toEqual(JSON.parse(text));
    }),
    { seed: 8, numRuns: 300 },
  );
  const json =
    '{"id": 1234567890123456789, "x": [1e999, -9007199254740993], "in words": "1e999 \\" 12345678901234567890", "y": 0.1}';
  expect(parseExactly(json)).toEqual({
    id: "1234567890123456789",
    x: ["1e999", "-9007199254740993"],
    "in words": '1e999 " 12345678901234567890',
    y: 0.1,
  });
});
