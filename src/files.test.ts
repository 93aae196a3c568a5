import { existsSync, readdirSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../test/support/models.ts";
import { FileError, MemoryError } from "./errors.ts";
import { makeFolder, ReadableFile } from "./files.ts";

test("more than a buffer can hold is a MemoryError", () => {
  const path = join(temporaryFolder(), "x.bin");
  writeFileSync(path, "");
  truncateSync(path, 2 ** 43);
  using file = new ReadableFile(path);
  expect(() => file.read(0, file.size, "tensor")).toThrow(MemoryError);
});

test.skipIf(!existsSync("/dev/full"))(
  "a folder that the disk has no room for is a FileError, and nothing of it is left",
  async () => {
    const parent = temporaryFolder();
    const making = makeFolder(join(parent, "out"), "import", async (partial) => {
      writeFileSync(join(partial, "small"), "x");
      writeFileSync("/dev/full", "x"); // fails as on a full disk
    });
    await expect(making).rejects.toThrow(FileError);
    await expect(making).rejects.toThrow(/wanted room on its disk/);
    expect(readdirSync(parent)).toEqual([]);
  },
);
