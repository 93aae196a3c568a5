import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../test/support/models.ts";
import { FileError } from "../errors.ts";
import { pinData } from "./pinnedData.ts";
import type { RecipeFile } from "./recipe/read.ts";

/** A run whose stages read two files, one of them twice. */
function run() {
  const [data, runDir] = [temporaryFolder(), temporaryFolder()];
  const write = (name: string, text: string) => writeFileSync(join(data, name), text);
  write("train.jsonl", "one");
  write("held-out.jsonl", "two");
  const stage = { data: [{ path: "train.jsonl" }], evaluate: { path: "held-out.jsonl" } };
  const file = { recipe: { stages: [stage, stage] }, pathOf: (path) => join(data, path) } as RecipeFile;
  return {
    data,
    runDir,
    write,
    pin: (how = {}) => pinData(file, runDir, { isNew: false, acceptChanged: false, ...how }),
  };
}

test("a run goes on with the data that it began with, and with no other", async () => {
  const { pin, write } = run();
  await pin({ isNew: true });
  expect(await pin()).toEqual([]);
  write("held-out.jsonl", "TWO");
  await expect(pin()).rejects.toThrow(FileError);
  await expect(pin()).rejects.toThrow(/held-out\.jsonl: wanted what the run began with, .+ --accept-changed-data/);
  write("held-out.jsonl", "two");
  expect(await pin()).toEqual([]);
});

test("changes that are accepted are told, and are the run's data from then on", async () => {
  const { pin, write } = run();
  await pin({ isNew: true });
  write("train.jsonl", "ONE");
  expect(await pin({ acceptChanged: true })).toEqual(["train.jsonl"]);
  expect(await pin()).toEqual([]);
  write("train.jsonl", "one");
  await expect(pin()).rejects.toThrow(FileError);
});

test("a run of which nothing was saved begins with the data that there is", async () => {
  const { pin, write } = run();
  await pin({ isNew: true });
  write("train.jsonl", "ONE");
  expect(await pin({ isNew: true })).toEqual([]);
  expect(await pin()).toEqual([]);
});

test("a run that was begun without pins takes what there is for its data", async () => {
  const { pin, write, runDir } = run();
  await pin({ isNew: true });
  rmSync(join(runDir, "data.json"));
  write("train.jsonl", "ONE");
  expect(await pin()).toEqual([]);
});
