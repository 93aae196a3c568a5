import { expect, test } from "vitest";
import { loops } from "./taskAnswers.ts";

test("an answer loops where most of it has been said before; short ones and lists with a form do not", () => {
  const ids = (length: number, of: (i: number) => number) => Int32Array.from({ length }, (_, i) => of(i));
  expect(loops(ids(60, (i) => i % 6))).toBe(true);
  expect(loops(ids(60, (i) => (i < 20 ? i : 99)))).toBe(true);
  expect(loops(ids(20, (i) => i % 6))).toBe(false);
  expect(loops(ids(60, (i) => i))).toBe(false);
  expect(loops(ids(60, (i) => (i % 5 === 0 ? i : i % 5)))).toBe(false); // "- name: …" again and again
});
