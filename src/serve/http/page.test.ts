import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../../test/support/models.ts";
import { readPage } from "./page.ts";

test("a folder's files are known by their URLs, the first page also as /", () => {
  const folder = temporaryFolder();
  mkdirSync(join(folder, "assets"));
  writeFileSync(join(folder, "index.html"), "<p>");
  writeFileSync(join(folder, "assets", "a-1.js"), "1");
  const page = readPage(folder);
  expect([...page.keys()].sort()).toEqual(["/", "/assets/a-1.js", "/index.html"]);
  expect(page.get("/")).toMatchObject({ type: "text/html; charset=utf-8", isImmutable: false });
  expect(page.get("/assets/a-1.js")).toMatchObject({ type: "text/javascript; charset=utf-8", isImmutable: true });
  expect(Buffer.from(page.get("/")!.bytes).toString()).toBe("<p>");
});
