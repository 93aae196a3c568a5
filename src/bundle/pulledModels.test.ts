import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../test/support/models.ts";
import { manifestName } from "../manifest.ts";
import { DEFAULT_MODEL, isTiny, modelFolder, packageName, TINY_MODEL } from "./pulledModels.ts";

const models = fileURLToPath(new URL("../../models", import.meta.url));

test("the small model stands in for the default one where that is not here, as in what npm installs", () => {
  const large = join(models, "default");
  expect(TINY_MODEL).toBe(join(models, "tiny"));
  expect(DEFAULT_MODEL).toBe(existsSync(join(large, manifestName)) ? large : TINY_MODEL);
});

test("models of the package have names, and folders of theirs are known by them", () => {
  expect([modelFolder("tiny"), modelFolder("default")]).toEqual([TINY_MODEL, DEFAULT_MODEL]);
  expect(packageName(`${TINY_MODEL}/`)).toBe("tiny");
  expect(packageName(temporaryFolder())).toBeUndefined();
  expect(["tiny", TINY_MODEL, temporaryFolder()].map(isTiny)).toEqual([true, true, false]);
});
