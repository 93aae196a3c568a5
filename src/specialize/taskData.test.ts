import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { shapes, writeCheckpointFolder } from "../../test/support/checkpoints.ts";
import { temporaryFolder } from "../../test/support/models.ts";
import { importModel } from "../bundle/importModel.ts";
import { fittingRows, openDense, taskData } from "./taskData.ts";
import { jsonLines } from "./taskPrompts.ts";

test("rows have room for held-out ones that are longer than those to learn from, but not for one that is longer than the others", async () => {
  const folder = temporaryFolder();
  const { config, ...rest } = shapes["Qwen2.5"]!;
  await writeCheckpointFolder(join(folder, "source"), { ...rest, config: { ...config, contextLength: 1024 } });
  await importModel(join(folder, "source"), join(folder, "dense"), { as: "checkpoint" });
  const opened = await openDense(join(folder, "dense"));
  const rows = (count: number, length: number) =>
    Array.from({ length: count }, (_, i) => ({ instruction: `Say ${i}`, output: "x".repeat(length) }));
  const path = join(folder, "train.jsonl");
  writeFileSync(path, jsonLines(rows(256, 20)));
  const fitting = async (heldOut: ReturnType<typeof rows>) => {
    const { shape } = await taskData(path, "task", opened, heldOut);
    return [shape.T > 256, fittingRows(heldOut, shape, opened).length];
  };
  expect(await fitting(rows(8, 400))).toEqual([true, 8]);
  expect(await fitting([...rows(7, 20), ...rows(1, 400)])).toEqual([false, 7]);
});
