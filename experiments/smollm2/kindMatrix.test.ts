import { expect, test } from "vitest";
import { kindMatrix, partnersOf } from "./kindMatrix.ts";

const kindOf = ["a", "a", "a", "b", "b", "c"];

test("partners are of the kind that comes so many later, at the same place; of few, each serves several", () => {
  expect(partnersOf(kindOf, 0)).toEqual([0, 1, 2, 3, 4, 5]);
  expect(partnersOf(kindOf, 1)).toEqual([3, 4, 3, 5, 5, 0]);
  expect(partnersOf(kindOf, 2)).toEqual([5, 5, 5, 0, 1, 3]);
});

test("a row is the kind of the prompts, a column that of the masks, and own masks are not measured again", async () => {
  const own = { a: { kl: 11 }, b: { kl: 22 }, c: { kl: 33 } };
  const digit = { a: 1, b: 2, c: 3 };
  let measured = 0;
  const matrix = await kindMatrix(kindOf, own, async (partners) => {
    measured++;
    const klOf = (kind: "a" | "b" | "c") =>
      10 * digit[kind] + digit[kindOf[partners[kindOf.indexOf(kind)]!] as "a" | "b" | "c"];
    return { a: { kl: klOf("a") }, b: { kl: klOf("b") }, c: { kl: klOf("c") } };
  });
  expect(matrix).toEqual([
    [11, 12, 13],
    [21, 22, 23],
    [31, 32, 33],
  ]);
  expect(measured).toBe(2);
});
