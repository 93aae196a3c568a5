import { expect, test } from "vitest";
import { halvesToPairs, pairsToHalves } from "./ropeOrder.ts";

const matrix = { shape: [8, 2], data: Float32Array.from({ length: 16 }, (_, i) => i) }; // two heads of four rows

test("neighbours become halves, head by head", () => {
  const rows = pairsToHalves(matrix, 4)
    .data.filter((_, i) => i % 2 === 0)
    .map((first) => first / 2);
  expect([...rows]).toEqual([0, 2, 1, 3, 4, 6, 5, 7]);
});

test("the two orders undo each other", () => expect(halvesToPairs(pairsToHalves(matrix, 4), 4)).toEqual(matrix));
