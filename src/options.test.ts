import { expect, test } from "vitest";
import { OptionError } from "./errors.ts";
import { isInRange, type NumberOption, rangeOf, readNumbers } from "./options.ts";

test.each<[NumberOption, string, number[], number[]]>([
  [{ words: "", isInteger: true, min: 1 }, "an integer of at least 1", [1, 5], [0, 1.5, Number.NaN, 2 ** 60]],
  [{ words: "", min: 0, max: 1 }, "a number in 0..1", [0, 0.5, 1], [-0.1, 1.1, Number.NaN]],
  [{ words: "", min: 0, isAboveMin: true }, "a number above 0", [0.1, 1e9], [0, Infinity]],
  [{ words: "", min: 0, isAboveMin: true, max: 1 }, "a number above 0, at most 1", [0.1, 1], [0, 1.1]],
  [{ words: "" }, "a number", [-5, 0.5], [Infinity]],
])("%j is %s", (option, words, right, wrong) => {
  expect(rangeOf(option)).toBe(words);
  expect(right.filter((value) => !isInRange(value, option))).toEqual([]);
  expect(wrong.filter((value) => isInRange(value, option))).toEqual([]);
});

test("what is not given has its default; what is given is checked, null and text too", () => {
  const table = { slots: { words: "", isInteger: true, min: 1, fallback: 4 }, memory: { words: "" } };
  expect(readNumbers("serve", table, { slots: undefined })).toEqual({ slots: 4, memory: undefined });
  expect(readNumbers("serve", table, { slots: 2, memory: 0 })).toEqual({ slots: 2, memory: 0 });
  for (const slots of [0, null, "3"] as number[])
    expect(() => readNumbers("serve", table, { slots })).toThrow(
      new OptionError(`serve: "slots" must be an integer of at least 1, got ${slots}.`),
    );
});
