import { expect, test } from "vitest";
import { base, changed } from "../../../test/support/recipe.ts";
import { OptionError } from "../../errors.ts";
import { parseRecipe } from "./read.ts";
import { checkSameRecipe } from "./resume.ts";

test("a run goes on under the recipe it began with, or says what changed", () => {
  const saved = JSON.parse(JSON.stringify(parseRecipe(base, "r.json")));
  checkSameRecipe(saved, parseRecipe(base, "r.json"));
  checkSameRecipe(saved, parseRecipe(changed(["checkpointEvery"], 7, changed(["threads"], 2)), "r.json"));
  const other = parseRecipe(changed(["stages", 1, "steps"], 11, changed(["mask", "epsilon"], 0.1)), "r.json");
  expect(() => checkSameRecipe(saved, other)).toThrow(OptionError);
  expect(() => checkSameRecipe(saved, other)).toThrow(
    /changes of mask\.epsilon \(0\.3 → 0\.1\), stages\[1\]\.steps \(10 → 11\)\./,
  );
});
