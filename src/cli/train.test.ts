import { cpSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { inProcess, succeed } from "../../test/support/cli.ts";
import { readRunLog } from "../train/runLog.ts";

const folder = mkdtempSync(join(tmpdir(), "train-"));
afterAll(() => rmSync(folder, { recursive: true }));

test("--seed trains another run of the same recipe, from the source of that seed", async () => {
  cpSync(fileURLToPath(new URL("../../test/fixtures/tiny", import.meta.url)), folder, { recursive: true });
  const runs = join(folder, "runs");
  const recipes = {
    source: {
      extends: "recipe.json",
      name: "source-s{seed}",
      predictor: null,
      mask: null,
      stages: { backbone: null, cpt: null, sft: null, dense: { steps: 1 } },
    },
    next: { extends: "source.json", name: "next-s{seed}", tokenizer: null, init: { run: "runs/source-s{seed}" } },
  };
  for (const [name, recipe] of Object.entries(recipes)) {
    const path = join(folder, `${name}.json`);
    writeFileSync(path, JSON.stringify(recipe));
    await succeed("train", path, "--seed", "2", "--runs", runs);
  }
  expect(readdirSync(runs)).toEqual(["next-s2", "source-s2"]);
  expect(readRunLog(join(runs, "next-s2", "metrics.jsonl"))[0]).toMatchObject({
    kind: "run",
    recipe: { seed: 2, init: { run: "runs/source-s2" }, stages: [{ name: "dense", steps: 1 }] },
  });

  const noSource = await inProcess("train", join(folder, "next.json"), "--seed", "3", "--runs", runs);
  expect(noSource.code).toBe(1);
  expect(noSource.stderr).toContain(join(runs, "source-s3"));
  const half = await inProcess("train", join(folder, "next.json"), "--seed", "0.5");
  expect(half.stderr).toContain("Wanted an integer of at least 0.");
});
