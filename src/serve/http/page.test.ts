import { mkdirSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../../test/support/models.ts";
import { isPageBuilt, openPage, readPage } from "./page.ts";

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

test("a page is as good as not built once a source of it is changed, added or removed since", () => {
  const web = temporaryFolder();
  const seconds = (time: number, ...names: string[]) => {
    for (const name of names) utimesSync(join(web, name), time, time);
  };
  expect(isPageBuilt(web)).toBe(false);
  mkdirSync(join(web, "dist"));
  writeFileSync(join(web, "dist/index.html"), "<p>");
  expect(isPageBuilt(web)).toBe(true); // in a package there is nothing else
  mkdirSync(join(web, "src/views"), { recursive: true });
  const paths = ["index.html", "src/main.tsx", "src/views/Chat.tsx", "src/views/Race.tsx"];
  for (const path of paths) writeFileSync(join(web, path), "");
  const all = [...paths, "src", "src/views"];
  seconds(1000, ...all);
  seconds(1001, "dist/index.html");
  expect(isPageBuilt(web)).toBe(true);
  for (const path of paths) {
    seconds(1002, path);
    expect(isPageBuilt(web), path).toBe(false);
    seconds(1000, path);
  }
  rmSync(join(web, "src/views/Race.tsx"));
  expect(isPageBuilt(web)).toBe(false);
});

test("a page that cannot be built anew is served as it was, and why is told", async () => {
  const folder = temporaryFolder();
  const write = (name: string, text: string) => writeFileSync(join(folder, name), text);
  mkdirSync(join(folder, "src"));
  write("index.html", '<title>new</title><script type="module" src="/src/main.ts"></script>');
  write("src/main.ts", "document.title = ;");
  const failures: string[] = [];
  const open = () => openPage(undefined, ({ message }) => failures.push(message), folder);
  expect(Buffer.from((await open()).get("/")!.bytes).toString()).toMatch(/^The page is not built/);
  mkdirSync(join(folder, "dist"));
  write("dist/index.html", "<title>old</title>");
  utimesSync(join(folder, "dist/index.html"), 1, 1);
  expect(Buffer.from((await open()).get("/")!.bytes).toString()).toBe("<title>old</title>");
  expect(failures).toEqual([expect.stringContaining("main.ts"), expect.stringContaining("main.ts")]);
  write("src/main.ts", "document.title = 'x';");
  expect(Buffer.from((await open()).get("/")!.bytes).toString()).toContain("<title>new</title>");
  expect(readdirSync(folder).sort()).toEqual(["dist", "index.html", "src"]);
  expect(failures).toHaveLength(2);
});

test("of the sources outside its own the page has those alone that it is compared with", () => {
  const folder = fileURLToPath(new URL("../../../web/src", import.meta.url));
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" });
  const own = names.filter((name) => /\.tsx?$/.test(name) && !name.endsWith(".test.ts"));
  expect(own.length).toBeGreaterThan(20);
  const outer = own.flatMap((name) =>
    [...readFileSync(join(folder, name), "utf8").matchAll(/^import (?!type)[^;]*?"[./]+\/src\/([^"]*)"/gm)].map(
      ([, path]) => path,
    ),
  );
  expect([...new Set(outer)].sort()).toEqual(["report/chart.ts", "specialize/specialization.ts", "words.ts"]);
  for (const name of outer)
    expect(readFileSync(join(folder, "../../src", name!), "utf8")).not.toMatch(/^import (?!type)/m);
});
