import { expect, test } from "vitest";
import { FileError } from "../errors.ts";
import { maskFromJson, maskToJson } from "./maskFile.ts";

const json = { tFfn: 1, dFfn: 2, layers: [[1]], lambda: [[0.5]] };

test("a mask is written and read back the same", () => {
  expect(maskToJson(maskFromJson(json, "m.json"))).toEqual(json);
});

test.each([
  ["a channel beyond 32 bits", { ...json, dFfn: 2 ** 40, layers: [[2 ** 31]] }],
  ["a weight that float32 has not", { ...json, lambda: [[1e-300]] }],
])("%s is refused: it would become another number", (_, mask) => {
  expect(() => maskFromJson(mask, "m.json")).toThrow(FileError);
});
