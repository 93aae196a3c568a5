import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../test/support/models.ts";
import { MemoryError } from "./errors.ts";
import { ReadableFile } from "./files.ts";

test("more than a buffer can hold is a MemoryError", () => {
  const path = join(temporaryFolder(), "x.bin");
  writeFileSync(path, "");
  truncateSync(path, 2 ** 43);
  using file = new ReadableFile(path);
  expect(() => file.read(0, file.size, "tensor")).toThrow(MemoryError);
});
