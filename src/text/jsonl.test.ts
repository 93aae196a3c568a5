import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { FileError } from "../errors.ts";
import { readJsonLines } from "./jsonl.ts";

const folder = mkdtempSync(join(tmpdir(), "ifprune-test-"));
afterAll(() => rmSync(folder, { recursive: true }));
const schema = z.object({ n: z.number(), text: z.string().optional() });

function file(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

async function read(path: string): Promise<{ line: number; row: z.infer<typeof schema> }[]> {
  const rows = [];
  for await (const row of readJsonLines(path, schema)) rows.push(row);
  return rows;
}

describe("readJsonLines", () => {
  test("reads plain and gzipped files, skips empty lines, keeps line numbers, needs no last newline", async () => {
    const content = '{"n":1}\n\n{"n":2}\r\n{"n":3}';
    const rows = [1, 3, 4].map((line, i) => ({ line, row: { n: i + 1 } }));
    expect(await read(file("a.jsonl", content))).toEqual(rows);
    expect(await read(file("a.jsonl.gz", gzipSync(content)))).toEqual(rows);
  });

  test("characters and lines that lie across read blocks arrive whole", async () => {
    const texts = Array.from({ length: 300 }, (_, i) => "é🙂x".repeat(i)); // 0.6 MB, blocks are 64 KiB
    const content = texts.map((text, n) => `${JSON.stringify({ n, text })}\n`).join("");
    expect((await read(file("long.jsonl", content))).map(({ row }) => row.text)).toEqual(texts);
  });

  const bad: [string, string, string | Uint8Array, RegExp][] = [
    ["not JSON", "bad.jsonl", '{"n":1}\n{"n":', /bad\.jsonl: line 2: wanted JSON, got "\{\\"n\\":"/],
    ["a wrong field", "field.jsonl", '{"n":1}\n{"n":"2"}', /field\.jsonl: line 2: "n": .*number/],
    ["not gzipped", "plain.jsonl.gz", '{"n":1}', /plain\.jsonl\.gz: wanted gzipped JSON lines/],
    [
      "a truncated gzip",
      "cut.jsonl.gz",
      gzipSync('{"n":1}\n'.repeat(999)).subarray(0, 30),
      /cut\.jsonl\.gz: wanted gzipped/,
    ],
    [
      "not UTF-8",
      "latin1.jsonl",
      Buffer.from('{"n":1,"text":"\xe9"}', "latin1"),
      /latin1\.jsonl: wanted JSON lines in UTF-8/,
    ],
    ["a line without end", "endless.jsonl", `"${"x".repeat((1 << 24) + 1)}`, /longer than/],
  ];
  test.each(bad)("%s is a FileError that says where", async (_, name, content, message) => {
    const path = file(name, content);
    await expect(read(path)).rejects.toThrow(FileError);
    await expect(read(path)).rejects.toThrow(message);
  });

  test.each(["none.jsonl", "none.jsonl.gz"])("a missing file is a FileError: %s", async (name) => {
    await expect(read(join(folder, name))).rejects.toThrow(FileError);
  });
});
