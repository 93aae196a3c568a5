/** What a mean over held-out questions weighs alike. */
import { expect, test } from "vitest";
import { type HeldOutExample, kindsOf } from "./heldOut.ts";

const example = (file: string, domain: string): HeldOutExample => {
  const none = new Int32Array();
  return { file, domain, ids: none, labels: none, predictorPrompt: none, predictorInstruction: none };
};

test("a file of many tasks weighs as much as a file of one; of a single file its tasks count", () => {
  const rules = [example("rules", "sum"), example("rules", "plural"), example("rules", "antonyms")];
  expect(kindsOf([...rules, example("code", "code")])).toEqual(["rules", "rules", "rules", "code"]);
  expect(kindsOf(rules)).toEqual(["sum", "plural", "antonyms"]);
});
