import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { temporaryFolder } from "../../test/support/models.ts";
import { FileError, ShapeError } from "../errors.ts";
import { writeSafetensors } from "../formats/safetensors.ts";
import type { Weights } from "../model/config.ts";
import { readHead, scoreFeature } from "./head.ts";

// Dp 2, R 2, L 2, F 2
const tensors: [string, number[], number[]][] = [
  ["feature.mean", [2], [1, 2]],
  ["feature.std", [2], [2, 0.5]],
  ["w1.weight", [2, 2], [1, 0, 0, 1]],
  ["w2.weight", [4, 2], [1, 0, 0, 1, 2, 0, 0, 0]],
];

function headFile(...extra: [string, number[], number[]][]): string {
  const path = join(temporaryFolder(), "head.safetensors");
  const weights: Weights = new Map(
    [...tensors, ...extra].map(([name, shape, data]) => [name, { shape, data: Float32Array.from(data) }]),
  );
  writeSafetensors(path, weights);
  return path;
}

const model = { featureWidth: 2, numLayers: 2, ffnWidth: 2 };

describe("scores, by hand: centred feature (1, -2), z = (1, -2 | 2, 0)", () => {
  // Of two values, the standardised ones are ±1, but for the 1e-6 added to the variance (2.25 and 1).
  const z = [
    1 / Math.sqrt(1 + 1e-6 / 2.25),
    -1 / Math.sqrt(1 + 1e-6 / 2.25),
    1 / Math.sqrt(1 + 1e-6),
    -1 / Math.sqrt(1 + 1e-6),
  ];

  test("are standardised per layer", () => {
    const scores = scoreFeature(readHead(headFile(), model), Float32Array.of(3, 1));
    for (const [i, value] of z.entries()) expect(scores[i]).toBeCloseTo(value, 6);
  });

  test("have the importance added after that", () => {
    const scores = scoreFeature(
      readHead(headFile(["importance", [2, 2], [10, 20, 30, 40]]), model),
      Float32Array.of(3, 1),
    );
    for (const [i, value] of z.entries()) expect(scores[i]).toBeCloseTo(value + 10 * (i + 1), 5);
  });
});

test("a head of another model, or a feature of another width, is refused", () => {
  const path = headFile();
  expect(() => readHead(path, { ...model, ffnWidth: 3 })).toThrow(FileError);
  expect(() => readHead(path, { ...model, featureWidth: 4 })).toThrow(FileError);
  expect(() => readHead(headFile(["importance", [4], [1, 2, 3, 4]]), model)).toThrow(FileError);
  expect(() => scoreFeature(readHead(path, model), new Float32Array(3))).toThrow(ShapeError);
});
