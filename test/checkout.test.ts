/** A checkout runs what its sources say now, through files that were built of them. */
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { temporaryFolder } from "./support/models.ts";

const repository = fileURLToPath(new URL("..", import.meta.url));

test("a changed source is built before it runs, an unchanged one is not, and one that cannot be built is said", () => {
  const checkout = temporaryFolder();
  for (const name of ["bin", "scripts/build.js", "tsconfig.json", "tsconfig.build.json", "package.json"])
    cpSync(join(repository, name), join(checkout, name), { recursive: true });
  symlinkSync(join(repository, "node_modules"), join(checkout, "node_modules"));
  mkdirSync(join(checkout, "src/cli"), { recursive: true });
  const write = (name: string, source: string) => writeFileSync(join(checkout, "src", name), source);
  const start = () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [join(checkout, "bin/ifprune.js")], {
      encoding: "utf8",
    });
    return { status, stdout, stderr };
  };
  const said = (stdout: string) => ({ status: 0, stdout, stderr: "" });

  write("word.ts", 'export const word: string = "one";\n');
  write("cli/main.ts", 'import { word } from "../word.ts";\nconsole.log(word);\n');
  expect(start()).toEqual(said("one\n"));
  const built = statSync(join(checkout, "dist/word.js")).mtimeMs;
  expect(start()).toEqual(said("one\n"));
  expect(statSync(join(checkout, "dist/word.js")).mtimeMs).toBe(built);

  write("word.ts", 'export const word: string = "two, and longer";\n');
  expect(start()).toEqual(said("two, and longer\n"));

  write("word.ts", 'export const word: string = "three;\n');
  const { status, stdout, stderr } = start();
  expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
  expect(stderr).toMatch(/^ifprune: wanted sources that can be built, got:\n.*word\.ts/);
  expect(readdirSync(checkout).filter((name) => name.endsWith(".tmp"))).toEqual([]);
});
