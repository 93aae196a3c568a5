import { expect, test } from "vitest";
import { marked, partingOf } from "./parting.ts";

test.each([
  [["The ", "cat", " sat"], ["The ", "dog", " sat"], { pieces: 1, at: 4 }, "The ▸cat sat"],
  [["The ", "cat"], ["The ", "cat", "."], { pieces: 2, at: 7 }, "The cat▸"],
  [[], ["no"], { pieces: 0, at: 0 }, "▸"],
  [["wolves"], ["wolves"], undefined, "wolves"],
])("%j and %j part at %j", (a, b, parting, text) => {
  expect(partingOf(a, b)).toEqual(parting);
  expect(partingOf(b, a)).toEqual(parting);
  expect(marked(a.join(""), parting)).toBe(text);
});

test("the same words in other pieces do not part, and part where they differ", () => {
  expect(partingOf(["Par", "is", "."], ["Paris", "."])).toBeUndefined();
  expect(partingOf(["Par", "is", " is"], ["Paris", "."])).toEqual({ pieces: 2, at: 5 });
});
