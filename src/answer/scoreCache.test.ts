/** Scores of the cache are those that were made, whatever became of its files. */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../test/support/models.ts";
import { cachedScores } from "./scoreCache.ts";

const model = { hash: "a".repeat(64), numLayers: 2, ffnWidth: 3 };
const scores = Float32Array.of(1, 2, 3, 4, 5, 6);
const other = Float32Array.of(6, 5, 4, 3, 2, 1);

const changed = (path: string, change: (bytes: Buffer) => unknown) => {
  const bytes = readFileSync(path);
  change(bytes);
  writeFileSync(path, bytes);
};
test.each<[what: string, damage: (path: string, other: string) => void]>([
  ["a changed bit", (path) => changed(path, (bytes) => (bytes[1]! ^= 4))],
  ["zeros", (path) => changed(path, (bytes) => bytes.fill(0))],
  ["a part of it", (path) => truncateSync(path, 20)],
  ["nothing", (path) => truncateSync(path, 0)],
  ["another's scores", (path, another) => cpSync(another, path)],
  [
    "a folder in its place",
    (path) => {
      rmSync(path);
      mkdirSync(path);
    },
  ],
])("%s: made again", async (_, damage) => {
  const root = temporaryFolder();
  const ask = (key = "key", made = scores) => cachedScores(model, key, { root }, async () => made);
  await ask("other", other);
  expect(await ask()).toEqual({ scores, cached: false });
  expect(await ask()).toEqual({ scores, cached: true });
  const folder = join(root, readdirSync(root)[0]!);
  damage(join(folder, "key.scores"), join(folder, "other.scores"));
  expect(await ask()).toEqual({ scores, cached: false });
  expect(await ask("other", scores)).toEqual({ scores: other, cached: true });
});

test("a cache that cannot be written costs nothing but the time", async () => {
  const folder = temporaryFolder();
  writeFileSync(join(folder, "file"), "");
  const root = join(folder, "file/in a file");
  expect(await cachedScores(model, "key", { root }, async () => scores)).toEqual({ scores, cached: false });
});

test("scores of another model or shape are not taken", async () => {
  const root = temporaryFolder();
  const ask = (one: typeof model, made: Float32Array) => cachedScores(one, "key", { root }, async () => made);
  await ask(model, scores);
  const alike = { ...model, hash: model.hash.slice(0, 40) + "b".repeat(24) }; // its folder has the same name
  expect(await ask(alike, other)).toEqual({ scores: other, cached: false });
  expect(await ask({ ...model, numLayers: 3, ffnWidth: 2 }, other)).toEqual({ scores: other, cached: false });
});

test("what was unused for longest goes first, and a clock that was years ahead keeps nothing for ever", async () => {
  const root = temporaryFolder();
  const ask = (key: string) => cachedScores(model, key, { root, maxBytes: 120 }, async () => scores); // of 56 bytes each: two
  const fileOf = (key: string) => join(root, readdirSync(root)[0]!, `${key}.scores`);
  const age = (key: string, seconds: number) => utimesSync(fileOf(key), seconds, seconds);
  await ask("future");
  age("future", Date.now() / 1000 + 1e9);
  await ask("old");
  age("future", statSync(fileOf("future")).mtimeMs / 1000 - 100); // of what it became
  expect(statSync(fileOf("future")).mtimeMs).toBeLessThan(Date.now());
  age("old", 1000);
  await ask("new");
  expect(["future", "old", "new"].map((key) => existsSync(fileOf(key)))).toEqual([true, false, true]);
});
