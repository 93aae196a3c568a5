/** `--block` of `pack`; the command as a process is in `test/cli.test.ts`. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test, vi } from "vitest";
import {
  anyPredictor,
  goldenModel,
  storiesCheckpoint,
  temporaryFolder,
  writeCheckpoint,
} from "../../test/support/models.ts";
import { Bundle } from "../bundle/bundle.ts";
import { packAction } from "./pack.ts";

/** What is written to stderr. */
function said(): () => string {
  const write = vi.spyOn(process.stderr, "write").mockReturnValue(true);
  onTestFinished(() => write.mockRestore());
  return () => write.mock.calls.map(([text]) => text).join("");
}

test("--block puts the channels of a model without a predictor into blocks, and says what that takes", async () => {
  const text = said();
  const out = join(temporaryFolder(), "bundle");
  await packAction(await storiesCheckpoint(temporaryFolder()), out, { type: "F32", block: 4 });
  using bundle = new Bundle(out);
  expect(bundle.block).toBe(4);
  expect(text()).toMatch(/in blocks of 4, keep \d+ %.*\n.*resident form takes \d+ MB/);
});

test("a predictor's channels stay where it chooses them: refused, and nothing is left", async () => {
  said();
  const folder = temporaryFolder();
  const model = goldenModel("llama");
  const checkpoint = await writeCheckpoint(temporaryFolder(), model, anyPredictor(model, "hard"));
  await expect(packAction(checkpoint, join(folder, "bundle"), { type: "F32", block: 4 })).rejects.toThrow(
    /pack: wanted a model without a predictor .+ single channels\. Leave --block out/,
  );
  expect(readdirSync(folder)).toEqual([]);
});
